"""Certificates: which calls are made for which mode, and what is told."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest

from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import certificates, material, views
from unit.desired import samples
from unit.reconcile.fake_client import FakeClient

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HOST = "chat.example.com"
MANAGED = {
    "access": {
        "tls": {"mode": "CertManager", "issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"}},
        "hostnames": [HOST],
    }
}


class Cluster:
    """An API server with or without cert-manager, and the certificates of one operator on it."""

    def __init__(self, *, cert_manager: bool = True) -> None:
        self.client = FakeClient()
        self.client.fail = self._refuse
        self.cert_manager = cert_manager
        self.now = NOW
        self.subject = self.restarted()

    def restarted(self) -> certificates.Certificates:
        self.subject = certificates.Certificates(
            self.client, lambda kind, body: seen.observe(kind.kind, body), now=lambda: self.now
        )
        return self.subject

    def _refuse(self, _verb: str, kind: str, _name: str) -> Exception | None:
        missing = kind == "Certificate" and not self.cert_manager
        return errors.NotFound("404 page not found", status=404) if missing else None

    async def ensure(
        self, spec: dict[str, Any], *, public_names: tuple[str, ...] = ()
    ) -> tuple[tuple[views.Problem, ...], float | None]:
        self.client.calls.clear()
        children = {
            key: seen.observe(key[0], body) for key, body in self.client.objects.items() if key[0] == "Secret"
        }
        return await self.subject.ensure(samples.sandbox(spec), children, public_names=public_names)

    @property
    def calls(self) -> list[str]:
        return self.client.calls

    def secret(self, name: str) -> dict[str, str]:
        data = self.client.objects["Secret", name]["data"]
        return {key: seen.decode(value) for key, value in data.items()}

    def says(self, status: str, message: str) -> None:
        """cert-manager's word on the Certificate."""
        body = self.client.objects["Certificate", "demo-gateway"]
        condition = {"type": "Ready", "status": status, "message": message, "observedGeneration": 1}
        body["status"] = {"conditions": [condition]}


# --- the sandbox's own authority --------------------------------------------------------------------


async def test_the_own_certificate_is_made_once_and_its_authority_is_shown_without_a_key() -> None:
    cluster = Cluster()
    assert await cluster.ensure({}) == ((), certificates.LONGEST_WAIT)
    assert cluster.calls == [
        "list Certificate ",
        "create Secret demo-ca-key",
        "create Secret demo-tls",
        "create Secret demo-ca",
    ]
    assert set(cluster.secret("demo-ca")) == {"ca.crt"}
    assert set(cluster.secret("demo-tls")) == {"ca.crt", "tls.crt", "tls.key"}
    assert cluster.secret("demo-ca")["ca.crt"] == cluster.secret("demo-ca-key")["ca.crt"]
    assert await cluster.ensure({}) == ((), certificates.LONGEST_WAIT)
    assert cluster.calls == []


async def test_it_is_renewed_in_time_by_the_same_authority() -> None:
    cluster = Cluster()
    await cluster.ensure({})
    before = cluster.secret("demo-tls"), cluster.secret("demo-ca")
    cluster.now = NOW + material.LEAF_LIFETIME * 2 / 3 + datetime.timedelta(hours=1)
    await cluster.ensure({})
    assert cluster.calls == ["replace Secret demo-tls"]
    assert cluster.secret("demo-tls")["tls.crt"] != before[0]["tls.crt"]
    assert cluster.secret("demo-ca") == before[1]


async def test_renewal_comes_although_nothing_else_happens() -> None:
    cluster = Cluster()
    _, again = await cluster.ensure({})
    passes = 0
    while "replace Secret demo-tls" not in cluster.calls:
        assert again is not None
        cluster.now += datetime.timedelta(seconds=again)
        _, again = await cluster.ensure({})
        passes += 1
    assert passes < 70, "one look a day, and one on time"
    left = material.LEAF_LIFETIME - (cluster.now - NOW)
    assert left > material.LEAF_LIFETIME / 3 - datetime.timedelta(minutes=10)


async def test_a_new_address_or_host_is_put_into_the_certificate() -> None:
    cluster = Cluster()
    await cluster.ensure({})
    await cluster.ensure({"access": {"hostnames": [HOST]}}, public_names=("192.0.2.80", "nb.example.com"))
    assert cluster.calls == ["replace Secret demo-tls"]
    pem = cluster.secret("demo-tls")["tls.crt"]
    assert material.leaf_problem(pem, hostnames=[HOST, "192.0.2.80", "nb.example.com"], now=NOW) is None


async def test_what_somebody_puts_into_the_public_secret_is_put_right() -> None:
    cluster = Cluster()
    await cluster.ensure({})
    cluster.client.objects["Secret", "demo-ca"]["data"]["ca.crt"] = "AAAA"
    await cluster.ensure({})
    assert cluster.calls == ["replace Secret demo-ca"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (None, "ca.key is missing"),
        ("Z2FyYmxlZA==", "ca.key is not a private key"),
        ("another's", "ca.key does not belong to ca.crt"),
    ],
)
async def test_an_authority_that_cannot_sign_is_told_and_the_certificate_serves_on(
    key: str | None, problem: str
) -> None:
    cluster = Cluster()
    await cluster.ensure({})
    held = cluster.secret("demo-tls")
    data = cluster.client.objects["Secret", "demo-ca-key"]["data"]
    whole = dict(data)
    if key == "another's":
        other = material.new_authority(sandbox="other", now=NOW)["ca.key"]
        key = base64.b64encode(other.encode()).decode()
    data["ca.key"] = key
    if key is None:
        del data["ca.key"]
    assert await cluster.ensure({}) == ((), certificates.LONGEST_WAIT), "nothing is due"
    (told,), again = await cluster.ensure({"access": {"hostnames": [HOST]}})
    assert (told.reason, again) == (Reason.AuthorityUnusable, None)
    assert told.message.startswith("Secret demo-ca-key: ")
    assert problem in told.message
    assert cluster.calls == []
    assert cluster.secret("demo-tls") == held
    # Either remedy helps: the key back from a backup, or another authority.
    data |= whole
    assert (await cluster.ensure({"access": {"hostnames": [HOST]}}))[0] == ()
    assert cluster.calls == ["replace Secret demo-tls"]
    del cluster.client.objects["Secret", "demo-ca-key"]
    assert (await cluster.ensure({}))[0] == ()
    assert cluster.calls == [
        "create Secret demo-ca-key",
        "replace Secret demo-tls",
        "replace Secret demo-ca",
    ]


# --- cert-manager -----------------------------------------------------------------------------------


async def test_cert_manager_is_asked_for_the_hosts_of_the_spec_alone() -> None:
    cluster = Cluster()
    problems, again = await cluster.ensure(MANAGED, public_names=("192.0.2.80", "nb.example.com"))
    assert again == certificates.PENDING
    assert [problem.reason for problem in problems] == [Reason.CertificatePending]
    spec = cluster.client.objects["Certificate", "demo-gateway"]["spec"]
    assert spec["dnsNames"] == [HOST]
    assert "ipAddresses" not in spec
    assert spec["secretName"] == "demo-cert-manager"
    assert spec["issuerRef"] == {"name": "letsencrypt", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    cluster.says("False", "the order is pending")
    problems, _ = await cluster.ensure(MANAGED)
    assert "the order is pending" in problems[0].message
    cluster.says("True", "")
    assert await cluster.ensure(MANAGED) == ((), certificates.ISSUED)
    assert cluster.calls == ["get Certificate demo-gateway"]


async def test_without_hosts_it_is_asked_for_every_name_of_the_gateway() -> None:
    cluster = Cluster()
    await cluster.ensure(
        {"access": {"tls": MANAGED["access"]["tls"]}}, public_names=("192.0.2.80", "nb.example.com")
    )
    spec = cluster.client.objects["Certificate", "demo-gateway"]["spec"]
    assert spec["ipAddresses"] == ["192.0.2.80"]
    assert f"demo-internal.{samples.sandbox({}).metadata.namespace}.svc" in spec["dnsNames"]


async def test_a_word_about_an_earlier_generation_does_not_count() -> None:
    cluster = Cluster()
    await cluster.ensure(MANAGED)
    cluster.says("True", "")
    cluster.client.objects["Certificate", "demo-gateway"]["metadata"]["generation"] = 2
    problems, _ = await cluster.ensure(MANAGED)
    assert problems[0].reason is Reason.CertificatePending


async def test_an_edited_certificate_is_put_right_and_what_others_add_is_left() -> None:
    cluster = Cluster()
    await cluster.ensure(MANAGED)
    spec = cluster.client.objects["Certificate", "demo-gateway"]["spec"]
    spec["duration"] = "240h"
    await cluster.ensure(MANAGED)
    assert cluster.calls == ["get Certificate demo-gateway"]
    spec = cluster.client.objects["Certificate", "demo-gateway"]["spec"]
    spec["dnsNames"] = ["evil.example.com"]
    await cluster.ensure(MANAGED)
    assert cluster.calls == ["get Certificate demo-gateway", "apply Certificate demo-gateway"]
    assert cluster.client.objects["Certificate", "demo-gateway"]["spec"]["dnsNames"] == [HOST]


async def test_cert_manager_may_come_later_and_is_noticed_without_restart() -> None:
    cluster = Cluster(cert_manager=False)
    problems, again = await cluster.ensure(MANAGED)
    assert again == certificates.MISSING
    assert [problem.reason for problem in problems] == [Reason.CertManagerMissing]
    assert not cluster.client.objects
    cluster.cert_manager = True
    problems, _ = await cluster.ensure(MANAGED)
    assert [problem.reason for problem in problems] == [Reason.CertificatePending]


async def test_somebody_elses_certificate_is_never_touched() -> None:
    cluster = Cluster()
    await cluster.ensure(MANAGED)
    held = cluster.client.objects["Certificate", "demo-gateway"]
    del held["metadata"]["ownerReferences"]
    held["spec"] = {"secretName": "theirs"}
    with pytest.raises(errors.AlreadyExists, match="Certificate demo-gateway"):
        await cluster.ensure(MANAGED)
    assert await cluster.ensure({}) == ((), certificates.LONGEST_WAIT)
    assert cluster.client.objects["Certificate", "demo-gateway"]["spec"] == {"secretName": "theirs"}


@pytest.mark.parametrize("restart", [False, True])
async def test_in_another_mode_nothing_is_asked_of_cert_manager_any_more(restart: bool) -> None:
    cluster = Cluster()
    await cluster.ensure(MANAGED)
    if restart:
        cluster.restarted()
    await cluster.ensure({"access": {"tls": {"mode": "Disabled"}}})
    assert ("Certificate", "demo-gateway") not in cluster.client.objects
    await cluster.ensure({"access": {"tls": {"mode": "Disabled"}}})
    assert cluster.calls == []


async def test_without_cert_manager_other_modes_ask_once_whether_it_is_there() -> None:
    cluster = Cluster(cert_manager=False)
    for _ in range(3):
        assert await cluster.ensure({"access": {"tls": {"mode": "Disabled"}}}) == ((), None)
    assert cluster.calls == []
