"""Control of a running simulator over HTTP: `/_lab/...`, without a token.

For demonstrations and for tests whose simulator is another process: look at the account, edit it as a
person would, switch faults, read the journal. Not part of Linode's API; edits are out of band and leave
no journal entry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.linode.errors import ApiError
from lab.linode.faults import Fault
from lab.linode.model import Token, render_config, render_firewall, render_node, render_nodebalancer
from lab.linode.state import CLOSED, State

if TYPE_CHECKING:
    from lab.linode.server import LinodeSimulator

Route = Callable[[web.Request], Awaitable[web.Response]]
FAULT_FIELDS = {field.name for field in fields(Fault)} - {"id", "struck"}


def render_state(state: State) -> dict[str, Any]:
    """The whole account as one document."""
    nodebalancers = []
    for nb in state.nodebalancers.values():
        configs = [
            {
                **render_config(nb, config),
                "nodes": [render_node(nb, config, n) for n in config.nodes.values()],
            }
            for config in nb.configs.values()
        ]
        nodebalancers.append(
            {
                **render_nodebalancer(nb, state.cluster_label),
                "configs": configs,
                "firewall_ids": [firewall.id for firewall in state.firewalls_of(nb.id)],
            }
        )
    return {
        "revision": state.revision,
        "firewalls": [render_firewall(f, state.entities(f.id)) for f in state.firewalls.values()],
        "nodebalancers": nodebalancers,
        "linodes": [{"id": one.id, "label": one.label} for one in state.linodes.values()],
        "default_firewall_ids": dict(state.default_firewalls),
        "tokens": [
            {"name": t.name, "username": t.username, "scopes": list(t.scopes)} for t in state.tokens.values()
        ],
    }


def vandalise(state: State, firewall_id: int, body: dict[str, Any]) -> None:
    """One edit of a firewall by hand; `action` names it."""
    action = body.get("action", "open")
    simple: dict[str, Callable[[int], object]] = {
        "open": state.open_firewall,
        "disable": state.disable_firewall,
        "enable": state.enable_firewall,
        "delete": state.delete_firewall,
        "close": lambda ident: state.set_rules(ident, CLOSED),
        "default": state.set_default_firewall,
    }
    if action in simple:
        simple[action](firewall_id)
    elif action == "rules":
        state.set_rules(firewall_id, body["rules"])
    elif action == "tags":
        state.tag_firewall(firewall_id, body["tags"])
    elif action == "label":
        state.relabel_firewall(firewall_id, body["label"])
    elif action == "attach":
        state.attach(firewall_id, int(body["nodebalancer_id"]))
    else:
        raise ApiError(400, f"unknown action {action!r}")


def handle_nodebalancer(state: State, nodebalancer_id: int, body: dict[str, Any]) -> None:
    """One edit of a NodeBalancer by hand."""
    action = body.get("action", "detach")
    if action == "detach":
        state.detach(nodebalancer_id)
    elif action == "delete":
        state.delete_nodebalancer(nodebalancer_id)
    elif action == "lock":
        state.lock_nodebalancer(nodebalancer_id)
    elif action == "tags":
        state.tag_nodebalancer(nodebalancer_id, body["tags"])
    else:
        raise ApiError(400, f"unknown action {action!r}")


def make_fault(body: dict[str, Any]) -> Fault:
    unknown = set(body) - FAULT_FIELDS
    if unknown:
        raise ApiError(400, f"unknown fields of a fault: {', '.join(sorted(unknown))}")
    return Fault(**body)


class Control:
    """The routes; each is one line of effect on the simulator."""

    def __init__(self, sim: LinodeSimulator) -> None:
        self.sim = sim

    async def state(self, request: web.Request) -> web.Response:
        return web.json_response(render_state(self.sim.state))

    async def requests(self, request: web.Request) -> web.Response:
        since = int(request.query.get("since", "0"))
        return web.json_response({"requests": self.sim.journal.render(since), "last": self.sim.journal.last})

    async def clear_requests(self, request: web.Request) -> web.Response:
        self.sim.journal.clear()
        return web.json_response({})

    async def violations(self, request: web.Request) -> web.Response:
        return web.json_response({"violations": self.sim.violations})

    async def vandalise(self, request: web.Request) -> web.Response:
        vandalise(self.sim.state, int(request.match_info["id"]), await _body(request))
        return await self.state(request)

    async def nodebalancer(self, request: web.Request) -> web.Response:
        handle_nodebalancer(self.sim.state, int(request.match_info["id"]), await _body(request))
        return await self.state(request)

    async def create_firewall(self, request: web.Request) -> web.Response:
        body = await _body(request)
        firewall = self.sim.state.create_firewall(body["label"], body.get("rules"), body.get("tags", []))
        return web.json_response({"id": firewall.id})

    async def create_linode(self, request: web.Request) -> web.Response:
        body = await _body(request)
        linode = self.sim.state.add_linode(
            body.pop("label"), body.pop("private_ipv4"), body.pop("id", None), **body
        )
        return web.json_response({"id": linode.id})

    async def create_token(self, request: web.Request) -> web.Response:
        body = await _body(request)
        body["scopes"] = tuple(body.get("scopes", ("*",)))
        self.sim.state.add_token(Token(**body))
        return web.json_response({})

    async def expire_token(self, request: web.Request) -> web.Response:
        self.sim.state.expire_token(request.match_info["name"])
        return web.json_response({})

    async def faults(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": [fault.render() for fault in self.sim.faults.active]})

    async def add_fault(self, request: web.Request) -> web.Response:
        return web.json_response(self.sim.faults.add(make_fault(await _body(request))).render())

    async def clear_faults(self, request: web.Request) -> web.Response:
        if "id" in request.query:
            self.sim.faults.remove(int(request.query["id"]))
        else:
            self.sim.faults.clear()
        return web.json_response({})

    async def admits(self, request: web.Request) -> web.Response:
        query = request.query
        passes = self.sim.state.snapshot().admits(
            int(query["nodebalancer"]), query["address"], int(query["port"])
        )
        return web.json_response({"admits": passes})


async def _body(request: web.Request) -> dict[str, Any]:
    found = await request.json() if request.can_read_body else {}
    if not isinstance(found, dict):
        raise ApiError(400, "a JSON object is expected")
    return found


def _refusable(route: Route) -> Route:
    async def guarded(request: web.Request) -> web.Response:
        try:
            return await route(request)
        except ApiError as error:
            return web.json_response(error.body(), status=error.status)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            return web.json_response({"errors": [{"reason": f"bad control request: {error!r}"}]}, status=400)

    return guarded


def add_routes(app: web.Application, sim: LinodeSimulator) -> None:
    control = Control(sim)
    table: list[tuple[str, str, Route]] = [
        ("GET", "/_lab/state", control.state),
        ("GET", "/_lab/requests", control.requests),
        ("DELETE", "/_lab/requests", control.clear_requests),
        ("GET", "/_lab/violations", control.violations),
        ("POST", "/_lab/firewalls", control.create_firewall),
        ("POST", "/_lab/firewalls/{id:[0-9]+}/vandalise", control.vandalise),
        ("POST", "/_lab/nodebalancers/{id:[0-9]+}", control.nodebalancer),
        ("POST", "/_lab/linodes", control.create_linode),
        ("POST", "/_lab/tokens", control.create_token),
        ("POST", "/_lab/tokens/{name}/expire", control.expire_token),
        ("GET", "/_lab/faults", control.faults),
        ("POST", "/_lab/faults", control.add_fault),
        ("DELETE", "/_lab/faults", control.clear_faults),
        ("GET", "/_lab/admits", control.admits),
    ]
    for method, path, route in table:
        app.router.add_route(method, path, _refusable(route))
