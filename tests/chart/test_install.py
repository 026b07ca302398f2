"""The chart's whole life on a real API server, with both Helms."""

from __future__ import annotations

import copy
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ai_sandbox_operator.api import names
from chart import helm
from lab.cluster.lab import Lab
from results import Results

CRD = f"{names.PLURAL}.{names.GROUP}"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Site:
    """A namespace for a release, and the Helm that manages it."""

    def __init__(self, lab: Lab, version: helm.Version, home: pathlib.Path) -> None:
        self.lab = lab
        self.namespace = f"chart-{uuid.uuid4().hex[:8]}"
        self.helm = helm.Helm(version, helm.ensure(version), home, lab.plane.kubeconfig)
        manifest = {"metadata": {"name": self.namespace, "labels": RESTRICTED}}
        self.create({"apiVersion": "v1", "kind": "Namespace", **manifest})

    def create(self, manifest: dict[str, Any]) -> None:
        self.lab.plane.kubectl("create", "--filename", "-", stdin=json.dumps(manifest))

    def get(self, *arguments: str) -> dict[str, Any]:
        """One object or list, as JSON."""
        found: dict[str, Any] = json.loads(self.lab.plane.kubectl("get", *arguments, "--output", "json"))
        return found

    def exists(self, *arguments: str) -> bool:
        return self.lab.plane.kubectl_result("get", *arguments).returncode == 0

    def run(self, verb: str, *arguments: str, release: str = helm.RELEASE, **values: Any) -> str:
        given = values or None
        return self.helm.run(verb, release, *arguments, "--namespace", self.namespace, values=given)

    def install(self, *flags: str, chart: pathlib.Path = helm.CHART, release: str = helm.RELEASE) -> str:
        return self.run("install", str(chart), *flags, release=release)

    @property
    def owned(self) -> list[str]:
        """What of a release is left, the kept CRD aside."""
        kinds = (
            "deployments,replicasets,pods,services,serviceaccounts,roles,rolebindings,networkpolicies,"
            "poddisruptionbudgets,clusterroles,clusterrolebindings"
        )
        selector = "helm.sh/chart"
        items = self.get(kinds, "--namespace", self.namespace, "--selector", selector)["items"]
        return [f"{i['kind']}/{i['metadata']['name']}" for i in items]


@pytest.fixture(params=helm.VERSIONS, ids=lambda version: f"helm-{version.number}")
def site(request: pytest.FixtureRequest, bare: Lab, home: pathlib.Path) -> Iterator[Site]:
    """A namespace that enforces the restricted profile, without the CRD."""
    made = Site(bare, request.param, home)
    yield made
    for release in json.loads(made.helm.run("list", "--namespace", made.namespace, "--output", "json")):
        made.run("uninstall", release=release["name"])
    bare.plane.kubectl("delete", "namespace", made.namespace, "--wait=false")


def changed(folder: pathlib.Path) -> pathlib.Path:
    """A chart of the next version whose CRD has one field more."""
    chart = folder / "next"
    shutil.copytree(helm.CHART, chart)
    path = chart / "templates/crds/aisandboxes.yaml"
    text = path.read_text()
    marker = "            properties:\n              access:\n"
    assert text.count(marker) == 1, "the CRD's spec does not begin as this test believes"
    path.write_text(
        text.replace(
            marker, "            properties:\n              added: {type: string}\n              access:\n"
        )
    )
    return chart


def spec_fields(site: Site) -> set[str]:
    """Fields of the spec that the API server knows."""
    schema = site.get("crd", CRD)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return set(schema["properties"]["spec"]["properties"])


def say(results: Results, site: Site, outcomes: dict[str, str]) -> None:
    """What the docs show: outcomes by operation."""
    for operation, outcome in outcomes.items():
        helm_version = f"Helm {site.helm.version.number}"
        results.row("helm", {"Operation": operation, "Helm": helm_version, "Outcome": outcome})


def test_install_upgrade_rollback_uninstall_and_install_again_keep_every_sandbox(
    site: Site, tmp_path: pathlib.Path, results: Results
) -> None:
    site.install("--wait", "--timeout", "60s")
    assert len(site.get("pods", "-n", site.namespace)["items"]) == 2
    site.lab.plane.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=20s")
    sandbox = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    site.create({**sandbox, "metadata": {"name": "kept", "namespace": site.namespace}, "spec": {}})
    uid = site.get("aisb", "kept", "-n", site.namespace)["metadata"]["uid"]

    assert "added" not in spec_fields(site)
    site.run("upgrade", str(changed(tmp_path)), "--wait", "--timeout", "60s", replicas=3)
    assert "added" in spec_fields(site)
    assert len(site.get("pods", "-n", site.namespace)["items"]) == 3
    site.run("rollback", "1", "--wait", "--timeout", "60s")
    assert "added" not in spec_fields(site)

    site.run("uninstall", "--wait", "--timeout", "60s")
    assert [left for left in site.owned if not left.startswith(("Pod/", "ReplicaSet/"))] == []
    assert site.get("aisb", "kept", "-n", site.namespace)["metadata"]["uid"] == uid
    site.install("--wait", "--timeout", "60s")
    assert site.get("aisb", "kept", "-n", site.namespace)["metadata"]["uid"] == uid
    told = {
        "install": "CRD established, pods ready in a namespace that enforces the restricted profile",
        "upgrade with a changed CRD": "CRD and pods are the new ones",
        "rollback": "CRD and pods are the old ones",
        "uninstall": "everything goes but the CRD; the sandbox stays",
        "install again, same name and namespace": "the CRD is adopted; the sandbox stays",
    }
    say(results, site, told)


def test_a_second_install_of_the_same_values_changes_nothing(site: Site, results: Results) -> None:
    site.install()
    versions = generations(site)
    site.run("upgrade", str(helm.CHART))
    assert generations(site) == versions
    say(results, site, {"upgrade without a change": "no object gets a new generation"})


def generations(site: Site) -> dict[str, int]:
    """Generation of everything in the release that has one."""
    kinds = "deployments,networkpolicies,poddisruptionbudgets"
    objects = site.get(kinds, "-n", site.namespace)["items"] + [site.get("crd", CRD)]
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["generation"] for o in objects}


def test_a_crd_of_another_release_is_adopted_only_when_told(site: Site, results: Results) -> None:
    site.install(release="first")
    site.run("uninstall", release="first")
    with pytest.raises(helm.Refused, match="invalid ownership metadata"):
        site.install(release="second")
    site.install(*adopting(site), release="second")
    assert site.get("crd", CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "second"
    told = f"refused; taken over with {' '.join(adopting(site))}"
    say(results, site, {"install over the CRD of another release": told})


@pytest.mark.parametrize("same", [True, False], ids=["same content", "other content"])
def test_a_crd_from_kubectl_is_adopted_as_documented(
    site: Site, same: bool, tmp_path: pathlib.Path, results: Results
) -> None:
    crd = yaml.safe_load(next(helm.ROOT.glob("crds/*.yaml")).read_text())
    if not same:
        crd["spec"]["names"]["shortNames"] = ["aisb", "box"]
    site.lab.plane.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(crd))
    with pytest.raises(helm.Refused, match="invalid ownership metadata"):
        site.install()
    site.install(*adopting(site))
    live = site.get("crd", CRD)
    assert live["metadata"]["annotations"]["meta.helm.sh/release-name"] == helm.RELEASE
    assert live["spec"]["names"]["shortNames"] == ["aisb"]
    site.run("upgrade", str(changed(tmp_path)), *adopting(site)[1:])
    assert "added" in spec_fields(site)
    further = f"; the first upgrade with {' '.join(adopting(site)[1:]) or 'no flag'}"
    told = f"refused; taken over with {' '.join(adopting(site))}{further}"
    content = "the same" if same else "another"
    say(results, site, {f"install over a CRD of kubectl with {content} content": told})


def adopting(site: Site) -> list[str]:
    """The flags that docs/reference/helm.md names."""
    return ["--take-ownership", *(["--force-conflicts"] if site.helm.version.major == 4 else [])]


def test_with_keep_false_the_crd_goes_with_the_release(site: Site, results: Results) -> None:
    site.run("install", str(helm.CHART), crds={"keep": False})
    assert site.exists("crd", CRD)
    site.run("uninstall", "--wait", "--timeout", "60s")
    site.lab.plane.kubectl("wait", "--for=delete", f"crd/{CRD}", "--timeout=30s")
    assert not site.exists("crd", CRD)
    say(results, site, {"uninstall with crds.keep=false": "the CRD goes with the release"})


def test_every_value_that_renders_is_accepted_by_the_api_server(site: Site) -> None:
    from chart.test_render import EVERYTHING

    for namespace in ("team-a", "team-b"):
        site.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{site.namespace}-{namespace}"}}
        )
    for values in ({}, EVERYTHING, {"watch": {"namespaces": [f"{site.namespace}-team-a"]}}):
        manifests = site.helm.template(values)
        for manifest in manifests:
            if manifest["metadata"].get("namespace") == helm.NAMESPACE:
                manifest["metadata"]["namespace"] = site.namespace
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        flags = ("--server-side", "--dry-run=server", "--validate=strict")
        site.lab.plane.kubectl("apply", *flags, "--filename", "-", stdin=text)
    for namespace in ("team-a", "team-b"):
        site.lab.plane.kubectl("delete", "namespace", f"{site.namespace}-{namespace}", "--wait=false")


def test_the_restricted_profile_takes_every_pod_and_would_refuse_a_lesser_one(site: Site) -> None:
    manifests = site.helm.template({"linode": {"tokenSecretRef": {"name": "t"}}})
    test_pod = helm.find(manifests, "Pod")
    own = helm.find(manifests, "Deployment")["spec"]["template"]
    operator_pod = {"apiVersion": "v1", "kind": "Pod", **own}
    operator_pod["metadata"] = {**own["metadata"], "name": "operator"}
    operator_pod["spec"] = {**own["spec"], "serviceAccountName": "default"}
    for pod in (test_pod, operator_pod):
        pod["metadata"]["namespace"] = site.namespace
        assert dry_run(site, pod).returncode == 0, dry_run(site, pod).stderr
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        lesser = copy.deepcopy(pod)
        del lesser["spec"]["containers"][0]["securityContext"]["capabilities"]
        assert "violates PodSecurity" in dry_run(site, lesser).stderr


def dry_run(site: Site, pod: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    flags = ("create", "--dry-run=server", "--filename", "-")
    return site.lab.plane.kubectl_result(*flags, stdin=json.dumps(pod))


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_: Any) -> None:
        pass


def test_the_test_pod_succeeds_only_where_the_operator_answers(newest: helm.Helm) -> None:
    container = helm.find(newest.template(), "Pod")["spec"]["containers"][0]
    assert container["command"] == ["python3", "-c"]
    script, url = container["args"]
    assert url == f"http://sandbox-ai-sandbox.{helm.NAMESPACE}.svc:8080/readyz"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        quick = script.replace("range(30)", "range(1)").replace("sleep(2)", "sleep(0)")
        good = subprocess.run([sys.executable, "-c", quick, f"{base}/readyz"], capture_output=True, text=True)
        bad = subprocess.run([sys.executable, "-c", quick, f"{base}/other"], capture_output=True, text=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (good.returncode, good.stdout) == (0, "ok\n")
    assert bad.returncode == 1
    assert "the operator is not ready" in bad.stderr
