"""One sandbox's whole world: a namespace of the lab, Linode, its controller, a proxy, the operator.

Tests, demo and bench use it. Reads and the user's writes go straight to the API server; only the
operator talks through the proxy, so what the proxy sees is what the operator did. The operator has an
account with the rights that the chart gives; a world whose operator was refused anything ends with an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pathlib
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from ai_sandbox_operator.api import kinds, names
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from lab import rights
from lab.cluster.lab import Lab
from lab.hub import Generous, Hub, HubServer
from lab.linode import LinodeSimulator, RateLimits
from lab.linode.ccm import CloudControllerManager
from lab.operator_process import OperatorProcess
from lab.proxy import REFUSED, ApiProxy

T = TypeVar("T")
Object = dict[str, Any]


class World:
    """Everything around one operator.

    Attributes:
        namespace: made for this world, and removed with it.
        home: the operator's namespace: that of its account and its Lease.
        refusals_expected: set by a test that takes rights away; else a refused request fails the world's end.
        hub: the model hub; every model exists there unless it says otherwise.
        api: the user's and the test's way to the API server.
    """

    def __init__(
        self,
        lab: Lab,
        folder: pathlib.Path,
        *,
        limits: RateLimits | None = None,
        through_proxy: bool = True,
        clusterwide: bool = False,
        operator: Mapping[str, Any] | None = None,
        ccm: Mapping[str, Any] | None = None,
        hub: Hub | None = None,
        apart: bool = False,
        granted: Callable[[str], Sequence[Object]] | None = None,
    ) -> None:
        """Nothing is made yet.

        Args:
            apart: the operator has a namespace of its own, as where a test deletes the one of the sandboxes.
            granted: objects that give rights, by namespace, instead of the chart's with its default values.
        """
        self.lab = lab
        self.folder = folder
        self.namespace = f"test-{uuid.uuid4().hex[:8]}"
        self.home = f"{self.namespace}-system" if apart else self.namespace
        self.refusals_expected = False
        self.linode = LinodeSimulator(limits=limits or RateLimits.off())
        self.hub = hub or Hub(generous=Generous())
        self._granted = granted
        self._through_proxy = through_proxy
        self._clusterwide = clusterwide
        self._operator_options = dict(operator or {})
        self._ccm_options = dict(ccm or {})
        self._stack = contextlib.AsyncExitStack()
        self.api: kube_client.KubeClient
        self.hub_url: str
        self.proxy: ApiProxy
        self.ccm: CloudControllerManager
        self.operator: OperatorProcess

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _enter(self) -> None:
        configuration = await kube_client.load_configuration(str(self.lab.plane.kubeconfig))
        self.api = kube_client.KubeClient(configuration)
        self._stack.push_async_callback(self.api.close)
        for namespace in {self.namespace, self.home}:
            await self.api.create(kinds.NAMESPACE, _namespace(namespace))
            self._stack.push_async_callback(self._remove, namespace)
        self._stack.push_async_callback(self._clean)
        authority = self.lab.plane.folder / "ca.crt"
        account = await self._account(authority)
        await self._stack.enter_async_context(self.linode)
        self.hub_url = self._stack.enter_context(HubServer(self.hub))
        self.ccm = CloudControllerManager(
            kubeconfig=self.lab.plane.kubeconfig, linode_url=self.linode.url, **self._ccm_options
        )
        await self._stack.enter_async_context(self.ccm)
        self.proxy = ApiProxy(
            server=self.lab.plane.server,
            # No certificate of the proxy's own: it would count more than the operator's token.
            tls=ssl.create_default_context(cafile=str(authority)),
            account=account,
        )
        await self._stack.enter_async_context(self.proxy)
        proxied = self.proxy.kubeconfig(self.folder / "proxy.kubeconfig")
        self.operator = OperatorProcess(
            kubeconfig=proxied if self._through_proxy else account,
            linode_url=self.linode.url,
            log_path=self.folder / "operator.log",
            namespaces=() if self._clusterwide else (self.namespace,),
            lease_namespace=self.home,
            pod_proxy=self.lab.pod_proxy,
            hub_endpoint=self.hub_url,
            **self._operator_options,
        )
        self.proxy.kill = self.operator.kill
        self.proxy.client = lambda: self.operator.pid
        self._stack.push_async_callback(self._end_operator)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if error is None and not self.refusals_expected:
            refusals = self.refusals()
            assert not refusals, "the operator lacks rights:\n" + "\n".join(refusals)

    def refusals(self) -> list[str]:
        """What the operator may not do and tried."""
        if self._through_proxy:
            return [f"{exchange}: {exchange.refusal}" for exchange in self.proxy.journal if exchange.refusal]
        return [line for line in self.operator.log().splitlines() if REFUSED in line]

    async def apply(
        self, name: str, spec: Mapping[str, Any] | None = None, *, manager: str = "user"
    ) -> Object:
        """Server-side apply of an AISandbox, as a user with kubectl would."""
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": dict(spec or {}),
        }
        path = kinds.SANDBOX.path(self.namespace, name)
        query = {"fieldManager": manager, "force": "true"}
        return await self.api._request(
            "apply", kinds.SANDBOX, "PATCH", path, query=query, body=manifest, content_type=kube_client.APPLY
        )

    async def edit(self, name: str, spec: Mapping[str, Any]) -> Object:
        """Merge into the spec, as `kubectl patch --type=merge` would."""
        return await self.api.merge_patch(kinds.SANDBOX, self.namespace, name, {"spec": dict(spec)})

    async def delete(self, name: str) -> None:
        """Delete a sandbox and return at once."""
        live = await self.api.get(kinds.SANDBOX, self.namespace, name)
        await self.api.delete(kinds.SANDBOX, self.namespace, name, uid=live["metadata"]["uid"])

    async def get(self, kind: kinds.Kind, name: str) -> Object | None:
        """One object, or None."""
        try:
            return await self.api.get(kind, self.namespace, name)
        except errors.NotFound:
            return None

    async def sandbox(self, name: str) -> Object:
        """One sandbox.

        Raises:
            errors.NotFound: there is none.
        """
        return await self.api.get(kinds.SANDBOX, self.namespace, name)

    async def children(self, name: str) -> dict[tuple[str, str], Object]:
        """All watched children of a sandbox, by kind and name."""
        selector = f"{names.MANAGED_BY_SELECTOR},{names.LABEL_SANDBOX}={name}"
        return {
            (kind.kind, item["metadata"]["name"]): item
            for kind in kinds.CHILDREN
            for item in await self.api.list_all(kind, self.namespace, label_selector=selector)
        }

    async def values(self, secret: str) -> dict[str, str]:
        """What a Secret holds, in the clear.

        Raises:
            errors.NotFound: there is none.
        """
        body = await self.api.get(kinds.SECRET, self.namespace, secret)
        return {key: base64.b64decode(value).decode() for key, value in (body.get("data") or {}).items()}

    async def pods(self, name: str, component: str) -> list[Object]:
        """The pods of one component of a sandbox, those that end among them."""
        selector = f"{names.LABEL_SANDBOX}={name},{names.LABEL_COMPONENT}={component}"
        return await self.api.list_all(kinds.POD, self.namespace, label_selector=selector)

    async def access_revision(self, name: str) -> str:
        """The revision of allowlist and keys that the gateway's Secret holds."""
        body = await self.api.get(kinds.SECRET, self.namespace, f"{name}-gateway")
        return str(body["metadata"]["annotations"][names.ANNOTATION_ACCESS_REVISION])

    async def condition(self, name: str, type_: str) -> Object:
        """A condition of the current generation; status Unknown when there is none."""
        live = await self.sandbox(name)
        for condition in (live.get("status") or {}).get("conditions") or ():
            if (
                condition["type"] == type_
                and condition["observedGeneration"] == live["metadata"]["generation"]
            ):
                found: Object = condition
                return found
        return {"type": type_, "status": "Unknown", "reason": "", "message": ""}

    async def until(
        self, name: str, type_: str, status: str = "True", *, reason: str | None = None, timeout: float = 30.0
    ) -> Object:
        """Wait for a condition.

        Raises:
            AssertionError: it did not come; with all conditions and the operator's last lines.
        """

        async def reached() -> Object | None:
            condition = await self.condition(name, type_)
            same = condition["status"] == status and reason in (None, condition["reason"])
            return condition if same else None

        return await self.eventually(reached, timeout=timeout, what=f"{type_}={status} ({reason}) of {name}")

    async def eventually(
        self, probe: Callable[[], Awaitable[T | None]], *, timeout: float = 30.0, what: str = "it"
    ) -> T:
        """Poll until `probe` gives something other than None and False.

        Raises:
            AssertionError: it did not in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = await probe()
            if found is not None and found is not False:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come in {timeout:.0f} s\n{await self.describe()}")
            await asyncio.sleep(0.1)

    async def quiet(self, seconds: float = 2.0, *, timeout: float = 60.0) -> None:
        """Wait until the operator has neither tried to write nor called Linode for that long."""
        deadline = time.monotonic() + timeout
        mark, since = (-1, -1), time.monotonic()
        while time.monotonic() - since < seconds:
            now = (len(self.proxy.attempts()), len(self.linode.journal.mutations(0)))
            if now != mark:
                mark, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise AssertionError(f"the operator does not settle\n{await self.describe()}")
            await asyncio.sleep(0.1)

    async def gone(self, name: str, *, timeout: float = 30.0) -> None:
        """Wait until a sandbox is gone."""

        async def absent() -> bool:
            return await self.get(kinds.SANDBOX, name) is None

        await self.eventually(absent, timeout=timeout, what=f"the end of {name}")

    async def describe(self) -> str:
        """Conditions of all sandboxes and the operator's last lines, for failed assertions."""
        lines = []
        for item in await self.api.list_all(kinds.SANDBOX, self.namespace):
            lines.append(f"{item['metadata']['name']} generation {item['metadata']['generation']}")
            lines += [
                f"  {c['type']}={c['status']} {c['reason']} (generation {c['observedGeneration']}): {c['message']}"
                for c in (item.get("status") or {}).get("conditions") or ()
            ]
        return "\n".join([*lines, "operator:", *self.operator.log().splitlines()[-15:]])

    async def _end_operator(self) -> None:
        self.operator.kill()
        await self.operator.wait()

    async def _clean(self) -> None:
        """Leave nothing that a later world's controller would act on."""
        for kind in (kinds.SANDBOX, kinds.SERVICE):
            for item in await self.api.list_all(kind, self.namespace):
                metadata = item["metadata"]
                with contextlib.suppress(errors.KubeError):
                    await self.api.merge_patch(
                        kind, self.namespace, metadata["name"], {"metadata": {"finalizers": None}}
                    )
                    await self.api.delete(kind, self.namespace, metadata["name"], uid=metadata["uid"])

    async def _account(self, authority: pathlib.Path) -> str:
        """Give the operator its rights and wait until they hold; a kubeconfig with its token."""
        served = () if self._clusterwide else (self.namespace,)
        manifests = self._granted(self.namespace) if self._granted else rights.objects(self.home, served)
        self._stack.push_async_callback(rights.take, self.api, manifests)
        token = await rights.give(self.api, manifests)
        path = self.folder / "operator.kubeconfig"
        configuration = rights.kubeconfig(path, self.lab.plane.server, authority, token)
        # What a test grants may lack one of them on purpose.
        hold = await rights.effective(
            configuration, self.home, self.namespace, timeout=1.0 if self._granted else 10.0
        )
        assert hold or self._granted, "the operator's rights do not hold"
        return configuration

    async def _remove(self, namespace: str) -> None:
        try:
            live = await self.api.get(kinds.NAMESPACE, None, namespace)
        except errors.NotFound:
            return
        await self.api._request(
            "delete",
            kinds.NAMESPACE,
            "DELETE",
            kinds.NAMESPACE.path(None, namespace),
            body={"preconditions": {"uid": live["metadata"]["uid"]}},
        )


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
