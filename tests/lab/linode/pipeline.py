"""One request of the simulated API from bytes to answer, without a socket.

Order: route (404, 405), token (401), scope (403), budget (429), parameters and body (400), grants (403),
operation, check of the answer. An answer that does not fit the API description becomes a 500 and a
recorded violation: the simulator must never teach a client something that Linode would not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.linode import auth, filters
from lab.linode import catalogue as catalogue_handlers
from lab.linode.errors import ApiError, Json, bad_request, forbidden
from lab.linode.handlers import HANDLERS, Call, Handler
from lab.linode.journal import Entry, Journal
from lab.linode.model import Token, User
from lab.linode.ratelimit import RateLimiter
from lab.linode.spec import Operation, Spec, paging
from lab.linode.state import State

ALWAYS = {
    "Cache-Control": "max-age=0, no-cache, no-store",
    "Vary": "Authorization, X-Filter",
    "X-Spec-Version": "4.189.0",
}


@dataclass
class Request:
    method: str
    path: str  # without the version prefix
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    peer: str = "127.0.0.1"


@dataclass
class Answer:
    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)


def handler_of(operation: Operation) -> Handler:
    handler = HANDLERS.get(operation.id)
    if handler is not None:
        return handler
    if operation.id in catalogue_handlers.OF_COLLECTION:
        return catalogue_handlers.of_collection
    return catalogue_handlers.static if operation.method == "GET" else catalogue_handlers.unavailable


def parse_body(operation: Operation, content: bytes) -> Json:
    if not operation.has_body:
        return None
    try:
        body = json.loads(content or b"null")
    except ValueError:
        raise bad_request("Invalid JSON") from None
    if not isinstance(body, dict):
        raise bad_request("Invalid JSON")
    error = operation.body_error(body)
    if error is not None:
        raise error
    return body


class Pipeline:
    """The API over one state. `answer` is synchronous: nothing can come between check and effect."""

    def __init__(self, state: State, spec: Spec, limiter: RateLimiter, journal: Journal) -> None:
        self.state = state
        self.spec = spec
        self.limiter = limiter
        self.journal = journal

    def token_of(self, request: Request) -> Token | None:
        """The bearer's token without judging it; for the journal and for faults."""
        value = request.headers.get("Authorization", "").partition(" ")[2].strip()
        return self.state.tokens.get(value)

    def answer(self, request: Request, entry: Entry) -> Answer:
        headers = dict(ALWAYS)
        operation: Operation | None = None
        before = self.state.revision
        try:
            operation, parameters = self.spec.match(request.method, request.path)
            entry.template = operation.template
            token, user = self._authenticate(operation, request, headers)
            budget = user.username if user else f"address {request.peer}"
            headers |= self.limiter.take(budget, collection=operation.paged and request.method == "GET")
            page = paging(request.query) if operation.paged else (1, 1)
            body = entry.body = parse_body(operation, request.content)
            if user is not None:
                error = auth.grant_error(operation, parameters, body, user)
                if error is not None:
                    raise error
            call = Call(self.state, operation, parameters, body, token, user)
            with self.state.transaction(token.name if token else "nobody"):
                result = handler_of(operation)(call)
                entry.wrote = self.state.revision != before
            if operation.paged and isinstance(result, list):
                result = self._page(operation, result, page, request, user)
            answer = Answer(204 if result is None else 200, result, headers)
        except ApiError as error:
            if self.state.revision != before:
                self._violation(f"{request.method} {request.path} was refused but changed the account")
            answer = Answer(error.status, error.body(), {**headers, **error.headers})
        entry.revision = self.state.revision
        return self._checked(operation, answer)

    def _authenticate(
        self, operation: Operation, request: Request, headers: dict[str, str]
    ) -> tuple[Token | None, User | None]:
        if operation.scope is None:
            return None, None
        token = auth.bearer(request.headers.get("Authorization"), self.state.tokens, self.state.now())
        headers["X-OAuth-Scopes"] = " ".join(token.scopes)
        headers["X-Accepted-OAuth-Scopes"] = "*" if operation.scope == auth.ANY_SCOPE else operation.scope
        if not auth.holds(token.scopes, operation.scope):
            raise forbidden()
        return token, self.state.users[token.username]

    def _page(
        self,
        operation: Operation,
        items: list[Json],
        page: tuple[int, int],
        request: Request,
        user: User | None,
    ) -> Json:
        header = request.headers.get("X-Filter")
        seen = items if user is None else auth.visible(user, operation.item, items)
        filterable = operation.filterable if operation.takes_filter else frozenset()
        return filters.page(filters.apply(seen, header, filterable), *page)

    def _violation(self, text: str) -> None:
        self.journal.violations.append(text)

    def _checked(self, operation: Operation | None, answer: Answer) -> Answer:
        if operation is None or answer.status == 204:
            return answer
        reason = operation.answer_error(answer.status, answer.body)
        if reason is None:
            return answer
        self._violation(reason)
        return Answer(500, {"errors": [{"reason": f"Simulator: {reason}"}]}, answer.headers)
