"""What the fetch makes of everything that can go wrong, as data: exit code and reason.

Codes are written out: the Job's failure policy and people's scripts rely on the numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ai_sandbox_operator.fetch.failures import FetchFailure
from fetch.rig import FILES, TOKEN, WEIGHTS
from lab.hub import COMMIT, Fault
from lab.hub.faults import At

#: A weight file, a small file, and everything that is not metadata.
WEIGHT = WEIGHTS[1]
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
OTHER_COMMIT = "f" * 40
API: tuple[At, ...] = ("api",)
RESOLVE: tuple[At, ...] = ("resolve",)
CDN: tuple[At, ...] = ("cdn",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """A situation and its end. No reason: the model is published, complete."""

    sentence: str
    reason: FetchFailure | None = None
    code: int = 0
    words: str = ""
    """Part of the message."""
    faults: tuple[Fault, ...] = ()
    repository: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Changes of the repository."""
    hub: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Changes of the hub."""
    token: str | None = None
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    free: int | None = None
    """Bytes that the volume says are free."""

    @property
    def permanent(self) -> bool:
        return self.code == 78


def weight(**fault: Any) -> tuple[Fault, ...]:
    return (Fault(at=CDN, path=WEIGHT, **fault),)


KNOWN = {"tokens": {TOKEN}}

GOOD = [
    Outcome(sentence="nothing goes wrong"),
    Outcome(sentence="the commit is given", options={"commit": COMMIT, "revision": "v1"}),
    Outcome(sentence="the revision is a tag", options={"revision": "v1"}, repository={"revisions": {"v1": COMMIT}}),
    Outcome(
        sentence="a granted token opens a gated model",
        repository={"gated": "manual", "granted": {TOKEN}},
        hub=KNOWN,
        token=TOKEN,
    ),
    Outcome(
        sentence="a granted token opens a private model",
        repository={"private": True, "granted": {TOKEN}},
        hub=KNOWN,
        token=TOKEN,
    ),
    Outcome(
        sentence="a file's metadata answers 503 twice",
        faults=(Fault(at=RESOLVE, method="HEAD", path=WEIGHT, status=503, times=2),),
    ),
    Outcome(
        sentence="a file's metadata answers 429 twice and says how long to wait",
        faults=(Fault(at=RESOLVE, method="HEAD", path=WEIGHT, status=429, retry_after=1, times=2),),
    ),
    Outcome(sentence="the storage answers 429 twice", faults=weight(status=429, retry_after=1, times=2)),
    Outcome(sentence="the connection is cut in the middle, three times", faults=weight(cut_after=3000, times=3)),
    Outcome(
        sentence="the connection is cut in the middle and parts cannot be asked for",
        faults=weight(cut_after=3000, times=1),
        hub={"ranges": False},
    ),
    Outcome(sentence="a file arrives corrupted once", faults=weight(corrupt=True, times=1)),
    Outcome(
        sentence="a small file arrives corrupted once",
        faults=(Fault(at=RESOLVE, path=CONFIG, method="GET", corrupt=True, times=1),),
    ),
    Outcome(
        sentence="the index arrives corrupted once",
        faults=(Fault(at=RESOLVE, path=INDEX, method="GET", corrupt=True, times=1),),
    ),
    Outcome(sentence="a file arrives shorter once", faults=weight(truncate=5000, times=1)),
    Outcome(sentence="large files are not offered over xet", hub={"xet": False}),
]  # fmt: skip

NOT_FOUND = FetchFailure.NotFound
UNREACHABLE = FetchFailure.HubUnreachable
PERMANENT = [
    Outcome(
        sentence="there is no such model, asked without a token",
        options={"model": "acme/none"},
        reason=NOT_FOUND,
        code=78,
        words="or it is private and there is no token",
    ),
    Outcome(
        sentence="there is no such model, asked with a token",
        options={"model": "acme/none"},
        hub=KNOWN,
        token=TOKEN,
        reason=NOT_FOUND,
        code=78,
    ),
    Outcome(sentence="the model is private, no token", repository={"private": True}, reason=NOT_FOUND, code=78),
    Outcome(
        sentence="the model is private, the token may not read it",
        repository={"private": True},
        hub=KNOWN,
        token=TOKEN,
        reason=NOT_FOUND,
        code=78,
    ),
    Outcome(
        sentence="the hub answers 404 to everything", faults=(Fault(status=404),), reason=NOT_FOUND, code=78
    ),
    Outcome(
        sentence="there is no such revision",
        options={"revision": "v9"},
        reason=FetchFailure.RevisionNotFound,
        code=78,
    ),
    Outcome(
        sentence="there is no such commit",
        options={"commit": OTHER_COMMIT},
        reason=FetchFailure.RevisionNotFound,
        code=78,
    ),
    Outcome(
        sentence="the model is gated, no token",
        repository={"gated": "auto"},
        reason=FetchFailure.GatedNoToken,
        code=78,
    ),
    Outcome(
        sentence="the model is gated, the token has no access",
        repository={"gated": "manual"},
        hub=KNOWN,
        token=TOKEN,
        reason=FetchFailure.GatedNotGranted,
        code=78,
    ),
    Outcome(
        sentence="the model is gated, the token is unknown",
        repository={"gated": "auto"},
        token=TOKEN,
        reason=FetchFailure.BadToken,
        code=78,
    ),
    Outcome(sentence="the token is unknown", token=TOKEN, reason=FetchFailure.BadToken, code=78),
    Outcome(
        sentence="the token may not read",
        hub=KNOWN,
        token=TOKEN,
        faults=(Fault(status=403),),
        reason=FetchFailure.GatedNotGranted,
        code=78,
    ),
    Outcome(
        sentence="only pickles",
        repository={"files": {"pytorch_model.bin": b"x"}},
        reason=FetchFailure.NoWeights,
        code=78,
    ),
    Outcome(
        sentence="an index that is not one",
        repository={"files": {**FILES, INDEX: b"[]"}},
        reason=FetchFailure.NoWeights,
        code=78,
    ),
    Outcome(
        sentence="an index of files that are not there",
        repository={"files": {path: blob for path, blob in FILES.items() if path != WEIGHT}},
        reason=FetchFailure.NoWeights,
        code=78,
        words=WEIGHT,
    ),
    Outcome(
        sentence="a listed file is not there",
        faults=(Fault(at=RESOLVE, path=WEIGHT, status=404, error_code="EntryNotFound"),),
        reason=FetchFailure.NoWeights,
        code=78,
    ),
    Outcome(
        sentence="a file of more than 50 GB",
        repository={"declared": {WEIGHT: 60 * 10**9}},
        reason=FetchFailure.FileTooLarge,
        code=78,
        words=f"{WEIGHT} has 55.9 GiB",
    ),
    Outcome(
        sentence="the volume is too small",
        free=64 * 2**20,
        reason=FetchFailure.DiskFull,
        code=78,
        words="are needed",
    ),
]  # fmt: skip

TRANSIENT = [
    Outcome(
        sentence="the hub answers 429 for ever",
        faults=(Fault(at=API, status=429, retry_after=1),),
        reason=FetchFailure.RateLimited,
        code=76,
    ),
    Outcome(
        sentence="a file's metadata answers 429 for ever",
        faults=(Fault(at=RESOLVE, path=WEIGHT, status=429, retry_after=1),),
        reason=FetchFailure.RateLimited,
        code=76,
    ),
    *(
        Outcome(
            sentence=f"{what} answers {status} for ever",
            faults=(Fault(at=at, path=path, status=status),),
            reason=UNREACHABLE,
            code=69,
            words=str(status),
        )
        for what, at, path in (
            ("the hub", API, "*"),
            ("a file's metadata", RESOLVE, WEIGHT),
            ("the storage", CDN, WEIGHT),
        )
        for status in (500, 502, 503, 504)
    ),
    Outcome(
        sentence="the storage refuses an address that has expired",
        faults=weight(status=403),
        reason=UNREACHABLE,
        code=69,
        words="storage answered with status 403",
    ),
    Outcome(
        sentence="the hub never answers",
        faults=(Fault(at=API, hang_after=0),),
        reason=UNREACHABLE,
        code=69,
        words="does not answer",
    ),
    Outcome(
        sentence="the hub's answer breaks off",
        faults=(Fault(at=API, truncate=100),),
        reason=UNREACHABLE,
        code=69,
        words="does not speak its protocol",
    ),
    Outcome(
        sentence="the connection is cut before the first byte, always",
        faults=weight(cut_after=0),
        reason=UNREACHABLE,
        code=69,
    ),
    Outcome(
        sentence="a file is always corrupted",
        faults=weight(corrupt=True),
        reason=FetchFailure.ChecksumMismatch,
        code=65,
        words=f"{WEIGHT} has another sha256",
    ),
    Outcome(
        sentence="a small file is always corrupted",
        faults=(Fault(at=RESOLVE, path=CONFIG, method="GET", corrupt=True),),
        reason=FetchFailure.ChecksumMismatch,
        code=65,
        words=f"{CONFIG} has another git id",
    ),
    Outcome(
        sentence="a file is always shorter",
        faults=weight(truncate=5000),
        reason=FetchFailure.ChecksumMismatch,
        code=65,
    ),
    Outcome(
        sentence="a file has another length than the hub lists",
        repository={"declared": {WEIGHT: 10_000_000}},
        reason=FetchFailure.ChecksumMismatch,
        code=65,
    ),
    Outcome(
        sentence="a transfer falls silent",
        faults=weight(hang_after=100),
        options={"stall-seconds": "1"},
        reason=FetchFailure.Stalled,
        code=75,
    ),
    Outcome(
        sentence="the index falls silent",
        faults=(Fault(at=RESOLVE, path=INDEX, method="GET", hang_after=10),),
        options={"stall-seconds": "1"},
        reason=FetchFailure.Stalled,
        code=75,
    ),
]  # fmt: skip
