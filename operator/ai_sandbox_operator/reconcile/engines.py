"""Proof that the engine answers, beside the passes: its list of models, and one request of one token.

A ready pod has its model loaded, but the first request still compiles and allocates; it is made here
before the first user's, once per life of the container. The list of models also tells the context length that
the engine found room for.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from ai_sandbox_operator.api import kinds, names, v1alpha1
from ai_sandbox_operator.api.conditions import Reason
from ai_sandbox_operator.desired import common, models
from ai_sandbox_operator.kube import client as kube_client
from ai_sandbox_operator.kube import errors
from ai_sandbox_operator.kube.pods import PodUnreachable
from ai_sandbox_operator.observed import seen, served

from . import pursuit, views

log = logging.getLogger(__name__)

Key = tuple[str, str]
#: Seconds for the first request, which may compile kernels.
PATIENCE = 120.0
#: What answers is a model of one of these kinds; 400 and 404 mean another one.
_REQUESTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0}),
    ("/v1/embeddings", {"input": "Hello"}),
)
_OTHER_KIND = frozenset({400, 404, 405, 501})


class Request(Protocol):
    """As `kube.pods.PodReader.request`."""

    async def __call__(
        self,
        method: str,
        address: str,
        port: int,
        path: str,
        *,
        token: str = "",
        json: object = None,
        patience: float | None = None,
    ) -> tuple[int, str]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """What must be proven.

    Attributes:
        selector: of the engine's pods.
        served_name: the model that clients ask for.
        template: changes whenever other pods are wanted.
        version: of the Deployment, which changes whenever a pod becomes ready or ends to be.
    """

    selector: str
    served_name: str
    template: str
    version: str
    key: str = dataclasses.field(repr=False)

    @property
    def subject(self) -> tuple[str, str]:
        return self.served_name, self.template


class Engines:
    """Asks the engines of all sandboxes."""

    def __init__(self, client: kube_client.KubeClient, request: Request, *, add: pursuit.Add) -> None:
        self._client = client
        self._request = request
        self._pursuits = pursuit.Pursuits(self._look, add=add)
        self._warm: dict[Key, str] = {}
        self.close = self._pursuits.close

    def prove(
        self, sandbox: v1alpha1.AISandbox, deployment: seen.Seen | None, *, key: str
    ) -> views.EngineProof:
        """What is known now; another pass is asked for when that changes.

        Args:
            key: the engine's own.
        """
        if deployment is None or not deployment.facts["ready"]:
            self.forget(sandbox.metadata.uid, sandbox.key)
        if deployment is None or not seen.rolled_out(deployment):
            # The ready pod may be the one before the change: it proves nothing, and nothing is forgotten.
            return views.EngineProof(message="the engine's pod is not ready yet")
        goal = Goal(
            selector=common.label_selector(sandbox, common.ENGINE),
            served_name=models.served_name(sandbox.spec.model),
            template=f"{deployment.uid} {deployment.facts['engine_inputs']}",
            version=deployment.resource_version,
            key=key,
        )
        waiting = views.EngineProof(message="the engine is up and answers its first request")
        return self._pursuits.pursue(
            sandbox, goal, unseen=dataclasses.replace(waiting, unseen=True), superseded=waiting
        )

    def forget(self, uid: str, key: Key) -> None:
        """Drop what is known of a sandbox's engine."""
        self._pursuits.forget(uid)
        self._warm.pop(key, None)

    async def _look(self, key: Key, goal: Goal) -> views.EngineProof:
        try:
            pods = await self._client.list_all(kinds.POD, key[0], label_selector=goal.selector)
            ready = [pod for pod in pods if served.ready(pod)]
            if not ready:
                return views.EngineProof(message="no engine pod is ready")
            return await self._ask(key, ready[0], goal)
        except PodUnreachable as error:
            return views.EngineProof(reason=Reason.EngineUnproven, message=str(error))
        except errors.KubeError as error:
            return views.EngineProof(message=f"the engine's pods cannot be asked: {error}")
        except Exception:
            log.exception("engine look failed", extra={"key": key})
            return views.EngineProof(message="the engine cannot be asked; see the operator's log")

    async def _ask(self, key: Key, pod: Mapping[str, Any], goal: Goal) -> views.EngineProof:
        address = (pod.get("status") or {}).get("podIP", "")
        status, body = await self._request("GET", address, names.PORT_ENGINE, "/v1/models", token=goal.key)
        if status == 401:
            text = "the engine was started with another key than its Secret holds now; delete its pod to restart it"
            return views.EngineProof(reason=Reason.EngineUnproven, message=text)
        listed = _listed(body) if status == 200 else {}
        if goal.served_name not in listed:
            text = f"GET /v1/models answers with status {status} and does not list {goal.served_name}"
            return views.EngineProof(reason=Reason.EngineUnproven, message=text)
        life = _life(pod)
        if self._warm.get(key) != life:
            problem = await self._warm_up(address, goal)
            if problem:
                return views.EngineProof(reason=Reason.EngineUnproven, message=problem)
            self._warm[key] = life
        return views.EngineProof(proven=True, max_context_tokens=listed[goal.served_name])

    async def _warm_up(self, address: str, goal: Goal) -> str:
        """One request; returns what is wrong with the answer, or nothing."""
        status, path = 0, ""
        for path, body in _REQUESTS:
            status, _ = await self._request(
                "POST",
                address,
                names.PORT_ENGINE,
                path,
                token=goal.key,
                json={"model": goal.served_name, **body},
                patience=PATIENCE,
            )
            if status == 200:
                return ""
            if status not in _OTHER_KIND:
                break
        return f"the first request, POST {path}, is answered with status {status}"


def _listed(body: str) -> dict[str, int | None]:
    """Context length by model; an answer of another form lists nothing."""
    try:
        data = json.loads(body)["data"]
        return {str(one["id"]): _tokens(one.get("max_model_len")) for one in data}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _life(pod: Mapping[str, Any]) -> str:
    """Changes whenever the container is started anew."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return " ".join([pod["metadata"]["uid"], *(str(one.get("restartCount")) for one in statuses)])
