"""The hub simulator: what huggingface_hub reads of it, its faults, its counters, and it as a process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.client import IncompleteRead
from typing import Any

import pytest

from ai_sandbox_operator.fetch import hub as client
from fetch.rig import MODEL, TESTS, TOKEN, content, hub_of
from lab.hub import COMMIT, Fault, Generous, Hub, HubServer, Repository, Sparse, small_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def held() -> Hub:
    return hub_of(small_model(30_000, shards=1, seed="hub"))


@pytest.fixture
def url(held: Hub) -> Iterator[str]:
    with HubServer(held) as url:
        yield url


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def info(url: str, model: str = MODEL, **more: Any) -> Any:
    client.Hub(model=model, endpoint=url, token=None)  # sets the library's switches before its import
    from huggingface_hub import HfApi

    return HfApi(endpoint=url, token=False).model_info(model, **more)


def test_the_library_reads_what_the_hub_says_of_a_model(held: Hub, url: str) -> None:
    repository = held.repositories[MODEL]
    repository.gated = "manual"
    found = info(url, files_metadata=True)
    assert (found.id, found.sha, found.gated, found.private) == (MODEL, COMMIT, "manual", False)
    assert found.config == {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    assert found.safetensors.parameters == {"BF16": found.safetensors.total}
    files = {one.rfilename: one for one in found.siblings}
    assert set(files) == set(repository.files)
    data = content(repository.files[WEIGHTS])
    assert files[WEIGHTS].size == files[WEIGHTS].lfs.size == len(data)
    assert files[WEIGHTS].lfs.sha256 == hashlib.sha256(data).hexdigest()
    assert files["config.json"].lfs is None


def test_without_blobs_only_names_are_listed(url: str) -> None:
    found = info(url)
    assert {(one.size, one.lfs, one.blob_id) for one in found.siblings} == {(None, None, None)}


def test_a_revision_is_a_branch_a_tag_or_a_commit(held: Hub, url: str) -> None:
    old = "a" * 40
    held.repositories[MODEL].older[old] = {"config.json": b"{}"}
    held.repositories[MODEL].revisions = {"v1": old}
    shas = {name: info(url, revision=name).sha for name in ("main", "v1", COMMIT, old)}
    assert shas == {"main": COMMIT, "v1": old, COMMIT: COMMIT, old: old}
    assert get(f"{url}/{MODEL}/resolve/v1/config.json")[2] == b"{}"


def test_a_declared_size_is_listed_although_nobody_holds_it(held: Hub, url: str) -> None:
    held.declared[MODEL] = {WEIGHTS: 14_495_514_624}
    found = info(url, files_metadata=True)
    sizes = {one.rfilename: one.size for one in found.siblings}
    assert sizes[WEIGHTS] == 14_495_514_624
    assert found.safetensors.total == 14_495_514_624 // 2


def test_large_files_lead_to_another_origin(held: Hub, url: str) -> None:
    status, headers, data = get(f"{url}/{MODEL}/resolve/main/{WEIGHTS}")
    assert (status, data) == (200, content(held.repositories[MODEL].files[WEIGHTS]))
    assert [one.at for one in held.requests] == ["resolve", "cdn"]
    assert headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("bytes=5-", 5, None), ("bytes=5-9", 5, 10), ("bytes=0-999999999", 0, None)]
)
def test_parts_of_files(held: Hub, url: str, asked: str, start: int, stop: int | None) -> None:
    data = content(held.repositories[MODEL].files[WEIGHTS])
    status, headers, part = get(f"{url}/{MODEL}/resolve/main/{WEIGHTS}", Range=asked)
    assert (status, part) == (206, data[start:stop])
    assert headers["Content-Range"].endswith(f"/{len(data)}")


def test_a_part_beyond_the_end_is_refused(url: str) -> None:
    assert get(f"{url}/{MODEL}/resolve/main/{WEIGHTS}", Range="bytes=99999999-")[0] == 416


@pytest.mark.parametrize(
    ("path", "change", "token", "expected"),
    [
        ("api/models/acme/none", {}, "", (401, None)),
        ("api/models/acme/none", {}, TOKEN, (404, "RepoNotFound")),
        (f"api/models/{MODEL}/revision/v9", {}, "", (404, "RevisionNotFound")),
        (f"api/models/{MODEL}", {}, "hf_unknown", (401, None)),
        (f"api/models/{MODEL}", {"private": True}, "", (401, None)),
        (f"api/models/{MODEL}", {"private": True}, TOKEN, (404, "RepoNotFound")),
        (f"api/models/{MODEL}", {"gated": "auto"}, "", (200, None)),
        (f"{MODEL}/resolve/main/config.json", {"gated": "auto"}, "", (401, "GatedRepo")),
        (f"{MODEL}/resolve/main/config.json", {"gated": "auto"}, TOKEN, (403, "GatedRepo")),
        (f"{MODEL}/resolve/main/config.json", {"gated": "auto", "granted": {TOKEN}}, TOKEN, (200, None)),
        (f"{MODEL}/resolve/main/none.json", {}, "", (404, "EntryNotFound")),
        ("nothing", {}, "", (404, None)),
    ],
)
def test_refusals(
    path: str, change: dict[str, Any], token: str, expected: tuple[int, str | None], held: Hub, url: str
) -> None:
    held.tokens.add(TOKEN)
    for name, value in change.items():
        setattr(held.repositories[MODEL], name, value)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, answered, _ = get(f"{url}/{path}", **headers)
    assert (status, answered["X-Error-Code"]) == expected


def test_faults_strike_what_they_match_as_often_as_they_say(held: Hub, url: str) -> None:
    held.faults[:] = [
        Fault(at=("api",), status=429, retry_after=7, times=1),
        Fault(at=("resolve",), path="config.json", status=503, after=1, times=1),
    ]
    first, headers, _ = get(f"{url}/api/models/{MODEL}")
    assert (first, headers["Retry-After"]) == (429, "7")
    assert get(f"{url}/api/models/{MODEL}")[0] == 200
    config = f"{url}/{MODEL}/resolve/main/config.json"
    assert [get(config)[0] for _ in range(3)] == [200, 503, 200]


def test_bytes_on_the_way_can_be_cut_shortened_changed_and_slowed(held: Hub, url: str) -> None:
    address = f"{url}/{MODEL}/resolve/main/{WEIGHTS}"
    data = get(address)[2]
    held.faults[:] = [Fault(at=("cdn",), cut_after=1000)]
    with pytest.raises(IncompleteRead) as caught:
        get(address)
    assert caught.value.partial == data[:1000]
    held.faults[:] = [Fault(at=("cdn",), truncate=1000)]
    assert get(address)[2] == data[:1000]
    held.faults[:] = [Fault(at=("cdn",), corrupt=True)]
    damaged = get(address)[2]
    assert len(damaged) == len(data)
    assert damaged != data
    held.faults[:] = [Fault(at=("cdn",), bytes_per_second=100_000)]
    began = time.monotonic()
    assert get(address)[2] == data
    assert time.monotonic() - began > 0.2


def test_counters_tell_requests_bytes_and_tokens(held: Hub, url: str) -> None:
    held.tokens.add(TOKEN)
    get(f"{url}/{MODEL}/resolve/main/{WEIGHTS}", Authorization=f"Bearer {TOKEN}", Range="bytes=0-9")
    get(f"{url}/{MODEL}/resolve/main/config.json")
    counters = held.counters()
    assert counters["downloads"] == {WEIGHTS: 1, "config.json": 1}
    assert counters["bytesSent"][f"{MODEL}/{WEIGHTS}"] == 10
    assert counters["tokens"] == 1
    assert TOKEN not in json.dumps(counters)


def test_weights_are_safetensors_and_the_index_names_their_tensors() -> None:
    files = small_model(50_000, shards=3)
    index = json.loads(content(files["model.safetensors.index.json"]))
    found: dict[str, str] = {}
    total = 0
    for name in sorted(set(index["weight_map"].values())):
        data = content(files[name])
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        end = 0
        for tensor, entry in header.items():
            found[tensor] = name
            assert entry["dtype"] == "BF16"
            assert entry["data_offsets"] == [end, end + 2 * entry["shape"][0]]
            end = entry["data_offsets"][1]
        assert len(data) == 8 + length + end
        total += end
    assert found == index["weight_map"]
    assert total == index["metadata"]["total_size"]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 3_000_000), (0, 5), (3, 9), (7, 2_500_001), (1_048_583, 1_048_590)]
)
def test_made_bytes_are_the_same_from_wherever_they_are_read(start: int, stop: int) -> None:
    blob = Sparse(3_000_000, head=b"header", seed="x")
    whole = content(blob)
    assert b"".join(blob.read(start, stop)) == whole[start:stop]
    assert blob.sha256 == hashlib.sha256(whole).hexdigest()
    assert content(Sparse(3_000_000, head=b"header", seed="y")) != whole


def test_a_generous_hub_knows_every_model_and_keeps_it(held: Hub, url: str) -> None:
    held.generous = Generous(size=100_000, shards=1)
    first = info(url, "someone/something", files_metadata=True)
    assert first == info(url, "someone/something", files_metadata=True)
    other = info(url, "someone/else")
    assert other.sha != first.sha
    assert get(f"{url}/api/models/noowner")[0] == 401
    held.repositories["someone/private"] = Repository(files={}, private=True)
    assert get(f"{url}/api/models/someone/private")[0] == 401


@contextlib.contextmanager
def hub_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "lab.hub", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, json.loads(running.stdout.readline())["url"]
        finally:
            running.terminate()


def test_as_a_process_it_knows_every_model_and_takes_faults() -> None:
    name = "model-00001-of-00002.safetensors"
    with hub_process("--size=50000", f"--declare=a/b:{name}=14000000000") as (running, url):
        listed = json.loads(get(f"{url}/api/models/a/b/revision/main?blobs=true")[2])
        assert {one["rfilename"]: one["size"] for one in listed["siblings"]}[name] == 14_000_000_000
        body = json.dumps([{"at": ["api"], "status": 503, "times": 1}]).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/_lab/faults", data=body)) as answer:
            assert json.load(answer)["faultsStruck"] == [0]
        assert [get(f"{url}/api/models/a/b")[0] for _ in range(2)] == [503, 200]
        assert json.loads(get(f"{url}/_lab/counters")[2])["faultsStruck"] == [1]
    assert running.returncode == 0
