"""A fresh control plane, one of the ways to install, a sandbox that becomes Ready and goes again.

The operator runs as a process with the arguments of the installed Deployment and under the token of its
ServiceAccount; only what the lab has elsewhere is replaced: Linode's API, the model hub, the health port.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import names
from chart import helm
from lab.cluster.lab import Lab
from lab.samples import SAMPLES
from lab.world import World
from manifests import documents
from manifests.documents import SYSTEM, Manifest
from results import Results

CRD = f"{names.PLURAL}.{names.GROUP}"
TOKEN = "operator-token"
TOKEN_FILE = "/var/run/secrets/linode/token"
#: Flags of the Deployment that mean nothing on the lab.
_ELSEWHERE = ("--linode-url=", "--health-port=", "--linode-token-file=")


class Cluster:
    """kubectl, in a thread: the operator's way to the API server leads through the test's loop."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.lab.plane.kubectl, *arguments, stdin=stdin)

    async def get(self, *arguments: str) -> Manifest:
        found: Manifest = json.loads(await self.kubectl("get", *arguments, "--output", "json"))
        return found

    async def apply(self, items: list[Manifest], *, manager: str = "kubectl") -> None:
        """Server-side apply in the given order, as the tools do: with force, unless it is a person."""
        forced = () if manager == "kubectl" else ("--force-conflicts",)
        flags = ("--server-side", "--field-manager", manager, "--validate=strict", *forced)
        await self.kubectl("apply", *flags, "--filename", "-", stdin=documents.dump(items))

    async def established(self) -> None:
        await self.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")

    async def remove(self) -> None:
        """Everything that a way to install made, the CRD aside."""
        await self.kubectl(
            "delete", "clusterroles,clusterrolebindings", "--selector", "app.kubernetes.io/part-of=ai-sandbox"
        )
        spaces = (SYSTEM, "team-a", "team-b")
        await self.kubectl("delete", "namespace", *spaces, "--ignore-not-found", "--wait", "--timeout=120s")


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to install.

    Attributes:
        title: as docs/reference/tested.md names it.
        manager: who applies the sandbox.
        operator: installs the operator.
        sandbox: the documents of the sandbox; without a namespace they go to one of the test's own.
    """

    title: str
    manager: str
    operator: Callable[[Cluster, pathlib.Path], Any]
    sandbox: Callable[[], list[Manifest]]


async def _by_kubectl(cluster: Cluster, _: pathlib.Path) -> None:
    folder = str(documents.MANIFESTS / "install")
    await cluster.kubectl("apply", "--server-side", "--validate=strict", "--filename", folder)


async def _by_kustomize(cluster: Cluster, _: pathlib.Path) -> None:
    folder = str(documents.MANIFESTS / "kustomize/operator")
    await cluster.kubectl("apply", "--server-side", "--validate=strict", "--kustomize", folder)


async def _by_argocd(cluster: Cluster, _: pathlib.Path) -> None:
    await cluster.apply(documents.of_argocd(), manager="argocd-controller")


async def _by_flux(cluster: Cluster, home: pathlib.Path) -> None:
    spaces, release, values = documents.of_flux()
    await cluster.apply(spaces, manager="kustomize-controller")
    program = helm.Helm(helm.HELM_4, documents.newest_helm().program, home, cluster.lab.plane.kubeconfig)
    options = ("--namespace", SYSTEM, "--wait", "--timeout", "60s")
    await asyncio.to_thread(program.run, "install", release, str(helm.CHART), *options, values=values)


def _sample(name: str) -> Callable[[], list[Manifest]]:
    return lambda: documents.parse((SAMPLES / f"{name}.yaml").read_text())


def _from_git() -> list[Manifest]:
    return documents.kustomize("kustomize/sandboxes")


WAYS = (
    Way("kubectl, manifests/install", "kubectl", _by_kubectl, _sample("mistral")),
    Way("kubectl, manifests/kustomize", "kubectl", _by_kustomize, _from_git),
    Way("as Argo CD applies, manifests/argocd", "argocd-controller", _by_argocd, _from_git),
    Way("as Flux applies, manifests/flux", "kustomize-controller", _by_flux, _from_git),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
async def test_a_sandbox_becomes_ready_and_goes_again(
    bare: Lab, tmp_path: pathlib.Path, way: Way, results: Results
) -> None:
    cluster = Cluster(bare)
    async with World(bare, tmp_path, clusterwide=True, operator={"token": None}) as world:
        try:
            await way.operator(cluster, tmp_path)
            await cluster.established()
            async with operator(cluster, world, tmp_path):
                await lives(cluster, world, way, results)
        finally:
            await cluster.remove()


async def lives(cluster: Cluster, world: World, way: Way, results: Results) -> None:
    """The sandbox is applied, becomes Ready, is applied again without effect, and is deleted with all it had."""
    items = way.sandbox()
    sandbox = helm.find(items, names.KIND)
    sandbox["metadata"].setdefault("namespace", world.namespace)
    where = (f"aisb/{sandbox['metadata']['name']}", "--namespace", sandbox["metadata"]["namespace"])
    await cluster.apply(items, manager=way.manager)
    try:
        await cluster.kubectl("wait", "--for=condition=Ready", *where, "--timeout=90s")
    except RuntimeError as error:
        seen = await cluster.get(*where)
        raise AssertionError(
            f"{error}\n{json.dumps(seen['status'], indent=1)}\n{world.operator.log()[-3000:]}"
        ) from None
    public = sandbox["spec"]["access"].get("exposure") == "NodeBalancer"
    assert bool(world.linode.state.firewalls) == bool(world.linode.state.nodebalancers) == public
    await world.quiet()
    before = await cluster.get(*where)
    await cluster.apply(items, manager=way.manager)
    again = await cluster.get(*where)
    # The generation is among the metadata. Where an atomic list holds a defaulted field, the API server stores the
    # first of these applies anew with the same content; the next one is no write at all.
    assert {**again["metadata"], "resourceVersion": ""} == {**before["metadata"], "resourceVersion": ""}
    assert again["spec"] == before["spec"]
    await cluster.apply(items, manager=way.manager)
    assert (await cluster.get(*where))["metadata"] == again["metadata"]
    await cluster.kubectl("delete", *where, "--wait", "--timeout=60s")
    assert not world.linode.state.firewalls
    assert not world.linode.state.nodebalancers
    assert world.linode.violations == []
    assert refusals(world) == []
    results.row(
        "install",
        {
            "Way": way.title,
            "Sample": sandbox["metadata"]["name"],
            "Outcome": "Ready; applied again without a change; deleted"
            + (" with its NodeBalancer and firewall" if public else ""),
        },
    )


@contextlib.asynccontextmanager
async def operator(cluster: Cluster, world: World, folder: pathlib.Path) -> AsyncIterator[None]:
    """The operator as the Deployment that was installed would run it."""
    literal = f"--from-literal=token={TOKEN}"
    await cluster.kubectl("create", "secret", "generic", "linode-token", "--namespace", SYSTEM, literal)
    deployment = await cluster.get("deployment/ai-sandbox", "--namespace", SYSTEM)
    pod = deployment["spec"]["template"]["spec"]
    account = pod["serviceAccountName"]
    token = (await cluster.kubectl("create", "token", account, "--namespace", SYSTEM)).strip()
    path = folder / "account.kubeconfig"
    config = yaml.safe_load(pathlib.Path(world.proxy.kubeconfig(path)).read_text())
    config["users"][0]["user"] = {"token": token}
    path.write_text(json.dumps(config))
    first, *given = pod["containers"][0]["args"]
    assert first == "run"
    assert f"--linode-token-file={TOKEN_FILE}" in given
    kept = [argument for argument in given if not argument.startswith(_ELSEWHERE)]
    assert len(kept) == len(given) - len(_ELSEWHERE)
    file = await mounted(cluster, pod, folder)
    elsewhere = ("--kubeconfig", str(path), "--lease-namespace", SYSTEM, "--linode-token-file", str(file))
    world.operator.upgrade(*kept, *elsewhere)
    await world.operator.start()
    try:
        yield
    finally:
        await world.operator.stop()


async def mounted(cluster: Cluster, pod: Manifest, folder: pathlib.Path) -> pathlib.Path:
    """The token's file, from the Secret and the key that the Deployment mounts."""
    (volume,) = [v for v in pod["volumes"] if v["name"] == "linode-token"]
    (item,) = volume["secret"]["items"]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "linode-token"]
    assert f"{mount['mountPath']}/{item['path']}" == TOKEN_FILE
    secret = await cluster.get(f"secret/{volume['secret']['secretName']}", "--namespace", SYSTEM)
    file = folder / "token"
    file.write_bytes(base64.b64decode(secret["data"][item["key"]]))
    return file


def refusals(world: World) -> list[str]:
    """Requests of the operator that its rights did not cover."""
    return [str(exchange) for exchange in world.proxy.journal if exchange.status == 403]
