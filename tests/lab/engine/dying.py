"""What the engine says when it dies while it serves, and when it is asked to end. Pure."""

from __future__ import annotations

from lab.engine import startup

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_CAUSE = "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
_CLIENT = (
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core_client.py", line 1235, '
    "in get_output_async"
)


def crash(moment: float) -> list[str]:
    """The engine process dies; the server notices by its own watch a few seconds later."""
    core = ("EngineCore encountered a fatal error.", "Traceback (most recent call last):", _CAUSE)
    api = (
        "AsyncLLM output_handler failed.",
        "Traceback (most recent call last):",
        _CLIENT,
        "    raise self._format_exception(outputs) from None",
        f"vllm.v1.engine.exceptions.EngineDeadError: {DEAD}",
    )
    return [
        *(startup.record(moment, startup.CORE, "core.py:1511", line, "ERROR") for line in core),
        *(startup.record(moment, startup.API, "async_llm.py:906", line, "ERROR") for line in api),
    ]


def shutdown(moment: float, timeout: int, running: int) -> list[str]:
    """SIGTERM, up to the moment when the engine waits for its requests."""
    mode = "drain" if timeout else "abort"
    api = (
        ("launcher.py:254", "API server: shutdown triggered"),
        ("launcher.py:270", f"API server: stopping engine client mode={mode} timeout={timeout}s"),
    )
    core = [
        ("core.py:1454", "EngineCore: trigger received signal=SIGTERM"),
        ("core.py:1635", f"EngineCore: start mode={mode} timeout={timeout}s"),
    ]
    if running:
        rest = f"draining in-flight requests count={running} timeout={timeout}s"
        waits = f"EngineCore: {rest if timeout else f'aborting in-flight requests count={running}'}"
        core.append(("core.py:1655", waits))
    return [
        *(startup.record(moment, startup.API, source, f"[shutdown] {text}") for source, text in api),
        *(startup.record(moment, startup.CORE, source, f"[shutdown] {text}") for source, text in core),
    ]


def stopped(moment: float) -> list[str]:
    """The end of a shutdown."""
    core = "EngineCore: request processing complete; starting resource teardown"
    api = (
        ("launcher.py:279", "API server: engine client stopped"),
        ("launcher.py:282", "API server: signalling HTTP server shutdown"),
        ("launcher.py:304", "API server: shutting down FastAPI HTTP server"),
    )
    return [
        startup.record(moment, startup.CORE, "core.py:1666", f"[shutdown] {core}"),
        *(startup.record(moment, startup.API, source, f"[shutdown] {text}") for source, text in api),
        "INFO:     Shutting down",
        "INFO:     Waiting for application shutdown.",
        "INFO:     Application shutdown complete.",
    ]
