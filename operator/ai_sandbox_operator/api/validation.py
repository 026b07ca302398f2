"""The safety-relevant rules of admission once more, in Python.

The CRD in the cluster may be older than the operator, or absent from a backup that was restored;
the operator therefore judges each spec again before it acts on it. The messages are those of
admission, with the remedy spelled out where Python can compute it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import names, rules, v1alpha1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: An address and a prefix length; Python alone would also take a netmask, a zone, or no length.
_CIDR = re.compile(r"[0-9A-Fa-f.:]+/(0|[1-9][0-9]{0,2})", re.ASCII)

#: Of an OpenID provider; the chat reaches port 443 only.
_DISCOVERY = re.compile(r"https://(\[[^/?#\]]+\]|[^/:?#]+)(:443)?(/[^?#]*)?/\.well-known/")


class Violation(NamedTuple):
    """A rule that a spec breaks."""

    field: str
    message: str


def violations(sandbox: v1alpha1.AISandbox) -> tuple[Violation, ...]:
    """Every safety-relevant rule that the sandbox breaks, in the order of its fields."""
    spec = sandbox.spec
    return (
        *_name(sandbox.metadata.name),
        *_engine(spec.engine),
        *_gpu(spec.gpu),
        *_allowlist(spec.access.allowlist),
        *_tls(spec.access.tls),
        *_hostnames(spec.access.hostnames),
        *_api_keys(spec.access.api_keys),
        *_image(spec.chat.image, "spec.chat.image", rules.OLD_CHAT, rules.MESSAGE_OLD_CHAT),
        *_oidc(spec.chat.oidc),
    )


def network(cidr: str) -> Network:
    """The network that `cidr` denotes.

    Raises:
        ValueError: it is none, or has host bits, or is an IPv4 network in IPv6 spelling.
    """
    if not _CIDR.fullmatch(cidr):
        raise ValueError(rules.MESSAGE_CIDR)
    try:
        interface = ipaddress.ip_interface(cidr)
    except ValueError:
        raise ValueError(rules.MESSAGE_CIDR) from None
    if isinstance(interface, ipaddress.IPv6Interface) and interface.ip.ipv4_mapped is not None:
        raise ValueError(rules.MESSAGE_CIDR)
    if interface.ip != interface.network.network_address:
        raise ValueError(
            f"must not have bits set beyond the prefix length: write {interface.network} for the network, "
            f"or {interface.ip}/{interface.ip.max_prefixlen} for the one address"
        )
    return interface.network


def denied_flag(argument: str) -> str | None:
    """Why `argument` may not be given to the engine; None if it may."""
    if not argument.startswith("-"):
        return None
    flag = re.split(r"[=.]", argument, maxsplit=1)[0].replace("_", "-")
    if " " in flag:
        return rules.MESSAGE_ONE_ARGUMENT
    for denied, remedy in rules.DENIED_FLAGS.items():
        if denied.startswith(flag):
            return f"must not be, or abbreviate, {denied}: {remedy}"
    return rules.MESSAGE_FAMILY if flag.startswith(rules.DENIED_FAMILIES) else None


def _name(name: str) -> Iterator[Violation]:
    if len(name) > names.MAX_NAME_LENGTH or not re.fullmatch(rules.SANDBOX_NAME, name):
        yield Violation("metadata.name", rules.MESSAGE_NAME)


def _engine(engine: v1alpha1.EngineSpec) -> Iterator[Violation]:
    yield from _image(engine.image, "spec.engine.image", rules.OLD_ENGINE, rules.MESSAGE_OLD_ENGINE)
    if engine.extra_args and not engine.extra_args[0].startswith("-"):
        yield Violation("spec.engine.extraArgs", rules.MESSAGE_FIRST_ARGUMENT)
    for index, argument in enumerate(engine.extra_args):
        if reason := denied_flag(argument):
            yield Violation(f"spec.engine.extraArgs[{index}]", reason)


def _gpu(gpu: v1alpha1.GPUSpec) -> Iterator[Violation]:
    if names.LABEL_PLAN in gpu.node_selector:
        yield Violation("spec.gpu.nodeSelector", rules.MESSAGE_NODE_PLAN)


def _image(image: str, field: str, old: str, message_old: str) -> Iterator[Violation]:
    if not image:
        return
    if not re.fullmatch(rules.IMAGE, image):
        yield Violation(field, rules.MESSAGE_IMAGE)
    pinned = re.search(rules.IMAGE_TAG, image) and not re.search(rules.ROLLING_TAG, image)
    if not (pinned or re.search(rules.IMAGE_DIGEST, image)):
        yield Violation(field, rules.MESSAGE_UNPINNED)
    if re.search(old, image):
        yield Violation(field, message_old)


def duplicates(entries: Sequence[v1alpha1.AllowlistEntry]) -> Iterator[tuple[int, int, Network]]:
    """Entries that name a network once more: index of the first, index of the further one, network.

    Admission refuses them in lists that it can compare (rules.MAX_COMPARED_NETWORKS). Elsewhere they break
    nothing: whoever is admitted by one of them is admitted.
    """
    first: dict[Network, int] = {}
    for index, entry in enumerate(entries):
        try:
            found = network(entry.cidr)
        except ValueError:
            continue
        if found in first:
            yield first[found], index, found
        first.setdefault(found, index)


def _allowlist(entries: Sequence[v1alpha1.AllowlistEntry]) -> Iterator[Violation]:
    for index, entry in enumerate(entries):
        field = f"spec.access.allowlist[{index}]"
        try:
            found = network(entry.cidr)
        except ValueError as error:
            yield Violation(f"{field}.cidr", str(error))
            continue
        narrow = rules.WIDE_PREFIX_IPV4 if found.version == 4 else rules.WIDE_PREFIX_IPV6
        if found.prefixlen < narrow and not entry.description.strip():
            yield Violation(field, rules.MESSAGE_WIDE)


def _tls(tls: v1alpha1.TLSSpec) -> Iterator[Violation]:
    if (tls.mode == "Secret") != bool(tls.secret_name):
        yield Violation("spec.access.tls", rules.MESSAGE_TLS_SECRET)
    if (tls.mode == "CertManager") != (tls.issuer_ref is not None):
        yield Violation("spec.access.tls", rules.MESSAGE_TLS_ISSUER)


def _hostnames(hostnames: Sequence[str]) -> Iterator[Violation]:
    for index, hostname in enumerate(hostnames):
        if not re.fullmatch(rules.HOSTNAME, hostname):
            yield Violation(f"spec.access.hostnames[{index}]", rules.MESSAGE_HOSTNAME)


def _api_keys(keys: Sequence[v1alpha1.APIKey]) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, key in enumerate(keys):
        if key.name in seen:
            yield Violation(
                f"spec.access.apiKeys[{index}].name", f"must be another name: {key.name} is taken"
            )
        seen.add(key.name)


def _oidc(oidc: v1alpha1.OIDCSpec) -> Iterator[Violation]:
    given = (bool(oidc.provider_url), bool(oidc.client_id), oidc.client_secret_ref is not None)
    if any(given) and not all(given):
        yield Violation("spec.chat.oidc", rules.MESSAGE_OIDC)
    if not oidc.provider_url and (oidc.allowed_domains or oidc.roles is not None):
        yield Violation("spec.chat.oidc", rules.MESSAGE_OIDC_OPTIONS)
    if oidc.provider_url and not _DISCOVERY.match(oidc.provider_url):
        yield Violation("spec.chat.oidc.providerURL", rules.MESSAGE_OIDC_URL)
