"""The engine's key outlives its Secret, because the engine that runs knows no other."""

from __future__ import annotations

import base64

from ai_sandbox_operator.desired import access
from ai_sandbox_operator.observed import seen
from ai_sandbox_operator.reconcile import credentials
from unit.desired import samples

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
