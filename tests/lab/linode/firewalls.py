"""What the Cloud Firewall operations do and refuse.

Refused: a duplicate label, a service with a second firewall, deletion of an account default, everything in
`rules.py`. Every function checks first and changes afterwards, so a refused call leaves no trace.
Source: Linode API description (firewall operations); label text as recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lab.linode import rules as rule_checks
from lab.linode.errors import Json, bad_request, not_found
from lab.linode.model import Device, Firewall, render_entity
from lab.linode.store import Store

DUPLICATE_LABEL = "Label must be unique among your Cloud Firewalls"
DEVICE_LISTS = {"linodes": "linode", "nodebalancers": "nodebalancer"}


def entity_of(firewall: Firewall) -> dict[str, Json]:
    url = f"/v4/networking/firewalls/{firewall.id}"
    return {"id": firewall.id, "label": firewall.label, "type": "firewall", "url": url}


def _check_label(store: Store, label: str, own: int | None = None) -> None:
    error = rule_checks.label_error(label)
    if error:
        raise error
    if any(f.label == label and f.id != own for f in store.firewalls.values()):
        raise bad_request(DUPLICATE_LABEL, "label")


def _check_service(store: Store, kind: str, entity_id: int) -> None:
    known: Mapping[int, object] = store.nodebalancers if kind == "nodebalancer" else store.linodes
    if kind == "linode_interface" or entity_id not in known:
        raise bad_request(f"{kind} {entity_id} not found", "id")


def create(store: Store, body: Mapping[str, Json]) -> Firewall:
    """POST /networking/firewalls."""
    _check_label(store, body["label"])
    error = rule_checks.rules_error(body["rules"], "rules.")
    if error:
        raise error
    limit = store.behaviour.max_firewalls
    if limit is not None and len(store.firewalls) >= limit:
        raise store.behaviour.max_firewalls_reply.error()
    services = [
        (kind, entity_id)
        for name, kind in DEVICE_LISTS.items()
        for entity_id in (body.get("devices") or {}).get(name, [])
    ]
    for kind, entity_id in services:
        _check_service(store, kind, entity_id)
        if store.behaviour.second_firewall == "refuse" and store.devices_on(kind, entity_id):
            raise store.behaviour.second_firewall_reply.error()
    now = store.now()
    rules = rule_checks.from_body(body["rules"], 1, store.behaviour.canonical_addresses)
    firewall = Firewall(
        store.new_id(), body["label"], rules, now, now, tags=sorted(set(body.get("tags") or []))
    )
    firewall.history.append((now, rules))
    store.firewalls[firewall.id] = firewall
    store.changed("firewall_create", entity_of(firewall))
    for kind, entity_id in services:
        attach(store, firewall.id, kind, entity_id)
    return firewall


def update(store: Store, ident: int, body: Mapping[str, Json]) -> Firewall:
    """PUT /networking/firewalls/{id}: label, tags, status. Equal values change nothing."""
    firewall = store.firewall(ident)
    label = body.get("label", firewall.label)
    _check_label(store, label, ident)
    tags = sorted(set(body.get("tags", firewall.tags)))
    status = body.get("status", firewall.status)
    if (label, tags) != (firewall.label, firewall.tags):
        firewall.label, firewall.tags, firewall.updated = label, tags, store.now()
        store.changed("firewall_update", entity_of(firewall))
    if status != firewall.status:
        firewall.status, firewall.updated = status, store.now()
        store.changed(f"firewall_{status.removesuffix('d')}", entity_of(firewall))
    return firewall


def delete(store: Store, ident: int) -> None:
    """DELETE /networking/firewalls/{id}: works while attached and leaves the services open."""
    firewall = store.firewall(ident)
    if ident in store.default_firewalls.values():
        raise bad_request("Cannot delete a firewall that is assigned as a default firewall")
    for device in store.devices_of(ident):
        del store.devices[device.id]
    del store.firewalls[ident]
    store.changed("firewall_delete", entity_of(firewall))


def put_rules(store: Store, ident: int, body: Mapping[str, Json]) -> Firewall:
    """PUT .../rules: replaces everything; the version grows only if the content differs."""
    firewall = store.firewall(ident)
    error = rule_checks.rules_error(body)
    if error:
        raise error
    new = rule_checks.from_body(body, firewall.rules.version + 1, store.behaviour.canonical_addresses)
    if new.content() == firewall.rules.content():
        return firewall
    firewall.rules, firewall.updated = new, store.now()
    firewall.history.append((firewall.updated, new))
    store.changed("firewall_rules_update", entity_of(firewall))
    for _ in store.devices_of(ident)[:1]:
        store.changed("firewall_apply", entity_of(firewall))
    return firewall


def attach(store: Store, firewall_id: int, kind: str, entity_id: int) -> Device:
    """POST .../devices. A service has at most one firewall: the invariant that makes hazard 4."""
    firewall = store.firewall(firewall_id)
    _check_service(store, kind, entity_id)
    behaviour = store.behaviour
    present = store.devices_on(kind, entity_id)
    same = next((device for device in present if device.firewall_id == firewall_id), None)
    if same is not None:
        if behaviour.same_device == "same":
            return same
        raise behaviour.same_device_reply.error()
    if present and behaviour.second_firewall == "refuse":
        raise behaviour.second_firewall_reply.error()
    for device in present:
        _remove(store, device)
    device = Device(store.new_id(), firewall_id, kind, entity_id, store.now())
    store.devices[device.id] = device
    entity = render_entity(kind, entity_id, store.label_of(kind, entity_id))
    store.changed("firewall_device_add", entity_of(firewall), entity)
    return device


def _remove(store: Store, device: Device) -> None:
    del store.devices[device.id]
    entity = render_entity(device.type, device.entity_id, store.label_of(device.type, device.entity_id))
    store.changed("firewall_device_remove", entity_of(store.firewalls[device.firewall_id]), entity)


def device(store: Store, firewall_id: int, device_id: int) -> Device:
    store.firewall(firewall_id)
    found = store.devices.get(device_id)
    if found is None or found.firewall_id != firewall_id:
        raise not_found()
    return found


def detach(store: Store, firewall_id: int, device_id: int) -> None:
    """DELETE .../devices/{deviceId}."""
    _remove(store, device(store, firewall_id, device_id))


def assign(store: Store, nodebalancer_id: int, firewall_ids: Sequence[int]) -> list[Firewall]:
    """PUT /nodebalancers/{id}/firewalls: the whole assignment is replaced; `[]` detaches."""
    store.nodebalancer(nodebalancer_id)
    wanted = list(dict.fromkeys(firewall_ids))
    if len(wanted) > 1:
        raise store.behaviour.second_firewall_reply.error()
    for ident in wanted:
        if ident not in store.firewalls:
            raise bad_request("firewall_ids is not valid", "firewall_ids")
    for present in store.devices_on("nodebalancer", nodebalancer_id):
        if present.firewall_id not in wanted:
            _remove(store, present)
    for ident in wanted:
        if not store.devices_on("nodebalancer", nodebalancer_id):
            attach(store, ident, "nodebalancer", nodebalancer_id)
    return of_service(store, "nodebalancer", nodebalancer_id)


def of_service(store: Store, kind: str, entity_id: int) -> list[Firewall]:
    return [store.firewalls[device.firewall_id] for device in store.devices_on(kind, entity_id)]


def put_settings(store: Store, body: Mapping[str, Json]) -> None:
    """PUT /networking/firewalls/settings: the defaults given to new services."""
    wanted = {**store.default_firewalls, **(body.get("default_firewall_ids") or {})}
    for name, ident in wanted.items():
        if ident is not None and ident not in store.firewalls:
            raise bad_request("Firewall not found", f"default_firewall_ids.{name}")
    if wanted != store.default_firewalls:
        store.default_firewalls = wanted
        store.changed("firewall_update", {"id": None, "label": "settings", "type": "firewall", "url": None})


def version(store: Store, ident: int, number: int) -> Firewall:
    """The firewall as it was with one version of its rules."""
    firewall = store.firewall(ident)
    for moment, rules in firewall.history:
        if rules.version == number:
            return dataclasses.replace(firewall, rules=rules, updated=moment)
    raise not_found()


def birth_firewall(store: Store, wanted: int | None) -> int | None:
    """The firewall a new NodeBalancer gets: the named one, else the account's default."""
    if wanted is None:
        return store.default_firewalls["nodebalancer"]
    if wanted in store.firewalls:
        return wanted
    if store.behaviour.unknown_firewall_at_birth == "refuse":
        raise store.behaviour.unknown_firewall_reply.error()
    return None
