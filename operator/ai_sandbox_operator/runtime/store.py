"""The last word of the watch, per kind: a hint that the resync corrects.

kopf never reports the disappearance of an object that vanished while its watch was interrupted, so
`sweep` compares with a LIST. Events are ordered per UID only: the DELETED of an old object may come
after the ADDED of its namesake, hence the comparison of UIDs. Answers to writes of ours come in beside
the watch: an event that is older than the answer is passed over, and so is an answer that comes after
the object's DELETED.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.observed import seen

Key = tuple[str, str]
"""Namespace and name."""
#: UIDs of deleted objects that are kept, so that nothing late brings them back.
TOMBSTONES = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class StoredSandbox:
    """An AISandbox as compressed JSON, without managed fields."""

    uid: str
    resource_version: str
    packed: bytes

    def body(self) -> dict[str, Any]:
        unpacked: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return unpacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep found.

    Attributes:
        lost: sandboxes that lost an object without an event.
        missed: sandboxes that have an object that was missed or is out of date.
        behind: the objects that were, with the version that the store holds; empty if it holds none.
    """

    lost: set[Key]
    missed: set[Key]
    behind: dict[Key, str]


class Store:
    """Sandboxes and the digests of their children."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sandboxes: dict[Key, tuple[StoredSandbox, float]] = {}
        self._children: dict[str, dict[Key, tuple[seen.Seen, float]]] = defaultdict(dict)
        self._by_sandbox: dict[Key, set[tuple[str, str]]] = defaultdict(set)
        self._gone: dict[str, str] = {}
        self._written: dict[tuple[str, Key], bytes] = {}
        self.repairs: Counter[str] = Counter()
        """Children by kind that somebody else had changed and that were written as before; since the start."""

    def observe(self, kind: kinds.Kind, event_type: str | None, body: Mapping[str, Any]) -> Key | None:
        """Take in one watch event; the key of the sandbox to look at, if any.

        Total for every object that the API server can send: kopf swallows exceptions of handlers.
        """
        metadata = body["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if event_type == "DELETED":
            self._bury(metadata)
        if kind is kinds.SANDBOX:
            known = self._sandboxes.get(key)
            self._observe_sandbox(key, event_type, body)
            same = known is not None and known[0].resource_version == metadata.get("resourceVersion")
            return None if same and event_type != "DELETED" else key
        held = self._children[kind.kind].get(key)
        if event_type == "DELETED":
            if held is None or held[0].uid == metadata["uid"]:
                self._forget(kind.kind, key)
            return _sandbox_key(metadata)
        record = seen.observe(kind.kind, body)
        self._remember(key, record)
        # Our own write comes back as an event, and most events change nothing that a decision reads.
        if (
            held is not None
            and dataclasses.replace(record, resource_version=held[0].resource_version) == held[0]
        ):
            return None
        return _sandbox_key(metadata)

    def write_back(self, kind: kinds.Kind, body: Mapping[str, Any]) -> seen.Seen:
        """Take in the answer to a write of ours, so that the next pass does not repeat it."""
        record = seen.observe(kind.kind, body)
        key = (record.namespace, record.name)
        self._count_repair(key, record)
        self._remember(key, record)
        if key in self._children[record.kind]:
            self._written[record.kind, key] = record.digest
        return record

    def remember(self, kind: kinds.Kind, body: Mapping[str, Any]) -> None:
        """Like `write_back`, for sandboxes too."""
        self.observe(kind, "MODIFIED", body)

    def sandbox(self, key: Key) -> dict[str, Any] | None:
        """The body of a sandbox, as a fresh copy."""
        held = self._sandboxes.get(key)
        return held[0].body() if held else None

    def bodies(self) -> Iterator[dict[str, Any]]:
        """Bodies of all sandboxes, one at a time."""
        return (held.body() for held, _ in list(self._sandboxes.values()))

    def sandbox_uid(self, key: Key) -> str | None:
        held = self._sandboxes.get(key)
        return held[0].uid if held else None

    def sandboxes(self) -> Iterator[Key]:
        """Keys of all sandboxes."""
        return iter(list(self._sandboxes))

    def children(self, key: Key) -> dict[tuple[str, str], seen.Seen]:
        """Everything that carries the sandbox's label, by (kind, name)."""
        namespace = key[0]
        return {
            (kind, name): self._children[kind][namespace, name][0]
            for kind, name in self._by_sandbox.get(key, ())
        }

    def count(self, kind: kinds.Kind) -> int:
        """Objects of a kind that are held."""
        return len(self._sandboxes if kind is kinds.SANDBOX else self._children[kind.kind])

    def holds(self, kind: kinds.Kind, keys: set[Key]) -> bool:
        """Whether all of these objects have been seen."""
        held = self._sandboxes if kind is kinds.SANDBOX else self._children[kind.kind]
        return keys <= held.keys()

    def sweep(self, kind: kinds.Kind, listed: list[dict[str, Any]], began: float) -> Swept:
        """Correct the store with a consistent LIST that began at `began` (monotonic seconds).

        What was seen after the LIST began is left alone.
        """
        by_key = {(m.get("namespace", ""), m["name"]): m for m in (item["metadata"] for item in listed)}
        held = self._versions(kind)
        lost, missed, behind = set(), set(), {}
        for key, (_, at) in held.items():
            if key not in by_key and at < began:
                lost.add(self._drop(kind, key))
        for key, metadata in by_key.items():
            version, at = held.get(key, ("", 0.0))
            if version != metadata.get("resourceVersion") and (version == "" or at < began):
                owner = key if kind is kinds.SANDBOX else _sandbox_key(metadata)
                if owner:
                    missed.add(owner)
                behind[key] = version
        return Swept(lost=lost, missed=missed, behind=behind)

    def _versions(self, kind: kinds.Kind) -> dict[Key, tuple[str, float]]:
        if kind is kinds.SANDBOX:
            return {k: (s.resource_version, at) for k, (s, at) in self._sandboxes.items()}
        return {k: (s.resource_version, at) for k, (s, at) in self._children[kind.kind].items()}

    def _drop(self, kind: kinds.Kind, key: Key) -> Key:
        if kind is kinds.SANDBOX:
            del self._sandboxes[key]
            return key
        record = self._children[kind.kind][key][0]
        self._forget(kind.kind, key)
        return record.namespace, record.sandbox

    def _observe_sandbox(self, key: Key, event_type: str | None, body: Mapping[str, Any]) -> None:
        metadata = dict(body["metadata"])
        held = self._sandboxes.get(key)
        if event_type == "DELETED":
            if held is not None and held[0].uid == metadata["uid"]:
                del self._sandboxes[key]
            return
        version = metadata.get("resourceVersion", "")
        if self._is_gone(metadata["uid"], version):
            return
        if held is not None and _older(version, held[0].resource_version):
            return
        metadata.pop("managedFields", None)
        slim = {field: body[field] for field in ("spec", "status") if field in body}
        packed = zlib.compress(json.dumps({"metadata": metadata, **slim}).encode(), 1)
        stored = StoredSandbox(metadata["uid"], version, packed)
        self._sandboxes[key] = (stored, self._clock())

    def _remember(self, key: Key, record: seen.Seen) -> None:
        held = self._children[record.kind].get(key)
        if self._is_gone(record.uid, record.resource_version):
            return
        if held is not None and _older(record.resource_version, held[0].resource_version):
            return
        if held is not None and held[0].sandbox != record.sandbox:
            self._forget(record.kind, key)
        self._children[record.kind][key] = (record, self._clock())
        if record.sandbox:
            self._by_sandbox[record.namespace, record.sandbox].add((record.kind, record.name))

    def _count_repair(self, key: Key, record: seen.Seen) -> None:
        """What is written as at the last write, over something else, was changed by somebody else."""
        held, before = self._children[record.kind].get(key), self._written.get((record.kind, key))
        if held is not None and held[0].uid == record.uid and before == record.digest != held[0].digest:
            self.repairs[record.kind] += 1

    def _bury(self, metadata: Mapping[str, Any]) -> None:
        self._gone[metadata["uid"]] = metadata.get("resourceVersion", "")
        if len(self._gone) > TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    def _is_gone(self, uid: str, version: str) -> bool:
        """Whether the object was deleted after this version. A later one is alive: a watch says DELETED as
        well when an object loses the label that is watched, and the label can come back."""
        return _older(version, self._gone.get(uid, ""))

    def _forget(self, kind: str, key: Key) -> None:
        held = self._children[kind].pop(key, None)
        self._written.pop((kind, key), None)
        if held is None:
            return
        owner = (held[0].namespace, held[0].sandbox)
        members = self._by_sandbox.get(owner, set())
        members.discard((kind, held[0].name))
        if not members:
            self._by_sandbox.pop(owner, None)


def _older(version: str, held: str) -> bool:
    """Whether an event is overtaken, by the answer to a write of ours or by an event of a namesake.

    Resource versions of one resource are comparable numbers (KEP 5504: "Comparable Resource Version").
    """
    return version.isdigit() and held.isdigit() and int(version) < int(held)


def _sandbox_key(metadata: Mapping[str, Any]) -> Key | None:
    name = (metadata.get("labels") or {}).get(names.LABEL_SANDBOX)
    return (metadata.get("namespace", ""), name) if name else None
