"""The real Envoy while things change: keys, allowlist, exposure, certificate, engine, shutdown."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ai_sandbox_operator.desired import gateway
from gateway.cases import (
    BEARER,
    ENGINE_KEY,
    KEY,
    KNOWN,
    OFFICE,
    OTHER_KEY,
    SPEC,
    STRANGER,
    Start,
    external,
    internal,
    sandbox,
    with_access,
)
from lab.envoy import process as envoy_process

pytestmark = pytest.mark.skipif(envoy_process.binary() is None, reason="envoy is not installed")


# --- changes while running --------------------------------------------------------------------------


def test_an_empty_allowlist_admits_nobody(start: Start) -> None:
    one = start(with_access(allowlist=[]))
    for source in (OFFICE, "127.0.0.1", "192.168.255.7"):
        assert external(one, "/v1/models", headers=BEARER, source=source).status == 403
        assert external(one, "/", target="chat", source=source).status == 403
    assert internal(one, "/v1/models", headers=BEARER).status == 403
    assert internal(one, "/", target="chat").status == 403


def test_keys_and_allowlist_change_without_restart(start: Start) -> None:
    one = start()
    assert external(one, "/v1/models", headers=BEARER).status == 200
    rotated = dataclasses.replace(
        KNOWN, material=dataclasses.replace(KNOWN.material, api_keys={"alice": OTHER_KEY})
    )
    one.update(sandbox(SPEC), rotated)
    assert external(one, "/v1/models", headers=BEARER).status == 401
    new = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert external(one, "/v1/models", headers=new).status == 200
    one.update(sandbox(with_access(allowlist=[{"cidr": f"{STRANGER}/32"}])), rotated)
    assert external(one, "/v1/models", headers=new).status == 403
    assert external(one, "/v1/models", headers=new, source=STRANGER).status == 200
    one.update(sandbox(with_access(apiKeys=[{"name": "unmade"}])), rotated)
    assert external(one, "/v1/models", headers=new).status == 401
    assert "listener_manager.listener_modified: 0" in one.admin("/stats?filter=listener_manager.listener_")


def test_an_open_connection_meets_the_new_allowlist(start: Start) -> None:
    one = start()
    with envoy_process.connect(
        one.ports["external_api"], prefix=envoy_process.proxy_header(OFFICE)
    ) as connection:
        ask = f"GET /v1/models HTTP/1.1\r\nHost: demo\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
        connection.sendall(ask)
        assert envoy_process.receive(connection)[0].startswith(b"HTTP/1.1 200")
        one.update(sandbox(with_access(allowlist=[])), KNOWN)
        connection.sendall(ask)
        assert envoy_process.receive(connection)[0].startswith(b"HTTP/1.1 403")


def test_exposure_and_chat_come_and_go_without_restart(start: Start) -> None:
    hidden = with_access(exposure="ClusterIP")
    one = start({**hidden, "chat": {"enabled": False}})
    with pytest.raises(ConnectionError):
        external(one, "/v1/models", headers=BEARER)
    one.write(sandbox(SPEC), KNOWN)
    envoy_process.wait_for(lambda: external(one, "/v1/models", headers=BEARER).status == 200)
    envoy_process.wait_for(lambda: external(one, "/", target="chat").status == 200)


def test_a_route_file_without_rules_admits_nobody(start: Start) -> None:
    one = start()
    broken = {path.name: path.read_text() for path in (one.config / "..data").iterdir()}
    for name in [name for name in broken if name.startswith("rds-")]:
        document = json.loads(broken[name])
        document["version_info"] = "without-rules"
        for host in document["resources"][0]["virtual_hosts"]:
            del host["typed_per_filter_config"]
        broken[name] = json.dumps(document)
    envoy_process.publish(one.config, broken, 99)
    envoy_process.wait_for(lambda: one.serving("without-rules", "external_api"))
    assert external(one, "/v1/models", headers=BEARER).status == 403


# --- TLS --------------------------------------------------------------------------------------------


def certificate(directory: pathlib.Path, version: int) -> ssl.SSLContext:
    """Put a new certificate where the kubelet would; a client context that trusts nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("demo")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    envoy_process.publish(directory, {"tls.crt": pem, "tls.key": private}, version)
    return ssl.create_default_context(cadata=pem)


def test_tls_behind_the_proxy_header_and_a_renewed_certificate(
    tmp_path: pathlib.Path, upstream: envoy_process.Upstream
) -> None:
    one = envoy_process.Gateway(tmp_path, upstream)
    one.write(sandbox(with_access(tls={"mode": "SelfSigned"})), KNOWN)
    first = certificate(one.tls, 0)
    try:
        one.start()
        for target, path in (("api", "/v1/models"), ("chat", "/")):
            assert external(one, path, target=target, headers=BEARER, tls=first).status == 200
            assert internal(one, path, target=target, headers=BEARER, tls=first).status == 200
        seen = external(one, "/", target="chat", tls=first).json["headers"]
        assert seen["x-forwarded-proto"] == "https"
        old = ssl.create_default_context()
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert external(one, "/v1/models", headers=BEARER, tls=old).status == 200
        second = certificate(one.tls, 1)
        envoy_process.wait_for(lambda: external(one, "/v1/models", headers=BEARER, tls=second).status == 200)
        with pytest.raises(ssl.SSLError):
            external(one, "/v1/models", headers=BEARER, tls=first)
    finally:
        one.stop()


# --- status, log, drain -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ready", 200),
        ("/stats/prometheus", 200),
        ("/stats/prometheus?text_readouts", 200),
        ("/stats", 404),
        ("/config_dump", 404),
        ("/quitquitquit", 404),
        ("/ready/../config_dump", 404),
        ("/", 404),
    ],
)
def test_the_status_port_shows_readiness_and_statistics_only(
    shared: envoy_process.Gateway, path: str, status: int
) -> None:
    answer = shared.status(path)
    assert answer.status == status
    assert not any(key in answer.body.decode() for key in (KEY, ENGINE_KEY))


def test_the_access_log_names_client_and_key_and_shows_no_secret(start: Start) -> None:
    one = start()
    external(one, "/v1/models?secret=query", headers=BEARER)
    external(one, "/v1/models", source=STRANGER, headers={"Authorization": f"Bearer {OTHER_KEY}"})
    envoy_process.wait_for(lambda: len(one.access_log()) == 2)
    allowed, denied = one.access_log()
    assert {key: allowed[key] for key in ("client", "peer", "route", "status", "path", "listener")} == {
        "client": OFFICE,
        "peer": "127.0.0.1",
        "route": "key:alice",
        "status": 200,
        "path": "/v1/models",
        "listener": "external_api",
    }
    assert (denied["client"], denied["status"]) == (STRANGER, 403)
    assert not any(text in one.log for text in (KEY, OTHER_KEY, ENGINE_KEY, "secret=query"))


def test_a_missing_engine_is_503_with_a_hint_to_retry(
    tmp_path: pathlib.Path, upstream: envoy_process.Upstream
) -> None:
    nowhere = dataclasses.make_dataclass("Nowhere", ["port"])(envoy_process.free_port())
    one = envoy_process.Gateway(tmp_path, nowhere)
    one.write(sandbox(SPEC), KNOWN)
    try:
        one.start()
        answer = external(one, "/v1/models", headers=BEARER)
    finally:
        one.stop()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "30"
    assert answer.json["error"]["code"] == "not_ready"


def test_the_drain_hook_turns_readiness_off_and_waits_for_streams(start: Start) -> None:
    one = start()
    script = gateway.DRAIN.replace("/9901", f"/{one.admin_port}").replace("sleep 15", "sleep 0.5")
    with envoy_process.connect(
        one.ports["external_api"], prefix=envoy_process.proxy_header(OFFICE)
    ) as stream:
        # A request whose body never ends is a request in progress.
        stream.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: demo\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 10\r\n\r\n12345".encode()
        )
        envoy_process.wait_for(
            lambda: "external_api.downstream_rq_active: 1" in one.admin("/stats?filter=rq_active")
        )
        hook = subprocess.Popen(["bash", "-c", script])
        try:
            envoy_process.wait_for(lambda: one.status("/ready").status == 503)
            with pytest.raises(subprocess.TimeoutExpired):
                hook.wait(2.5)
            stream.sendall(b"67890")
            head, _ = envoy_process.receive(stream)
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in head.lower()
            before = time.monotonic()
            assert hook.wait(10) == 0
            assert time.monotonic() - before < 5
        finally:
            hook.kill()
            hook.wait()
