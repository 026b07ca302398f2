"""`ai-sandbox-operator fetch`: download a model into a directory, once, completely, verified.

Runs in the fetch Job. Progress goes to standard output as JSON lines; the outcome also into the
container's termination message. The token comes from HF_TOKEN only, never from an argument (I6).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from ai_sandbox_operator.desired import models
from ai_sandbox_operator.fetch import choose, download, hub, store
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure, classify

TERMINATION_LOG = pathlib.Path("/dev/termination-log")


def main(argv: Sequence[str]) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # As process 1 of a container, SIGTERM without a handler is ignored and deletion takes the full grace.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return run(arguments, os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Fetch and tell the outcome; returns the exit code."""
    token = environment.get("HF_TOKEN", "").strip() or None

    def tell(event: str, **fields: Any) -> None:
        line = json.dumps({"event": event} | fields)
        print(_scrub(line, token), flush=True)  # noqa: T201 - the protocol of the Job's log

    try:
        marker = fetch(
            model=arguments.model,
            revision=arguments.revision,
            target=arguments.target,
            workers=arguments.max_workers,
            endpoint=environment.get("HF_ENDPOINT") or None,
            token=token,
            pace=download.Pace(report=arguments.report_seconds, stall=arguments.stall_seconds),
            tell=tell,
        )
    except Exception as error:
        failure = classify(
            error, model=arguments.model, revision=arguments.revision, has_token=token is not None
        )
        tell("failed", reason=failure.failure.name, permanent=failure.failure.permanent, message=str(failure))
        _termination(arguments.termination_log, _scrub(str(failure), token))
        return failure.failure.code
    summary = {name: marker[name] for name in ("model", "revision", "commit", "format", "bytes")}
    tell("complete", **summary)
    _termination(arguments.termination_log, json.dumps(summary))
    return 0


def fetch(
    *,
    model: str,
    revision: str,
    target: pathlib.Path,
    workers: int,
    endpoint: str | None,
    token: str | None,
    pace: download.Pace,
    tell: Callable[..., None],
) -> dict[str, Any]:
    """The marker of the complete model.

    Raises:
        Exception: whatever stopped it; see `failures.classify`.
    """
    with store.single_writer(target):
        present = store.read_marker(target, model=model, revision=revision)
        if present is not None:
            return present
        repository = hub.Hub(model=model, endpoint=endpoint, token=token)
        listing = repository.list(revision)
        work = store.prepare(target, listing.commit)

        def one(file: choose.RemoteFile, directory: pathlib.Path) -> None:
            repository.fetch(listing.commit, file, directory)

        selection = _select(listing, work, one, consolidated=_consolidated(model))
        todo = store.missing(work, selection.files)
        tell(
            "start",
            model=model,
            commit=listing.commit,
            format=selection.format,
            files=len(selection.files),
            totalBytes=selection.size,
            missingBytes=sum(file.size for file in todo),
        )
        store.check_space(work, todo)
        download.download(
            selection.files,
            work,
            one,
            workers=workers,
            pace=pace,
            report=lambda now: tell(
                "progress", downloadedBytes=now.done, totalBytes=now.total, etaSeconds=now.eta_seconds
            ),
        )
        store.publish(
            work, target, model=model, revision=revision, commit=listing.commit, selection=selection
        )
    marker = store.read_marker(target, model=model, revision=revision)
    if marker is None:
        raise FetchError(FetchFailure.Unexpected, "the published directory is not complete")
    return marker


def _select(
    listing: hub.Listing, work: pathlib.Path, fetch_one: download.FetchOne, *, consolidated: bool
) -> choose.Selection:
    index = choose.needs_index(listing.files, consolidated=consolidated)
    if index is None:
        return choose.choose(listing.files, consolidated=consolidated)
    store.check_space(work, [index])
    fetch_one(index, work)
    store.verify(work / index.path, index)
    return choose.choose(
        listing.files, consolidated=consolidated, indexed=hub.indexed_files(work / index.path)
    )


def _consolidated(model: str) -> bool:
    """Whether the engine is told to load Mistral's format: the same table as its flags."""
    flags = models.flags(model)
    return ("--load-format", "mistral") in itertools.pairwise(flags)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ai-sandbox-operator fetch",
        description="Download a model into a directory. A token is taken from HF_TOKEN, a mirror from "
        "HF_ENDPOINT.",
    )
    parser.add_argument("--model", required=True, type=_model, help="model id, as owner/name")
    parser.add_argument("--revision", default="main", help="branch, tag or commit [main]")
    parser.add_argument("--target", required=True, type=pathlib.Path, help="directory to publish to")
    parser.add_argument("--max-workers", default=4, type=int, help="files at a time [4]")
    parser.add_argument(
        "--report-seconds", default=5.0, type=float, help="seconds between progress lines [5]"
    )
    parser.add_argument(
        "--stall-seconds", default=600.0, type=float, help="give up after this long without a byte [600]"
    )
    parser.add_argument(
        "--termination-log", default=TERMINATION_LOG, type=pathlib.Path, help=argparse.SUPPRESS
    )
    return parser


def _model(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is None:
        raise argparse.ArgumentTypeError("must be owner/name")
    return text


def _scrub(text: str, token: str | None) -> str:
    return text.replace(token, "***") if token else text


def _termination(path: pathlib.Path, text: str) -> None:
    """Write the message where the kubelet looks for it; outside a container there is no such file."""
    if path.exists():
        path.write_text(text + "\n", "utf-8")


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
