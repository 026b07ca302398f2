"""One engine that serves: its requests in flight, its queue, its counters, its end.

Time is the caller's: the engine is made when it is up, and is told when it dies or is to end.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

from lab.engine import dying, requests, startup
from lab.engine.arguments import Arguments
from lab.engine.bodies import Head
from lab.engine.metrics import Metrics
from lab.engine.requests import Invalid, Limits, Wanted
from lab.engine.script import HEALTHY, Script

_BUSY = "The engine {} and cannot accept new requests. Please try again later or on a different instance."
_QUEUE = _BUSY.format("is currently busy")
_BACKLOG = "The engine has reached its prefill token backlog limit. Please try again later or on a different instance."
#: Lines that are kept of what is said while it serves.
_KEPT = 400


class Aborted(Exception):
    """The request ends here, with the reason `abort`."""


class Engine:
    """A running engine.

    Args:
        arguments: of `vllm serve`.
        script: its model and its pace; may be replaced while it runs.
        say: takes each line of the log; None: only the last ones are kept.

    Attributes:
        said: the last lines that were said while it serves.
        dead: the engine process has died; the server still answers.
        draining: it was asked to end.
    """

    def __init__(
        self,
        arguments: Arguments,
        script: Script = HEALTHY,
        *,
        choices: int = requests.MAX_CHOICES,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.arguments = arguments
        self.script = script
        self.said: collections.deque[str] = collections.deque(maxlen=_KEPT)
        self.dead = self.draining = self.aborted = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._choices = choices
        self._say = say
        self._slots = asyncio.Semaphore(arguments.max_num_seqs)
        self._in_flight = self._prefill = 0
        self._metrics: Metrics | None = None

    @property
    def limits(self) -> Limits:
        """What the engine allows now."""
        names = () if self.script.unlisted else self.arguments.served_names
        return Limits(names, startup.effective(self.arguments, self.script), self._choices)

    @property
    def metrics(self) -> Metrics:
        """Made when they are first needed: most engines of a lab are never asked for them."""
        if self._metrics is None:
            blocks = self.script.kv_tokens // 16
            cache = {
                "gpu_memory_utilization": str(self.arguments.gpu_memory_utilization),
                "num_gpu_blocks": str(blocks),
                "kv_cache_size_tokens": str(self.script.kv_tokens),
                "kv_cache_max_concurrency": str(self.script.kv_tokens / self.limits.max_model_len),
            }
            self._metrics = Metrics(self.arguments.served_names[0], cache)
        return self._metrics

    @property
    def in_flight(self) -> int:
        """Sequences that wait or run."""
        return self._in_flight

    def head(self, model: str) -> Head:
        """The beginning of an answer."""
        return Head(uuid.uuid4().hex[:16], int(time.time()), model)

    def say(self, *lines: str) -> None:
        """Write to the log."""
        self.said.extend(lines)
        if self._say is not None:
            for line in lines:
                self._say(line)

    def crash(self, moment: float) -> None:
        """The engine process dies; what runs gets no further, and no more is taken."""
        self.dead = True
        self.say(*dying.crash(moment))

    def shut_down(self, moment: float) -> None:
        """Take no more; with a timeout what runs may finish, without one it ends at once."""
        self.draining = True
        self.aborted = not self.arguments.shutdown_timeout
        self.say(*dying.shutdown(moment, self.arguments.shutdown_timeout, self._in_flight))

    def check(self) -> None:
        """Raises: Invalid: nothing is generated any more."""
        if self.dead:
            raise Invalid(dying.DEAD, status=500, kind="InternalServerError")
        if self.draining:
            message = "cannot schedule new futures after shutdown"
            raise Invalid(message, status=500, kind="InternalServerError")

    def admit(self, wanted: Sequence[Wanted]) -> None:
        """Raises: Invalid: the queue is full."""
        most, backlog = self.arguments.max_num_queued_reqs, self.arguments.max_num_queued_tokens
        for full, reason, message in (
            (most is not None and self._in_flight + _sequences(wanted) > most, "max_num_queued_reqs", _QUEUE),
            (backlog is not None and self._prefill >= backlog, "max_num_queued_tokens", _BACKLOG),
        ):
            if full:
                self.metrics.add(f"admission_rejections {reason}")
                raise Invalid(message, status=503, kind="Service Unavailable")

    @contextlib.asynccontextmanager
    async def running(self, wanted: Sequence[Wanted]) -> AsyncIterator[Run]:
        """A place among the requests in flight, and one among those that run.

        Raises:
            Invalid: it is not taken.
        """
        self.check()
        self.admit(wanted)
        run = Run(self, wanted)
        self._move(_sequences(wanted), sum(one.prompt for one in wanted))
        self.metrics.add("num_requests_waiting")
        self.metrics.add("num_requests_waiting_by_reason capacity")
        try:
            async with self._slots:
                run.start()
                yield run
        finally:
            run.end()
            self._move(-_sequences(wanted), 0)

    def _move(self, sequences: int, prefill: int) -> None:
        self._in_flight += sequences
        self._prefill += prefill
        if self._in_flight:
            self.idle.clear()
        else:
            self.idle.set()

    def prefilled(self, tokens: int) -> None:
        """So many tokens of prompts wait no longer."""
        self._prefill -= tokens


class Run:
    """One request that is generated, and what the counters are told of it."""

    def __init__(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        self._engine, self._wanted = engine, wanted
        self._began = time.monotonic()
        self._started = self._first = self._last = 0.0
        self._made = 0
        self._complete = False

    def start(self) -> None:
        """It waits no longer."""
        metrics = self._engine.metrics
        self._started = time.monotonic()
        for name in ("num_requests_waiting", "num_requests_waiting_by_reason capacity"):
            metrics.add(name, -1)
        metrics.add("num_requests_running")
        metrics.observe("request_queue_time_seconds", self._started - self._began)

    async def token(self) -> None:
        """The next token; as slow as the script says.

        Raises:
            Invalid: the engine has died.
            Aborted: the engine ends and does not wait for its requests.
        """
        script = self._engine.script
        if delay := script.token if self._made else script.first_token:
            await asyncio.sleep(delay)
        if self._engine.aborted:
            raise Aborted
        if self._engine.dead:
            raise Invalid(dying.DEAD, status=500, kind="InternalServerError")
        self._count(time.monotonic())

    def _count(self, now: float) -> None:
        metrics = self._engine.metrics
        if not self._made:
            self._first = now
            prompt = sum(one.prompt for one in self._wanted)
            self._engine.prefilled(prompt)
            for name in ("prompt_tokens", "prompt_tokens_by_source local_compute", "prefix_cache_queries"):
                metrics.add(name, prompt)
            metrics.observe("time_to_first_token_seconds", now - self._began)
        else:
            metrics.observe("inter_token_latency_seconds", now - self._last)
        metrics.add("generation_tokens")
        self._last = now
        self._made += 1

    def finish(self) -> None:
        """Every token was made and taken."""
        self._complete = True

    def end(self) -> None:
        """It runs no longer, complete or not."""
        metrics = self._engine.metrics
        if not self._started:
            metrics.add("num_requests_waiting", -1)
            metrics.add("num_requests_waiting_by_reason capacity", -1)
            self._engine.prefilled(sum(one.prompt for one in self._wanted))
            return
        metrics.add("num_requests_running", -1)
        if not self._made:
            self._engine.prefilled(sum(one.prompt for one in self._wanted))
        now = time.monotonic()
        for one in self._wanted:
            for _ in range(one.choices):
                reason = one.finish if self._complete else "error" if self._engine.dead else "abort"
                metrics.add(f"request_success {reason}")
                metrics.observe("e2e_request_latency_seconds", now - self._began)
                metrics.observe("request_inference_time_seconds", now - self._started)
                metrics.observe("request_prompt_tokens", one.prompt)
                metrics.observe("request_generation_tokens", len(one.answer))
                metrics.observe("request_params_max_tokens", one.limit)
            metrics.observe("request_params_n", one.choices)


def _sequences(wanted: Sequence[Wanted]) -> int:
    return sum(one.choices for one in wanted)
