"""The cluster's root certificate authority: makes the root, signs the nodes' certificate requests.

Pure: takes and returns values, reads no clock, keeps nothing. The identity in a certificate comes from the
caller (the manager), never from the request: only the public key of a request is used, and its signature
proves that the requester has the key.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.ca import tokens
from raft.objects.cluster import RootCA

ROOT_VALIDITY_S = 20 * 365 * 24 * 3600.0
NODE_VALIDITY_S = 90 * 24 * 3600.0
NODE_VALIDITY_S_MIN = 3600.0
BACKDATE_S = 3600.0  # a joiner's clock may be behind the manager's


class InvalidRequest(ValueError):
    """The certificate signing request cannot be used; the message says why."""


def new_root(now: float) -> RootCA:
    """A fresh root with tokens for both roles. `now`: Unix seconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    certificate = (
        _builder(name, name, key.public_key(), now, ROOT_VALIDITY_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(signing_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    digest = tokens.certificate_digest(certificate.public_bytes(serialization.Encoding.DER))
    return RootCA(
        cert_pem=_pem(certificate),
        key_pem=key_to_pem(key).decode(),
        digest=digest,
        worker_token=tokens.new_token(digest),
        manager_token=tokens.new_token(digest),
    )


def sign(
    root: RootCA,
    request_pem: str,
    *,
    node_id: str,
    role: str,
    cluster_id: str,
    now: float,
    validity_s: float = NODE_VALIDITY_S,
) -> str:
    """The node's certificate as PEM. `role`: swarm-manager or swarm-worker. Raises InvalidRequest."""
    request = _checked_request(request_pem)
    root_certificate = x509.load_pem_x509_certificate(root.cert_pem.encode())
    root_key = serialization.load_pem_private_key(root.key_pem.encode(), password=None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey), "the root key is always ECDSA"
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )
    names = [x509.DNSName(role), x509.DNSName(node_id)]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    key_identifier = root_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(
            subject,
            root_certificate.subject,
            request.public_key(),
            now,
            max(validity_s, NODE_VALIDITY_S_MIN),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signing_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    return _pem(certificate)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate signing request (PEM) that proves possession of the key; its names are not used."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _checked_request(request_pem: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise InvalidRequest(f"certificate signing request cannot be read: {error}") from error
    if not valid:
        raise InvalidRequest("certificate signing request is not signed with its own key")
    if not isinstance(request.public_key(), ec.EllipticCurvePublicKey):
        raise InvalidRequest("certificate signing request has a key that is not ECDSA")
    return request


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: CertificatePublicKeyTypes,
    now: float,
    validity_s: float,
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(now - BACKDATE_S, datetime.UTC)
    end = datetime.datetime.fromtimestamp(now + validity_s, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signing_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signing_certificates,
        key_cert_sign=signing_certificates,
        crl_sign=signing_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
