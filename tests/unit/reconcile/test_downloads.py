"""Progress of a download, read from its log now and then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.reconcile import downloads, views
from unit.desired import samples

SANDBOX = samples.sandbox({})
RUNNING = {"metadata": {"name": "demo-fetch-1"}, "status": {"phase": "Running"}}
PENDING = {"metadata": {"name": "demo-fetch-1"}, "status": {"phase": "Pending"}}


def line(done: int, eta: int | None = 60) -> str:
    return json.dumps({"event": "progress", "doneBytes": done, "totalBytes": 100, "etaSeconds": eta})


class Client:
    """One log."""

    def __init__(self) -> None:
        self.words: str | errors.KubeError = line(10)
        self.reads = 0

    async def logs(self, namespace: str, pod: str, container: str, **_: Any) -> str:
        assert (namespace, pod, container) == (SANDBOX.metadata.namespace, "demo-fetch-1", "fetch")
        self.reads += 1
        if isinstance(self.words, errors.KubeError):
            raise self.words
        return self.words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", None),
        (line(7), views.Progress(downloaded_bytes=7, total_bytes=100, eta_seconds=60)),
        (
            line(7) + "\n" + line(9, None),
            views.Progress(downloaded_bytes=9, total_bytes=100, eta_seconds=None),
        ),
        (line(7) + "\n{broken", views.Progress(downloaded_bytes=7, total_bytes=100, eta_seconds=60)),
        (
            line(7) + '\n{"event": "retry"}',
            views.Progress(downloaded_bytes=7, total_bytes=100, eta_seconds=60),
        ),
        ('{"event": "progress", "doneBytes": "x", "totalBytes": 1}', None),
        ('{"event": "progress", "doneBytes": 1e999, "totalBytes": 1}', None),
        ("7\n[]\nnull", None),
    ],
)
def test_the_last_line_of_progress_counts(words: str, expected: views.Progress | None) -> None:
    assert downloads.parse(words) == expected


async def test_the_log_is_read_now_and_then_and_only_while_it_runs() -> None:
    client, now = Client(), [0.0]
    one = downloads.Downloads(client, clock=lambda: now[0])  # type: ignore[arg-type]
    assert await one.progress(SANDBOX, [PENDING]) is None
    for _ in range(5):
        found = await one.progress(SANDBOX, [RUNNING])
        assert found is not None
        assert found.downloaded_bytes == 10
    assert client.reads == 1
    now[0], client.words = downloads.EVERY, errors.Unavailable("away")
    assert await one.progress(SANDBOX, [RUNNING]) == found, "what was read last stands"
    now[0], client.words = 2 * downloads.EVERY, line(20)
    later = await one.progress(SANDBOX, [RUNNING])
    assert later is not None
    assert later.downloaded_bytes == 20
    assert client.reads == 3
    assert await one.progress(SANDBOX, []) is None
    assert one._memory == {}
