"""The process: what starts, in which order it stops, and what ends it.

Any task that dies ends the process with a non-zero code: half an operator is worse than none, since
its status would go on looking healthy. Writing stops first, then the lease is released, kopf is last.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pathlib
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable

from kubernetes.aio import config as aio_config

from ai_sandbox_operator.api import kinds
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors, events, lease, pods
from ai_sandbox_operator.linode import budget, release
from ai_sandbox_operator.linode import client as linode_client
from ai_sandbox_operator.linode import errors as linode_errors
from ai_sandbox_operator.linode import token as linode_token
from ai_sandbox_operator.reconcile import engines, gateways, inputs, keeper, reconciler, resolution

from . import election, health, logs, metrics, queue, resync, sandbox_metrics, store, watch
from .settings import Settings

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DEAF = 70


def run(settings: Settings) -> int:
    """Run the operator until SIGTERM or SIGINT; returns the exit code."""
    logs.configure(style=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_main(settings))
    except aio_config.ConfigException as error:
        print(f"ai-sandbox-operator: no usable cluster: {error}. Give --kubeconfig.", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    except BaseExceptionGroup as group:
        for leaf in _leaves(group):
            log.error("ended by an error", extra={"error": f"{type(leaf).__name__}: {leaf}"})
        deaf, _ = group.split(resync.Deaf)
        return EXIT_DEAF if deaf else EXIT_FAILED
    return 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def orphans(settings: Settings) -> int:
    """Print Linode objects of sandboxes that are gone; returns the exit code."""
    logs.configure(style="text", level="warning")
    try:
        return asyncio.run(_orphans(settings))
    except (aio_config.ConfigException, errors.KubeError, linode_errors.LinodeError) as error:
        print(f"ai-sandbox-operator: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED


async def _main(settings: Settings) -> None:
    configuration = await kube_client.load_configuration(settings.kubeconfig, context=settings.context)
    client = kube_client.KubeClient(configuration, observer=_count_kubernetes)
    allowance = budget.Budget(clock=time.monotonic, wall=time.time)
    breaker = budget.Breaker(clock=time.monotonic)
    linode = linode_client.LinodeClient(
        settings.linode_url,
        token_provider=_token(settings.linode_token_file),
        request_budget=allowance,
        breaker=breaker,
        observer=_count_linode,
    )
    for kind in budget.CallClass:
        metrics.LINODE_BUDGET.labels(kind.name.lower()).set_function(functools.partial(allowance.left, kind))
    metrics.LINODE_CIRCUIT.set_function(lambda: int(breaker.is_open))
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        stack.push_async_callback(linode.close)
        reader = await stack.enter_async_context(pods.PodReader(settings.pod_proxy))
        await _serve(settings, client, linode, reader, stop)


async def _serve(
    settings: Settings,
    client: kube_client.KubeClient,
    linode: linode_client.LinodeClient,
    reader: pods.PodReader,
    stop: asyncio.Event,
) -> None:
    configuration = await kube_client.load_configuration(settings.kubeconfig, context=settings.context)
    work: queue.WorkQueue[store.Key] = queue.WorkQueue()
    seen = store.Store()

    async def lease_client() -> kube_client.KubeClient:
        own = await kube_client.load_configuration(settings.kubeconfig, context=settings.context)
        return kube_client.KubeClient(own, concurrency=2, timeout=lease.ATTEMPT)

    candidate = election.Election(
        lease_client,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}",
    )
    guard: Callable[[], None] = candidate.check if settings.leader_elect else lambda: None
    client.guard = guard
    if not settings.leader_elect:
        candidate.held.set()
    rounds = resync.Resync(
        client=client,
        store=seen,
        add=work.add,
        namespaces=settings.namespaces,
        interval=settings.resync_interval,
    )
    keep = keeper.Keeper(
        linode,
        add=work.add,
        check_interval=settings.linode_check_interval,
        attach_grace=settings.attach_grace,
        leak_grace=settings.leak_grace,
        repaired=_count_repairs,
        guard=guard,
    )

    ask = gateways.Gateways(client, reader.get, add=work.add)
    engine = engines.Engines(client, reader.request, add=work.add)
    hub = resolution.Resolutions(
        client,
        endpoint=settings.hub_endpoint,
        add=work.add,
        observer=lambda outcome: metrics.HUB_REQUESTS.labels(outcome).inc(),
    )

    def before_scrape() -> None:
        metrics.QUEUE_DEPTH.set(len(work))
        metrics.QUEUE_OLDEST.set(work.oldest)
        metrics.SANDBOXES.set(seen.count(kinds.SANDBOX))
        metrics.RESYNC_AGE.set(max(0.0, time.monotonic() - rounds.completed) if rounds.ready.is_set() else 0)
        metrics.LEADER.set(int(candidate.held.is_set()))

    metrics.REGISTRY.register(
        sandbox_metrics.Collector(
            bodies=seen.bodies,
            leading=candidate.held.is_set,
            repairs=lambda: dict(seen.repairs),
            missed=lambda: rounds.missed_total,
        )
    )
    logins = watch.Logins()
    status = health.Health(
        resync_age=lambda: time.monotonic() - rounds.completed,
        resync_interval=settings.resync_interval,
        started=rounds.ready.is_set,
        refused=lambda: logins.refused,
        before_scrape=before_scrape,
    )
    runner, port = await status.serve(settings.health_host, settings.health_port)
    log.info("serving health and metrics", extra={"port": port})

    async def workers() -> None:
        await rounds.ready.wait()
        await candidate.held.wait()
        cluster_id = settings.cluster_id or await _cluster_id(client)
        act = reconciler.Reconciler(
            client=client,
            cache=seen,
            linode=keep,
            gateway=ask,
            engine=engine,
            hub=hub,
            recorder=events.Recorder(client),
            options=inputs.Options(
                cluster_id=cluster_id,
                release=settings.release,
                storage_class=settings.storage_class,
                nodebalancer_ranges=settings.nodebalancer_ranges,
                pod_ranges=settings.pod_ranges,
                operator_namespace=settings.operator_namespace,
                hub_endpoint=settings.hub_endpoint,
                hub_networks=settings.hub_networks,
                dns_networks=settings.dns_networks,
                engine_patience=settings.engine_update_patience,
            ),
        )

        async def timed(key: store.Key) -> float | None:
            began = time.monotonic()
            outcome = metrics.ERROR
            try:
                ended = await act.reconcile(key)
                outcome = metrics.REFUSED if ended.refused else metrics.OK
                return ended.again
            finally:
                metrics.PASSES.labels(outcome).observe(time.monotonic() - began)

        log.info("reconciling", extra={"sandboxes": seen.count(kinds.SANDBOX), "cluster_id": cluster_id})
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(work.work(timed))

    watch_ready, stop_watch = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.TaskGroup() as group:
            ours = [group.create_task(rounds.run()), group.create_task(workers())]
            holding = group.create_task(candidate.hold()) if settings.leader_elect else None
            watching = group.create_task(
                watch.watch(
                    store=seen,
                    add=work.add,
                    configuration=configuration,
                    logins=logins,
                    namespaces=settings.namespaces,
                    ready=watch_ready,
                    stop=stop_watch,
                )
            )
            # kopf installs its own handlers when it starts; ours must come after, or SIGTERM would
            # stop the watch before the writers.
            await watch_ready.wait()
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, stop.set)
            await stop.wait()
            log.info("stopping")
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await keep.close()
            await ask.close()
            await engine.close()
            await hub.close()
            if holding is not None:
                holding.cancel()
                await asyncio.gather(holding, return_exceptions=True)
            stop_watch.set()
            await watching
    finally:
        work.close()
        await keep.close()
        await ask.close()
        await engine.close()
        await hub.close()
        await runner.cleanup()


async def _cluster_id(client: kube_client.KubeClient) -> str:
    """UID of kube-system: as old as the cluster, and the same for every operator on it."""
    namespace = await client.get(kinds.NAMESPACE, None, "kube-system")
    return str(namespace["metadata"]["uid"])


async def _orphans(settings: Settings) -> int:
    configuration = await kube_client.load_configuration(settings.kubeconfig, context=settings.context)
    client = kube_client.KubeClient(configuration)
    linode = linode_client.LinodeClient(
        settings.linode_url, token_provider=_token(settings.linode_token_file)
    )
    try:
        cluster_id = settings.cluster_id or await _cluster_id(client)
        living = await client.list_all(kinds.SANDBOX, None, metadata_only=True)
        report = await release.orphans(
            linode, cluster_id=cluster_id, live_uids={item["metadata"]["uid"] for item in living}
        )
    finally:
        await client.close()
        await linode.close()
    for orphan in report.orphans:
        print(orphan)  # noqa: T201
    print(  # noqa: T201
        f"{len(report.orphans)} orphans among {report.firewalls} firewalls and "
        f"{report.nodebalancers} NodeBalancers of this cluster"
    )
    return 0


def _token(path: str | None) -> Callable[[], str | None]:
    """The token's source; both are read at each call."""
    return linode_token.from_file(pathlib.Path(path)) if path else lambda: os.environ.get("LINODE_TOKEN")


def _count_kubernetes(verb: str, kind: str, status: int) -> None:
    metrics.KUBERNETES_REQUESTS.labels(verb, kind, str(status)).inc()


def _count_linode(call: linode_client.Call) -> None:
    metrics.LINODE_REQUESTS.labels(call.method, call.route, str(call.status)).inc()
    metrics.LINODE_SECONDS.observe(call.seconds)


def _count_repairs(_key: store.Key, what: tuple[str, ...]) -> None:
    metrics.REPAIRS.inc(len(what))
