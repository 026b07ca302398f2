"""The command line of `vllm serve`, refused as vLLM refuses it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_FLAGS = pathlib.Path(__file__).with_name("flags.txt")
#: The other commands of the program; its usage names them when a flag is unknown.
_COMMANDS = ("chat", "complete", "serve", "launch", "bench", "collect-env", "download-kernels", "preload")
_MORE_COMMANDS = ("run-batch", "snapshot")
_DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
_POWERS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Refused(Exception):
    """vLLM would print this and end: with exit code 2, with 0 after a question for help."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Arguments:
    """What counts of the command line and the environment; -1 as `max_model_len`: the longest that fits.

    Attributes:
        given: every option that was given, by destination, for the log.
    """

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    api_keys: tuple[str, ...]
    max_model_len: int | None
    max_num_seqs: int
    max_num_queued_reqs: int | None
    max_num_queued_tokens: int | None
    tensor_parallel_size: int
    gpu_memory_utilization: float
    shutdown_timeout: int
    tool_call_parser: str | None
    auto_tool_choice: bool
    reasoning_parser: str | None
    pooling: bool
    docs: bool
    load_tracking: bool
    access_log: bool
    quiet_paths: frozenset[str]
    given: Mapping[str, Any]


def parse(argv: Sequence[str], environment: Mapping[str, str] = {}) -> Arguments:
    """What the command line says; `argv` begins with the model.

    Raises:
        Refused: an option is unknown or its value wrong.
    """
    said = vars(_parse([_dashes(argument) for argument in argv]))
    given = {key: value for key, value in said.items() if value is not None and key != "subparser"}
    model = given.get("model_tag") or given.get("model") or _DEFAULT_MODEL
    environment_key = environment.get("VLLM_API_KEY")
    served = given.get("served_model_name")
    return Arguments(
        model=model,
        served_names=tuple(served) if served else (model,),
        host=given.get("host", "0.0.0.0"),
        port=given.get("port", 8000),
        api_keys=tuple(given.get("api_key") or ([environment_key] if environment_key else [])),
        max_model_len=given.get("max_model_len"),
        max_num_seqs=given.get("max_num_seqs", 256),
        max_num_queued_reqs=given.get("max_num_queued_reqs"),
        max_num_queued_tokens=given.get("max_num_queued_tokens"),
        tensor_parallel_size=given.get("tensor_parallel_size", 1),
        gpu_memory_utilization=given.get("gpu_memory_utilization", 0.92),
        shutdown_timeout=given.get("shutdown_timeout", 0),
        tool_call_parser=given.get("tool_call_parser"),
        auto_tool_choice=given.get("enable_auto_tool_choice", False),
        reasoning_parser=given.get("reasoning_parser"),
        pooling=given.get("runner") == "pooling",
        docs=not given.get("disable_fastapi_docs", False),
        load_tracking=given.get("enable_server_load_tracking", False),
        access_log=not given.get("disable_uvicorn_access_log", False),
        quiet_paths=frozenset((given.get("disable_access_log_for_endpoints") or "").split(",")) - {""},
        given=given | {"model": model},
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return _parser().parse_args(["serve", *argv])
    except SystemExit:
        raise Refused(said.getvalue(), 0) from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong by an exception."""

    def error(self, message: str) -> NoReturn:
        if self.prog.endswith("serve"):
            usage = "usage: vllm serve [model_tag] [options]\n"
        else:
            commands = ",".join((*_COMMANDS, *_MORE_COMMANDS))
            usage = f"usage: vllm [-h] [-v]\n            {{{commands}}}\n            ...\n"
        raise Refused(f"{usage}{self.prog}: error: {message}\n")


@functools.cache
def _parser() -> argparse.ArgumentParser:
    """The parser, made once: hundreds of engines use it in one process."""
    top = _Parser(prog="vllm")
    serve = top.add_subparsers(dest="subparser", parser_class=_Parser).add_parser("serve", prog="vllm serve")
    serve.add_argument("model_tag", nargs="?")
    for line in _FLAGS.read_text().splitlines():
        if line.startswith("#"):
            continue
        names, values, kind, choices = line.split(" ")
        _add(serve, names.split(","), values, kind, choices)
    return top


def _add(parser: argparse.ArgumentParser, names: list[str], values: str, kind: str, choices: str) -> None:
    # No default: what is not None was given.
    match kind:
        case "bool":
            # BooleanOptionalAction makes the second name itself.
            first = [name for name in names if not name.startswith("--no-")]
            parser.add_argument(*(first or names[:1]), action=argparse.BooleanOptionalAction, default=None)
        case "true":
            parser.add_argument(*names, action="store_true", default=None)
        case _:
            allowed = [choice for choice in choices.split("|") if choice != "None"]
            parser.add_argument(
                *names,
                nargs=None if values == "1" else values,
                type=_TYPES[kind],
                choices=None if choices == "-" else _typed(kind, allowed),
            )


def _typed(kind: str, choices: list[str]) -> list[Any]:
    return [_TYPES[kind](choice) for choice in choices]


def _dashes(argument: str) -> str:
    """Underscores in the name of an option count as dashes."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _size(text: str) -> int:
    """`4096`, `4k` (thousands) or `4K` (1024)."""
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text.strip()):
        return int(float(found[1]) * _POWERS[found[2]])
    return int(text)


def _size_or_auto(text: str) -> int:
    return -1 if text.strip().lower() in ("auto", "-1") else _size(text)


# Their names are in argparse's messages.
_size.__name__ = "human_readable_int"
_size_or_auto.__name__ = "human_readable_int_or_auto"
_TYPES: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "size": _size,
    "size|auto": _size_or_auto,
    "text": str,
    "json": str,
}
