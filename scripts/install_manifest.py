#!/usr/bin/env python3
"""Make the file for `kubectl apply` from the chart: `scripts/install_manifest.py [--check] [--helm HELM] [--out FILE]`.

Helm renders the chart's defaults; what is only true of a release of Helm is taken out. Only the standard library is
used, so that a release needs no more than Helm; without `--helm`, the tests' own pinned one is taken.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INSTALL = ROOT / "manifests" / "install" / "install.yaml"
CHART = ROOT / "charts" / "ai-sandbox"
#: As docs/install.md names them, so that Helm can take over later: selectors of a Deployment never change.
RELEASE, NAMESPACE, TOKEN_SECRET = "ai-sandbox", "ai-sandbox-system", "linode-token"
#: What would tell people and tools that a release of Helm owns the object.
_OF_HELM = re.compile(r"^ *(helm\.sh/[\w-]+|app\.kubernetes\.io/managed-by):.*\n", re.MULTILINE)
_EMPTY_ANNOTATIONS = re.compile(r"^( *)annotations:\n(?!\1 )", re.MULTILINE)
_SOURCE = re.compile(r"^# Source: .*\n", re.MULTILINE)
_KIND = re.compile(r"^kind: (\w+)$", re.MULTILINE)

_HEAD = f"""\
# Generated from charts/ai-sandbox by scripts/install_manifest.py; do not edit.
#
# The operator with its CRD, serving every namespace:
#   kubectl apply --server-side -f manifests/install/
# Sandboxes with exposure NodeBalancer need a Linode token (firewall:read_write, nodebalancers:read_write), from a
# file that holds nothing else; it may come later, and change:
#   kubectl create secret generic {TOKEN_SECRET} --namespace {NAMESPACE} --from-file=token=FILE
# Before you delete it, delete all sandboxes and wait: only the operator removes their NodeBalancers and firewalls.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: ai-sandbox
    pod-security.kubernetes.io/enforce: restricted
"""


def render(helm: str) -> str:
    """What `helm template` makes of the chart with its defaults and the name of the token's Secret.

    Raises:
        subprocess.CalledProcessError: Helm refused; what it said went to the standard error.
    """
    options = ("--namespace", NAMESPACE, "--no-hooks", "--set", f"linode.tokenSecretRef.name={TOKEN_SECRET}")
    command = [helm, "template", RELEASE, str(CHART), *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def convert(rendered: str) -> str:
    """The install file: namespace, CRD, then the rest in Helm's order, without Helm's own marks."""
    documents = [_cleaned(part) for part in re.split(r"^---\n", rendered, flags=re.MULTILINE) if part.strip()]
    documents.sort(key=lambda text: _kind(text) != "CustomResourceDefinition")  # stable
    return "---\n".join([_HEAD, *documents])


def _cleaned(text: str) -> str:
    text = _OF_HELM.sub("", _SOURCE.sub("", text))
    return _EMPTY_ANNOTATIONS.sub("", text).strip("\n") + "\n"


def _kind(text: str) -> str:
    """Kind of a document.

    Raises:
        ValueError: it has none, or more than one: it is not one document.
    """
    (kind,) = _KIND.findall(text)
    return str(kind)


def pinned_helm() -> str:
    """Path of the Helm that the chart's tests pin; fetched on first use."""
    # The folder of this script holds another module of the name `chart`.
    scripts = pathlib.Path(__file__).resolve().parent
    sys.path = [str(ROOT / "tests"), *(path for path in sys.path if pathlib.Path(path) != scripts)]
    from chart import helm

    return str(helm.ensure(helm.HELM_4))


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` tell whether it is out of date."""
    parser = argparse.ArgumentParser(description="Make the file for kubectl apply from the chart.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where the file would change"
    )
    parser.add_argument("--helm", help="the Helm to use; default: the one that the tests pin")
    parser.add_argument("--out", type=pathlib.Path, default=INSTALL, help="file to write")
    chosen = parser.parse_args(arguments)
    text = convert(render(chosen.helm or pinned_helm()))
    if chosen.out.is_file() and chosen.out.read_text(encoding="utf-8") == text:
        return 0
    if chosen.check:
        sys.stderr.write(f"{chosen.out} is out of date: run scripts/install_manifest.py\n")
        return 1
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {chosen.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
