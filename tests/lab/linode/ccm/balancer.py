"""What the cloud controller manager does at Linode for one Service: ensure, update, delete.

Order of an update: throttle, tags, firewall, unused configs, configs; an error stops the rest (so a
firewall that is gone keeps node changes from the NodeBalancer). A new firewall is attached before the old
one is detached. Without an annotation the firewall is detached, and deleted if nothing else uses it. The
NodeBalancer is found by the address in the Service's latest status: without one it does not exist for the
CCM. Source: CCM v0.9.8, cloud/linode/loadbalancers.go, cloud/linode/services/firewalls.go.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.linode.ccm import acl, requests
from lab.linode.ccm import annotations as ann
from lab.linode.ccm.annotations import SyncError
from lab.linode.ccm.kube import Kube, KubeError
from lab.linode.ccm.linode import Linode, LinodeError
from lab.linode.errors import Json

Object = Mapping[str, Json]
TOO_MANY = "too many firewalls attached to a nodebalancer"


@dataclass
class Options:
    cluster_name: str = "lke7"
    region: str = "us-ord"
    tags: tuple[str, ...] = ()
    prefix: str = "ccm"
    default_type: str = "common"
    hostname_only: bool = False
    # Reports on managed LKE contradict each other: True ignores firewall annotations altogether,
    # "updates" honours them at creation only.
    ignore_firewall_annotation: bool | Literal["updates"] = False
    creation_delay: float = 0.0  # seconds before the POST


class Balancer:
    def __init__(self, linode: Linode, kube: Kube, options: Options) -> None:
        self.linode = linode
        self.kube = kube
        self.options = options

    # -- finding -------------------------------------------------------------------------------------------

    async def _ingress(self, service: Object) -> list[dict[str, str]]:
        """Of the Service as it is now; of the one at hand if it cannot be read."""
        metadata = service["metadata"]
        found: Json = None
        try:
            found = await self.kube.get("services", metadata["namespace"], metadata["name"])
        except KubeError:
            found = None
        status = (found or service).get("status", {}).get("loadBalancer", {})
        return list(status.get("ingress") or [])

    async def find(self, service: Object) -> dict[str, Json] | None:
        wanted = ann.of(service).get("nodebalancer-id", "")
        if wanted.isdigit() and int(wanted):
            return await self._by_id(int(wanted))
        return await self._by_status(service)

    async def _by_id(self, ident: int) -> dict[str, Json] | None:
        try:
            return dict(await self.linode.get(f"/nodebalancers/{ident}"))
        except LinodeError as error:
            if error.status == 404:
                return None
            raise

    async def _by_status(self, service: Object) -> dict[str, Json] | None:
        for ingress in await self._ingress(service):
            if ingress.get("ip"):
                family = "ipv6" if ":" in ingress["ip"] else "ipv4"
                found = await self.linode.list_all("/nodebalancers", f'{{"{family}": "{ingress["ip"]}"}}')
                return dict(found[0]) if found else None
            if ingress.get("hostname"):
                every = await self.linode.list_all("/nodebalancers")
                return next((dict(nb) for nb in every if nb["hostname"] == ingress["hostname"]), None)
        return None

    # -- ensuring ------------------------------------------------------------------------------------------

    async def ensure(self, service: Object, nodes: Sequence[Object]) -> list[dict[str, str]]:
        """Create or update; answers the ingress for the Service's status."""
        nodebalancer = await self.find(service)
        if nodebalancer is not None:
            nodebalancer = await self._update(service, nodes, nodebalancer)
        elif ann.of(service).get("nodebalancer-id"):
            raise SyncError(f"LoadBalancer not found for service ({requests.name_of(service)})")
        else:
            nodebalancer = await self._create(service, nodes)
        await self._clean_up_old(service, nodebalancer)
        return requests.status(service, nodebalancer, self.options.hostname_only)

    async def update(self, service: Object, nodes: Sequence[Object]) -> None:
        """New nodes for a NodeBalancer that must exist."""
        nodebalancer = await self.find(service)
        if nodebalancer is None:
            raise SyncError(f"LoadBalancer not found for service ({requests.name_of(service)})")
        await self._clean_up_old(service, nodebalancer)
        await self._update(service, nodes, nodebalancer)

    async def delete(self, service: Object) -> None:
        """Success does not mean deleted: no address in the status, nothing found, or `preserve`."""
        if not service.get("status", {}).get("loadBalancer", {}).get("ingress"):
            return
        nodebalancer = await self.find(service)
        annotations = ann.of(service)
        if nodebalancer is None or ann.lenient_bool(annotations.get("preserve")):
            return
        if "firewall-acl" in annotations:
            await self._delete_acl_firewall(nodebalancer["id"])
        if ann.lenient_bool(annotations.get("retain-reserved-ipv4")) is False:
            await self.linode.delete(f"/networking/reserved/ips/{nodebalancer['ipv4']}")
        await self.linode.delete(f"/nodebalancers/{nodebalancer['id']}")

    def _label(self) -> str:
        return f"{self.options.prefix}-{f'{time.time_ns():x}'[-12:]}"

    def _tags(self, service: Object) -> list[str]:
        return ann.tags(ann.of(service), self.options.cluster_name, self.options.tags)

    async def _tls(self, service: Object) -> dict[int, tuple[str, str]]:
        """Certificates of the https ports."""
        found: dict[int, tuple[str, str]] = {}
        annotations = ann.of(service)
        for port in requests.ports_of(service):
            config = ann.port_config(annotations, port)
            if config.protocol != "https":
                continue
            if not config.tls_secret:
                raise SyncError(f"TLS secret name for port {config.port} is not specified")
            namespace = service["metadata"]["namespace"]
            secret = await self.kube.get("secrets", namespace, config.tls_secret)
            if secret is None:
                raise SyncError(f'secrets "{config.tls_secret}" not found')
            data = {name: base64.b64decode(value).decode().strip() for name, value in secret["data"].items()}
            found[config.port] = (data["tls.crt"], data["tls.key"])
        return found

    async def _create(self, service: Object, nodes: Sequence[Object]) -> dict[str, Json]:
        if not nodes:
            name = requests.name_of(service)
            raise SyncError(f"no nodes available: cluster {self.options.cluster_name}, service {name}")
        annotations, label, tags = ann.of(service), self._label(), self._tags(service)
        firewall_id: int | None = None
        if self.options.ignore_firewall_annotation is not True:
            if "firewall-id" in annotations:
                firewall_id = ann.integer(annotations["firewall-id"])
            elif "firewall-acl" in annotations:
                body = acl.create_body(annotations["firewall-acl"], label, tags, service)
                firewall_id = (await self.linode.post("/networking/firewalls", body))["id"]
        body = requests.create_body(
            service,
            nodes,
            label=label,
            region=self.options.region,
            tags=tags,
            default_type=self.options.default_type,
            firewall_id=firewall_id,
            tls=await self._tls(service),
        )
        if self.options.creation_delay:
            await asyncio.sleep(self.options.creation_delay)
        return dict(await self.linode.post("/nodebalancers", body))

    async def _clean_up_old(self, service: Object, current: Object) -> None:
        """With `nodebalancer-id`, the NodeBalancer of the status is the old one: deleted unless preserved."""
        annotations = ann.of(service)
        if "nodebalancer-id" not in annotations or ann.lenient_bool(annotations.get("preserve")):
            return
        previous = await self._by_status(service)
        if previous is not None and previous["id"] != current["id"]:
            await self.linode.delete(f"/nodebalancers/{previous['id']}")

    # -- updating ------------------------------------------------------------------------------------------

    async def _update(self, service: Object, nodes: Sequence[Object], nb: dict[str, Json]) -> dict[str, Json]:
        if not nodes:
            raise SyncError(f"no nodes available: service {requests.name_of(service)}")
        path, annotations = f"/nodebalancers/{nb['id']}", ann.of(service)
        throttle, tags = ann.throttle(annotations), self._tags(service)
        if throttle != nb["client_conn_throttle"]:
            nb = await self.linode.put(path, requests.update_body(nb, client_conn_throttle=throttle))
        if tags != nb["tags"]:
            nb = await self.linode.put(path, requests.update_body(nb, tags=tags))
        if not self.options.ignore_firewall_annotation:
            await self._firewall(service, nb["id"], tags)
        configs = await self.linode.list_all(f"{path}/configs")
        ports = requests.ports_of(service)
        for unused in configs:
            if unused["port"] not in {port["port"] for port in ports}:
                await self.linode.delete(f"{path}/configs/{unused['id']}")
        tls = await self._tls(service)
        for port in ports:
            await self._port(service, nodes, path, port, configs, tls)
        return nb

    async def _port(
        self,
        service: Object,
        nodes: Sequence[Object],
        path: str,
        port: Object,
        configs: Sequence[Object],
        tls: Mapping[int, tuple[str, str]],
    ) -> None:
        """Configs are matched by port number alone; every update rebuilds them."""
        own = requests.with_tls(requests.config(ann.of(service), port), tls)
        present: dict[str, int] = {}
        current = next((config for config in configs if config["port"] == port["port"]), None)
        if current is not None:
            listed = await self.linode.list_all(f"{path}/configs/{current['id']}/nodes")
            present = {node["address"]: node["id"] for node in listed}
        backends = requests.nodes(nodes, port, own["protocol"], present)
        if current is None:
            current = await self.linode.post(f"{path}/configs", own)
            assert current is not None
            own = requests.rebuild_of_created(current, own)
        await self.linode.post(f"{path}/configs/{current['id']}/rebuild", {**own, "nodes": backends})

    # -- firewalls -----------------------------------------------------------------------------------------

    async def _firewall(self, service: Object, nb_id: int, tags: list[str]) -> None:
        annotations = ann.of(service)
        attached = await self.linode.list_all(f"/nodebalancers/{nb_id}/firewalls")
        if len(attached) > 1:
            raise SyncError(TOO_MANY)
        present = attached[0] if attached else None
        if "firewall-id" in annotations:
            await self._swap(nb_id, present, ann.integer(annotations["firewall-id"]))
        elif "firewall-acl" in annotations:
            await self._acl(service, nb_id, present, annotations["firewall-acl"], tags)
        elif present is not None:
            await self._detach(present["id"], nb_id)
            if not await self.linode.list_all(f"/networking/firewalls/{present['id']}/devices"):
                await self.linode.delete(f"/networking/firewalls/{present['id']}")

    async def _attach(self, firewall_id: int, nb_id: int) -> None:
        body = {"id": nb_id, "type": "nodebalancer"}
        await self.linode.post(f"/networking/firewalls/{firewall_id}/devices", body)

    async def _detach(self, firewall_id: int, nb_id: int) -> bool:
        devices = await self.linode.list_all(f"/networking/firewalls/{firewall_id}/devices")
        for device in devices:
            if device["entity"]["id"] == nb_id:
                await self.linode.delete(f"/networking/firewalls/{firewall_id}/devices/{device['id']}")
                return True
        return False

    async def _swap(self, nb_id: int, present: Object | None, wanted: int) -> None:
        """New before old: with one firewall per NodeBalancer this may never end well."""
        if present is not None and present["id"] == wanted:
            return
        await self._attach(wanted, nb_id)
        if present is not None and not await self._detach(present["id"], nb_id):
            raise SyncError("error in fetching attached nodeBalancer device")

    async def _acl(
        self, service: Object, nb_id: int, present: Object | None, text: str, tags: list[str]
    ) -> None:
        if present is None:
            body = acl.create_body(text, self._label(), tags, service)
            made = await self.linode.post("/networking/firewalls", body)
            await self._attach(made["id"], nb_id)
        elif acl.changed(text, present["rules"], service):
            rules = acl.rules(text, present["label"], service)
            await self.linode.put(f"/networking/firewalls/{present['id']}/rules", rules)

    async def _delete_acl_firewall(self, nb_id: int) -> None:
        attached = await self.linode.list_all(f"/nodebalancers/{nb_id}/firewalls")
        if len(attached) > 1:
            raise SyncError(TOO_MANY)
        if attached:
            ident = attached[0]["id"]
            if len(await self.linode.list_all(f"/networking/firewalls/{ident}/devices")) <= 1:
                await self.linode.delete(f"/networking/firewalls/{ident}")
