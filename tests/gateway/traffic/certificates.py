"""Certificates of an authority of one's own, and clients that trust it."""

from __future__ import annotations

import datetime
import itertools
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.envoy import process as envoy_process

_versions = itertools.count()


class Authority:
    """A certificate authority."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = built.public_bytes(serialization.Encoding.PEM).decode()

    def renew(self, directory: pathlib.Path) -> None:
        """Put a new certificate and key where the kubelet would."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo")])
        built = (
            _builder(name, self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("demo")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files = {
            "tls.crt": built.public_bytes(serialization.Encoding.PEM).decode() + self.pem,
            "tls.key": private.decode(),
        }
        envoy_process.publish(directory, files, next(_versions))


def trusting(*authorities: Authority, protocol: str = "http/1.1") -> ssl.SSLContext:
    """A client that trusts these and nobody else."""
    context = ssl.create_default_context(cadata="".join(one.pem for one in authorities))
    context.set_alpn_protocols([protocol])
    return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )
