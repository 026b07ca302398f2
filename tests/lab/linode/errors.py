"""The one way in which an operation of the simulator refuses: an API error with Linode's error body.

Shape and known texts: facts of the Linode API description (`components/responses`) and of recorded replies.
Refusing is raising `ApiError` *before* anything is changed; the server records a violation if a refused
call changed state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Json = Any  # a JSON document as the standard library decodes it


@dataclasses.dataclass
class ApiError(Exception):
    """An answer with a status of 400 or more."""

    status: int
    reason: str
    field: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.status}] {self.reason}" + (f" ({self.field})" if self.field else "")

    def body(self) -> dict[str, Json]:
        error: dict[str, Json] = {"reason": self.reason}
        if self.field is not None:
            error["field"] = self.field
        return {"errors": [error]}


def bad_request(reason: str, field: str | None = None) -> ApiError:
    return ApiError(400, reason, field)


def unauthenticated(reason: str = "Invalid Token") -> ApiError:
    return ApiError(401, reason)


def forbidden(reason: str = "Unauthorized") -> ApiError:
    return ApiError(403, reason)


def not_found() -> ApiError:
    return ApiError(404, "Not found")


def too_many_requests(retry_after: int) -> ApiError:
    return ApiError(429, "Too many requests", headers={"Retry-After": str(retry_after)})
