"""The operator's account on the lab: what the chart's default values give, and nothing else.

The objects are made from the same table as the chart's, without Helm: every world needs them, and a test
compares them with what Helm renders.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import kinds, permissions
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors

Object = dict[str, Any]

#: Name of the account, of what gives it rights in a namespace, and of the Lease.
NAME = "ai-sandbox-operator"

_RBAC = "rbac.authorization.k8s.io"
_ACCOUNT = kinds.Kind("v1", "ServiceAccount", "serviceaccounts")
_KINDS = {
    kind.kind: kind
    for kind in (
        _ACCOUNT,
        kinds.Kind(f"{_RBAC}/v1", "Role", "roles"),
        kinds.Kind(f"{_RBAC}/v1", "RoleBinding", "rolebindings"),
        kinds.Kind(f"{_RBAC}/v1", "ClusterRole", "clusterroles"),
        kinds.Kind(f"{_RBAC}/v1", "ClusterRoleBinding", "clusterrolebindings"),
    )
}


def objects(home: str, served: Sequence[str] = ()) -> list[Object]:
    """ServiceAccount, roles and bindings.

    Args:
        home: the operator's namespace.
        served: namespaces with sandboxes; none means the whole cluster.
    """
    wide = f"{home}-{NAME}"
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": home}
    made: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": home},
            "automountServiceAccountToken": False,
        }
    ]
    for namespace in served:
        made += _given(wide, namespace, _rules("sandboxes"), account)
    made += _given(wide, None, (_rules("sandboxes") if not served else []) + _rules("cluster"), account)
    made += _given(f"{NAME}-leader", home, _rules("own"), account)
    return made


def _rules(scope: permissions.Scope) -> list[Object]:
    text = json.dumps([permission.rule() for permission in permissions.of(scope)])
    found: list[Object] = json.loads(text.replace(permissions.LEASE_NAME, NAME))
    return found


def _given(name: str, namespace: str | None, rules: list[Object], account: Object) -> list[Object]:
    """A role and its binding, in one namespace or in the whole cluster."""
    prefix = "" if namespace else "Cluster"
    head = {"apiVersion": f"{_RBAC}/v1", "metadata": {"name": name}}
    if namespace:
        head["metadata"] = {"name": name, "namespace": namespace}
    reference = {"apiGroup": _RBAC, "kind": f"{prefix}Role", "name": name}
    return [
        {**head, "kind": f"{prefix}Role", "rules": rules},
        {**head, "kind": f"{prefix}RoleBinding", "roleRef": reference, "subjects": [account]},
    ]


async def give(api: kube_client.KubeClient, manifests: Sequence[Object]) -> str:
    """Create the objects; a token of their ServiceAccount, good for an hour."""
    (account,) = (manifest["metadata"] for manifest in manifests if manifest["kind"] == "ServiceAccount")
    await asyncio.gather(*(api.create(_KINDS[manifest["kind"]], manifest) for manifest in manifests))
    return await token(api, account["namespace"], account["name"])


async def token(api: kube_client.KubeClient, namespace: str, account: str) -> str:
    """A token of a ServiceAccount, good for an hour."""
    path = _ACCOUNT.path(namespace, account, "token")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    answer = await api._request("create", _ACCOUNT, "POST", path, body=body)
    return str(answer["status"]["token"])


async def take(api: kube_client.KubeClient, manifests: Sequence[Object]) -> None:
    """Delete the objects that are left."""

    async def delete(manifest: Object) -> None:
        kind, metadata = _KINDS[manifest["kind"]], manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        try:
            await api._request("delete", kind, "DELETE", path)
        except errors.NotFound:
            return

    await asyncio.gather(*(delete(manifest) for manifest in manifests))


async def effective(configuration: str, home: str, namespace: str, *, timeout: float = 10.0) -> bool:
    """Wait until the API server knows the rights that every operator needs: its caches follow the writes.

    `configuration` is the account's kubeconfig. One request for each binding. Returns whether they hold in time.
    """
    requests: list[tuple[kinds.Kind, str, dict[str, str]]] = [
        (kinds.SANDBOX, kinds.SANDBOX.path(namespace), {"limit": "1"}),
        (kinds.NAMESPACE, kinds.NAMESPACE.path(None, "kube-system"), {}),
        (kinds.LEASE, kinds.LEASE.path(home, NAME), {}),
    ]
    api = kube_client.KubeClient(await kube_client.load_configuration(configuration))
    deadline = time.monotonic() + timeout
    try:
        for kind, path, query in requests:
            while not await _permitted(api, kind, path, query):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(0.01)
        return True
    finally:
        await api.close()


async def _permitted(
    api: kube_client.KubeClient, kind: kinds.Kind, path: str, query: Mapping[str, str]
) -> bool:
    try:
        await api._request("get", kind, "GET", path, query=query)
    except errors.Forbidden:
        return False
    except errors.NotFound:
        return True
    return True


def kubeconfig(path: pathlib.Path, server: str, authority: pathlib.Path | None, token: str) -> str:
    """Write a kubeconfig with a bearer token; its path. No `authority`: the server speaks plain HTTP."""
    cluster = {"server": server, **({"certificate-authority": str(authority)} if authority else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": NAME}}],
        "current-context": "lab",
    }
    path.write_text(json.dumps(config))
    return str(path)
