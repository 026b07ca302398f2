"""From an operation of the API description to the account: firewalls and NodeBalancers.

A handler answers the body of a 200; a list means "the whole collection" and is filtered and paged by the
server. Only what is changed here is a write; handlers of GET never touch the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.linode import firewalls, nodebalancers
from lab.linode.errors import Json
from lab.linode.model import (
    Config,
    Firewall,
    NodeBalancer,
    Token,
    User,
    render_config,
    render_device,
    render_firewall,
    render_node,
    render_nodebalancer,
)
from lab.linode.spec import Operation
from lab.linode.state import State


@dataclass(frozen=True)
class Call:
    """One checked request."""

    state: State
    operation: Operation
    parameters: Mapping[str, Json]
    body: Json
    token: Token | None
    user: User | None

    def number(self, name: str) -> int:
        return int(self.parameters[name])


Handler = Callable[[Call], Json]
HANDLERS: dict[str, Handler] = {}


def handles(operation_id: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[operation_id] = handler
        return handler

    return register


def _firewall(state: State, firewall: Firewall) -> dict[str, Json]:
    return render_firewall(firewall, state.entities(firewall.id))


def _nodebalancer(state: State, nb: NodeBalancer) -> dict[str, Json]:
    return render_nodebalancer(nb, state.cluster_label)


# -- firewalls ---------------------------------------------------------------------------------------------


@handles("get-firewalls")
def list_firewalls(call: Call) -> Json:
    return [_firewall(call.state, firewall) for firewall in call.state.firewalls.values()]


@handles("post-firewalls")
def create_firewall(call: Call) -> Json:
    firewall = firewalls.create(call.state, call.body)
    if call.user is not None and call.user.restricted:  # the maker of an object may use it
        call.user.grants.setdefault("firewall", {})[firewall.id] = "read_write"
    return _firewall(call.state, firewall)


@handles("get-firewall")
def get_firewall(call: Call) -> Json:
    return _firewall(call.state, call.state.firewall(call.number("firewallId")))


@handles("put-firewall")
def update_firewall(call: Call) -> Json:
    return _firewall(call.state, firewalls.update(call.state, call.number("firewallId"), call.body))


@handles("delete-firewall")
def delete_firewall(call: Call) -> Json:
    firewalls.delete(call.state, call.number("firewallId"))
    return {}


@handles("get-firewall-rules")
def get_rules(call: Call) -> Json:
    return call.state.firewall(call.number("firewallId")).rules.render()


@handles("put-firewall-rules")
def put_rules(call: Call) -> Json:
    return firewalls.put_rules(call.state, call.number("firewallId"), call.body).rules.render()


@handles("get-networking-firewalls-firewallid-rules-expansion")
def get_rules_expansion(call: Call) -> Json:
    return get_rules(call)  # no rule sets and prefix lists here: nothing to expand


@handles("get-firewall-rule-versions")
def get_history(call: Call) -> Json:
    firewall = call.state.firewall(call.number("firewallId"))
    entities = call.state.entities(firewall.id)
    return [
        render_firewall(firewall, entities, rules, moment) for moment, rules in reversed(firewall.history)
    ]


@handles("get-firewall-rule-version")
def get_version(call: Call) -> Json:
    firewall = firewalls.version(call.state, call.number("firewallId"), call.number("version"))
    return _firewall(call.state, firewall)


@handles("get-firewall-devices")
def list_devices(call: Call) -> Json:
    firewall = call.state.firewall(call.number("firewallId"))
    return [
        render_device(device, call.state.label_of(device.type, device.entity_id))
        for device in call.state.devices_of(firewall.id)
    ]


@handles("post-firewall-device")
def create_device(call: Call) -> Json:
    device = firewalls.attach(call.state, call.number("firewallId"), call.body["type"], call.body["id"])
    return render_device(device, call.state.label_of(device.type, device.entity_id))


@handles("get-firewall-device")
def get_device(call: Call) -> Json:
    device = firewalls.device(call.state, call.number("firewallId"), call.number("deviceId"))
    return render_device(device, call.state.label_of(device.type, device.entity_id))


@handles("delete-firewall-device")
def delete_device(call: Call) -> Json:
    firewalls.detach(call.state, call.number("firewallId"), call.number("deviceId"))
    return {}


@handles("get-networking-firewalls-settings")
def get_settings(call: Call) -> Json:
    return {"default_firewall_ids": dict(call.state.default_firewalls)}


@handles("put-networking-firewalls-settings")
def put_settings(call: Call) -> Json:
    firewalls.put_settings(call.state, call.body)
    return get_settings(call)


# -- NodeBalancers -----------------------------------------------------------------------------------------


@handles("get-node-balancers")
def list_nodebalancers(call: Call) -> Json:
    return [_nodebalancer(call.state, nb) for nb in call.state.nodebalancers.values()]


@handles("post-node-balancer")
def create_nodebalancer(call: Call) -> Json:
    cluster = call.token.lke_cluster_id if call.token else None
    nb = nodebalancers.create(call.state, call.body, cluster)
    if call.user is not None and call.user.restricted:
        call.user.grants.setdefault("nodebalancer", {})[nb.id] = "read_write"
    return _nodebalancer(call.state, nb)


@handles("get-node-balancer")
def get_nodebalancer(call: Call) -> Json:
    return _nodebalancer(call.state, call.state.nodebalancer(call.number("nodeBalancerId")))


@handles("put-node-balancer")
def update_nodebalancer(call: Call) -> Json:
    nb = nodebalancers.update(call.state, call.number("nodeBalancerId"), call.body)
    return _nodebalancer(call.state, nb)


@handles("delete-node-balancer")
def delete_nodebalancer(call: Call) -> Json:
    nodebalancers.delete(call.state, call.number("nodeBalancerId"))
    return {}


@handles("get-node-balancer-firewalls")
def list_nodebalancer_firewalls(call: Call) -> Json:
    nb = call.state.nodebalancer(call.number("nodeBalancerId"))
    return [_firewall(call.state, firewall) for firewall in call.state.firewalls_of(nb.id)]


@handles("put-nodebalancers-nodebalancerid-firewalls")
def put_nodebalancer_firewalls(call: Call) -> Json:
    given = call.body["firewall_ids"]
    found = firewalls.assign(call.state, call.number("nodeBalancerId"), given)
    return [_firewall(call.state, firewall) for firewall in found]


@handles("get-nodebalancers-nodebalancerid-vpcs")
def list_nodebalancer_vpcs(call: Call) -> Json:
    call.state.nodebalancer(call.number("nodeBalancerId"))
    return []


def _config(call: Call) -> tuple[NodeBalancer, Config]:
    nb = call.state.nodebalancer(call.number("nodeBalancerId"))
    return nb, nodebalancers.config(call.state, nb.id, call.number("configId"))


@handles("get-node-balancer-configs")
def list_configs(call: Call) -> Json:
    nb = call.state.nodebalancer(call.number("nodeBalancerId"))
    return [render_config(nb, config) for config in nb.configs.values()]


@handles("post-node-balancer-config")
def create_config(call: Call) -> Json:
    nb = call.state.nodebalancer(call.number("nodeBalancerId"))
    return render_config(nb, nodebalancers.create_config(call.state, nb.id, call.body))


@handles("get-node-balancer-config")
def get_config(call: Call) -> Json:
    return render_config(*_config(call))


@handles("put-node-balancer-config")
def update_config(call: Call) -> Json:
    nb, config = _config(call)
    return render_config(nb, nodebalancers.update_config(call.state, nb.id, config.id, call.body))


@handles("delete-node-balancer-config")
def delete_config(call: Call) -> Json:
    nb, config = _config(call)
    nodebalancers.delete_config(call.state, nb.id, config.id)
    return {}


@handles("post-rebuild-node-balancer-config")
def rebuild_config(call: Call) -> Json:
    nb, config = _config(call)
    return render_config(nb, nodebalancers.rebuild(call.state, nb.id, config.id, call.body))


@handles("get-node-balancer-config-nodes")
def list_nodes(call: Call) -> Json:
    nb, config = _config(call)
    return [render_node(nb, config, node) for node in config.nodes.values()]


@handles("post-node-balancer-node")
def create_node(call: Call) -> Json:
    nb, config = _config(call)
    node = nodebalancers.put_node(call.state, nb.id, config.id, None, call.body)
    return render_node(nb, config, node)


@handles("get-node-balancer-node")
def get_node(call: Call) -> Json:
    nb, config = _config(call)
    return render_node(nb, config, nodebalancers.node(call.state, nb.id, config.id, call.number("nodeId")))


@handles("put-node-balancer-node")
def update_node(call: Call) -> Json:
    nb, config = _config(call)
    node = nodebalancers.put_node(call.state, nb.id, config.id, call.number("nodeId"), call.body)
    return render_node(nb, config, node)


@handles("delete-node-balancer-config-node")
def delete_node(call: Call) -> Json:
    nb, config = _config(call)
    nodebalancers.delete_node(call.state, nb.id, config.id, call.number("nodeId"))
    return {}
