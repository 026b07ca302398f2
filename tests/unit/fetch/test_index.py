"""What a hostile or a very large index of weights costs: it is refused before it takes memory."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc

import pytest

from ai_sandbox_operator.fetch import choose, hub
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure

MIB = 2**20
MODEL = "acme/large"
#: The largest kind of index: of a mixture of experts in four bits, with four tensors for each matrix.
TENSORS = ("weight_packed", "weight_scale", "weight_global_scale", "input_global_scale")


def large(tensors: int) -> bytes:
    weights = {
        f"model.layers.{n // 3072}.mlp.experts.{n // 12 % 256}.{('down', 'gate', 'up')[n // 4 % 3]}_proj."
        f"{TENSORS[n % 4]}": f"model-{n % 48:05d}-of-00048.safetensors"
        for n in range(tensors)
    }
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weights}, indent=2).encode()


def test_the_index_of_a_very_large_mixture_of_experts_is_read() -> None:
    content = large(190_000)
    assert len(content) < hub.MAX_SMALL
    assert len(hub.indexed_files(content, choose.INDEX)) == 48


@pytest.mark.parametrize(
    ("case", "content"),
    [
        ("objects", b'{"weight_map":[' + b",".join([b"{}"] * (8 * MIB)) + b"]}"),
        ("entries", b'{"weight_map":{' + b",".join(b'"%d":""' % n for n in range(MIB)) + b"}}"),
        ("lists in lists", b"[" * MIB),
    ],
)
def test_an_index_of_too_many_values_is_refused_without_being_built(case: str, content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match="too many tensors") as refused:
            hub.indexed_files(content, choose.INDEX)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.failure is FetchFailure.NoWeights
    assert choose.INDEX in refused.value.detail
    assert peak < MIB, case


def test_a_deeply_nested_index_is_none() -> None:
    with pytest.raises(FetchError, match="is not an index of weights"):
        hub.indexed_files(b"[" * 100_000 + b"]" * 100_000, choose.INDEX)


def test_the_bound_is_in_values_whatever_separates_them() -> None:
    text = b'{"a": [1, 2], "b": {}}'
    assert hub.parse(text, most=7) == {"a": [1, 2], "b": {}}
    with pytest.raises(hub.TooManyValues):
        hub.parse(text, most=6)


def test_a_file_that_is_too_large_is_not_asked_for() -> None:
    file = choose.RemoteFile(path=choose.INDEX, size=31 * MIB)
    with pytest.raises(FetchError) as refused:
        hub.Hub(model=MODEL, endpoint="http://127.0.0.1:1", token=None).read("c" * 40, file)
    assert refused.value.failure is FetchFailure.NoWeights
    assert refused.value.detail == f"{choose.INDEX} has 31.0 MiB, and no more than 24 MiB are read"


LISTING = hub.Listing(
    commit="c" * 40,
    files=(
        choose.RemoteFile(path="a.safetensors", size=1),
        choose.RemoteFile(path=choose.INDEX, size=1),
    ),
)
CONTENT = b'{"weight_map": {"x": "a.safetensors"}}'


def test_indexes_are_read_one_at_a_time() -> None:
    inside: list[int] = []
    most: list[int] = []

    def read(_file: choose.RemoteFile) -> bytes:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return CONTENT

    threads = [threading.Thread(target=hub.select, args=(MODEL, LISTING, read)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]


def test_i9_an_index_that_does_not_end_holds_up_the_others_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "TURN", 0.05)
    entered, end = threading.Event(), threading.Event()

    def hang(_file: choose.RemoteFile) -> bytes:
        entered.set()
        end.wait(10)
        raise OSError

    def first() -> None:
        with pytest.raises(OSError):
            hub.select(MODEL, LISTING, hang)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with pytest.raises(FetchError) as refused:
        hub.select(MODEL, LISTING, lambda _file: CONTENT)
    assert refused.value.failure is FetchFailure.HubUnreachable
    end.set()
    thread.join(10)
    # A failure gives the turn back.
    assert hub.select(MODEL, LISTING, lambda _file: CONTENT).files
