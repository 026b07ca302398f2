"""The hole in vLLM's own keys, path by path: what they guard and what they leave open."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from unit.lab_engine.conftest import KEY, MODEL, Served, serve

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
UNAUTHORIZED = {"error": "Unauthorized"}


async def ask(
    served: Served, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Without a key unless `headers` have one."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, served.url + path, json=body, headers=headers) as answer,
    ):
        text = answer.content_type == "application/json"
        return answer.status, await answer.json() if text else await answer.text()


@pytest.mark.parametrize(
    "path", ["chat/completions", "completions", "embeddings", "responses", "messages", "load_lora_adapter"]
)
async def test_v1_is_guarded_whether_the_path_exists_or_not(served: Served, path: str) -> None:
    assert await ask(served, "POST", f"/v1/{path}", CHAT) == (401, UNAUTHORIZED)


async def test_invocations_is_full_inference_without_a_key(served: Served) -> None:
    status, answer = await ask(served, "POST", "/invocations", CHAT)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "You said: hello"


@pytest.mark.parametrize(
    "path", ["/tokenize", "/detokenize", "/generative_scoring", "/is_scaling_elastic_ep"]
)
async def test_helpers_of_a_generating_model_are_open(served: Served, path: str) -> None:
    body = {"model": MODEL, "prompt": "a", "tokens": [1]}
    assert (await ask(served, "POST", path, body))[0] in (200, 400)


@pytest.mark.parametrize("path", ["/pooling", "/classify", "/score", "/rerank", "/invocations"])
async def test_helpers_of_a_pooling_model_are_open(path: str) -> None:
    async with serve("--runner", "pooling") as served:
        assert (await ask(served, "POST", path, {"input": "a"}))[0] not in (401, 404)


async def test_scaling_is_open(served: Served) -> None:
    status, answer = await ask(served, "POST", "/scale_elastic_ep", {})
    assert (status, answer["error"]["message"]) == (400, "new_data_parallel_size is required")


@pytest.mark.parametrize("path", ["/health", "/ping", "/version", "/load", "/metrics"])
async def test_probes_and_metrics_are_open(served: Served, path: str) -> None:
    assert (await ask(served, "GET", path))[0] == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_documentation_is_open_unless_disabled(served: Served, path: str) -> None:
    assert (await ask(served, "GET", path))[0] == 404
    async with serve() as open_one:
        assert (await ask(open_one, "GET", path))[0] == 200


@pytest.mark.parametrize("path", ["/pause", "/resume", "/update_weights", "/sleep", "/collective_rpc"])
async def test_what_needs_the_development_mode_is_not_there(served: Served, path: str) -> None:
    assert (await ask(served, "POST", path, {}))[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer {KEY}"}, 200),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"x-api-key": KEY}, 401),
    ],
)
async def test_a_key_counts_only_as_a_bearer(served: Served, headers: dict[str, str], status: int) -> None:
    assert (await ask(served, "GET", "/v1/models", headers=headers))[0] == status


async def test_each_of_several_keys_counts() -> None:
    async with serve("--api-key", "one", "two") as served:
        for key in ("one", "two"):
            assert (await ask(served, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}))[
                0
            ] == 200
        assert (await ask(served, "GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"}))[0] == 401


async def test_the_access_log_leaves_out_the_paths_that_it_is_told_to() -> None:
    async with serve("--disable-access-log-for-endpoints", "/health,/metrics") as served:
        for path in ("/health", "/metrics", "/version"):
            await ask(served, "GET", path)
        (line,) = served.engine.said
    assert line.startswith("INFO:     127.0.0.1:")
    assert line.endswith('"GET /version HTTP/1.1" 200 OK')
