"""The engine's key outlives its Secret, because the engine that runs knows no other; an emptied one is filled."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ai_sandbox_operator.api import names
from ai_sandbox_operator.desired import access, facts
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import credentials
from unit.desired import samples
from unit.observed.live import live
from unit.reconcile.fake_client import FakeClient

SANDBOX = samples.sandbox({})


def stored() -> dict[tuple[str, str], seen.Seen]:
    """The engine's Secret as it was rendered."""
    name = access.engine_key_name(SANDBOX)
    manifest = samples.child(samples.rendered({}), "Secret", name)
    data = {key: base64.b64encode(text.encode()).decode() for key, text in samples.content(manifest).items()}
    body = {**manifest, "data": data, "metadata": {**manifest["metadata"], "uid": "u"}}
    return {("Secret", name): seen.observe("Secret", body)}


async def test_a_deleted_secret_of_the_engine_comes_back_with_the_same_key() -> None:
    one = credentials.Credentials(None, None)  # type: ignore[arg-type]
    known = await one.ensure(SANDBOX, stored())
    assert known.engine_key == samples.MATERIAL.engine_key
    one._fresh.clear()  # as once all Secrets were seen stored
    assert (await one.ensure(SANDBOX, {})).engine_key == known.engine_key
    # Nobody remembers it for a sandbox that is gone.
    one.forget(SANDBOX.metadata.uid)
    assert (await one.ensure(SANDBOX, {})).engine_key != known.engine_key


class Cluster:
    """The Secrets of a sandbox as they were rendered, and an operator that may start anew."""

    def __init__(self, spec: dict[str, Any] | None = None) -> None:
        spec = {"access": {"apiKeys": [{"name": name} for name in samples.MATERIAL.api_keys]}, **(spec or {})}
        self.sandbox = samples.sandbox(spec)
        self.client = FakeClient()
        for child in samples.rendered(spec):
            if child.kind == "Secret":
                self.client.objects["Secret", child.name] = live(child.manifest)
        self.subject = self.restarted()

    def restarted(self) -> credentials.Credentials:
        self.subject = credentials.Credentials(self.client, lambda kind, body: seen.observe(kind.kind, body))
        return self.subject

    def observed(self) -> dict[tuple[str, str], seen.Seen]:
        return {key: seen.observe(key[0], body) for key, body in self.client.objects.items()}

    async def ensure(self) -> facts.Material:
        return await self.subject.ensure(self.sandbox, self.observed())

    def data(self, name: str) -> dict[str, str]:
        return {k: seen.decode(v) for k, v in self.client.objects["Secret", name].get("data", {}).items()}

    @property
    def writes(self) -> list[str]:
        return [call for call in self.client.calls if not call.startswith(("get", "list"))]


@pytest.mark.parametrize("restart", [False, True])
async def test_an_emptied_secret_of_the_engine_is_filled_with_the_key_that_the_engine_runs_with(
    restart: bool,
) -> None:
    """By memory, and from the chat's Secret after a restart: the running engine knows no other."""
    cluster = Cluster()
    await cluster.ensure()
    assert cluster.writes == [], "what is whole is left alone"
    del cluster.client.objects["Secret", "demo-engine-key"]["data"]
    if restart:
        cluster.restarted()
    assert (await cluster.ensure()).engine_key == samples.MATERIAL.engine_key
    assert cluster.data("demo-engine-key") == {"key": samples.MATERIAL.engine_key}
    assert cluster.writes == ["merge Secret demo-engine-key"]
    await cluster.ensure()
    assert cluster.writes == ["merge Secret demo-engine-key"], "once"


async def test_with_no_copy_of_the_key_left_a_new_one_is_stored_and_stays_the_same_over_restarts() -> None:
    cluster = Cluster()
    for name in ("demo-engine-key", "demo-chat"):
        cluster.client.objects["Secret", name]["data"] = {}
    first = (await cluster.ensure()).engine_key
    cluster.restarted()
    assert (await cluster.ensure()).engine_key == first
    assert cluster.data("demo-engine-key") == {"key": first}


@pytest.mark.parametrize("entry", [access.ADMIN_PASSWORD, access.ADMIN_EMAIL])
async def test_what_is_missing_in_the_administrators_secret_is_put_back_and_the_rest_stays(
    entry: str,
) -> None:
    cluster = Cluster()
    body = cluster.client.objects["Secret", "demo-chat-admin"]
    before = cluster.data("demo-chat-admin")
    del body["data"][entry]
    found = await cluster.ensure()
    after = cluster.data("demo-chat-admin")
    assert set(after) == set(before)
    assert after[access.ADMIN_PASSWORD] == found.chat_admin_password
    assert {key: value for key, value in after.items() if key != entry} == {
        key: value for key, value in before.items() if key != entry
    }
    assert cluster.writes == ["merge Secret demo-chat-admin"]


async def test_a_secret_of_the_user_is_never_filled() -> None:
    cluster = Cluster({"chat": {"admin": {"secretName": "mine"}}})
    cluster.client.objects["Secret", "mine"] = live(
        {"kind": "Secret", "metadata": {"name": "mine", "namespace": "team-a"}, "data": {}}
    )
    await cluster.ensure()
    assert cluster.writes == []


async def test_i2_a_value_is_put_back_only_into_exactly_what_was_seen_empty() -> None:
    cluster = Cluster()
    view = cluster.observed()
    name = access.engine_key_name(cluster.sandbox)
    body = cluster.client.objects["Secret", name]
    emptied = seen.observe("Secret", {**body, "data": {}})
    await cluster.subject.ensure(cluster.sandbox, {**view, ("Secret", name): emptied})
    (sent,) = [sent for sent in cluster.client.sent if sent]
    assert sent["metadata"]["resourceVersion"] == emptied.resource_version

    def refuse(verb: str, _kind: str, _name: str) -> Exception | None:
        return errors.Conflict("changed since", status=409) if verb == "merge" else None

    cluster.client.fail = refuse
    with pytest.raises(errors.Conflict):
        await cluster.subject.ensure(cluster.sandbox, {**view, ("Secret", name): emptied})


async def test_i2_a_secret_that_was_not_read_is_not_taken_for_empty() -> None:
    """Of Secrets with the gateway's label only a digest is kept; somebody may set that label elsewhere."""
    cluster = Cluster()
    labels = cluster.client.objects["Secret", "demo-chat-admin"]["metadata"]["labels"]
    labels[names.LABEL_COMPONENT] = "gateway"
    before = cluster.data("demo-chat-admin")
    await cluster.ensure()
    assert cluster.data("demo-chat-admin") == before
    assert cluster.writes == []
