"""The gateway: Envoy, the only component that anything outside the sandbox can reach.

Its pods restart for a release or a changed certificate Secret name, never for keys or allowlist.
The external Service exists only with a Cloud Firewall's id on it from its first write (I1).
Source: linode-cloud-controller-manager docs/configuration/annotations.md.
"""

from __future__ import annotations

from ai_sandbox_operator.api import names, v1alpha1

from . import access, common, endpoints, envoy, envoy_listeners, envoy_routes
from .facts import Child, Facts, Manifest, Stage

_USER = 101
_GRACE_SECONDS = 300
#: Seconds in which endpoints and the NodeBalancer's checks learn that this pod is leaving.
_LEAVE_SECONDS = 15
_PREFIX = names.LINODE_ANNOTATION_PREFIX


def config_name(sandbox: v1alpha1.AISandbox) -> str:
    """Secret with Envoy's files."""
    return common.child_name(sandbox, common.GATEWAY)


def render(sandbox: v1alpha1.AISandbox, facts: Facts) -> list[Child]:
    """Configuration, Deployment, disruption budget and Services."""
    revision, files = envoy.configuration(sandbox, facts)
    config = common.secret(sandbox, config_name(sandbox), common.GATEWAY, files)
    config["metadata"]["annotations"] = {names.ANNOTATION_ACCESS_REVISION: revision}
    children = [
        Child(stage=Stage.SECRET, manifest=config),
        Child(stage=Stage.SERVICE, manifest=_internal_service(sandbox)),
        Child(stage=Stage.WORKLOAD, manifest=_deployment(sandbox, facts)),
        Child(stage=Stage.WORKLOAD, manifest=_disruption_budget(sandbox)),
    ]
    if sandbox.spec.access.exposure == "NodeBalancer" and facts.firewall_id is not None:
        service = _external_service(sandbox, facts, firewall_id=facts.firewall_id)
        children.append(Child(stage=Stage.EXPOSURE, manifest=service))
    return children


def _internal_service(sandbox: v1alpha1.AISandbox) -> Manifest:
    ports = [common.service_port("api", names.PORT_API, names.PORT_GATEWAY_INTERNAL_API)]
    if sandbox.spec.chat.enabled:
        ports.append(common.service_port("chat", names.PORT_CHAT, names.PORT_GATEWAY_INTERNAL_CHAT))
    return common.service(sandbox, endpoints.internal_name(sandbox), common.GATEWAY, ports)


def _external_service(sandbox: v1alpha1.AISandbox, facts: Facts, *, firewall_id: int) -> Manifest:
    ports = [common.service_port("api", names.PORT_API, names.PORT_GATEWAY_API)]
    if sandbox.spec.chat.enabled:
        ports.append(common.service_port("chat", names.PORT_CHAT, names.PORT_GATEWAY_CHAT))
    annotations = {
        names.ANNOTATION_FIREWALL_ID: str(firewall_id),
        # Plain TCP, so that TLS ends in the gateway and long streams are nobody else's business.
        _PREFIX + "default-protocol": "tcp",
        _PREFIX + "default-proxy-protocol": "v2",
        _PREFIX + "default-algorithm": "leastconn",
        # The check only opens a connection: it carries no PROXY header, and an HTTP check would get no
        # answer. On a node without a gateway pod nothing answers, which steers the traffic.
        _PREFIX + "check-type": "connection",
        _PREFIX + "check-interval": "5",
        _PREFIX + "check-timeout": "3",
        _PREFIX + "check-attempts": "2",
        # On by default in the code of the controller: a busy engine's 503 would take the gateway away.
        _PREFIX + "check-passive": "false",
        # New connections per second and client; the highest value, because an office is one client.
        _PREFIX + "throttle": "20",
        # `hostname-only-ingress` stays off: the NodeBalancer is looked up by the address in the
        # status. Pods that use the public address are led straight to the gateway without a PROXY
        # header and are turned away; they have the internal Service.
    }
    if facts.linode_tags:
        annotations[names.ANNOTATION_TAGS] = ",".join(facts.linode_tags)
    return common.service(
        sandbox,
        sandbox.metadata.name,
        common.GATEWAY,
        ports,
        annotations=annotations,
        extra={
            "type": "LoadBalancer",
            # Local keeps the NodeBalancer's own address, by which policy and gateway know it.
            "externalTrafficPolicy": "Local",
            # The NodeBalancer sends to node ports.
            "allocateLoadBalancerNodePorts": True,
        },
    )


def _disruption_budget(sandbox: v1alpha1.AISandbox) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": common.metadata(sandbox, common.child_name(sandbox, common.GATEWAY), common.GATEWAY),
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": common.selector(sandbox, common.GATEWAY)},
            # Pods that are not ready protect nobody and must not block a drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _deployment(sandbox: v1alpha1.AISandbox, facts: Facts) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "config", "secret": {"secretName": config_name(sandbox), "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    tls = access.tls_name(sandbox)
    if tls is not None:
        # Pods wait for the certificate by themselves: a missing Secret holds back their start, and
        # one that vanishes later leaves running pods as they are.
        volumes.append({"name": "tls", "secret": {"secretName": tls, "defaultMode": 0o440}})
    pod: Manifest = {
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": common.pod_security(user=_USER, group=_USER, volume_group=_USER),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": common.selector(sandbox, common.GATEWAY)},
            }
        ],
        "containers": [_container(facts, encrypted=tls is not None)],
        "volumes": volumes,
    }
    return common.deployment(
        sandbox,
        common.GATEWAY,
        replicas=envoy_routes.REPLICAS,
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        pod_template=common.template(
            sandbox,
            common.GATEWAY,
            pod,
            annotations={common.ANNOTATION_BOOTSTRAP_HASH: common.fingerprint(envoy.bootstrap())},
        ),
    )


def _container(facts: Facts, *, encrypted: bool) -> Manifest:
    mounts: list[Manifest] = [
        # Whole directories: a file mounted by `subPath` would never be updated.
        {"name": "config", "mountPath": envoy_listeners.CONFIG_PATH, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
    ]
    if encrypted:
        mounts.append({"name": "tls", "mountPath": envoy.TLS_PATH, "readOnly": True})
    ports = {
        "api": names.PORT_GATEWAY_API,
        "chat": names.PORT_GATEWAY_CHAT,
        "internal-api": names.PORT_GATEWAY_INTERNAL_API,
        "internal-chat": names.PORT_GATEWAY_INTERNAL_CHAT,
        "status": names.PORT_GATEWAY_STATUS,
    }
    return {
        "name": common.GATEWAY,
        "image": facts.release.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["envoy"],
        "args": [
            "--config-path",
            f"{envoy_listeners.CONFIG_PATH}/{envoy.BOOTSTRAP}",
            "--concurrency",
            "2",
            "--drain-time-s",
            str(_GRACE_SECONDS - 60),
            "--disable-hot-restart",
            # A field that this Envoy does not know is refused: what was served stays, and is told as such.
            "--reject-unknown-dynamic-fields",
            # The access log is seen within a second, not within ten.
            "--file-flush-interval-msec",
            "1000",
            "--log-level",
            "warning",
        ],
        # The same ports whatever is exposed, so that a changed exposure restarts nothing.
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "startupProbe": common.http_probe("/ready", names.PORT_GATEWAY_STATUS, period=1, failures=120),
        "readinessProbe": common.http_probe("/ready", names.PORT_GATEWAY_STATUS, period=5),
        # Not `/ready`, which fails while draining: a liveness probe must not cut the last streams.
        "livenessProbe": {
            "tcpSocket": {"port": names.PORT_GATEWAY_STATUS},
            "periodSeconds": 15,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "successThreshold": 1,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", DRAIN]}}},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": common.container_security(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


#: SIGTERM ends Envoy at once, so everything happens before it: go on serving while clients are
#: still sent here, then tell connections to close and wait for the requests in progress. The image has
#: bash, but no HTTP client.
DRAIN = f"""\
call() {{
  exec 3<>/dev/tcp/127.0.0.1/{envoy.ADMIN_PORT} || exit 0
  printf '%s %s HTTP/1.1\\r\\nhost: gateway\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n' \\
    "$1" "$2" >&3
  cat <&3
  exec 3>&-
}}
call POST /healthcheck/fail >/dev/null
sleep {_LEAVE_SECONDS}
call POST '/drain_listeners?graceful&skip_exit' >/dev/null
while [ "$SECONDS" -lt {_GRACE_SECONDS - 20} ]; do
  call GET '/stats?filter=%5Ehttp%5C.(external|internal)_.*downstream_rq_active' \\
    | grep -q 'active: [1-9]' || exit 0
  sleep 1
done
"""
