"""TLS contexts of a node, and the checks that every connection between nodes passes.

Owns the handshake rules: TLS 1.3 only, the chain must end in the cluster's root, the certificate's
organization must be the cluster id, and whoever answers a dial must be a manager. Host names are not
checked: a node's identity is the common name of its certificate. The checks run inside the handshake, so no
byte of a request leaves before they passed.
"""

from __future__ import annotations

import datetime
import os
import ssl

from cryptography import x509

from node.ca.files import CredentialFiles, Credentials
from node.rpc import ALPN_CALLS, ALPN_HTTP, ALPN_RAFT, MANAGER, Identity, peer_identity

# X.509's name for "the certificate is not acceptable for another reason".
_REJECTED = "certificate rejected"


class NodeTls:
    """The contexts made from a node's certificate; `reload` swaps them for new connections.

    Implements node.rpc.TlsContexts. Raises ValueError or ssl.SSLError when the files are not usable.
    """

    credentials: Credentials
    identity: Identity
    _server: ssl.SSLContext
    _client: ssl.SSLContext
    _calls: ssl.SSLContext
    _raft: ssl.SSLContext

    def __init__(self, files: CredentialFiles) -> None:
        self._files = files
        self.reload()

    def reload(self) -> None:
        """Read the files again: after a renewal, a change of role or of the root."""
        credentials = self._files.load()
        if credentials is None:
            raise ValueError(f"no certificate in {self._files.folder}: this node is not part of a swarm")
        self.credentials = credentials
        self.identity = certificate_identity(credentials.certificate_pem)
        self._server = self._accepting()
        self._client = self._dialing(ALPN_HTTP)
        self._calls = self._dialing(ALPN_CALLS)
        self._raft = self._dialing(ALPN_RAFT)

    def server(self) -> ssl.SSLContext:
        return self._server

    def client(self) -> ssl.SSLContext:
        return self._client

    def calls(self) -> ssl.SSLContext:
        return self._calls

    def raft(self) -> ssl.SSLContext:
        return self._raft

    def _accepting(self) -> ssl.SSLContext:
        context = self._loaded(_base_context(ssl.PROTOCOL_TLS_SERVER, cluster_id=self.identity.cluster_id))
        # A joiner has no certificate yet; which methods it may call is decided per method.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols([ALPN_RAFT, ALPN_CALLS, ALPN_HTTP])
        return context

    def _dialing(self, protocol: str) -> ssl.SSLContext:
        context = self._loaded(
            _base_context(ssl.PROTOCOL_TLS_CLIENT, cluster_id=self.identity.cluster_id, required_role=MANAGER)
        )
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([protocol])
        return context

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.load_verify_locations(cadata=self.credentials.root_pem)
        _load_pair(context, self.credentials)
        return context


class JoinerTls:
    """The contexts of a node without a certificate.

    root_pem "": talks to anyone, to fetch the root whose digest is then compared; afterwards only to
    managers whose certificate that root has signed.
    """

    def __init__(self, root_pem: str = "") -> None:
        self._client = _base_context(ssl.PROTOCOL_TLS_CLIENT, required_role=MANAGER if root_pem else "")
        if root_pem:
            self._client.verify_mode = ssl.CERT_REQUIRED
            self._client.load_verify_locations(cadata=root_pem)
        else:
            self._client.verify_mode = ssl.CERT_NONE

    def server(self) -> ssl.SSLContext:
        raise AssertionError("a node without a certificate does not listen")

    def client(self) -> ssl.SSLContext:
        return self._client

    def calls(self) -> None:
        return None

    def raft(self) -> ssl.SSLContext:
        raise AssertionError("a node without a certificate is not a manager")


def certificate_identity(certificate_pem: str) -> Identity:
    """Raises ValueError when the certificate is not a node's."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    values = {}
    for name in ("CN", "OU", "O"):
        found = [a.value for a in certificate.subject if a.rfc4514_attribute_name == name]
        if len(found) != 1:
            raise ValueError(f"certificate has {len(found)} {name} entries in its subject, not one")
        values[name] = str(found[0])
    return Identity(node_id=values["CN"], role=values["OU"], cluster_id=values["O"])


def validity(certificate_pem: str) -> tuple[float, float]:
    """(not before, not after) in Unix seconds."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    start: datetime.datetime = certificate.not_valid_before_utc
    end: datetime.datetime = certificate.not_valid_after_utc
    return start.timestamp(), end.timestamp()


def renewal_time(certificate_pem: str, fraction: float) -> float:
    """When to renew (Unix seconds). `fraction` 0..1 is drawn once; it becomes 50 to 80 % of the life."""
    start, end = validity(certificate_pem)
    return start + (end - start) * (0.5 + 0.3 * fraction)


def _load_pair(context: ssl.SSLContext, credentials: Credentials) -> None:
    """OpenSSL reads certificate and key from a file only: one in memory, for the file on disk may be locked."""
    descriptor = os.memfd_create("node-tls", os.MFD_CLOEXEC)
    with open(descriptor, "w") as file:
        file.write(credentials.certificate_pem + "\n" + credentials.key_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _base_context(
    purpose: ssl._SSLMethod, *, cluster_id: str = "", required_role: str = ""
) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.sslobject_class = _checking_class(cluster_id, required_role)
    return context


def _checking_class(cluster_id: str, required_role: str) -> type[ssl.SSLObject]:
    class CheckedConnection(ssl.SSLObject):
        """Refuses, as the last step of the handshake, a peer that the chain alone would allow."""

        def do_handshake(self) -> None:
            super().do_handshake()
            _check_peer(peer_identity(self), cluster_id, required_role)

    return CheckedConnection


def _check_peer(peer: Identity | None, cluster_id: str, required_role: str) -> None:
    if peer is not None and cluster_id and peer.cluster_id != cluster_id:
        raise ssl.SSLCertVerificationError(
            f"{_REJECTED}: node {peer.node_id} belongs to cluster {peer.cluster_id}, not {cluster_id}"
        )
    if required_role and (peer is None or peer.role != required_role):
        who = "the peer" if peer is None else f"node {peer.node_id}"
        raise ssl.SSLCertVerificationError(f"{_REJECTED}: {who} is not a {required_role}")
