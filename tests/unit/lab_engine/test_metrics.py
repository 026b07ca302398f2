from __future__ import annotations

import asyncio

import aiohttp
import pytest

from lab.engine.script import Script
from unit.lab_engine.conftest import MODEL, Served, serve

BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 50,
    "ignore_eos": True,
}
SLOW = Script(context=2048, token=0.02)
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting{"
SUCCESS = "vllm:request_success_total"


async def until(served: Served, name: str, value: float) -> None:
    async with asyncio.timeout(5):
        while await served.value(name) != value:
            await asyncio.sleep(0.01)


async def test_an_idle_engine_counts_nothing(served: Served) -> None:
    for name in (RUNNING, WAITING, "vllm:prompt_tokens_total", "vllm:generation_tokens_total"):
        assert await served.value(name) == 0
    async with served.session.get(f"{served.url}/v1/models"):
        pass
    assert await served.value("vllm:prompt_tokens_total") == 0


async def test_counters_move_with_each_request(served: Served) -> None:
    answer = await served.chat("hello")
    await served.chat("hello", max_tokens=1)
    used = answer["usage"]
    assert await served.value("vllm:prompt_tokens_total") == 2 * used["prompt_tokens"]
    assert await served.value("vllm:generation_tokens_total") == used["completion_tokens"] + 1
    assert await served.value(f'{SUCCESS} finished_reason="stop"') == 1
    assert await served.value(f'{SUCCESS} finished_reason="length"') == 1
    for name in ("e2e_request_latency", "time_to_first_token", "request_queue_time"):
        assert await served.value(f"vllm:{name}_seconds_count") == 2
    handled = 'http_requests_total handler="/v1/chat/completions" method="POST" status="2xx"'
    assert await served.value(handled) == 2


async def test_labels_are_the_engine_and_the_first_served_name(served: Served) -> None:
    assert await served.value(f'{RUNNING} engine="0" model_name="{MODEL}"') == 0


async def test_requests_run_as_many_as_fit_and_the_others_wait() -> None:
    async with serve("--max-num-seqs", "2", script=SLOW) as served:
        tasks = [asyncio.create_task(served.post("/v1/chat/completions", BODY)) for _ in range(3)]
        await until(served, RUNNING, 2)
        await until(served, WAITING, 1)
        assert await served.value('vllm:num_requests_waiting_by_reason reason="capacity"') == 1
        await asyncio.gather(*tasks)
        assert await served.value(RUNNING) == await served.value(WAITING) == 0
        assert await served.value(f'{SUCCESS} finished_reason="length"') == 3


async def test_above_the_queue_limit_is_503_and_counted() -> None:
    async with serve("--max-num-queued-reqs", "1", script=SLOW) as served:
        first = asyncio.create_task(served.post("/v1/chat/completions", BODY))
        await until(served, RUNNING, 1)
        status, answer = await served.post("/v1/chat/completions", BODY)
        assert (status, answer["error"]["type"]) == (503, "Service Unavailable")
        assert answer["error"]["message"].startswith(
            "The engine is currently busy and cannot accept new requests."
        )
        assert await served.value('vllm:admission_rejections_total reason="max_num_queued_reqs"') == 1
        assert (await first)[0] == 200


async def test_above_the_backlog_of_prompts_is_503_and_counted() -> None:
    async with serve("--max-num-queued-tokens", "1", script=Script(first_token=0.5)) as served:
        first = asyncio.create_task(served.chat(max_tokens=1))
        await until(served, RUNNING, 1)
        status, answer = await served.post("/v1/chat/completions", BODY)
        assert status == 503
        assert "prefill token backlog limit" in answer["error"]["message"]
        assert await served.value('vllm:admission_rejections_total reason="max_num_queued_tokens"') == 1
        await first
        await served.chat(max_tokens=1)


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_client_that_goes_leaves_nothing_behind(waiting: bool) -> None:
    async with serve("--max-num-seqs", "1", script=SLOW) as served:
        others = [asyncio.create_task(served.post("/v1/chat/completions", BODY))] if waiting else []
        if waiting:
            await until(served, RUNNING, 1)
        with pytest.raises(TimeoutError):
            await served.post(
                "/v1/chat/completions", {**BODY, "stream": True}, timeout=aiohttp.ClientTimeout(total=0.3)
            )
        await asyncio.gather(*others)
        await until(served, f'{SUCCESS} finished_reason="abort"', 1)
        assert await served.value(WAITING) == await served.value(RUNNING) == 0
        await asyncio.wait_for(served.engine.idle.wait(), 2)
        assert await served.value(f'{SUCCESS} finished_reason="length"') == len(others)
        answered = [
            line for line in served.engine.said if '"POST /v1/chat/completions HTTP/1.1" 200 OK' in line
        ]
        # An answer that never began is not in the access log.
        assert len(answered) == len(others) + (not waiting)


async def test_the_load_is_tracked_only_when_asked_for() -> None:
    for flags, expected in (((), 0), (("--enable-server-load-tracking",), 1)):
        async with serve(*flags, script=SLOW) as served:
            task = asyncio.create_task(served.post("/v1/chat/completions", BODY))
            await until(served, RUNNING, 1)
            async with served.session.get(f"{served.url}/load") as answer:
                assert await answer.json() == {"server_load": expected}
            await task
