"""The fetch as the Job runs it: signals, silence, a full disk, company, and memory."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ai_sandbox_operator.fetch import hub, store
from fetch.rig import TOKEN, WEIGHTS, Rig, hub_of, lines, published, wanted
from lab.hub import Fault, HubServer, Repository, small_model

MIB = 2**20


def eventually(condition: Callable[[], object], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def slow(rig: Rig, rate: float = 10_000) -> None:
    rig.hub.faults.append(Fault(at=("cdn",), bytes_per_second=rate))


def test_sigterm_ends_it_at_once_and_the_next_run_completes(rig: Rig) -> None:
    rig.hub.faults.append(Fault(at=("cdn",), path=WEIGHTS[0], hang_after=100))
    with rig.process() as running:
        eventually(lambda: len(rig.complete_files()) == len(wanted()) - 1)
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert running.returncode == 128 + signal.SIGTERM
    assert [line["event"] for line in lines(out)] == ["start", "interrupted"]
    assert not rig.target.exists()
    rig.hub.faults.clear()
    rig.hub.requests.clear()
    assert rig.finish()[0] == 0
    assert rig.hub.downloads() == [WEIGHTS[0]]
    assert published(rig.target) == wanted()
    assert rig.names() == [store.LOCK, "tiny"]


def test_it_ends_although_a_worker_hangs_and_the_next_run_completes(rig: Rig) -> None:
    rig.hub.faults.append(Fault(at=("cdn",), path=WEIGHTS[0], hang_after=100))
    code, said = rig.finish(stall_seconds=1, report_seconds=0.3)
    assert code == 75
    assert said[-1]["reason"] == "Stalled"
    progress = [line for line in said if line["event"] == "progress"]
    assert set(progress[-1]) == {"event", "doneBytes", "totalBytes", "bytesPerSecond", "etaSeconds"}
    total = sum(map(len, wanted().values()))
    silent = len(wanted()[WEIGHTS[0]])
    # What has arrived of a piece that is not whole is not on the volume yet.
    assert (progress[-1]["doneBytes"], progress[-1]["totalBytes"]) == (total - silent, total)
    rig.hub.faults.clear()
    rig.hub.requests.clear()
    assert rig.finish()[0] == 0
    assert rig.hub.downloads() == [WEIGHTS[0]]


def test_progress_tells_speed_and_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow(rig)  # three connections of 10 kB/s, 13 kB each
    monkeypatch.setattr(hub, "CHUNK", 500)
    assert rig.run(report_seconds=0.2) == 0
    progress = [line for line in lines(capsys.readouterr().out) if line["event"] == "progress"]
    assert [line["doneBytes"] for line in progress] == sorted(line["doneBytes"] for line in progress)
    middle = progress[len(progress) // 2]
    assert 5_000 < middle["bytesPerSecond"] < 60_000
    rest = middle["totalBytes"] - middle["doneBytes"]
    assert middle["etaSeconds"] == pytest.approx(rest / middle["bytesPerSecond"], abs=1)


def test_of_two_at_once_the_second_waits_and_finds_the_model(rig: Rig) -> None:
    slow(rig)
    with rig.process(lock_seconds=60) as first:
        eventually(rig.hub.downloads)
        code, said = rig.finish(lock_seconds=60)
        out, _ = first.communicate(timeout=60)
    assert (first.returncode, code) == (0, 0)
    assert [line["event"] for line in said] == ["complete"]
    assert lines(out)[-1] == said[-1]
    assert sorted(rig.hub.downloads()) == sorted(wanted())


@pytest.mark.parametrize("target", ["tiny", "another"], ids=["the same model", "another model"])
def test_a_second_writer_of_the_volume_gives_way(rig: Rig, target: str) -> None:
    slow(rig, 2_000)
    with rig.process() as first:
        eventually(rig.hub.downloads)
        code, said = rig.finish(lock_seconds=1, target=rig.models / target)
        assert first.poll() is None
    assert (code, said[-1]["reason"]) == (73, "Locked")


def test_a_sweep_gives_way_to_a_fetch(rig: Rig) -> None:
    assert rig.finish()[0] == 0
    slow(rig, 2_000)
    with rig.process(target=rig.models / "another") as first:
        eventually(lambda: any("another.tmp-" in name for name in rig.names()))
        with rig.sweeping("tiny") as sweeping:
            out, _ = sweeping.communicate(timeout=30)
        assert first.poll() is None
        assert any("another.tmp-" in name for name in rig.names())
    assert (sweeping.returncode, lines(out)[-1]["reason"]) == (73, "Locked")


def test_i6_no_token_is_taken_from_a_file(rig: Rig) -> None:
    stored = rig.directory / ".cache" / "huggingface" / "token"
    stored.parent.mkdir(parents=True)
    stored.write_text(TOKEN)
    assert rig.finish()[0] == 0
    assert rig.hub.tokens_seen() == {""}


@contextlib.contextmanager
def small_volume(directory: pathlib.Path, size: int) -> Iterator[None]:
    """A file system of so many bytes."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_volume_that_fills_up_in_the_middle_is_told(rig: Rig) -> None:
    rig.repository.files = small_model(48 * MIB, shards=2, seed="large")
    rig.hub.faults.append(Fault(at=("cdn",), bytes_per_second=12 * MIB))
    with small_volume(rig.models, store.RESERVE + 56 * MIB):
        with rig.process() as running:
            eventually(lambda: rig.hub.downloads() and store.bytes_of(rig.work, []))
            filler = rig.models / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as filling:
                while True:
                    filling.write(bytes(MIB))
            out, _ = running.communicate(timeout=60)
        said = lines(out)
        assert running.returncode == 78
        assert said[-1]["reason"] == "DiskFull"
        assert "the volume is full" in said[-1]["message"]
        assert not rig.target.exists()
        filler.unlink()
        rig.hub.faults.clear()
        assert rig.finish()[0] == 0
        assert published(rig.target) == wanted(rig.repository.files)


def peak(rig: Rig, **options: object) -> int:
    """Bytes of memory that a run took at most.

    Not from its resource usage: that begins with the memory of this process, from which it is forked.
    """
    most = 0
    with rig.process(**options) as running:
        status = pathlib.Path(f"/proc/{running.pid}/status")
        while running.poll() is None:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            most = max(most, int(fields.get("VmHWM", "0").split()[0]) * 1024)
            time.sleep(0.01)
    assert running.returncode == 0
    return most


def test_memory_does_not_grow_with_the_model(
    tmp_path: pathlib.Path, record_property: Callable[..., None]
) -> None:
    held = hub_of()
    held.repositories["acme/large"] = Repository(files=small_model(300 * MIB, shards=4, seed="large"))
    with HubServer(held) as url:
        rig = Rig(held, url, tmp_path)
        small = peak(rig)
        large = peak(rig, model="acme/large", target=rig.models / "large")
    weights = sum(size for name, size in held.sent.items() if name.startswith("acme/large/model-"))
    assert weights > 300 * MIB - 4096
    record_property("small", small)
    record_property("large", large)
    print(f"peak memory: {small / MIB:.0f} MiB for 40 kB, {large / MIB:.0f} MiB for 300 MiB", file=sys.stderr)
    assert large < 160 * MIB
    assert large - small < 80 * MIB, "four workers, some pieces of 1 MiB each"
