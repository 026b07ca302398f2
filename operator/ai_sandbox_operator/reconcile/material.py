"""Making the secret values and certificates of a sandbox. Pure apart from randomness.

Values are only made here, never stored, logged or compared; whether one is needed is decided by who
knows what is stored. Randomness comes from `secrets`, or from the source that a test passes in. Key
pairs are the exception: the cryptography library draws those itself.

A sandbox has its own certificate authority, so that trusting one sandbox trusts no other. Its key is
kept in a Secret of its own that no pod mounts; the leaf's Secret holds leaf, key and `ca.crt`.
Browsers refuse leaves that live longer than about a year; 90 days keep renewal exercised.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import oid

RandomBytes = Callable[[int], bytes]

AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
LEAF_LIFETIME = datetime.timedelta(days=90)
#: Share of a lifetime that is left when a certificate is renewed.
RENEWAL_SHARE = 3
#: Clocks of clients may be behind ours.
_SKEW = datetime.timedelta(minutes=5)
_KEY_BYTES = 32
_PASSWORD_LENGTH = 24
#: Open WebUI's validation asks for one of each; none of these needs quoting in a shell or in YAML.
_PASSWORD_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-+=.")
_LONGEST_COMMON_NAME = 64

CERTIFICATE, PRIVATE_KEY, AUTHORITY, AUTHORITY_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"

#: What the cryptography library raises for what somebody gave; only the first two say so by their type.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class AuthorityUnusable(ValueError):
    """An authority cannot sign; the message says what of it is wrong, and holds no value."""


def api_key(random: RandomBytes = secrets.token_bytes) -> str:
    """A key of a user: `sk-` and 43 characters of [A-Za-z0-9_-], 32 random bytes.

    The gateway matches keys in a regular expression without escaping, hence the alphabet; its
    comparison takes longer the more fits, hence the length.
    """
    return "sk-" + _token(random)


def engine_key(random: RandomBytes = secrets.token_bytes) -> str:
    """The key that gateway and chat present to the engine."""
    return _token(random)


def session_key(random: RandomBytes = secrets.token_bytes) -> str:
    """The key that signs the chat's sessions."""
    return _token(random)


def admin_password(random: RandomBytes = secrets.token_bytes) -> str:
    """Password of the chat's first administrator: 24 characters with a lower-case and an upper-case letter,
    a digit and a sign; below the 72 bytes that bcrypt reads."""
    alphabet = "".join(_PASSWORD_CLASSES)
    while True:
        password = "".join(_choose(alphabet, random) for _ in range(_PASSWORD_LENGTH))
        if all(any(sign in group for sign in password) for group in _PASSWORD_CLASSES):
            return password


def _token(random: RandomBytes) -> str:
    return base64.urlsafe_b64encode(random(_KEY_BYTES)).rstrip(b"=").decode()


def _choose(alphabet: str, random: RandomBytes) -> str:
    """One character, each equally likely: values that would favour some are thrown away."""
    limit = 256 - 256 % len(alphabet)
    while True:
        value = random(1)[0]
        if value < limit:
            return alphabet[value % len(alphabet)]


def subject_names(
    *,
    sandbox: str,
    namespace: str,
    hostnames: Iterable[str] = (),
    public_names: Iterable[str] = (),
    cluster_domain: str = "cluster.local",
) -> tuple[str, ...]:
    """Names and addresses of the certificate, sorted, without repetition.

    The spec's host names, the NodeBalancer's addresses and name, and both Services as pods may write them. Never
    localhost: a certificate for it would be good on every machine that trusts the authority.
    """
    services = [sandbox, f"{sandbox}-internal"]
    suffixes = ["", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.{cluster_domain}"]
    names = {service + suffix for service in services for suffix in suffixes}
    return tuple(sorted(names | {_normal(name) for name in (*hostnames, *public_names) if name}))


def new_authority(*, sandbox: str, now: datetime.datetime) -> dict[str, str]:
    """A certificate authority, as values of its Secret."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"AI Sandbox {sandbox} CA")
    certificate = (
        _builder(subject=name, issuer=name, key=key.public_key(), now=now, end=now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {AUTHORITY: _pem(certificate), AUTHORITY_KEY: _key_pem(key)}


def issue(authority: Mapping[str, str], *, names: Sequence[str], now: datetime.datetime) -> dict[str, str]:
    """A leaf for the names, as values of the Secret that the gateway mounts. It holds no authority key.

    Raises:
        AuthorityUnusable: it lacks a part, has ended, or its key is not one or another's.
        ValueError: there is no name.
    """
    if not names:
        raise ValueError("a certificate needs a name")
    ca, ca_key = _signer(authority)
    end = min(now + LEAF_LIFETIME, ca.not_valid_after_utc)
    if end <= now:
        raise AuthorityUnusable(f"{AUTHORITY} has ended")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    certificate = (
        _builder(subject=_name(names[0]), issuer=ca.subject, key=key.public_key(), now=now, end=end)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return {CERTIFICATE: _pem(certificate), PRIVATE_KEY: _key_pem(key), AUTHORITY: _pem(ca)}


def _signer(authority: Mapping[str, str]) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Certificate and key of an authority. Raises AuthorityUnusable."""
    if missing := [part for part in (AUTHORITY, AUTHORITY_KEY) if not authority.get(part)]:
        raise AuthorityUnusable(f"{' and '.join(missing)} is missing")
    try:
        certificate = x509.load_pem_x509_certificate(authority[AUTHORITY].encode())
        public = certificate.public_key()
    except _UNREADABLE:
        raise AuthorityUnusable(f"{AUTHORITY} is not a certificate in PEM form") from None
    try:
        key = serialization.load_pem_private_key(authority[AUTHORITY_KEY].encode(), password=None)
    except _UNREADABLE:
        raise AuthorityUnusable(
            f"{AUTHORITY_KEY} is not a private key in PEM form without a password"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityUnusable(f"{AUTHORITY_KEY} is not an ECDSA key")
    if key.public_key() != public:
        raise AuthorityUnusable(f"{AUTHORITY_KEY} does not belong to {AUTHORITY}")
    return certificate, key


def needs_renewal(
    pem: str,
    *,
    now: datetime.datetime,
    wanted: Sequence[str] | None = None,
    key: str | None = None,
    authority: str | None = None,
) -> str | None:
    """Why a certificate must be made anew; None while it is good.

    Args:
        pem: the certificate.
        wanted: names it must have, no more and no fewer; None for an authority.
        key: its private key, to see that they belong together.
        authority: certificate that must have signed it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        have = set(_names_of(certificate)) if wanted is not None else set()
        if key is not None and _public(key) != certificate.public_key():
            return "the private key does not belong to the certificate"
        if authority is not None:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    except InvalidSignature:
        return "another authority signed it"
    except _UNREADABLE:
        return "it cannot be read, or another authority signed it"
    if now < certificate.not_valid_before_utc:
        return "it is not valid yet"
    if now >= _renewal_time(certificate):
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if wanted is None:
        return None
    want = {_normal(name) for name in wanted}
    if have == want:
        return None
    added, dropped = sorted(want - have), sorted(have - want)
    words = [f"{', '.join(added)} is missing"] * bool(added) + [f"{', '.join(dropped)} is not wanted"] * bool(
        dropped
    )
    return "its names have changed: " + "; ".join(words)


def pair_problem(pem: str, key: str) -> str | None:
    """Why a certificate (chain, leaf first) and a private key that somebody gave are not a pair."""
    try:
        leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    except _UNREADABLE:
        return "tls.crt is not a certificate in PEM form"
    try:
        certified = leaf.public_key()
    except _UNREADABLE:
        certified = None
    if not _served(certified):
        return f"tls.crt is for a key of a kind that the gateway does not serve; {_USE}"
    try:
        public = _public(key)
    except UnsupportedAlgorithm:
        return f"tls.key is of a kind that the gateway does not serve; {_USE}"
    except _UNREADABLE:
        return "tls.key is not a private key in PEM form without a password"
    return None if public == certified else "tls.key does not belong to tls.crt"


_USE = "use RSA of 2048 bits or more, or ECDSA on the curve P-256, P-384 or P-521"


def _served(key: object) -> bool:
    """Whether Envoy takes a certificate for such a key; what it refuses leaves the one before in use (seen, 1.40)."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= 2048
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def leaf_problem(pem: str, *, hostnames: Sequence[str], now: datetime.datetime) -> str | None:
    """Why clients would refuse a certificate that somebody gave; None if they would not."""
    try:
        leaf = x509.load_pem_x509_certificates(pem.encode())[0]
        start, end, held = leaf.not_valid_before_utc, leaf.not_valid_after_utc, _names_of(leaf)
    except _UNREADABLE:
        return "tls.crt has parts that cannot be read"
    if now >= end:
        return f"tls.crt ended on {end:%Y-%m-%d}"
    if now < start:
        return f"tls.crt is valid only from {start:%Y-%m-%d}"
    lacking = [host for host in hostnames if not any(_covers(name, host) for name in held)]
    return f"tls.crt is not for {', '.join(lacking)} of spec.access.hostnames" if lacking else None


def _covers(name: str, host: str) -> bool:
    """Whether a name of a certificate stands for a host; a star stands for one label (RFC 6125, 6.4.3)."""
    name, host = _normal(name), _normal(host)
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def renewal_time(pem: str) -> datetime.datetime:
    """When a certificate is due to be made anew: while a third of its life is left."""
    return _renewal_time(x509.load_pem_x509_certificate(pem.encode()))


def _renewal_time(certificate: x509.Certificate) -> datetime.datetime:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - (end - start) / RENEWAL_SHARE


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(_normal(name))


def _normal(name: str) -> str:
    """One spelling of a name or address."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        plain = name.lower().rstrip(".")
        return plain if plain.isascii() else plain.encode("idna").decode()


def _builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, text[:_LONGEST_COMMON_NAME])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _public(key: str) -> object:
    return serialization.load_pem_private_key(key.encode(), password=None).public_key()
