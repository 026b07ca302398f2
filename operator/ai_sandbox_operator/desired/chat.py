"""The chat: Open WebUI, behind the gateway, talking to the engine with the internal key.

Settings come from the environment and win over the database at each start; users and chats live in
the volume. One replica: SQLite on a ReadWriteOnce volume.
Source: Open WebUI docs, "Environment Variable Configuration".
"""

from __future__ import annotations

import functools
import importlib.resources
import json

from ai_sandbox_operator.api import names, v1alpha1

from . import access, common, endpoints, engine, models, storage
from .facts import Child, Facts, Manifest, Stage

_USER = 1000
_HOME, _STATIC, _TMP = "/home/chat", "/static", "/tmp"  # noqa: S108 - emptyDirs of the pod
_DATA = "/app/backend/data"
_MIGRATIONS = "/app/backend/open_webui/migrations/versions"
#: Container that runs before the chat does.
PREPARE = "prepare"


def service_name(sandbox: v1alpha1.AISandbox) -> str:
    """Service of the chat."""
    return common.child_name(sandbox, common.CHAT)


def oidc_configured(sandbox: v1alpha1.AISandbox) -> bool:
    """Whether single sign-on is complete enough to use."""
    oidc = sandbox.spec.chat.oidc
    return bool(oidc.provider_url and oidc.client_id)


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """Service and Deployment; nothing when the chat is off. A suspended sandbox keeps its chat."""
    if not sandbox.spec.chat.enabled:
        return []
    service = common.service(
        sandbox,
        service_name(sandbox),
        common.CHAT,
        [common.service_port("http", names.PORT_OPEN_WEBUI, names.PORT_OPEN_WEBUI)],
    )
    deployment = common.deployment(
        sandbox,
        common.CHAT,
        replicas=1,
        # Two versions must never share a database.
        strategy={"type": "Recreate"},
        pod_template=_template(sandbox, facts),
        progress_deadline_seconds=1800,
    )
    return [
        Child(stage=Stage.SERVICE, manifest=service),
        Child(stage=Stage.WORKLOAD, manifest=deployment),
    ]


def _template(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    pod: Manifest = {
        "terminationGracePeriodSeconds": 30,
        "securityContext": common.pod_security(user=_USER, group=_USER, volume_group=_USER),
        "initContainers": [_prepare(sandbox, facts)],
        "containers": [_container(sandbox, facts)],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": storage.chat_claim_name(sandbox)}},
            *({"name": name, "emptyDir": {"sizeLimit": "1Gi"}} for name in ("home", "static", "tmp")),
        ],
    }
    # Session key and engine key are read at start only, so a new value restarts the chat: with a stale
    # engine key no question is answered. The administrator's password is left out, it only seeds an
    # empty database. The values are random, so their hash tells nothing.
    return common.template(
        sandbox,
        common.CHAT,
        pod,
        annotations={common.ANNOTATION_SECRET_HASH: common.fingerprint(access.chat(facts))},
    )


def _image(sandbox: v1alpha1.AISandbox, facts: Facts) -> str:
    return sandbox.spec.chat.image or facts.release.chat_image


@functools.cache
def _prepare_source() -> str:
    return importlib.resources.files(__package__).joinpath("chat_prepare.py").read_text()


def _prepare(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    image = _image(sandbox, facts)
    admin = {"WEBUI_ADMIN_EMAIL": sandbox.spec.chat.admin.email}
    return {
        "name": PREPARE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", common.literal(_prepare_source()), image, _DATA, _MIGRATIONS],
        "env": [_admin_password(sandbox), *common.env(admin)],
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": common.container_security(),
        "terminationMessagePath": "/dev/termination-log",
        # What it refuses is its last line.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "data", "mountPath": _DATA}],
    }


def _container(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    return {
        "name": common.CHAT,
        "image": _image(sandbox, facts),
        "imagePullPolicy": "IfNotPresent",
        "env": [*_secret_environment(sandbox), *common.env(environment(sandbox, facts))],
        "ports": [{"name": "http", "containerPort": names.PORT_OPEN_WEBUI, "protocol": "TCP"}],
        # Unknown paths answer 200 with the UI: only these two say anything. The first start migrates.
        "startupProbe": common.http_probe("/ready", names.PORT_OPEN_WEBUI, period=5, failures=180),
        "readinessProbe": common.http_probe("/ready", names.PORT_OPEN_WEBUI, period=10),
        "livenessProbe": common.http_probe("/health", names.PORT_OPEN_WEBUI, period=30, timeout=10),
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}},
        "securityContext": common.container_security(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA},
            {"name": "home", "mountPath": _HOME},
            {"name": "static", "mountPath": _STATIC},
            {"name": "tmp", "mountPath": _TMP},
        ],
    }


def _secret_environment(sandbox: v1alpha1.AISandbox) -> list[Manifest]:
    chat_secret = access.chat_name(sandbox)
    result = [
        common.env_secret("WEBUI_SECRET_KEY", chat_secret, access.CHAT_SESSION_KEY),
        common.env_secret("OPENAI_API_KEYS", chat_secret, access.CHAT_ENGINE_KEYS),
        _admin_password(sandbox),
    ]
    ref = sandbox.spec.chat.oidc.client_secret_ref
    if oidc_configured(sandbox) and ref is not None:
        result.append(common.env_secret("OAUTH_CLIENT_SECRET", ref.name, ref.key))
    return result


def _admin_password(sandbox: v1alpha1.AISandbox) -> Manifest:
    # Without a seeded administrator the first visitor becomes one.
    return common.env_secret("WEBUI_ADMIN_PASSWORD", access.chat_admin_name(sandbox), access.ADMIN_PASSWORD)


def environment(sandbox: v1alpha1.AISandbox, facts: Facts) -> dict[str, str]:
    """The chat's settings that are not secret."""
    origins = endpoints.chat_origins(sandbox, facts)
    served_name = models.served_name(sandbox.spec.model)
    encrypted = "true" if endpoints.scheme(sandbox) == "https" else "false"
    settings = {
        **_FIXED,
        "WEBUI_URL": origins[0],
        # The WebSocket refuses any other origin, so every name of the gateway is listed.
        "CORS_ALLOW_ORIGIN": ";".join(origins),
        "FORWARDED_ALLOW_IPS": ",".join(facts.pod_ranges),
        # On plain http a secure cookie makes every login end at the login page.
        "WEBUI_SESSION_COOKIE_SECURE": encrypted,
        "WEBUI_AUTH_COOKIE_SECURE": encrypted,
        "WEBUI_ADMIN_EMAIL": sandbox.spec.chat.admin.email,
        "OPENAI_API_BASE_URLS": f"http://{engine.service_name(sandbox)}:{names.PORT_ENGINE}/v1",
        # Told instead of asked for: the list is there at once while the engine sleeps, a question then
        # says that there is no connection, and the page needs no reload once the engine is back.
        "OPENAI_API_CONFIGS": json.dumps({"0": {"model_ids": [served_name]}}),
        "DEFAULT_MODELS": served_name,
    }
    if oidc_configured(sandbox):
        settings |= _oidc(sandbox.spec.chat.oidc, origins[0])
    return settings


def _oidc(oidc: v1alpha1.OIDCSpec, origin: str) -> dict[str, str]:
    settings = {
        "ENABLE_OAUTH_SIGNUP": "true",
        "ENABLE_LOGIN_FORM": "false",
        # An account of the same address at another provider is not the same person.
        "OAUTH_MERGE_ACCOUNTS_BY_EMAIL": "false",
        "OAUTH_PROVIDER_NAME": "Single sign-on",
        "OAUTH_CLIENT_ID": oidc.client_id,
        "OPENID_PROVIDER_URL": oidc.provider_url,
        "OPENID_REDIRECT_URI": f"{origin}/oauth/oidc/callback",
        "OAUTH_ALLOWED_DOMAINS": ",".join(oidc.allowed_domains),
    }
    if oidc.roles is None:
        # Whom the provider and the allowed domains let in is a user; nobody could lift a pending one.
        settings["DEFAULT_USER_ROLE"] = "user"
    else:
        settings |= {
            "ENABLE_OAUTH_ROLE_MANAGEMENT": "true",
            "OAUTH_ROLES_CLAIM": oidc.roles.claim,
            "OAUTH_ALLOWED_ROLES": ",".join(oidc.roles.allowed),
            "OAUTH_ADMIN_ROLES": ",".join(oidc.roles.admin),
        }
    return settings


_FIXED = {
    "HOME": _HOME,
    "STATIC_DIR": _STATIC,
    "DATA_DIR": _DATA,
    "PORT": str(names.PORT_OPEN_WEBUI),
    "ENV": "prod",
    "LOG_FORMAT": "json",
    "AUDIT_LOG_LEVEL": "METADATA",
    "ENABLE_AUDIT_STDOUT": "true",
    # Its files are rotated but never removed, on the volume of the chats.
    "ENABLE_AUDIT_LOGS_FILE": "false",
    "OFFLINE_MODE": "true",
    "DO_NOT_TRACK": "true",
    "ANONYMIZED_TELEMETRY": "false",
    # Else the database wins after the first start, and a new key looks ignored.
    "ENABLE_PERSISTENT_CONFIG": "false",
    "ENABLE_OAUTH_PERSISTENT_CONFIG": "false",
    "WEBUI_AUTH": "true",
    "WEBUI_ADMIN_NAME": "Administrator",
    "ENABLE_SIGNUP": "false",
    "DEFAULT_USER_ROLE": "pending",
    "ENABLE_PASSWORD_VALIDATION": "true",
    "JWT_EXPIRES_IN": "24h",
    "WEBUI_SESSION_COOKIE_SAME_SITE": "lax",
    "WEBUI_AUTH_COOKIE_SAME_SITE": "lax",
    "ENABLE_OPENAI_API": "true",
    "ENABLE_OLLAMA_API": "false",
    "ENABLE_OPENAI_API_PASSTHROUGH": "false",
    "ENABLE_DIRECT_CONNECTIONS": "false",
    # Else plain users see no model at all.
    "BYPASS_MODEL_ACCESS_CONTROL": "true",
    # Where the administrator's pages ask the engine all the same.
    "AIOHTTP_CLIENT_TIMEOUT_MODEL_LIST": "3",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    # Plugins and code execution are arbitrary Python in this pod.
    "ENABLE_PLUGINS": "false",
    "ENABLE_CODE_EXECUTION": "false",
    "ENABLE_CODE_INTERPRETER": "false",
    "ENABLE_COMMUNITY_SHARING": "false",
    "ENABLE_ADMIN_EXPORT": "false",
    "ENABLE_ADMIN_CHAT_ACCESS": "false",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ENABLE_EVALUATION_ARENA_MODELS": "false",
    # The chat's pod is nobody's way to the internet.
    "USER_PERMISSIONS_CHAT_WEB_UPLOAD": "false",
    # Each would be one more request to the engine, after every answer or first question.
    "ENABLE_FOLLOW_UP_GENERATION": "false",
    "ENABLE_TAGS_GENERATION": "false",
}
