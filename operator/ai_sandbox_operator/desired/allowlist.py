"""Who may use a sandbox, as networks and as a revision.

One reading of the allowlist for the gateway and the NetworkPolicies, so that the layers cannot
disagree about an entry.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from ai_sandbox_operator.api import v1alpha1, validation

from . import common

Network = validation.Network


def parse(cidr: str) -> Network | None:
    """The network of an allowlist entry, read as admission reads it; None if it is not one.

    An entry that cannot be read admits nobody and does not keep the other entries from taking effect.
    """
    try:
        return validation.network(cidr)
    except ValueError:
        return None


def collapse(cidrs: Iterable[str]) -> list[Network]:
    """The networks in order, IPv4 first, without overlaps and with neighbours merged."""
    return list(_collapse(tuple(cidrs)))


@functools.lru_cache(maxsize=64)
def _collapse(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    """Kept, because one pass asks a dozen times, and a thousand entries take long enough to be noticed."""
    networks = [network for cidr in cidrs if (network := parse(cidr)) is not None]
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def networks(access: v1alpha1.AccessSpec, target: v1alpha1.Target) -> list[Network]:
    """Networks that may use `target`."""
    return collapse(entry.cidr for entry in access.allowlist if target in entry.to)


def peers(access: v1alpha1.AccessSpec, target: v1alpha1.Target) -> list[v1alpha1.InClusterPeer]:
    """Pods of the cluster that may use `target`."""
    return [peer for peer in access.in_cluster if target in peer.to]


def access_revision(sandbox: v1alpha1.AISandbox) -> str:
    """Fingerprint of who may reach the sandbox, from the spec alone.

    It holds names of keys, not their values. Descriptions and the spelling of networks do not count:
    a new revision means that somebody is admitted or turned away.
    """
    access = sandbox.spec.access
    return common.fingerprint(
        {
            "exposure": access.exposure,
            "networks": {target: [str(n) for n in networks(access, target)] for target in ("Chat", "API")},
            "peers": [
                peer.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                | {"to": sorted(set(peer.to))}
                for peer in access.in_cluster
            ],
            "keys": sorted({key.name for key in access.api_keys}),
            "chat": sandbox.spec.chat.enabled,
        }
    )
