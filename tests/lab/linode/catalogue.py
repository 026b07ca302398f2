"""The rest of the account: Linodes, addresses, profile, events, and the read-only catalogue.

Regions, plans, prices, LKE clusters and pools, templates and volumes answer with the examples of the API
description (`static` may be edited by a test: operation id -> answer); they are never written by a request.
"""

from __future__ import annotations

import copy

from lab.linode import firewalls
from lab.linode.errors import ApiError, Json, bad_request, not_found
from lab.linode.handlers import Call, handles
from lab.linode.model import Linode, ReservedIP, render_event, render_firewall, timestamp
from lab.linode.spec import load
from lab.linode.state import State

# Operation of one object -> operation of its collection and the attribute that names it.
OF_COLLECTION = {
    "get-networking-firewalls-templates-slug": ("get-networking-firewalls-templates", "slug", "slug"),
    "get-linode-type": ("get-linode-types", "typeId", "id"),
    "get-lke-cluster": ("get-lke-clusters", "clusterId", "id"),
    "get-lke-node-pool": ("get-lke-cluster-pools", "poolId", "id"),
    "get-region": ("get-regions", "regionId", "id"),
    "get-volume": ("get-volumes", "volumeId", "id"),
}


def example(operation_id: str) -> Json:
    """A copy of the description's example; the items of a page as a list."""
    found = copy.deepcopy(load().operations[operation_id].example)
    return found["data"] if load().operations[operation_id].paged else found


def static(call: Call) -> Json:
    """An answer that a test may set per state, else the example."""
    given = call.state.static.get(call.operation.id)
    return copy.deepcopy(given) if given is not None else example(call.operation.id)


def of_collection(call: Call) -> Json:
    collection, parameter, attribute = OF_COLLECTION[call.operation.id]
    given = call.state.static.get(collection)
    items = example(collection) if given is None else copy.deepcopy(given)
    for item in items:
        if item.get(attribute) == call.parameters[parameter]:
            return item
    raise not_found()


@handles("get-region-availability")
def region_availability(call: Call) -> Json:
    """A bare array, unlike the collection of all regions."""
    given = call.state.static.get("get-regions-availability")
    items = example("get-regions-availability") if given is None else copy.deepcopy(given)
    return [item for item in items if item["region"] == call.parameters["regionId"]]


def unavailable(call: Call) -> Json:
    """Described, but no part of what the lab simulates."""
    raise ApiError(501, f"{call.operation.id} is not simulated")


# -- Linodes and addresses ---------------------------------------------------------------------------------


def _linode(linode: Linode) -> dict[str, Json]:
    values: dict[str, Json] = example("get-linode-instance")
    values.update(
        id=linode.id,
        label=linode.label,
        region=linode.region,
        type=linode.type,
        tags=list(linode.tags),
        ipv4=[linode.public_ipv4, linode.private_ipv4],
        lke_cluster_id=linode.lke_cluster_id,
        created=timestamp(linode.created),
        updated=timestamp(linode.created),
    )
    return values


def _address(
    address: str, region: str, linode_id: int | None, public: bool, reserved: bool
) -> dict[str, Json]:
    return {
        "address": address,
        "gateway": None,
        "subnet_mask": "255.255.255.0",
        "prefix": 24,
        "type": "ipv4",
        "public": public,
        "rdns": None,
        "linode_id": linode_id,
        "region": region,
        "vpc_nat_1_1": None,
        "reserved": reserved,
        "tags": [],
    }


def _addresses(state: State) -> list[Json]:
    found = [
        _address(nb.ipv4, nb.region, None, True, nb.ipv4 in state.reserved_ips)
        for nb in state.nodebalancers.values()
    ]
    for linode in state.linodes.values():
        found.append(_address(linode.public_ipv4, linode.region, linode.id, True, False))
        found.append(_address(linode.private_ipv4, linode.region, linode.id, False, False))
    taken = {one["address"] for one in found}
    free = [ip for ip in state.reserved_ips.values() if ip.address not in taken]
    return found + [_address(ip.address, ip.region, None, True, True) for ip in free]


@handles("get-linode-instances")
def list_linodes(call: Call) -> Json:
    return [_linode(linode) for linode in call.state.linodes.values()]


def _found(call: Call) -> Linode:
    linode = call.state.linodes.get(call.number("linodeId"))
    if linode is None:
        raise not_found()
    return linode


@handles("get-linode-instance")
def get_linode(call: Call) -> Json:
    return _linode(_found(call))


@handles("get-linode-ips")
def get_linode_ips(call: Call) -> Json:
    linode = _found(call)
    mine = [one for one in _addresses(call.state) if one["linode_id"] == linode.id]
    ipv4 = {
        "public": [one for one in mine if one["public"]],
        "private": [one for one in mine if not one["public"]],
        "shared": [],
        "reserved": [],
        "vpc": [],
    }
    return {**example("get-linode-ips"), "ipv4": ipv4}


@handles("get-linode-firewalls")
def list_linode_firewalls(call: Call) -> Json:
    found = firewalls.of_service(call.state, "linode", _found(call).id)
    return [render_firewall(firewall, call.state.entities(firewall.id)) for firewall in found]


@handles("get-ips")
def list_ips(call: Call) -> Json:
    return _addresses(call.state)


@handles("get-ip")
def get_ip(call: Call) -> Json:
    for one in _addresses(call.state):
        if one["address"] == call.parameters["address"]:
            return one
    raise not_found()


@handles("get-networking-reserved-ips")
def list_reserved_ips(call: Call) -> Json:
    return [one for one in _addresses(call.state) if one["reserved"]]


@handles("get-networking-reserved-ips-address")
def get_reserved_ip(call: Call) -> Json:
    for one in list_reserved_ips(call):
        if one["address"] == call.parameters["address"]:
            return one
    raise not_found()


@handles("post-networking-reserved-ips")
def reserve_ip(call: Call) -> Json:
    number = call.state.new_id()
    if call.body["region"] not in ("us-ord", "us-east", "us-iad", "us-lax", "eu-central", "gb-lon"):
        raise bad_request("region is not valid", "region")
    ip = ReservedIP(f"198.51.{100 + number // 256}.{number % 256}", call.body["region"])
    call.state.reserved_ips[ip.address] = ip
    entity = {"id": None, "label": ip.address, "type": "ipaddress", "url": None}
    call.state.changed("ipaddress_update", entity)
    return _address(ip.address, ip.region, None, True, True)


@handles("delete-networking-reserved-ips-address")
def release_ip(call: Call) -> Json:
    address = str(call.parameters["address"])
    if call.state.reserved_ips.pop(address, None) is None:
        raise not_found()
    entity = {"id": None, "label": address, "type": "ipaddress", "url": None}
    call.state.changed("ipaddress_update", entity)
    return {}


# -- account -----------------------------------------------------------------------------------------------


@handles("get-profile")
def get_profile(call: Call) -> Json:
    assert call.user is not None
    return {
        **example("get-profile"),
        "username": call.user.username,
        "restricted": call.user.restricted,
    }


@handles("get-profile-grants")
def get_grants(call: Call) -> Json:
    """An unrestricted user has no grants: the server answers 204 to None."""
    assert call.user is not None
    if not call.user.restricted:
        return None
    grants: dict[str, Json] = {"global": dict.fromkeys(sorted(call.user.add), True)}
    for kind in ("firewall", "nodebalancer", "linode"):
        grants[kind] = [
            {"id": ident, "label": _label(call.state, kind, ident), "permissions": permission}
            for ident, permission in sorted(call.user.grants.get(kind, {}).items())
        ]
    return grants


def _label(state: State, kind: str, ident: int) -> str:
    if kind == "firewall":
        firewall = state.firewalls.get(ident)
        return firewall.label if firewall else ""
    return state.label_of(kind, ident) or ""


@handles("get-events")
def list_events(call: Call) -> Json:
    return [render_event(event) for event in reversed(call.state.events)]


@handles("get-event")
def get_event(call: Call) -> Json:
    for event in call.state.events:
        if event.id == call.number("eventId"):
            return render_event(event)
    raise not_found()
