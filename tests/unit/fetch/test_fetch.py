"""The whole fetch with the real huggingface_hub against a hub over HTTP, and as a process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ai_sandbox_operator.fetch import choose, download, failures, main, store
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

from .stub import COMMIT, MODEL, Hub, HubServer

TOKEN = "hf_secretsecretsecret"
WEIGHTS = {"a.safetensors": b"a" * 4000, "b.safetensors": b"b" * 3000}
FILES = {
    "README.md": b"hello",
    "config.json": b"{}",
    "tokenizer.json": b'{"x": 1}',
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"l1": "a.safetensors", "l2": "b.safetensors"}}
    ).encode(),
    "pytorch_model.bin": b"pickle" * 100,
    **WEIGHTS,
}
EXPECTED = sorted(set(FILES) - {"README.md", "pytorch_model.bin"})


class Fetch:
    """Runs the fetch in this process and reads what it says."""

    def __init__(
        self, hub: Hub, url: str, directory: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.hub, self.url, self.directory, self._capsys = hub, url, directory, capsys
        self.target = directory / "models" / "tiny"
        self.log = directory / "termination-log"
        self.log.touch()

    def arguments(self, **options: str) -> list[str]:
        given = {
            "model": MODEL,
            "target": str(self.target),
            "termination-log": str(self.log),
            "stall-seconds": "30",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        return [f"--{name}={value}" for name, value in given.items()]

    def __call__(self, token: str | None = None, **options: str) -> tuple[int, list[dict[str, Any]]]:
        environment = {"HF_ENDPOINT": self.url} | ({"HF_TOKEN": token} if token else {})
        code = main.run(main._parser().parse_args(self.arguments(**options)), environment)
        return code, [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]


@pytest.fixture
def fetch(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Fetch]:
    hub = Hub(files=dict(FILES))
    with HubServer(hub) as server:
        yield Fetch(hub, server.url, tmp_path, capsys)


def published(target: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != store.MARKER
    }


def test_a_model_is_published_complete_and_nothing_else_is_left(fetch: Fetch) -> None:
    code, said = fetch()
    assert code == 0
    assert published(fetch.target) == {path: FILES[path] for path in EXPECTED}
    assert sorted(path.name for path in fetch.target.parent.iterdir()) == ["tiny", "tiny.lock"]
    size = sum(len(FILES[path]) for path in EXPECTED)
    assert said[0]["event"] == "start"
    assert (said[0]["commit"], said[0]["files"], said[0]["totalBytes"]) == (COMMIT, len(EXPECTED), size)
    summary = {"model": MODEL, "revision": "main", "commit": COMMIT, "format": "hf", "bytes": size}
    assert said[-1] == {"event": "complete", **summary}
    assert json.loads(fetch.log.read_text()) == summary
    assert fetch.hub.tokens == {""}, "without a token none is looked for elsewhere"


def test_a_complete_directory_needs_no_hub(fetch: Fetch) -> None:
    fetch()
    fetch.hub.requests.clear()
    code, said = fetch()
    assert code == 0
    assert [line["event"] for line in said] == ["complete"]
    assert fetch.hub.requests == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda target: (target / "a.safetensors").write_bytes(b"short"),
        lambda target: (target / "b.safetensors").unlink(),
        lambda target: (target / store.MARKER).unlink(),
        lambda target: (target / store.MARKER).write_text("{"),
    ],
    ids=["a file is shorter", "a file is missing", "no marker", "a broken marker"],
)
def test_an_incomplete_directory_is_replaced(fetch: Fetch, damage: Any) -> None:
    fetch()
    damage(fetch.target)
    assert fetch()[0] == 0
    assert published(fetch.target) == {path: FILES[path] for path in EXPECTED}
    assert sorted(path.name for path in fetch.target.parent.iterdir()) == ["tiny", "tiny.lock"]


def test_a_directory_of_another_revision_is_replaced(fetch: Fetch) -> None:
    fetch()
    code, said = fetch(revision=COMMIT)
    assert code == 0
    assert said[-1]["revision"] == COMMIT


def test_a_restart_reuses_complete_files_and_sweeps_unfinished_ones(fetch: Fetch) -> None:
    fetch.hub.files["c.safetensors"] = b"c" * 1000
    fetch.hub.files["model.safetensors.index.json"] = json.dumps(
        {"weight_map": {name[0]: name for name in (*WEIGHTS, "c.safetensors")}}
    ).encode()
    fetch.hub.corrupt = {"c.safetensors": 2}
    code, said = fetch(max_workers="1")
    assert code == FetchFailure.ChecksumMismatch.code
    assert said[-1]["reason"] == "ChecksumMismatch"
    assert not fetch.target.exists()
    work = store.work_directory(fetch.target, COMMIT)
    unfinished = work / store.HUB_CACHE / "huggingface" / "download" / "x.1234.incomplete"
    unfinished.write_bytes(b"half")
    stale = fetch.target.parent / "tiny.tmp-ffffffffffff"
    stale.mkdir()
    fetch.hub.requests.clear()
    code, said = fetch(max_workers="1")
    assert code == 0
    assert said[0]["missingBytes"] == 1000 + len(FILES["config.json"]) + len(FILES["tokenizer.json"])
    assert not {"a.safetensors", "b.safetensors"} & set(fetch.hub.downloads())
    assert "c.safetensors" in fetch.hub.downloads()
    assert published(fetch.target)["c.safetensors"] == b"c" * 1000
    assert sorted(path.name for path in fetch.target.parent.iterdir()) == ["tiny", "tiny.lock"]


def test_a_damaged_file_of_an_earlier_attempt_is_noticed(fetch: Fetch) -> None:
    """Same size, other content: as after losing power."""
    work = store.work_directory(fetch.target, COMMIT)
    work.mkdir(parents=True)
    (work / "a.safetensors").write_bytes(bytes(4000))
    assert fetch()[0] == 0
    assert published(fetch.target) == {path: FILES[path] for path in EXPECTED}


@pytest.mark.parametrize("path", ["a.safetensors", "config.json"])
def test_a_file_with_another_checksum_is_fetched_once_more(fetch: Fetch, path: str) -> None:
    fetch.hub.corrupt = {path: 1}
    assert fetch()[0] == 0
    assert published(fetch.target)[path] == FILES[path]


def test_a_file_that_stays_wrong_is_never_published(fetch: Fetch) -> None:
    fetch.hub.corrupt = {"a.safetensors": 99}
    code, said = fetch()
    assert code == FetchFailure.ChecksumMismatch.code
    assert "a.safetensors has another sha256" in said[-1]["message"]
    assert not fetch.target.exists()


def test_a_connection_that_breaks_in_every_attempt_is_told_and_nothing_is_published(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the library's own pauses
    fetch.hub.truncate = {"a.safetensors": 0}
    code, said = fetch()
    assert said[-1]["reason"] == "HubUnreachable"
    assert code == FetchFailure.HubUnreachable.code
    assert not fetch.target.exists()


REFUSALS = [
    ("no such model", {}, None, {"model": "acme/none"}, FetchFailure.NotFound),
    ("no such revision", {}, None, {"revision": "v9"}, FetchFailure.RevisionNotFound),
    ("gated, no token", {"gated": True}, None, {}, FetchFailure.GatedNoToken),
    ("gated, no access", {"gated": True, "known_tokens": (TOKEN,)}, TOKEN, {}, FetchFailure.GatedNotGranted),
    ("gated, unknown token", {"gated": True}, TOKEN, {}, FetchFailure.BadToken),
    ("unknown token", {}, TOKEN, {}, FetchFailure.BadToken),
    ("forbidden", {"status": 403, "known_tokens": (TOKEN,)}, TOKEN, {}, FetchFailure.GatedNotGranted),
    ("too many requests", {"status": 429}, None, {}, FetchFailure.HubUnreachable),
    ("the hub fails", {"status": 500}, None, {}, FetchFailure.HubUnreachable),
    ("pickles only", {"files": {"pytorch_model.bin": b"x"}}, None, {}, FetchFailure.NoWeights),
    (
        "an index that is not one",
        {"files": {**FILES, "model.safetensors.index.json": b"[]"}},
        None,
        {},
        FetchFailure.NoWeights,
    ),
]


@pytest.mark.parametrize(
    ("sentence", "hub", "token", "options", "failure"), REFUSALS, ids=[r[0] for r in REFUSALS]
)
def test_each_refusal_has_its_reason(
    sentence: str,
    hub: dict[str, Any],
    token: str | None,
    options: dict[str, str],
    failure: FetchFailure,
    fetch: Fetch,
) -> None:
    for name, value in hub.items():
        setattr(fetch.hub, name, value)
    code, said = fetch(token, **options)
    assert said[-1]["event"] == "failed"
    assert said[-1]["reason"] == failure.name, said
    assert said[-1]["permanent"] == (code == 78)
    assert code == failure.code
    assert fetch.log.read_text() == said[-1]["message"] + "\n"
    assert said[-1]["message"].startswith(f"{failure.name}: ")
    assert TOKEN not in json.dumps(said)
    assert not fetch.target.exists()


def test_a_granted_token_opens_a_gated_model(fetch: Fetch) -> None:
    fetch.hub.gated, fetch.hub.known_tokens, fetch.hub.granted_tokens = True, (TOKEN,), (TOKEN,)
    code, said = fetch(TOKEN)
    assert code == 0
    assert fetch.hub.tokens == {TOKEN}
    assert TOKEN not in json.dumps(said)


def test_i6_a_token_in_the_wrong_field_is_not_repeated(fetch: Fetch) -> None:
    fetch.hub.known_tokens = (TOKEN,)
    code, said = fetch(TOKEN, revision=TOKEN)
    assert code == FetchFailure.RevisionNotFound.code
    assert TOKEN not in json.dumps(said)
    assert TOKEN not in fetch.log.read_text()


def test_i6_no_token_is_taken_from_a_file(fetch: Fetch) -> None:
    stored = fetch.directory / ".cache" / "huggingface" / "token"
    stored.parent.mkdir(parents=True)
    stored.write_text(TOKEN)
    with process(fetch) as running:
        running.communicate(timeout=60)
    assert running.returncode == 0
    assert fetch.hub.tokens == {""}


def test_a_hub_that_is_not_there_is_unreachable(fetch: Fetch, unused_tcp_port: int) -> None:
    fetch.url = f"http://127.0.0.1:{unused_tcp_port}"
    code, said = fetch()
    assert (code, said[-1]["reason"]) == (FetchFailure.HubUnreachable.code, "HubUnreachable")


def test_a_silent_connection_is_given_up(tmp_path: pathlib.Path) -> None:
    released, now = threading.Event(), [0.0]
    told: list[download.Progress] = []

    def silent(file: choose.RemoteFile, work: pathlib.Path) -> None:
        (work / f"{file.path}.incomplete").write_bytes(b"x")
        released.wait(30)

    def sleep(seconds: float) -> None:
        now[0] += 1.0
        time.sleep(0.001)

    with pytest.raises(FetchError, match="no byte arrived for 60 seconds") as caught:
        download.download(
            [choose.RemoteFile(path="a", size=100)],
            tmp_path,
            silent,
            workers=4,
            report=told.append,
            pace=download.Pace(report=10, stall=60),
            clock=lambda: now[0],
            sleep=sleep,
        )
    released.set()
    assert caught.value.failure == FetchFailure.Stalled
    assert {progress.done for progress in told[1:]} == {1}


def test_a_second_writer_waits_then_gives_way(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "tiny"
    slept: list[float] = []
    with (tmp_path / "tiny.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(FetchError) as caught,
            store.single_writer(target, patience=3, sleep=slept.append),
        ):
            pytest.fail("two writers")
    assert caught.value.failure == FetchFailure.Locked
    assert slept == [1.0, 1.0, 1.0]
    with store.single_writer(target, patience=0):
        pass


def test_space_is_checked_before_the_first_byte(tmp_path: pathlib.Path) -> None:
    wanted = [choose.RemoteFile(path="a", size=10 * 2**30)]
    with pytest.raises(FetchError, match=r"10\.1 GiB are needed and 9\.0 GiB are free.*modelCacheSize"):
        store.check_space(tmp_path, wanted, free=lambda _path: 9 * 2**30)
    store.check_space(tmp_path, wanted, free=lambda _path: 11 * 2**30)
    store.check_space(tmp_path, [], free=lambda _path: 0)


def test_a_verification_shows_that_it_is_alive(tmp_path: pathlib.Path) -> None:
    """Reading a large file back takes minutes without a new byte on the volume; that is no stall."""
    path, size = tmp_path / "a", 20 * 2**20
    beats: list[int] = []
    with path.open("wb") as content:
        content.truncate(size)
    file = choose.RemoteFile(path="a", size=size, sha256=hashlib.sha256(bytes(size)).hexdigest())
    store.verify(path, file, lambda: beats.append(1))
    assert len(beats) == 3


@pytest.mark.parametrize(
    ("seen", "gained", "seconds", "expected"),
    [
        (50, 50, 10.0, (50, 10)),
        (60, 10, 10.0, (60, 40)),
        (0, 0, 10.0, (0, None)),
        (130, 130, 10.0, (100, 0)),
        (50, 50, 0.0, (50, None)),
    ],
)
def test_progress(seen: int, gained: int, seconds: float, expected: tuple[int, int | None]) -> None:
    now = download.progress(seen, total=100, gained=gained, seconds=seconds)
    assert (now.done, now.eta_seconds) == expected


def test_a_full_volume_is_told_whatever_it_is_wrapped_in() -> None:
    error = RuntimeError("download failed")
    error.__cause__ = OSError(28, "No space left on device")
    found = failures.classify(error, model=MODEL, revision="main", has_token=False)
    assert found.failure == FetchFailure.DiskFull


def test_what_is_not_known_is_passed_on_shortened() -> None:
    found = failures.classify(RuntimeError("x" * 5000), model=MODEL, revision="main", has_token=False)
    assert found.failure == FetchFailure.Unexpected
    assert len(str(found)) < 1000


def test_transient_reasons_have_codes_of_their_own() -> None:
    codes = [failure.code for failure in FetchFailure if not failure.permanent]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2, 78} & set(codes)
    assert all(failure.name == failure.value.name for failure in FetchFailure)


@pytest.mark.parametrize("model", ["tiny", "a/b/c", "../x", "a/..", "-x/y"])
def test_a_model_id_is_owner_and_name(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([f"--model={model}", "--target=/nowhere/x"])
    assert caught.value.code == 2
    capsys.readouterr()


@contextlib.contextmanager
def process(fetch: Fetch, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The fetch as the Job runs it."""
    root = pathlib.Path(main.__file__).parents[2]
    environment = {
        **os.environ,
        "HF_ENDPOINT": fetch.url,
        "PYTHONPATH": str(root),
        "HOME": str(fetch.directory),
    }
    environment.pop("HF_TOKEN", None)
    code = "import sys; from ai_sandbox_operator.fetch import main; sys.exit(main.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *fetch.arguments(), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def test_as_a_process_it_ends_although_a_worker_hangs(fetch: Fetch) -> None:
    fetch.hub.hang = {"a.safetensors"}
    with process(fetch, "--stall-seconds=2", "--report-seconds=0.3") as running:
        out, _ = running.communicate(timeout=60)
    said = [json.loads(line) for line in out.splitlines()]
    assert running.returncode == FetchFailure.Stalled.code
    assert said[-1]["reason"] == "Stalled"
    progress = [line for line in said if line["event"] == "progress"]
    assert progress
    assert set(progress[0]) == {"event", "downloadedBytes", "totalBytes", "etaSeconds"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_kill_in_the_middle_the_next_run_completes(fetch: Fetch, signum: signal.Signals) -> None:
    fetch.hub.hang = {"a.safetensors"}
    with process(fetch) as running:
        deadline = time.monotonic() + 60
        while "a.safetensors" not in fetch.hub.downloads() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signum)
        running.communicate(timeout=30)
    assert running.returncode in (128 + signal.SIGTERM, -signal.SIGKILL)
    assert not fetch.target.exists()
    fetch.hub.hang = set()
    code, _ = fetch()
    assert code == 0
    assert published(fetch.target) == {path: FILES[path] for path in EXPECTED}
