"""A node's certificate files: `root.crt`, `node.crt` and `node.key` (0600) in one folder.

Owns their replacement. Invariants: after a crash at any point the folder holds one matching pair of
certificate and key, the old or the new one: both are first written beside the old ones, the key is renamed
first, and a certificate that was left behind is moved into place at the next load. A manager's key is in
the form that autolock asks for (node.ca.keys), a worker's always in the clear.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from node.ca.disk import DISK, Disk, beside
from node.ca.keys import KeyFiles
from node.rpc import MANAGER
from raft.objects.cluster import ManagerLock


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """PEM texts."""

    root_pem: str
    certificate_pem: str
    key_pem: str


class CredentialFiles:
    """The folder and what is in it; `keys` are its secret files."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self.folder = folder
        self.root = folder / "root.crt"
        self.certificate = folder / "node.crt"
        self.keys = KeyFiles(folder, disk)
        self.key = self.keys.tls
        self._disk = disk

    @property
    def is_manager(self) -> bool:
        """Also while the key is locked: only a manager's is ever wrapped. Raises ValueError as `load` does."""
        if self.keys.is_wrapped(self.key):
            return True
        found = self.load()
        return found is not None and _is_manager(found.certificate_pem)

    def load(self) -> Credentials | None:
        """None when this node has none (or no complete set). Raises ValueError when they are damaged, Locked."""
        key = self.keys.read(self.key)
        if key is None or not self.root.exists():
            return None
        key_pem = key.decode(errors="replace")
        pending = beside(self.certificate)
        if pending.exists() and _belongs(pending.read_text(), key_pem):
            self._disk.rename(pending, self.certificate)
        if not self.certificate.exists():
            return None
        certificate_pem = self.certificate.read_text()
        if not _belongs(certificate_pem, key_pem):
            raise ValueError(f"{self.certificate} and {self.key} do not belong together: join again")
        return Credentials(root_pem=self.root.read_text(), certificate_pem=certificate_pem, key_pem=key_pem)

    def save(self, credentials: Credentials, lock: ManagerLock | None = None) -> None:
        """Durable when it returns. `lock`: what the signer said about autolock. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = credentials.key_pem.encode()
        if _is_manager(credentials.certificate_pem):
            self.keys.prepare(lock or ManagerLock())
            key = self.keys.sealed(self.key, key)
        self._disk.write(beside(self.root), credentials.root_pem.encode(), 0o644)
        self._disk.write(beside(self.key), key, 0o600)
        self._disk.write(beside(self.certificate), credentials.certificate_pem.encode(), 0o644)
        for path in (self.root, self.key, self.certificate):
            self._disk.rename(beside(path), path)
            self._disk.sync(self.folder)

    def apply_lock(self, lock: ManagerLock) -> bool:
        """The cluster's lock has changed (or may have): `KeyFiles.apply`, on managers."""
        return self.is_manager and self.keys.apply(lock)

    def remove(self) -> None:
        """Forget the identity: when the node leaves the cluster."""
        for path in (self.certificate, self.key, self.root, self.keys.data, self.keys.lock):
            self._disk.remove(path)
            self._disk.remove(beside(path))


def _is_manager(certificate_pem: str) -> bool:
    subject = x509.load_pem_x509_certificate(certificate_pem.encode()).subject
    return any(
        name.value == MANAGER for name in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    )


def _belongs(certificate_pem: str, key_pem: str) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except ValueError:
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
