"""The certificate of the gateway: issued by the sandbox's own authority, asked of cert-manager, or given.

The gateway's pods wait for their certificate by themselves, so that nothing is ever served without one
unless the spec says so. A certificate that is renewed is read again by the running gateway.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import access, certificate, common, facts
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen

from . import material, views

Children = Mapping[tuple[str, str], seen.Seen]

#: Seconds until cert-manager is asked again: for an order under way, for a missing installation, for
#: the state of a renewal.
PENDING, MISSING, ISSUED = 5.0, 30.0, 300.0
#: Seconds after which the own certificate is looked at although it is not due.
LONGEST_WAIT = 86400.0


class Certificates:
    """Makes and keeps the certificates of sandboxes."""

    def __init__(
        self,
        client: kube_client.KubeClient,
        write_back: Callable[[kinds.Kind, Mapping[str, Any]], seen.Seen],
        *,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._client = client
        self._write_back = write_back
        self._now = now
        #: Certificates that may exist, by namespace; looked up once, where any sandbox lives.
        self._asked: dict[str, set[str]] = {}

    async def ensure(
        self, sandbox: v1alpha1.AISandbox, children: Children, *, public_names: Sequence[str]
    ) -> tuple[tuple[views.Problem, ...], float | None]:
        """Bring the certificate about; what is in the way, and the seconds until it is looked at again.

        Raises:
            errors.AlreadyExists: an object of that name is somebody else's; the message names it.
            errors.KubeError: the API server refused.
        """
        mode = sandbox.spec.access.tls.mode
        if mode != "CertManager":
            await self._withdraw(sandbox)
        if mode not in ("CertManager", "SelfSigned"):
            return (), None
        wanted = material.subject_names(
            sandbox=sandbox.metadata.name,
            namespace=sandbox.metadata.namespace,
            hostnames=sandbox.spec.access.hostnames,
            public_names=public_names,
        )
        if mode == "CertManager":
            return await self._ask(sandbox, certificate.subjects(sandbox, wanted))
        try:
            leaf = await self._issue(sandbox, children, wanted)
        except material.AuthorityUnusable as error:
            # The certificate that stands serves on; another authority would be one that no client trusts.
            message = f"Secret {access.authority_key_name(sandbox)}: {error}"
            return (views.Problem(reason=Reason.AuthorityUnusable, message=message),), None
        # Nothing else may happen to the sandbox until then.
        due = (material.renewal_time(leaf) - self._now()).total_seconds()
        return (), min(max(due, PENDING), LONGEST_WAIT)

    async def _ask(
        self, sandbox: v1alpha1.AISandbox, wanted: tuple[str, ...]
    ) -> tuple[tuple[views.Problem, ...], float]:
        """Have cert-manager issue it. Whether it is installed is found out by asking, each time anew."""
        manifest = certificate.render(sandbox, wanted)
        name = manifest["metadata"]["name"]
        (await self._known(sandbox.metadata.namespace)).add(name)
        try:
            live = await self._client.get(kinds.CERTIFICATE, sandbox.metadata.namespace, name)
        except errors.NotFound:
            live = None
        if live is not None and seen.owner_uid(live["metadata"]) != sandbox.metadata.uid:
            raise errors.AlreadyExists(f"Certificate {name}", status=409, reason="AlreadyExists")
        if live is None or not _holds(live, manifest):
            try:
                live = await self._client.apply(kinds.CERTIFICATE, manifest)
            except errors.NotFound:
                message = "spec.access.tls.mode is CertManager, but the cluster has no kind Certificate"
                return (views.Problem(reason=Reason.CertManagerMissing, message=message),), MISSING
        ready = _ready(live)
        if ready.get("status") == "True":
            return (), ISSUED
        text = ready.get("message") or "cert-manager has not said anything yet"
        message = f"Certificate {name} is not ready: {text}"
        return (views.Problem(reason=Reason.CertificatePending, message=message),), PENDING

    async def _withdraw(self, sandbox: v1alpha1.AISandbox) -> None:
        """Another mode than CertManager: what was asked of it is asked no more."""
        name = certificate.name(sandbox)
        asked = await self._known(sandbox.metadata.namespace)
        if name not in asked:
            return
        try:
            live = await self._client.get(kinds.CERTIFICATE, sandbox.metadata.namespace, name)
        except errors.NotFound:
            live = None
        if live is not None and seen.owner_uid(live["metadata"]) == sandbox.metadata.uid:
            uid = live["metadata"]["uid"]
            await self._client.delete(kinds.CERTIFICATE, sandbox.metadata.namespace, name, uid=uid)
        asked.discard(name)

    async def _known(self, namespace: str) -> set[str]:
        """Names of Certificates in a namespace that may be ours. Without cert-manager there is none."""
        if namespace not in self._asked:
            try:
                found = await self._client.list_all(
                    kinds.CERTIFICATE, namespace, label_selector=names.MANAGED_BY_SELECTOR, metadata_only=True
                )
            except (errors.NotFound, errors.Forbidden):
                found = []
            self._asked[namespace] = {item["metadata"]["name"] for item in found}
        return self._asked[namespace]

    async def _issue(self, sandbox: v1alpha1.AISandbox, children: Children, wanted: tuple[str, ...]) -> str:
        """The self-signed certificate: made, renewed in time, and again when names change.

        Raises:
            material.AuthorityUnusable: it is due, and the sandbox's authority cannot sign it.
        """
        leaf_name, key_name = access.tls_name(sandbox), access.authority_key_name(sandbox)
        assert leaf_name is not None
        leaf, authority = _data(children, leaf_name), _data(children, key_name)
        whole = leaf.get("tls.crt") and authority.get("ca.crt")
        if not whole or material.needs_renewal(
            leaf["tls.crt"],
            now=self._now(),
            wanted=wanted,
            key=leaf.get("tls.key"),
            authority=authority["ca.crt"],
        ):
            old = authority.get("ca.crt")
            if old is None or material.needs_renewal(old, now=self._now(), wanted=None) is not None:
                made = material.new_authority(sandbox=sandbox.metadata.name, now=self._now())
                authority = await self._store(sandbox, key_name, made, children)
            issued = material.issue(authority, names=wanted, now=self._now())
            leaf = await self._store(sandbox, leaf_name, issued, children, type_="kubernetes.io/tls")
        # Without any key, so that whoever should trust the sandbox may read it.
        public = {material.AUTHORITY: authority[material.AUTHORITY]}
        name = access.authority_name(sandbox)
        if _data(children, name) != public:
            await self._store(sandbox, name, public, children)
        return leaf[material.CERTIFICATE]

    async def _store(
        self,
        sandbox: v1alpha1.AISandbox,
        name: str,
        values: Mapping[str, str],
        children: Children,
        *,
        type_: str = "Opaque",
    ) -> dict[str, str]:
        """Create the Secret, or replace the values of the one that is held."""
        held = children.get(("Secret", name))
        manifest = common.secret(sandbox, name, certificate.COMPONENT, values)
        manifest["type"] = type_
        if held is None:
            try:
                answer = await self._client.create(kinds.SECRET, manifest)
            except errors.AlreadyExists:
                answer = await self._reclaim(sandbox, name, manifest)
        else:
            if held.owner_uid not in ("", sandbox.metadata.uid):
                raise errors.Conflict(
                    f"Secret {name} belongs to an earlier sandbox that is still being removed"
                )
            metadata = {**manifest["metadata"], "resourceVersion": held.resource_version}
            answer = await self._client.replace(kinds.SECRET, {**manifest, "metadata": metadata})
        return dict(self._write_back(kinds.SECRET, answer).facts["data"])

    async def _reclaim(
        self, sandbox: v1alpha1.AISandbox, name: str, manifest: facts.Manifest
    ) -> kube_client.Object:
        """One of ours that the watch does not show, as it lost its labels: they come back, its values stay."""
        live = await self._client.get(kinds.SECRET, sandbox.metadata.namespace, name)
        if seen.owner_uid(live["metadata"]) != sandbox.metadata.uid:
            raise errors.AlreadyExists(f"Secret {name}", status=409, reason="AlreadyExists")
        patch = {"metadata": {"labels": manifest["metadata"]["labels"]}}
        return await self._client.merge_patch(kinds.SECRET, sandbox.metadata.namespace, name, patch)


def _data(children: Children, name: str) -> dict[str, str]:
    record = children.get(("Secret", name))
    return dict(record.facts.get("data", {})) if record else {}


def _holds(live: Mapping[str, Any], manifest: facts.Manifest) -> bool:
    """Whether a Certificate asks for what is wanted; what others set besides is theirs."""
    spec: Mapping[str, Any] = live.get("spec") or {}
    wanted: Mapping[str, Any] = manifest["spec"]
    gone = {"dnsNames", "ipAddresses"} - wanted.keys()
    return all(spec.get(key) == value for key, value in wanted.items()) and not any(map(spec.get, gone))


def _ready(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """Condition Ready, if it is about the current generation."""
    for condition in (live.get("status") or {}).get("conditions") or ():
        current = condition.get("observedGeneration", 0) == live["metadata"].get("generation", 0)
        if condition["type"] == "Ready" and current:
            found: Mapping[str, Any] = condition
            return found
    return {}
