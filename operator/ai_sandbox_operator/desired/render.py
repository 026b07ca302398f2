"""The wanted objects of a sandbox.

A pure function of the sandbox and of Facts: the same inputs give the same objects in the same order,
whatever the cluster looks like. Comparing and writing is the reconciler's business.
"""

from __future__ import annotations

from ai_sandbox_operator.api import v1alpha1

from . import access, chat, engine, fetch, gateway, network, storage
from .facts import Child, Facts

_COMPONENTS = (
    network.render,
    access.render,
    storage.render,
    fetch.render,
    engine.render,
    chat.render,
    gateway.render,
)


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> tuple[Child, ...]:
    """Every wanted object, in the order of writing."""
    children = [child for component in _COMPONENTS for child in component(sandbox, facts)]
    return tuple(sorted(children, key=lambda child: child.stage))
