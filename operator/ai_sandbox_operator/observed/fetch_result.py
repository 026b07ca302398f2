"""Why a download ended, from the termination message of the fetch Job's pod. Pure.

The message begins with the name of a `FetchFailure` and ends with its remedy.
"""

from __future__ import annotations

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.fetch.failures import FetchFailure

from . import text
from .finding import Finding

#: Causes that the engine may report too have one reason for both.
REASONS: dict[str, Reason] = {
    "NotFound": Reason.ModelNotFound,
    "GatedNoToken": Reason.ModelGatedNoToken,
    "GatedNotGranted": Reason.ModelGatedNotGranted,
    "BadToken": Reason.HubTokenInvalid,
    "RevisionNotFound": Reason.RevisionNotFound,
    "NoWeights": Reason.NoWeights,
    "DiskFull": Reason.DiskFull,
    "HubUnreachable": Reason.HubUnreachable,
    "ChecksumMismatch": Reason.DownloadDamaged,
    "Stalled": Reason.DownloadStalled,
}


def finding(message: str) -> Finding | None:
    """The cause; None if this is no message of a fetch."""
    name, colon, detail = message.strip().partition(": ")
    if not colon or name not in FetchFailure.__members__:
        return None
    failure = FetchFailure[name]
    remedy = failure.value.remedy
    said = text.begin(detail.strip().removesuffix(remedy).rstrip(" ."))
    if name in REASONS:
        return Finding(REASONS[name], said, permanent=failure.permanent)
    return Finding(Reason.FetchFailed, f"{name}: {said}", advice=remedy, permanent=failure.permanent)
