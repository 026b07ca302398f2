"""`ai-sandbox-operator fetch`: download a model into a directory, once, completely, verified.

Runs in the fetch Job. Progress goes to standard output as JSON lines; the outcome also into the
container's termination message. The token comes from HF_TOKEN only, never from an argument (I6).
With `--sweep` it removes models that are no longer wanted instead.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from ai_sandbox_operator.fetch import choose, download, hub, store
from ai_sandbox_operator.fetch.failures import FetchError, FetchFailure, classify

TERMINATION_LOG = pathlib.Path("/dev/termination-log")
Tell = Callable[..., None]


def main(argv: Sequence[str]) -> int:
    """Entry point; returns the exit code."""
    arguments = parse(argv)
    # As process 1 of a container, SIGTERM without a handler is ignored and deletion takes the full grace.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return run(arguments, os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what is asked and tell the outcome; returns the exit code."""
    token = environment.get("HF_TOKEN", "").strip() or None

    def tell(event: str, **fields: Any) -> None:
        line = json.dumps({"event": event} | fields)
        print(_scrub(line, token), flush=True)  # noqa: T201 - the protocol of the Job's log

    try:
        if arguments.sweep:
            event, summary = "swept", sweep(arguments)
        else:
            endpoint = environment.get("HF_ENDPOINT") or None
            event, summary = "complete", fetch(arguments, endpoint=endpoint, token=token, tell=tell)
    except SystemExit:
        tell("interrupted")
        raise
    except Exception as error:
        failure = classify(
            error,
            model=arguments.model or "",
            revision=arguments.commit or arguments.revision,
            has_token=token is not None,
        )
        tell("failed", reason=failure.failure.name, permanent=failure.failure.permanent, message=str(failure))
        _termination(arguments.termination_log, _scrub(str(failure), token))
        return failure.failure.code
    tell(event, **summary)
    _termination(arguments.termination_log, json.dumps(summary))
    return 0


def sweep(arguments: argparse.Namespace) -> dict[str, Any]:
    """Remove every model but those to keep; a summary of it.

    Raises:
        Exception: whatever stopped it; see `failures.classify`.
    """
    directory: pathlib.Path = arguments.models_directory
    with store.single_writer(directory, patience=arguments.lock_seconds):
        removed, freed = store.sweep(directory, keep=arguments.keep)
    return {"removed": removed, "bytes": freed}


def fetch(
    arguments: argparse.Namespace, *, endpoint: str | None, token: str | None, tell: Tell
) -> dict[str, Any]:
    """Bring the model to its directory, if it is not there; a summary of it.

    Raises:
        Exception: whatever stopped it; see `failures.classify`.
    """
    model, revision, commit, target = arguments.model, arguments.revision, arguments.commit, arguments.target
    with store.single_writer(target.parent, patience=arguments.lock_seconds):
        marker = store.complete(target, model=model, revision=revision, commit=commit)
        if marker is None:
            repository = hub.Hub(model=model, endpoint=endpoint, token=token)
            listing = repository.list(commit or revision)
            if commit and listing.commit != commit:
                raise FetchError(
                    FetchFailure.RevisionNotFound, f"the hub answers {listing.commit} for commit {commit}"
                )
            marker = store.complete(target, model=model, revision=revision, commit=listing.commit)
            if marker is None:
                _download(arguments, repository, listing, tell)
                marker = store.complete(target, model=model, revision=revision, commit=listing.commit)
    if marker is None:
        raise FetchError(FetchFailure.Unexpected, "the published directory is not complete")
    summary = {name: marker[name] for name in ("model", "revision", "commit", "format", "bytes")}
    return summary | {"revision": revision}


def _download(arguments: argparse.Namespace, repository: hub.Hub, listing: hub.Listing, tell: Tell) -> None:
    target: pathlib.Path = arguments.target
    work = store.prepare(target, listing.commit)

    def one(file: choose.RemoteFile, directory: pathlib.Path) -> None:
        repository.fetch(listing.commit, file, directory)

    def report(now: download.Progress) -> None:
        tell(
            "progress",
            doneBytes=now.done,
            totalBytes=now.total,
            bytesPerSecond=now.bytes_per_second,
            etaSeconds=now.eta_seconds,
        )

    def bring(files: Sequence[choose.RemoteFile], told: Callable[[download.Progress], None]) -> None:
        store.make_room(work, store.missing(work, files))
        pace = download.Pace(report=arguments.report_seconds, stall=arguments.stall_seconds)
        download.download(files, work, one, workers=arguments.max_workers, pace=pace, report=told)

    def read(index: choose.RemoteFile) -> bytes:
        bring([index], lambda _now: None)
        return (work / index.path).read_bytes()

    selection = hub.select(arguments.model, listing, read)
    tell(
        "start",
        model=arguments.model,
        commit=listing.commit,
        format=selection.format,
        files=len(selection.files),
        totalBytes=selection.size,
        missingBytes=sum(file.size for file in store.missing(work, selection.files)),
    )
    bring(selection.files, report)
    store.publish(
        work,
        target,
        model=arguments.model,
        revision=arguments.revision,
        commit=listing.commit,
        selection=selection,
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options of one of the two modes; exits with code 2 if they do not fit together."""
    flags = parser()
    arguments = flags.parse_args(argv)
    if arguments.sweep:
        if arguments.models_directory is None or not arguments.keep:
            flags.error("--sweep needs --models-directory and at least one --keep")
        if arguments.model or arguments.target or arguments.commit:
            flags.error("--sweep is used alone")
    elif not arguments.model or arguments.target is None:
        flags.error("--model and --target are needed")
    elif arguments.keep or arguments.models_directory:
        flags.error("--keep and --models-directory belong to --sweep")
    return arguments


def parser() -> argparse.ArgumentParser:
    """All flags."""
    made = argparse.ArgumentParser(
        prog="ai-sandbox-operator fetch",
        description="Download a model into a directory. A token is taken from HF_TOKEN, a mirror from "
        "HF_ENDPOINT.",
    )
    made.add_argument("--model", type=_model, help="model id, as owner/name")
    made.add_argument("--revision", default="main", help="branch, tag or commit [main]")
    made.add_argument(
        "--commit", type=_commit, help="fetch exactly this commit; --revision is then only recorded"
    )
    made.add_argument("--target", type=pathlib.Path, help="directory to publish to")
    made.add_argument("--max-workers", default=4, type=int, help="files at a time [4]")
    made.add_argument("--report-seconds", default=5.0, type=float, help="seconds between progress lines [5]")
    made.add_argument(
        "--stall-seconds", default=600.0, type=float, help="give up after this long without a byte [600]"
    )
    made.add_argument(
        "--lock-seconds", default=60.0, type=float, help="wait this long for another fetch to end [60]"
    )
    made.add_argument(
        "--sweep", action="store_true", help="instead: remove all models of a volume but those to keep"
    )
    made.add_argument("--models-directory", type=pathlib.Path, help="directory of all models, for --sweep")
    made.add_argument(
        "--keep", action="append", type=_name, metavar="NAME", help="directory in it to keep; repeatable"
    )
    made.add_argument("--termination-log", default=TERMINATION_LOG, type=pathlib.Path, help=argparse.SUPPRESS)
    return made


def _model(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is None:
        raise argparse.ArgumentTypeError("must be owner/name")
    return text


def _commit(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", text) is None:
        raise argparse.ArgumentTypeError("must be 40 hexadecimal digits")
    return text


def _name(text: str) -> str:
    if text in ("", ".", "..") or "/" in text:
        raise argparse.ArgumentTypeError("must be the name of a directory in --models-directory")
    return text


def _scrub(text: str, token: str | None) -> str:
    return text.replace(token, "***") if token else text


def _termination(path: pathlib.Path, text: str) -> None:
    """Write the message where the kubelet looks for it; outside a container there is no such file."""
    if path.exists():
        path.write_text(text + "\n", "utf-8")


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
