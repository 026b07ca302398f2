"""Every name that other programs, people or later releases rely on.

Changing a value here orphans objects of running sandboxes; treat the file as part of the API.
"""

from __future__ import annotations

GROUP = "sandbox.linode.com"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AISandbox"
PLURAL = "aisandboxes"

#: Longest sandbox name: the longest child suffix then still fits a 63-character label value.
MAX_NAME_LENGTH = 40

FIELD_MANAGER = "ai-sandbox-operator"
MANAGED_BY_SELECTOR = "app.kubernetes.io/managed-by=ai-sandbox-operator"

LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_SANDBOX = f"{GROUP}/name"
#: Of a node: its Linode plan.
LABEL_PLAN = "node.kubernetes.io/instance-type"
APP_NAME = "ai-sandbox"

#: Held only while a Linode object of the sandbox may exist. It must differ from kopf's own
#: finalizer, which kopf removes from every object it sees.
FINALIZER = f"{GROUP}/linode-cleanup"

#: On an AISandbox that is being deleted: leave its Linode objects behind and end the deletion.
ANNOTATION_ABANDON = f"{GROUP}/abandon-linode-objects"

#: On an AISandbox: take over the engine of the operator's release; try a change that was rolled back once
#: more. Any value that was not there before counts once.
ANNOTATION_UPDATE_ENGINE = f"{GROUP}/update-engine"
ANNOTATION_RETRY_ENGINE = f"{GROUP}/retry-engine-update"

#: The revision of allowlist and keys: on the gateway's Secret the one that its files hold, on a pod of
#: the gateway the one that the kubelet was asked to bring.
ANNOTATION_ACCESS_REVISION = f"{GROUP}/access-revision"

#: On the engine: what its model was resolved from, its commit, and its bytes.
ANNOTATION_MODEL = f"{GROUP}/model"

# Annotations of Linode's cloud controller manager (docs/configuration/annotations.md there).
LINODE_ANNOTATION_PREFIX = "service.beta.kubernetes.io/linode-loadbalancer-"
ANNOTATION_FIREWALL_ID = LINODE_ANNOTATION_PREFIX + "firewall-id"
ANNOTATION_FIREWALL_ACL = LINODE_ANNOTATION_PREFIX + "firewall-acl"
ANNOTATION_TAGS = LINODE_ANNOTATION_PREFIX + "tags"

# Ports of the way of a request.
PORT_API = 8000
PORT_CHAT = 3000
PORT_ENGINE = 8000
PORT_OPEN_WEBUI = 8080
PORT_GATEWAY_API = 8443
PORT_GATEWAY_CHAT = 3443
PORT_GATEWAY_INTERNAL_API = 8444
PORT_GATEWAY_INTERNAL_CHAT = 3444
PORT_GATEWAY_STATUS = 9902

#: Source of NodeBalancer traffic on LKE (cloud-firewall-controller: internal/rules/defaults.go).
DEFAULT_NODEBALANCER_RANGE = "192.168.255.0/24"


def labels(sandbox: str, component: str) -> dict[str, str]:
    """Labels of every child. Never `app.kubernetes.io/instance`: Argo CD tracks by it."""
    return {
        LABEL_NAME: APP_NAME,
        LABEL_COMPONENT: component,
        LABEL_MANAGED_BY: FIELD_MANAGER,
        LABEL_SANDBOX: sandbox,
    }
