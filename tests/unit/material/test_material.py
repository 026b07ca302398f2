"""Secret values and certificates: shape, strength, renewal, and a handshake with the real TLS library."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ai_sandbox_operator.reconcile import material

NOW = datetime.datetime(2030, 1, 1, 12, 0, 30, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
NAMES = material.subject_names(
    sandbox="demo",
    namespace="team",
    hostnames=["chat.example.com"],
    public_names=["198.51.100.7", "2001:DB8::7"],
)


def stream(seed: str) -> Callable[[int], bytes]:
    """Reproducible bytes."""
    numbers = itertools.count()
    return lambda size: b"".join(
        hashlib.sha256(f"{seed}{next(numbers)}".encode()).digest()[:1] for _ in range(size)
    )


def _pem_of(key: Any) -> str:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def on_another_curve(pem: str) -> str:
    """The same certificate or key, said to be on prime239v2: a curve that the cryptography library lacks.

    OIDs of X9.62: 1.2.840.10045.3.1.7 becomes 1.2.840.10045.3.1.5, which has the same length.
    """
    head, *body, foot = pem.strip().splitlines()
    raw = base64.b64decode("".join(body))
    curve = bytes.fromhex("06082a8648ce3d0301")
    assert raw.count(curve + b"\x07") == 1
    text = base64.b64encode(raw.replace(curve + b"\x07", curve + b"\x05")).decode()
    return "\n".join([head, *(text[at : at + 64] for at in range(0, len(text), 64)), foot, ""])


def test_api_keys_fit_the_gateways_alphabet() -> None:
    for _ in range(100):
        assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", material.api_key())


@pytest.mark.parametrize("make", [material.engine_key, material.session_key])
def test_internal_keys_hold_32_random_bytes(make: Callable[[], str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", make())
    assert len({make() for _ in range(100)}) == 100


def test_values_use_all_the_randomness_they_are_given() -> None:
    assert material.api_key(lambda n: bytes(n)) == "sk-" + "A" * 43
    assert material.api_key(lambda n: b"\xff" * n) == "sk-" + "_" * 42 + "8"


def test_passwords_pass_open_webuis_validation() -> None:
    """Its pattern, as of 0.12.4: DEFAULT of PASSWORD_VALIDATION_REGEX_PATTERN."""
    pattern = re.compile(r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[^\w\s]).{8,}$")
    for seed in range(300):
        password = material.admin_password(stream(str(seed)))
        assert pattern.match(password), password
        assert re.fullmatch(r"[A-Za-z0-9+=.-]{24}", password)


def test_password_characters_are_equally_likely() -> None:
    """Bytes that do not fit the alphabet evenly are drawn again, not folded."""
    seen: dict[str, int] = {}
    values = iter(list(range(256)) * 40)
    for _ in range(66 * 3 * 30):
        sign = material._choose("".join(material._PASSWORD_CLASSES), lambda _n: bytes([next(values)]))
        seen[sign] = seen.get(sign, 0) + 1
    assert len(seen) == 66
    assert set(seen.values()) == {90}


def test_names_cover_hosts_addresses_and_both_services_and_never_localhost() -> None:
    assert NAMES == (
        "198.51.100.7",
        "2001:db8::7",
        "chat.example.com",
        "demo",
        "demo-internal",
        "demo-internal.team",
        "demo-internal.team.svc",
        "demo-internal.team.svc.cluster.local",
        "demo.team",
        "demo.team.svc",
        "demo.team.svc.cluster.local",
    )


@pytest.fixture(scope="module")
def authority() -> dict[str, str]:
    return material.new_authority(sandbox="demo", now=NOW)


@pytest.fixture(scope="module")
def leaf(authority: dict[str, str]) -> dict[str, str]:
    return material.issue(authority, names=NAMES, now=NOW)


def loaded(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_the_authority_can_sign_leaves_and_nothing_below_them(authority: dict[str, str]) -> None:
    certificate = loaded(authority["ca.crt"])
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
    assert certificate.not_valid_after_utc - NOW < 3651 * DAY
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_the_leaf_lives_90_days_and_is_no_authority(leaf: dict[str, str]) -> None:
    certificate = loaded(leaf["tls.crt"])
    assert certificate.not_valid_after_utc == NOW.replace(microsecond=0) + 90 * DAY
    assert certificate.not_valid_before_utc < NOW
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def test_i6_the_authoritys_key_is_in_no_secret_that_a_pod_mounts(
    authority: dict[str, str], leaf: dict[str, str]
) -> None:
    assert set(leaf) == {"tls.crt", "tls.key", "ca.crt"}
    assert set(authority) == {"ca.crt", "ca.key"}
    assert authority["ca.key"] not in leaf.values()


def handshake(leaf: dict[str, str], trusted: str, name: str, directory: Path) -> None:
    """A TLS handshake over a socket pair; raises what the client would see."""
    chain, key = directory / "crt", directory / "key"
    chain.write_text(leaf["tls.crt"])
    key.write_text(leaf["tls.key"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=trusted)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with near, client.wrap_socket(near, server_hostname=name):
            pass
    finally:
        thread.join(timeout=10)


def today() -> tuple[dict[str, str], dict[str, str]]:
    now = datetime.datetime.now(datetime.UTC)
    made = material.new_authority(sandbox="demo", now=now)
    return made, material.issue(made, names=NAMES, now=now)


@pytest.mark.parametrize(
    "name", ["chat.example.com", "demo-internal.team.svc", "198.51.100.7", "2001:db8::7"]
)
def test_a_client_that_trusts_the_authority_accepts_each_name(name: str, tmp_path: Path) -> None:
    made, issued = today()
    handshake(issued, made["ca.crt"], name, tmp_path)


@pytest.mark.parametrize("name", ["localhost", "other.example.com", "198.51.100.8"])
def test_a_client_refuses_other_names(name: str, tmp_path: Path) -> None:
    made, issued = today()
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        handshake(issued, made["ca.crt"], name, tmp_path)


def test_a_client_that_trusts_another_sandbox_refuses(tmp_path: Path) -> None:
    _, issued = today()
    other, _ = today()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(issued, other["ca.crt"], "demo.team.svc", tmp_path)


@pytest.mark.parametrize(
    ("sentence", "age", "wanted", "reason"),
    [
        ("new", 0 * DAY, NAMES, None),
        ("more than a third left", 59 * DAY, NAMES, None),
        ("a third left", 60 * DAY, NAMES, "it ends on 2030-04-01"),
        ("ended", 100 * DAY, NAMES, "it ends on 2030-04-01"),
        ("made in the future", -1 * DAY, NAMES, "it is not valid yet"),
        (
            "order and spelling do not matter",
            0 * DAY,
            [*reversed(NAMES[2:]), "198.51.100.7", "2001:DB8:0::7"],
            None,
        ),
        (
            "a name added",
            0 * DAY,
            [*NAMES, "new.example.com"],
            "its names have changed: new.example.com is missing",
        ),
        ("a name removed", 0 * DAY, NAMES[1:], "its names have changed: 198.51.100.7 is not wanted"),
    ],
)
def test_needs_renewal(
    sentence: str, age: datetime.timedelta, wanted: list[str], reason: str | None, leaf: dict[str, str]
) -> None:
    assert material.needs_renewal(leaf["tls.crt"], now=NOW + age, wanted=wanted) == reason, sentence


def test_international_names_are_written_as_clients_ask_for_them() -> None:
    assert "xn--bcher-kva.example" in material.subject_names(
        sandbox="demo", namespace="team", hostnames=["Bücher.example."]
    )


def test_an_authority_is_renewed_at_a_third_of_its_life_too(authority: dict[str, str]) -> None:
    assert material.needs_renewal(authority["ca.crt"], now=NOW + 2400 * DAY) is None
    assert material.needs_renewal(authority["ca.crt"], now=NOW + 2500 * DAY) == "it ends on 2039-12-30"


@pytest.mark.parametrize(
    "pem", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_cannot_be_read_is_made_anew(pem: str) -> None:
    assert material.needs_renewal(pem, now=NOW, wanted=NAMES) is not None


def test_what_is_of_an_unknown_kind_is_made_anew(authority: dict[str, str], leaf: dict[str, str]) -> None:
    pem, key, ca = leaf["tls.crt"], leaf["tls.key"], authority["ca.crt"]
    for given, of_key, by in (
        (on_another_curve(pem), key, ca),
        (pem, on_another_curve(key), ca),
        (pem, key, on_another_curve(ca)),
    ):
        found = material.needs_renewal(given, now=NOW, wanted=NAMES, key=of_key, authority=by)
        assert found == "it cannot be read, or another authority signed it"


def test_a_foreign_key_or_authority_is_noticed(authority: dict[str, str], leaf: dict[str, str]) -> None:
    other = material.new_authority(sandbox="demo", now=NOW)
    good = material.needs_renewal(
        leaf["tls.crt"], now=NOW, wanted=NAMES, key=leaf["tls.key"], authority=authority["ca.crt"]
    )
    assert good is None
    swapped = material.needs_renewal(leaf["tls.crt"], now=NOW, wanted=NAMES, key=other["ca.key"])
    assert swapped == "the private key does not belong to the certificate"
    foreign = material.needs_renewal(leaf["tls.crt"], now=NOW, wanted=NAMES, authority=other["ca.crt"])
    assert foreign == "another authority signed it"


def test_a_leaf_never_outlives_its_authority(authority: dict[str, str]) -> None:
    late = NOW + material.AUTHORITY_LIFETIME - 10 * DAY
    certificate = loaded(material.issue(authority, names=["demo"], now=late)["tls.crt"])
    assert certificate.not_valid_after_utc == loaded(authority["ca.crt"]).not_valid_after_utc
    with pytest.raises(material.AuthorityUnusable, match="ended"):
        material.issue(authority, names=["demo"], now=late + 20 * DAY)


RSA = _pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ca.key": material.new_authority(sandbox="demo", now=NOW)["ca.key"]}, "does not belong to ca.crt"),
        ({"ca.key": ""}, "ca.key is missing"),
        ({"ca.key": None}, "ca.key is missing"),
        ({"ca.crt": None}, "ca.crt is missing"),
        ({"ca.key": "garbled"}, "ca.key is not a private key in PEM form"),
        ({"ca.crt": "garbled"}, "ca.crt is not a certificate in PEM form"),
        ({"ca.key": RSA}, "ca.key is not an ECDSA key"),
        (
            {"ca.key": on_another_curve(material.new_authority(sandbox="d", now=NOW)["ca.key"])},
            "ca.key is not",
        ),
    ],
)
def test_an_authority_that_cannot_sign_is_refused_in_words(
    change: dict[str, str | None], problem: str, authority: dict[str, str]
) -> None:
    given = {part: value for part, value in {**authority, **change}.items() if value is not None}
    with pytest.raises(material.AuthorityUnusable, match=problem):
        material.issue(given, names=["demo"], now=NOW)


def test_long_names_fit_the_common_name() -> None:
    made = material.new_authority(sandbox="s" * 40, now=NOW)
    name = "a" * 63 + "." + "b" * 63 + ".example.com"
    issued = material.issue(made, names=[name], now=NOW)
    assert material.needs_renewal(issued["tls.crt"], now=NOW, wanted=[name]) is None


# --- pairs that somebody gave -----------------------------------------------------------------------


def pair(names: tuple[str, ...] = NAMES, now: datetime.datetime = NOW) -> dict[str, str]:
    return material.issue(material.new_authority(sandbox="demo", now=now), names=names, now=now)


def self_signed(key: Any) -> tuple[str, str]:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "demo")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), _pem_of(key)


@pytest.mark.parametrize(
    ("key", "served"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), True),
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), False),
        (ec.generate_private_key(ec.SECP521R1()), True),
        (ec.generate_private_key(ec.SECP224R1()), False),
    ],
)
def test_a_key_that_the_gateway_does_not_serve_is_told(key: Any, served: bool) -> None:
    """Envoy 1.40 was given one of each; it goes on serving the certificate before one that it refuses."""
    found = material.pair_problem(*self_signed(key))
    assert found is None if served else "the gateway does not serve" in str(found)


def test_a_pair_that_belongs_together_is_usable() -> None:
    given = pair()
    chain = given["tls.crt"] + given["ca.crt"]
    assert material.pair_problem(chain, given["tls.key"]) is None
    assert material.leaf_problem(chain, hostnames=["CHAT.example.com"], now=NOW) is None


@pytest.mark.parametrize(
    ("pem", "key", "problem"),
    [
        ("nonsense", pair()["tls.key"], "tls.crt is not a certificate"),
        ("", pair()["tls.key"], "tls.crt is not a certificate"),
        (pair()["tls.crt"], "nonsense", "tls.key is not a private key"),
        (pair()["tls.crt"], pair()["tls.crt"], "tls.key is not a private key"),
        (pair()["tls.crt"], pair()["tls.key"], "does not belong"),
        (on_another_curve(pair()["tls.crt"]), pair()["tls.key"], "tls.crt is for a key of a kind"),
        (pair()["tls.crt"], on_another_curve(pair()["tls.key"]), "tls.key is of a kind"),
    ],
)
def test_a_pair_that_does_not_belong_together_is_told(pem: str, key: str, problem: str) -> None:
    assert problem in str(material.pair_problem(pem, key))


@pytest.mark.parametrize(
    ("names", "hosts", "later", "problem"),
    [
        (("a.example.com",), ["a.example.com"], 0 * DAY, None),
        (("*.example.com",), ["a.example.com"], 0 * DAY, None),
        (("*.example.com",), ["a.b.example.com"], 0 * DAY, "not for a.b.example.com"),
        (("*.example.com",), ["example.com"], 0 * DAY, "not for example.com"),
        (("a.example.com",), ["b.example.com", "a.example.com"], 0 * DAY, "not for b.example.com of"),
        (("a.example.com",), [], 91 * DAY, "ended on 2030-04-01"),
        (("a.example.com",), [], -1 * DAY, "valid only from 2030-01-01"),
    ],
)
def test_a_certificate_that_clients_would_refuse_is_told(
    names: tuple[str, ...], hosts: list[str], later: datetime.timedelta, problem: str | None
) -> None:
    found = material.leaf_problem(pair(names)["tls.crt"], hostnames=hosts, now=NOW + later)
    assert (found is None) if problem is None else problem in str(found)
