"""Whose a Linode object is, and what may therefore be done to it. Pure.

An id in a status is a hint, not a proof: whoever may write the status could name somebody else's
firewall. What proves ownership are the tags of cluster and sandbox, or, for an object whose tags were
removed by hand, its label, which is a hash that only this sandbox has. Anything else is foreign and
never changed or deleted (I2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from ai_sandbox_operator.linode import firewall, models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """A sandbox, as Linode objects name it."""

    cluster_id: str
    uid: str

    @property
    def label(self) -> str:
        """Label of its firewall."""
        return firewall.firewall_label(self.cluster_id, self.uid)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of its objects."""
        return firewall.ownership_tags(self.cluster_id, self.uid)

    @property
    def uid_tag(self) -> str:
        """The tag to look its objects up by."""
        return firewall.uid_tag(self.uid)

    def owns(self, tags: Iterable[str]) -> bool:
        """Whether tags mark an object as this sandbox's."""
        return firewall.is_ours(tags, cluster_id=self.cluster_id, uid=self.uid)

    def recognises(self, live: models.Firewall) -> bool:
        """Whether a firewall that our status names is ours: by tags, or by label if it names nobody else."""
        return self.owns(live.tags) or (live.label == self.label and not claimed_by_another(live.tags, self))

    def missing_tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Our tags that an object lacks. Further tags of a person are left alone."""
        have = set(tags)
        return tuple(tag for tag in self.tags if tag not in have)


def claimed_by_another(tags: Iterable[str], owner: Owner) -> bool:
    """Whether tags name another sandbox or another cluster."""
    have = set(tags)
    others = set(firewall.owner_uids(have)) - set(firewall.owner_uids([owner.uid_tag]))
    return bool(others) or bool(firewall.cluster_tags(have) - {firewall.cluster_tag(owner.cluster_id)})


def choose_firewall(found: Sequence[models.Firewall], owner: Owner) -> models.Firewall | None:
    """Which of the found firewalls to adopt: one with our tags, our label first, then the oldest."""
    ours = [one for one in found if one.status != "deleted" and owner.owns(one.tags)]
    return min(ours, key=lambda one: (one.label != owner.label, one.id), default=None)


def foreign_firewall(found: Sequence[models.Firewall], owner: Owner) -> models.Firewall | None:
    """A firewall that has our label but is not ours."""
    for one in found:
        if one.label == owner.label and one.status != "deleted" and not owner.owns(one.tags):
            return one
    return None


def choose_nodebalancer(
    found: Sequence[models.NodeBalancer], *, owner: Owner, ipv4: str | None, hostname: str | None
) -> models.NodeBalancer | None:
    """Which NodeBalancer serves the sandbox.

    The address in the Service's status decides, because that is where clients go. Without one, the
    newest with our tags: if the controller made a second one, that is the one it knows.
    """
    for one in found:
        if (ipv4 is not None and one.ipv4 == ipv4) or (hostname is not None and one.hostname == hostname):
            return one
    if ipv4 is not None or hostname is not None:
        return None
    return max((one for one in found if owner.owns(one.tags)), key=lambda one: one.id, default=None)
