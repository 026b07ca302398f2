"""kopf, reduced to what it does best: LIST, WATCH, reconnect. The only module that imports it.

kopf decides nothing here: every event of every kind goes to the store, and the key of its sandbox to
the queue. No change handlers (they keep state in annotations), no timers, no daemons, no finalizer.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import kopf
from kubernetes.aio import client as aio

from ai_sandbox_operator.api import kinds, names

from . import metrics
from . import store as stores

log = logging.getLogger(__name__)

#: Reconnection of one watch; kopf reconnects from the last resource version without a new LIST.
SERVER_TIMEOUT = 600
#: Credentials last ten minutes, so more logins than these within so many seconds are answers to refusals.
LOGINS, LOGINS_WITHIN = 3, 60.0
#: Seconds before a further login. kopf itself would log in again at once, for as long as it is refused.
LOGIN_PAUSE = 5.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """We keep no state on objects; without this kopf copies every object once per event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:  # noqa: ARG002
        return {}

    def fetch(self, *, body: Any) -> Any:  # noqa: ARG002
        return None

    def store(self, **_: Any) -> None:
        pass


class _Backoffs:
    """Endless and re-iterable: a finite or spent sequence would end the operator after a minute of errors."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, no secret
            delay = min(delay * 2, 30.0)


class Logins:
    """When kopf logged in: it does so when credentials expire, and after each 401."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=LOGINS + 1)

    def note(self) -> None:
        """One more login."""
        self._times.append(self._clock())

    @property
    def refused(self) -> bool:
        """Whether the API server refuses the credentials of the watch again and again."""
        return len(self._times) > LOGINS and self._clock() - self._times[0] < LOGINS_WITHIN


def settings() -> kopf.OperatorSettings:
    """kopf's settings; each differs from the default for the reason beside it."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # a Lease of ours elects the leader
    chosen.scanning.disabled = True  # no watch, and no rights, on CRDs and namespaces
    chosen.watching.server_timeout = SERVER_TIMEOUT
    chosen.watching.client_timeout = SERVER_TIMEOUT + 10
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 1.0
    chosen.watching.chunk_size = 250  # else a whole list and its parsed copy are in memory at once
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = _Backoffs()
    chosen.networking.enforce_retry_after = True  # API priority and fairness
    chosen.posting.enabled = False  # events are ours
    chosen.execution.max_workers = 1  # there are no synchronous handlers
    chosen.queueing.idle_timeout = 1
    chosen.queueing.exit_timeout = 1
    chosen.process.ultimate_exiting_timeout = 25  # below the pod's grace period of 30 s
    # kopf strips the finalizer of this name from every object it sees; ours is another.
    chosen.persistence.finalizer = f"kopf.{names.GROUP}/unused"
    chosen.persistence.diffbase_storage = _NoDiffBase()
    for kind in kinds.CHILDREN:
        selector = (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)
        chosen.watching.label_selectors[selector] = names.MANAGED_BY_SELECTOR
    return chosen


def registry(
    store: stores.Store,
    add: Callable[[stores.Key], None],
    configuration: aio.Configuration,
    logins: Logins,
) -> kopf.OperatorRegistry:
    """One and the same handler for every kind."""
    chosen = kopf.OperatorRegistry()

    @kopf.on.login(registry=chosen)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        logins.note()
        if logins.refused:
            log.warning("the API server refuses the credentials of the watch")
            await _pause(LOGIN_PAUSE)
        return await _connection(configuration)

    for kind in kinds.WATCHED:
        selector = (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)

        @kopf.on.event(*selector, registry=chosen, id=f"watch-{kind.plural}")
        async def note(event: Any, kind: kinds.Kind = kind, **_: Any) -> None:
            metrics.WATCH_EVENTS.labels(kind.kind).inc()
            key = store.observe(kind, event["type"], event["object"])
            if key is not None:
                add(key)

    return chosen


async def watch(
    *,
    store: stores.Store,
    add: Callable[[stores.Key], None],
    configuration: aio.Configuration,
    logins: Logins,
    namespaces: Sequence[str],
    ready: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Watch until `stop`. `ready` is set once kopf has installed its handlers of signals.

    Raises:
        RuntimeError: kopf ended by itself; the process must not go on half deaf.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    scope: dict[str, Any] = {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    await kopf.operator(
        registry=registry(store, add, configuration, logins),
        settings=settings(),
        standalone=True,
        # Else kopf asks the accounts for the user's name, and the image's user has none; and DNS for its own.
        identity=cast(Any, socket.gethostname()),
        ready_flag=ready,
        stop_flag=stop,
        **scope,
    )
    if not stop.is_set():
        raise RuntimeError("the watch ended by itself")


#: A name of its own, so that a test can hold it without holding kopf.
_pause = asyncio.sleep


async def _connection(configuration: aio.Configuration) -> kopf.ConnectionInfo:
    """Credentials for kopf, read anew each time: the kubelet rotates the token.

    The expiration makes each answer a new one; kopf refuses a login that returns the same twice, and
    would end on a single stray 401.
    """
    headers: dict[str, str] = {}
    client = aio.ApiClient(configuration)
    try:
        await client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
    finally:
        await client.close()  # type: ignore[no-untyped-call]
    # In a pod the scheme is spelled "bearer", with a kubeconfig "Bearer".
    _, _, token = next((v for k, v in headers.items() if k.lower() == "authorization"), "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        expiration=datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=10),
    )
