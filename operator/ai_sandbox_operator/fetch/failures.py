"""Why a fetch fails, in one enum: for exit codes, the termination message and the diagnosis.

A permanent failure exits with the code that ends the Job at once (its pod failure policy names it);
each of the others has its own. The reason's name begins the termination message, so reasons stay
apart even where codes do not. Messages end with what to do and never hold the token (I6).
Sources: huggingface_hub 2.4 `errors.py` and `utils/_http.py` (which status becomes which error); its
errors are matched by name along the class's ancestry, so that this module needs no import of it.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
from typing import Any
from urllib.parse import urlsplit

#: `desired.fetch` ends the Job on this exit code.
EXIT_PERMANENT = 78
MAX_DETAIL = 600


@dataclasses.dataclass(frozen=True)
class Doc:
    """Exit code and remedy of a failure."""

    name: str
    code: int
    remedy: str


@enum.unique
class FetchFailure(enum.Enum):
    """Reasons. Member names are part of the interface: the diagnosis reads them."""

    NotFound = Doc(
        "NotFound",
        EXIT_PERMANENT,
        "Correct spec.model.id; for a private model set spec.model.tokenSecretRef.",
    )
    GatedNoToken = Doc(
        "GatedNoToken",
        EXIT_PERMANENT,
        "Accept the model's terms on its page and set spec.model.tokenSecretRef to a token of that account.",
    )
    GatedNotGranted = Doc(
        "GatedNotGranted",
        EXIT_PERMANENT,
        "Ask for access on the model's page with the token's account, and let the token read gated "
        "repositories.",
    )
    BadToken = Doc("BadToken", EXIT_PERMANENT, "Replace the token that spec.model.tokenSecretRef names.")
    RevisionNotFound = Doc("RevisionNotFound", EXIT_PERMANENT, "Correct spec.model.revision.")
    NoWeights = Doc("NoWeights", EXIT_PERMANENT, "Choose a model with weights in safetensors format.")
    FileTooLarge = Doc(
        "FileTooLarge", EXIT_PERMANENT, "Choose a model whose weights are in files of at most 50 GB."
    )
    DiskFull = Doc("DiskFull", EXIT_PERMANENT, "Raise spec.storage.modelCacheSize.")
    HubUnreachable = Doc(
        "HubUnreachable", 69, "Wait; the Job tries again. If it stays, check the way to the hub."
    )
    RateLimited = Doc(
        "RateLimited",
        76,
        "Wait; the Job tries again. With spec.model.tokenSecretRef the hub allows more requests.",
    )
    ChecksumMismatch = Doc("ChecksumMismatch", 65, "Wait; the Job fetches the file again.")
    Stalled = Doc("Stalled", 75, "Wait; the Job tries again and keeps complete files.")
    Locked = Doc("Locked", 73, "Wait; another fetch writes to this volume.")
    NothingToKeep = Doc("NothingToKeep", 66, "Fetch the model first; nothing was removed.")
    Unexpected = Doc("Unexpected", 70, "Read the log of the fetch pod.")

    @property
    def code(self) -> int:
        return self.value.code

    @property
    def permanent(self) -> bool:
        """Whether repeating is pointless until a person changes something."""
        return self.code == EXIT_PERMANENT


class FetchError(Exception):
    """A fetch that cannot go on."""

    def __init__(self, failure: FetchFailure, detail: str) -> None:
        self.failure = failure
        self.detail = " ".join(detail.split())[:MAX_DETAIL].rstrip(". ")
        super().__init__(f"{failure.name}: {self.detail}. {failure.value.remedy}")


def classify(error: BaseException, *, model: str, revision: str, has_token: bool) -> FetchError:
    """What an error of huggingface_hub, of the network or of the disk means."""
    if isinstance(error, FetchError):
        return error
    chain = _causes(error)
    for one in chain:
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return FetchError(FetchFailure.DiskFull, "the volume is full")
    for one in chain:
        found = _of_hub(one, model=model, revision=revision, has_token=has_token)
        if found is not None:
            return found
    if any(is_damage(one) for one in chain):
        return FetchError(
            FetchFailure.ChecksumMismatch, "a file arrived with another size than the hub names"
        )
    if any(isinstance(one, json.JSONDecodeError) for one in chain):
        return FetchError(
            FetchFailure.HubUnreachable, "what answers in the hub's place does not speak its protocol"
        )
    if any(_is_network(one) for one in chain):
        return FetchError(
            FetchFailure.HubUnreachable, f"the hub does not answer ({type(chain[-1]).__name__})"
        )
    return FetchError(FetchFailure.Unexpected, f"{type(error).__name__}: {error}")


def is_damage(error: BaseException) -> bool:
    """Whether a file arrived, but not as the hub holds it. Fetching it once more may help at once."""
    if isinstance(error, FetchError):
        return error.failure is FetchFailure.ChecksumMismatch
    return "Consistency check failed" in str(error)


def _of_hub(error: BaseException, *, model: str, revision: str, has_token: bool) -> FetchError | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is not None and _is_storage(response):
        # Its addresses expire, so its refusals say nothing about the token.
        return FetchError(FetchFailure.HubUnreachable, f"the hub's storage answered with status {status}")
    if "GatedRepoError" in kinds:
        if status == 401 and not has_token:
            return FetchError(FetchFailure.GatedNoToken, f"{model} is gated and there is no token")
        if status == 401:
            return FetchError(FetchFailure.BadToken, f"{model} is gated and the hub does not know the token")
        return FetchError(
            FetchFailure.GatedNotGranted, f"{model} is gated and the token's account has no access"
        )
    if "RevisionNotFoundError" in kinds:
        return FetchError(FetchFailure.RevisionNotFound, f"{model} has no revision {revision}")
    if "EntryNotFoundError" in kinds and status == 404:
        return FetchError(FetchFailure.NoWeights, f"{model} lists a file that it does not have")
    if kinds & {"RepositoryNotFoundError", "DisabledRepoError", "HFValidationError"}:
        hidden = "" if has_token else ", or it is private and there is no token"
        return FetchError(FetchFailure.NotFound, f"the hub has no model {model}{hidden}")
    match status:
        case None:
            return None
        case 401 if has_token:
            return FetchError(FetchFailure.BadToken, "the hub does not know the token")
        case 401:
            # The library knows this answer as "not found" only where the hub is reached by https.
            return FetchError(
                FetchFailure.NotFound, f"the hub has no model {model}, or it is private and there is no token"
            )
        case 403:
            return FetchError(FetchFailure.GatedNotGranted, f"the token may not read {model}")
        case 404:
            return FetchError(FetchFailure.NotFound, f"the hub has no model {model}")
        case 429:
            return FetchError(FetchFailure.RateLimited, "the hub answers too many requests with status 429")
        case _:
            return FetchError(FetchFailure.HubUnreachable, f"the hub answered with status {status}")


def _is_storage(response: Any) -> bool:
    """Whether an answer is not the hub's own but that of the storage which it redirects to."""
    path = urlsplit(str(getattr(response, "url", ""))).path
    return bool(path) and "/resolve/" not in path and "/resolve-cache/" not in path and "/api/" not in path


def _is_network(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        kinds & {"TransportError", "ConnectionError", "TimeoutError", "gaierror", "LocalEntryNotFoundError"}
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came from, outermost first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found
