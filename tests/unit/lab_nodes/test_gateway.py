"""What the stand-in for a gateway's Envoy says, and that the real one says the same."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from ai_sandbox_operator.api import v1alpha1
from ai_sandbox_operator.desired import envoy, envoy_routes, facts
from ai_sandbox_operator.observed import served
from lab.cluster.nodes.gateway import CONFIG_PATH, StandIn
from lab.envoy import process

KNOWN = facts.Facts(
    release=facts.Release(),
    material=facts.Material(engine_key="e" * 40, chat_session_key="s" * 40, api_keys={"alice": "k" * 40}),
    firewall_id=1,
)
ROUTES = ("external_api", "external_chat", "internal_api", "internal_chat")


def sandbox(*cidrs: str) -> v1alpha1.AISandbox:
    access = {
        "exposure": "NodeBalancer",
        "tls": {"mode": "Disabled"},
        "allowlist": [{"cidr": cidr} for cidr in cidrs],
        "apiKeys": [{"name": "alice"}],
    }
    metadata = {"name": "demo", "namespace": "team", "uid": "u"}
    return v1alpha1.parse({"metadata": metadata, "spec": {"access": access}})


BEFORE, AFTER = sandbox("203.0.113.4/32"), sandbox("198.51.100.0/24")
OLD, NEW = (envoy_routes.configurations(one, KNOWN)[0] for one in (BEFORE, AFTER))
FILES, CHANGED = (envoy.configuration(one, KNOWN)[1] for one in (BEFORE, AFTER))
BROKEN = {
    "not JSON": "{broken",
    "another route configuration": json.dumps({"version_info": "v", "resources": [{"name": "other"}]}),
    "no resource": json.dumps({"version_info": "v", "resources": []}),
}


async def stand_in(*versions: dict[str, str]) -> StandIn:
    """One that had these files mounted, one after the other."""
    made = StandIn()
    for files in versions:
        await made.mount(CONFIG_PATH, files)
    return made


async def test_it_serves_what_is_mounted() -> None:
    text = (await stand_in(FILES)).statistics(readouts=True)
    assert served.revisions(text) == dict.fromkeys(ROUTES, OLD)
    text = (await stand_in(FILES, CHANGED)).statistics(readouts=True)
    assert served.revisions(text) == dict.fromkeys(ROUTES, NEW)


async def test_the_certificate_is_no_configuration() -> None:
    one = await stand_in(FILES)
    await one.mount("/tls", {"lds.json": CHANGED["lds.json"], "rds-internal-api.json": "{}"})
    assert served.revisions(one.statistics(readouts=True)) == dict.fromkeys(ROUTES, OLD)


# --- the real one ---------------------------------------------------------------------------------


class Real:
    """The real Envoy with the same files."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._upstream = process.Upstream()
        self._gateway = process.Gateway(directory, self._upstream)
        self._gateway.write(BEFORE, KNOWN)
        self._version = 1

    def start(self) -> None:
        self._gateway.start()

    def stop(self) -> None:
        self._gateway.stop()
        self._upstream.close()

    def ask(self, query: str) -> process.Answer:
        return self._gateway.status(f"/stats/prometheus{query}")

    def replace(self, files: dict[str, str], *, until: tuple[str, str]) -> None:
        """Replace the route configurations, and wait until one is served in a revision."""
        config = self._gateway.config
        before = {path.name: path.read_text() for path in (config / "..data").iterdir()}
        routes = {name: text for name, text in files.items() if name.startswith("rds-")}
        process.publish(config, before | routes, self._version)
        self._version += 1
        process.wait_for(lambda: self._gateway.serving(until[1], until[0]))


@pytest.fixture
def real(tmp_path: pathlib.Path) -> Iterator[Real]:
    if process.binary() is None:
        pytest.skip("envoy is not installed")
    one = Real(tmp_path)
    try:
        one.start()
        yield one
    finally:
        one.stop()


def version_lines(text: str) -> list[str]:
    """The lines that the stand-in knows of; revisions of listeners differ by the test's own ports."""
    return [line for line in text.splitlines() if "rds_version_text" in line]


async def test_the_real_envoy_says_the_same_in_the_same_form(real: Real) -> None:
    one = await stand_in(FILES)
    for query, readouts, pattern in (
        ("?text_readouts", True, ""),
        ("?text_readouts&filter=version_text", True, "version_text"),
        ("?text_readouts&filter=%5Ehttp%5C.internal_.*rds", True, r"^http\.internal_.*rds"),
        ("?text_readouts&filter=nothing_of_that", True, "nothing_of_that"),
        ("?filter=version_text", False, "version_text"),
        ("", False, ""),
    ):
        said = version_lines(real.ask(query).body.decode())
        assert said == version_lines(one.statistics(readouts=readouts, pattern=pattern)), query
    assert len(version_lines(one.statistics(readouts=True))) == len(ROUTES) + 1


async def test_the_real_envoy_has_no_other_version_texts(real: Real) -> None:
    def families(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("#")]

    said = real.ask("?text_readouts&filter=version_text").body.decode()
    assert families(said) == families((await stand_in(FILES)).statistics(readouts=True))


@pytest.mark.parametrize("what", BROKEN)
async def test_the_real_envoy_does_the_same_with_a_broken_file(real: Real, what: str) -> None:
    broken = {**CHANGED, "rds-internal-api.json": BROKEN[what]}
    real.replace(broken, until=("external_chat", NEW))
    # The files are read one by one, so the last of them may come later than the awaited one.
    real.replace(broken, until=("internal_chat", NEW))
    expected = (await stand_in(FILES, broken)).statistics(readouts=True)
    process.wait_for(
        lambda: version_lines(real.ask("?text_readouts").body.decode()) == version_lines(expected)
    )
    kept = "v" if what == "no resource" else OLD
    assert served.revisions(expected) == {**dict.fromkeys(ROUTES, NEW), "internal_api": kept}


async def test_a_filter_that_is_none_is_refused_by_both(real: Real) -> None:
    assert real.ask("?filter=(").status == 400
    with pytest.raises(ValueError, match="unterminated"):
        (await stand_in(FILES)).statistics(readouts=True, pattern="(")


async def test_the_operator_understands_both(real: Real) -> None:
    query = served.STATUS_PATH.partition("/stats/prometheus")[2]
    for said in (real.ask(query).body.decode(), (await stand_in(FILES)).statistics(readouts=True)):
        assert served.serves(said, OLD, ROUTES)
        assert not served.serves(said, NEW, ROUTES)
        assert KNOWN.material.engine_key not in said
