"""One sandbox on the node, as a test sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ai_sandbox_operator.api import names
from lab.node.node import NodeLab

Object = dict[str, Any]
#: Prints user, effective capabilities, whether the root is mounted read-only, and whether /tmp takes a file.
PROBE = (
    "import json, os, pathlib\n"
    "pathlib.Path('/tmp/probe').write_text('x')\n"
    "caps = next(l for l in open('/proc/self/status') if l.startswith('CapEff')).split()[1]\n"
    "sealed = bool(os.statvfs('/').f_flag & os.ST_RDONLY)\n"
    "print(json.dumps({'uid': os.getuid(), 'capabilities': int(caps, 16), 'sealed': sealed}))"
)
#: What stands in for an engine needs far less than one.
SMALL = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
#: Of a change that needs a new engine, in seconds.
PATIENCE = 180.0


class Sandbox:
    """An AISandbox with exposure NodeBalancer, in a namespace of its own.

    Attributes:
        reached: seconds from `kubectl apply` until each condition was True for the first time.
    """

    def __init__(self, node: NodeLab, name: str = "demo", namespace: str = "team-a") -> None:
        self.node = node
        self.name = name
        self.namespace = namespace
        self.reached: dict[str, float] = {}

    def create(self, spec: Mapping[str, Any]) -> None:
        """Apply it and wait until it is Ready; notes when each condition was reached."""
        self.node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        began = time.monotonic()
        self.node.apply(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": dict(spec),
            }
        )

        def ready() -> bool:
            for kind, status in self.conditions().items():
                if status == "True" and kind not in self.reached:
                    self.reached[kind] = time.monotonic() - began
            return "Ready" in self.reached

        self.node.until(f"{self.name} Ready", ready, timeout=PATIENCE, period=0.3)

    def get(self) -> Object:
        """The object."""
        found: Object = self.node.get("aisandbox", self.name, "-n", self.namespace)
        return found

    def conditions(self) -> dict[str, str]:
        """Status by type, of the current generation only."""
        live = self.get()
        return {
            one["type"]: one["status"]
            for one in live.get("status", {}).get("conditions", [])
            if one["observedGeneration"] == live["metadata"]["generation"]
        }

    def edit(self, spec: Mapping[str, Any]) -> float:
        """Merge into the spec and wait until all of it is Ready; the seconds that took."""
        began = time.monotonic()
        patch = json.dumps({"spec": spec})
        self.node.kubectl("patch", "aisandbox", self.name, "-n", self.namespace, "--type=merge", "-p", patch)
        self.until_ready()
        return time.monotonic() - began

    def until_ready(self) -> None:
        """Wait until it is Ready for its current generation.

        Raises:
            AssertionError: it is not in time.
        """
        self.until("Ready", lambda: self.conditions().get("Ready") == "True")

    def until(self, what: str, found: Callable[[], Any], *, timeout: float = PATIENCE) -> Any:
        """Poll until something true comes; that."""
        return self.node.until(f"{self.name} {what}", found, timeout=timeout)

    def pods(self, component: str) -> list[Object]:
        """Pods of a component that are not about to end, newest last."""
        selector = f"{names.LABEL_SANDBOX}={self.name},{names.LABEL_COMPONENT}={component}"
        items = self.node.get("pods", "-n", self.namespace, "-l", selector)["items"]
        living = [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]
        return sorted(living, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def lives(self, *components: str) -> set[tuple[str, int]]:
        """Uid and restarts of each pod of some components: the same as long as nothing touches them."""
        return {
            (pod["metadata"]["uid"], sum(one["restartCount"] for one in pod["status"]["containerStatuses"]))
            for component in components
            for pod in self.pods(component)
        }

    def run(self, component: str, *command: str, text: str | None = None) -> str:
        """Run a command in a component's newest pod; what it says."""
        pod = self.pods(component)[-1]["metadata"]["name"]
        return self.node.kubectl("exec", "-i", "-n", self.namespace, pod, "--", *command, stdin=text)

    def chat(self, text: str | None = None) -> Any:
        """What the chat holds; with a text, after that is added."""
        script = (
            "import sys, urllib.request as r\n"
            "text = sys.stdin.buffer.read()\n"
            "url = 'http://127.0.0.1:8080/lab'\n"
            "if text: r.urlopen(r.Request(url, data=text, method='PUT')).read()\n"
            "print(r.urlopen(url).read().decode())"
        )
        return json.loads(self.run("chat", "python3", "-c", script, text=text or ""))
