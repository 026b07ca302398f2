"""Layers of images out of files that the machine has: a Python with its libraries, programs, folders.

A layer is one uncompressed tar. Nothing is downloaded.
"""

from __future__ import annotations

import io
import pathlib
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping

#: What a container of the project's images calls besides Python.
_PROGRAMS = ("python3", "sh", "bash", "cat", "grep", "ls", "sleep", "id", "touch", "sha256sum")
_SKIPPED = {"test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "pydoc_data"}
#: What Debian's own image has, and packages from PyPI rely on without naming a program of ours.
_EXPECTED = (
    *("libgcc_s.so.1", "libstdc++.so.6", "libm.so.6", "libmvec.so.1", "librt.so.1", "libdl.so.2"),
    *(
        "libpthread.so.0",
        "libutil.so.1",
        "libresolv.so.2",
        "libanl.so.1",
        "libnss_dns.so.2",
        "libnss_files.so.2",
    ),
)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_BUNDLE = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")


class Layer:
    """A tar that is being written. Every entry belongs to root."""

    def __init__(self, path: pathlib.Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by close()
        self._made: set[str] = set()

    def close(self) -> None:
        self._tar.close()

    def folder(self, name: str, mode: int = 0o755) -> None:
        """A folder, once."""
        entry = self._entry(name, mode)
        entry.type = tarfile.DIRTYPE
        if entry.name not in self._made:
            self._made.add(entry.name)
            self._tar.addfile(entry)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        entry = self._entry(name, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def text(self, name: str, content: str | bytes, mode: int = 0o644) -> None:
        """A file with that content."""
        body = content.encode() if isinstance(content, str) else content
        entry = self._entry(name, mode)
        entry.size = len(body)
        self._tar.addfile(entry, io.BytesIO(body))

    def file(self, source: pathlib.Path, name: str) -> None:
        """A copy of a file."""
        entry = self._entry(name, source.stat().st_mode & 0o755 | 0o444)
        entry.size, entry.mtime = source.stat().st_size, int(source.stat().st_mtime)
        with open(source, "rb") as body:
            self._tar.addfile(entry, body)

    def tree(self, source: pathlib.Path, name: str, *, skipped: Iterable[str] = ()) -> None:
        """A copy of a folder, links as links."""
        self.folder(name)
        for path in sorted(source.iterdir()):
            if path.name in skipped:
                continue
            target = f"{name}/{path.name}"
            if path.is_symlink():
                self.link(target, str(path.readlink()))
            elif path.is_dir():
                self.tree(path, target, skipped=skipped)
            else:
                self.file(path, target)

    def _entry(self, name: str, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name.lstrip("/"))
        entry.mode = mode
        return entry


def libraries(programs: Iterable[pathlib.Path]) -> set[pathlib.Path]:
    """Shared libraries that ELF files need, the loader among them, by the path that they are looked up by."""
    found: set[pathlib.Path] = set()
    for program in programs:
        said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        found |= {pathlib.Path(path) for path in _LIBRARY.findall(said)}
    return found


def base(path: pathlib.Path) -> None:
    """The layer below every other: the machine's Python 3, a shell, their libraries."""
    programs = {name: pathlib.Path(shutil.which(name) or f"/usr/bin/{name}").resolve() for name in _PROGRAMS}
    python = programs["python3"] = pathlib.Path("/usr/bin/python3").resolve()
    standard = pathlib.Path("/usr/lib") / python.name
    layer = Layer(path)
    for name in (
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "etc/ssl",
        "etc/ssl/certs",
        "proc",
        "sys",
        "dev",
    ):
        layer.folder(name)
    for name in ("bin", "lib", "lib64"):  # merged, as on Debian
        layer.link(name, f"usr/{name}")
    layer.folder("tmp", 0o1777)
    layer.text("etc/passwd", _ACCOUNTS)
    layer.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    layer.text("etc/nsswitch.conf", "hosts: files dns\n")
    if _BUNDLE.exists():
        layer.file(_BUNDLE, str(_BUNDLE))
    for name, program in programs.items():
        layer.file(program, f"usr/bin/{name}")
    layer.link(f"usr/bin/{python.name}", "python3")
    layer.tree(standard, str(standard), skipped=_SKIPPED)
    needed = libraries([*programs.values(), *standard.glob("lib-dynload/*.so")])
    _libraries(
        layer, needed | {next(pathlib.Path("/usr/lib").glob(f"*-linux-gnu/{name}")) for name in _EXPECTED}
    )
    layer.close()


def program(path: pathlib.Path, programs: Mapping[str, pathlib.Path]) -> None:
    """A layer of programs by the place where they go. Their libraries must be those of `base`, or none."""
    layer = Layer(path)
    for place, source in programs.items():
        layer.file(source, place)
    layer.close()


def _libraries(layer: Layer, needed: Iterable[pathlib.Path]) -> None:
    for library in sorted({merged(path) for path in needed}):
        parent = str(library.parent)
        layer.folder(parent)
        layer.file(library.resolve(), str(library))


def merged(path: pathlib.Path) -> pathlib.Path:
    """The place of /lib/x and /lib64/x on a system with one /usr."""
    text = str(path)
    return pathlib.Path(f"/usr{text}") if text.startswith(("/lib/", "/lib64/")) else path
