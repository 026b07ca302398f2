"""The metrics of one engine, with the names, labels and buckets of vLLM 0.32.0.

Source: vllm/v1/metrics/loggers.py and buckets.py, and `/metrics` of a running server (recordings/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

_LABELS = ("model_name", "engine")
_LATENCY = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    *(120, 240, 480, 960, 1920, 7680),
)
_FIRST = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1),
    *(2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1),
    *(2.5, 5, 7.5, 10, 20, 40, 80),
)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
_ITERATION = tuple(float(1 << power) for power in (0, *range(3, 15)))
_COUNT = (1, 2, 5, 10, 20)
#: Counters without further labels.
_COUNTERS = (
    *("estimated_flops_per_gpu", "estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu"),
    *(
        "prefix_cache_queries",
        "prefix_cache_hits",
        "external_prefix_cache_queries",
        "external_prefix_cache_hits",
    ),
    *("mm_cache_queries", "mm_cache_hits", "num_preemptions", "prompt_tokens", "prompt_tokens_cached"),
    "generation_tokens",
)
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
#: With one more label: its name and its values.
_MORE_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "prompt_tokens_by_source": ("source", ("local_compute", "local_cache_hit", "external_kv_transfer")),
    "prompt_tokens_cached_by_source": ("source", ("device", "host", "p2p", "disk", "external_unspecified")),
    "request_success": ("finished_reason", ("stop", "length", "abort", "error", "repetition")),
}
_MORE_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "num_requests_waiting_by_reason": ("reason", ("capacity", "deferred")),
    "engine_sleep_state": ("sleep_state", ("awake", "weights_offloaded", "discard_all")),
}
_HISTOGRAMS: Mapping[str, Sequence[float]] = {
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
    "iteration_tokens_total": _ITERATION,
    "request_max_num_generation_tokens": _TOKENS,
    "request_params_n": _COUNT,
    "request_params_max_tokens": _TOKENS,
    "time_to_first_token_seconds": _FIRST,
    "inter_token_latency_seconds": _BETWEEN,
    "request_time_per_output_token_seconds": _BETWEEN,
    "e2e_request_latency_seconds": _LATENCY,
    "request_queue_time_seconds": _LATENCY,
    "request_inference_time_seconds": _LATENCY,
    "request_prefill_time_seconds": _LATENCY,
    "request_decode_time_seconds": _LATENCY,
    "request_num_preemptions": (1, 2, 3, 4, 5, 10, 20),
    "request_prefill_kv_computed_tokens": _TOKENS,
}
#: Labels of the cache's configuration, all that the real one has, with what a plain start says.
_CACHE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("cache_hit_alignment_tokens", "hash_block_size", "kv_cache_layout", "kv_offloading_size"),
            *("mamba_block_size", "mamba_page_size_padded", "num_cpu_blocks", "num_gpu_blocks_override"),
            *("prefix_match_unit", "skip_page_size_padded", "sliding_window", "kv_cache_memory_bytes"),
        ),
        "None",
    ),
    **dict.fromkeys(
        (
            *("enable_mamba_shared_prefix_checkpoint", "is_attention_free", "kv_sharing_fast_prefill"),
            *("use_kda_recoverssm", "use_replayssm", "user_specified_block_size"),
        ),
        "False",
    ),
    **dict.fromkeys(("_block_size_resolved", "enable_prefix_caching", "swa_bounded_replay"), "True"),
    **dict.fromkeys(("block_size", "effective_attention_block_size", "replayssm_buffer_len"), "16"),
    **dict.fromkeys(("cache_dtype", "mamba_cache_dtype", "mamba_ssm_cache_dtype"), "auto"),
    "kv_cache_dtype_skip_layers": "[]",
    "kv_offloading_backend": "native",
    "mamba_cache_mode": "none",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
}
_PRECISE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5),
    *(7.5, 10, 30, 60),
)


class Metrics:
    """Counters of one engine.

    Args:
        model: the first served name.
        cache: what is known of the KV cache, by label.
    """

    def __init__(self, model: str, cache: Mapping[str, str]) -> None:
        self._registry = CollectorRegistry()
        self._own = (model, "0")
        self._metrics: dict[str, Any] = {}
        for name in _COUNTERS:
            self._metrics[name] = self._make(Counter, name)
        for name in _GAUGES:
            self._metrics[name] = self._make(Gauge, name)
        for kinds, kind in ((_MORE_COUNTERS, Counter), (_MORE_GAUGES, Gauge)):
            for name, (label, values) in kinds.items():
                self._more(kind, name, label, values)
        self._metrics["engine_sleep_state awake"].set(1)
        about = ("model_name", "reason")
        rejected = Counter("vllm:admission_rejections", "Rejections.", about, registry=self._registry)
        for reason in ("max_num_queued_reqs", "max_num_queued_tokens"):
            self._metrics[f"admission_rejections {reason}"] = rejected.labels(model, reason)
        for name, buckets in _HISTOGRAMS.items():
            self._metrics[name] = self._make(Histogram, name, buckets=buckets)
        labels = {**_CACHE, **cache, "engine": "0"}
        info = Gauge("vllm:cache_config_info", "Cache.", tuple(labels), registry=self._registry)
        info.labels(**labels).set(1)
        self._http()

    def _make(self, kind: Any, name: str, **more: Any) -> Any:
        made = kind(f"vllm:{name}", f"{name} of the engine.", _LABELS, registry=self._registry, **more)
        return made.labels(*self._own)

    def _more(self, kind: Any, name: str, label: str, values: Sequence[str]) -> None:
        made = kind(f"vllm:{name}", f"{name} of the engine.", (*_LABELS, label), registry=self._registry)
        for value in values:
            self._metrics[f"{name} {value}"] = made.labels(*self._own, value)

    def _http(self) -> None:
        """Of the web server, which vLLM leaves to a library."""
        registry = self._registry
        about = ("handler", "method", "status")
        self._requests = Counter("http_requests", "Requests.", about, registry=registry)
        self._sizes = [
            Summary(f"http_{way}_size_bytes", "Size.", ("handler",), registry=registry)
            for way in ("request", "response")
        ]
        self._precise = Histogram(
            "http_request_duration_highr_seconds", "Latency.", registry=registry, buckets=_PRECISE
        )
        self._latency = Histogram(
            "http_request_duration_seconds",
            "Latency.",
            ("handler", "method"),
            registry=registry,
            buckets=(0.1, 0.5, 1),
        )

    def add(self, name: str, amount: float = 1) -> None:
        """Add to a counter or gauge, named without `vllm:`, with the value of its further label."""
        self._metrics[name].inc(amount)

    def put(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._metrics[name].set(value)

    def observe(self, name: str, value: float) -> None:
        """One observation of a histogram."""
        self._metrics[name].observe(value)

    def http(self, handler: str, method: str, status: int, seconds: float, sizes: Sequence[int]) -> None:
        """One request; `handler` is the path of the route, `none` without one."""
        self._requests.labels(handler, method, f"{status // 100}xx").inc()
        for summary, size in zip(self._sizes, sizes, strict=True):
            summary.labels(handler).observe(size)
        self._precise.observe(seconds)
        self._latency.labels(handler, method).observe(seconds)

    def text(self) -> str:
        """As Prometheus reads it."""
        return generate_latest(self._registry).decode()
