"""One sandbox on a real node behind its NodeBalancer, and everybody who may or may not use it.

office     both of its networks are admitted to chat and API
guest      admitted to the chat alone
stranger   admitted to nothing
assistant  a pod that `inCluster` admits to the API
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import names
from lab.datapath.asking import Client, Request, Result
from lab.datapath.namespace import Place
from lab.datapath.network import Internet, Node
from lab.node import NodeLab, images
from lab.node.sandbox import SMALL

NAMESPACE, NAME = "outside", "outside"
OFFICE, OFFICE_6 = "203.0.113.9", "2001:db8:1::9"
GUEST = "192.0.2.200"
STRANGER, STRANGER_6 = "198.51.100.7", "2001:db8:2::7"
CLIENTS = {"office": (OFFICE, OFFICE_6), "guest": (GUEST,), "stranger": (STRANGER, STRANGER_6)}
ALLOWLIST: list[dict[str, Any]] = [
    {"cidr": "203.0.113.0/24", "description": "office"},
    {"cidr": "2001:db8:1::/48", "description": "office"},
    {"cidr": f"{GUEST}/32", "description": "guest", "to": ["Chat"]},
]
IN_CLUSTER = [{"podSelector": {"matchLabels": {"app": "assistant"}}, "to": ["API"]}]
#: Until the sandbox answers, in seconds.
_PATIENCE = 240.0
_KIND = {"apiVersion": "sandbox.linode.com/v1alpha1", "kind": "AISandbox"}
_META = {"name": NAME, "namespace": NAMESPACE}


class Pod:
    """Where a pod's commands run."""

    def __init__(self, node: NodeLab, name: str) -> None:
        self._node = node
        self._name = name

    def run(self, command: Sequence[str], text: str = "") -> str:
        """Run in the pod."""
        return self._node.kubectl("exec", "-i", "-n", NAMESPACE, self._name, "--", *command, stdin=text)

    def command(self, command: Sequence[str]) -> list[str]:
        """Not needed: pods make single requests."""
        raise NotImplementedError


@dataclasses.dataclass
class Outside:
    """What tests ask with.

    Attributes:
        host: the NodeBalancer's IPv4 address; `host_6` its other one.
        authority: the certificate in the Secret that the status names.
        model: the name by which clients ask for it.
        first_token: how long after `kubectl apply` the first text of a streamed answer came, in seconds.
        not_before: how the requests until then ended, with repetitions left out.
    """

    node: NodeLab
    internet: Internet
    assistant: Client
    host: str = ""
    host_6: str = ""
    authority: str = ""
    model: str = ""
    first_token: float = 0.0
    not_before: list[str] = dataclasses.field(default_factory=list)

    @property
    def office(self) -> Client:
        return self.internet.clients["office"]

    @property
    def guest(self) -> Client:
        return self.internet.clients["guest"]

    @property
    def stranger(self) -> Client:
        return self.internet.clients["stranger"]

    def key(self, name: str = "default") -> str:
        """The value of an API key; empty if there is none yet."""
        return self.secret(f"{NAME}-api-keys").get(name, "")

    def secret(self, name: str) -> dict[str, str]:
        """A Secret's values."""
        data = self.node.get("secret", "-n", NAMESPACE, name).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def sandbox(self) -> Any:
        """The object."""
        return self.node.get("aisandbox", "-n", NAMESPACE, NAME)

    def edit(self, spec: Mapping[str, Any]) -> None:
        """Merge into the sandbox's spec."""
        patch = json.dumps({"spec": spec})
        self.node.kubectl("patch", "aisandbox", "-n", NAMESPACE, NAME, "--type=merge", "-p", patch)

    def condition(self, kind: str) -> bool:
        """Whether a condition is True for the spec as it is now."""
        found = self.sandbox()
        return any(
            one["type"] == kind
            and one["status"] == "True"
            and one["observedGeneration"] == found["metadata"]["generation"]
            for one in found.get("status", {}).get("conditions", ())
        )

    def pods(self, component: str) -> list[Any]:
        """Pods of the sandbox that are not on their way out."""
        labels = f"sandbox.linode.com/name={NAME},app.kubernetes.io/component={component}"
        found = self.node.get("pods", "-n", NAMESPACE, "-l", labels)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def node_port(self, name: str) -> int:
        """The node's port behind one port of the external Service."""
        ports = self.node.get("service", "-n", NAMESPACE, NAME)["spec"]["ports"]
        return int(next(port["nodePort"] for port in ports if port["name"] == name))

    def api(self, path: str = "/v1/models", key: str = "", **more: Any) -> Request:
        """A request to the API, TLS verified; with a key as `Authorization`."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self._request(names.PORT_API, path, {**headers, **more.pop("headers", {})}, more)

    def completion(self, key: str, **more: Any) -> Request:
        """A streamed chat completion."""
        body = {
            "model": self.model,
            "stream": True,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Say something."}],
        }
        headers = {"Content-Type": "application/json"}
        given = {"method": "POST", "headers": headers, "body": json.dumps(body), "timeout": 10.0, **more}
        return self.api("/v1/chat/completions", key, **given)

    def chat(self, path: str = "/", **more: Any) -> Request:
        """A request to the chat, TLS verified."""
        return self._request(names.PORT_CHAT, path, more.pop("headers", {}), more)

    def _request(self, port: int, path: str, headers: Mapping[str, str], more: dict[str, Any]) -> Request:
        common = {"tls": True, "authority": self.authority, "name": self.host}
        where = {"host": self.host, "port": port, "path": path, "headers": headers}
        return Request(**{**common, **where, **more})

    def start(self) -> None:
        """Apply the sandbox and wait for its first streamed answer and for Ready."""
        began = time.time()
        spec = {
            "engine": {"resources": SMALL},
            "access": {
                "exposure": "NodeBalancer",
                "allowlist": ALLOWLIST,
                "inCluster": IN_CLUSTER,
                "apiKeys": [{"name": "default"}],
            },
        }
        self.node.apply({**_KIND, "metadata": _META, "spec": spec})
        self.node.until("the address", self._address, timeout=_PATIENCE, period=0.2)
        self.first_token = self._first_token() - began
        self.node.until("Ready", lambda: self.condition("Ready"), timeout=_PATIENCE)

    def _address(self) -> bool:
        status = self.sandbox().get("status", {})
        found = status.get("endpoints") or {}
        ident = (status.get("linode") or {}).get("nodeBalancerID")
        if not ident or not found.get("caSecretName"):
            return False
        self.authority = self.secret(found["caSecretName"])["ca.crt"]
        self.model = self.sandbox()["spec"]["model"]["id"]
        balancer = self.node.linode.edit(lambda state: state.nodebalancer(ident))
        self.host, self.host_6 = balancer.ipv4, str(balancer.ipv6).partition("/")[0]
        return bool(self.key())

    def _first_token(self) -> float:
        with self.office.repeat(self.completion(self.key()), rate=4.0) as traffic:
            self.node.until(
                "the first answer",
                lambda: traffic.results and traffic.results[-1].first_seconds,
                timeout=_PATIENCE,
                period=0.1,
            )
        answered = next(one for one in traffic.results if one.first_seconds)
        self.not_before = [*dict.fromkeys(one.short for one in traffic.results if one.at < answered.at)]
        assert answered.first_seconds is not None
        return answered.at + answered.first_seconds


@contextlib.contextmanager
def outside(node: NodeLab) -> Iterator[Outside]:
    """The sandbox and its surroundings. What runs already is taken as it is, and it is left running."""
    node.install_operator()
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "assistant", "namespace": NAMESPACE, "labels": {"app": "assistant"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "client", "image": images.PAUSE, "imagePullPolicy": "Never"}],
        },
    }
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    node.apply(pod)
    place = Node(Place(node.namespace_pid), node.address)
    with Internet(node.linode.sim.base, place, CLIENTS) as internet:
        found = Outside(node, internet, Client(Pod(node, "assistant"), "python3"))
        found.start()
        node.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/assistant", "--timeout=60s")
        yield found


def remove(node: NodeLab) -> None:
    """Delete the sandbox, and wait until it is gone."""
    node.kubectl("delete", "aisandbox", "-n", NAMESPACE, NAME, "--timeout=120s")
    node.kubectl("delete", "pod", "-n", NAMESPACE, "assistant", "--timeout=60s")
    # The namespace's controller comes back after half of the longest grace period of a pod that it still finds.
    node.kubectl("wait", "-n", NAMESPACE, "--for=delete", "pods", "--all", "--timeout=120s")
    node.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


def shortly(results: Sequence[Result]) -> str:
    """Outcomes and how many of each, for messages."""
    found: dict[str, int] = {}
    for one in results:
        found[one.short] = found.get(one.short, 0) + 1
    return ", ".join(f"{count} x {what}" for what, count in found.items())
