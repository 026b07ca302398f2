"""Errors of the Kubernetes API server.

KubeError
├── NotFound       404
├── Conflict       409: stale precondition, or another owner of a field
├── AlreadyExists  409: the name is taken
├── Invalid        400, 422: the object can never be accepted as it is
├── Forbidden      403: RBAC, quota or an admission policy
└── Unavailable    429, 5xx, connection errors and time-outs: try again later
"""

from __future__ import annotations


class KubeError(Exception):
    """An answer of the API server that is not a success.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: `reason` of metav1.Status, such as AlreadyExists.
        retry_after: seconds that the server asked to wait, if it did.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None):
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class NotFound(KubeError):
    """The object does not exist."""


class Conflict(KubeError):
    """The object changed since it was read."""


class AlreadyExists(KubeError):
    """Another object has the name."""


class Invalid(KubeError):
    """The request can never succeed as it is."""


class Forbidden(KubeError):
    """The operator may not do this."""


class Unavailable(KubeError):
    """The API server cannot answer now."""


def from_status(status: int, *, reason: str, message: str, retry_after: float | None) -> KubeError:
    """The error of a failed answer."""
    kind: type[KubeError]
    match status:
        case 404:
            kind = NotFound
        case 409:
            kind = AlreadyExists if reason == "AlreadyExists" else Conflict
        case 400 | 422:
            kind = Invalid
        case 401 | 403:
            kind = Forbidden
        case _:
            kind = Unavailable if status == 429 or status >= 500 else KubeError
    return kind(message, status=status, reason=reason, retry_after=retry_after)
