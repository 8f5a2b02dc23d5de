"""A node's certificate files: `root.crt`, `node.crt` and `node.key` (0600) in one folder.

Owns their replacement. Invariant: after a crash at any point the folder holds one matching pair of
certificate and key, the old or the new one: both are first written beside the old ones, the key is renamed
first, and a certificate that was left behind is moved into place at the next load.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """PEM texts."""

    root_pem: str
    certificate_pem: str
    key_pem: str


class CredentialFiles:
    """The folder and the three paths in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root.crt"
        self.certificate = folder / "node.crt"
        self.key = folder / "node.key"

    def load(self) -> Credentials | None:
        """None when this node has none (or no complete set). Raises ValueError when they are damaged."""
        if not (self.root.exists() and self.key.exists()):
            return None
        key_pem = self.key.read_text()
        pending = _beside(self.certificate)
        if pending.exists() and _belongs(pending.read_text(), key_pem):
            pending.rename(self.certificate)
        if not self.certificate.exists():
            return None
        certificate_pem = self.certificate.read_text()
        if not _belongs(certificate_pem, key_pem):
            raise ValueError(f"{self.certificate} and {self.key} do not belong together: join again")
        return Credentials(root_pem=self.root.read_text(), certificate_pem=certificate_pem, key_pem=key_pem)

    def save(self, credentials: Credentials) -> None:
        """Durable when it returns. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(_beside(self.root), credentials.root_pem, 0o644)
        _write(_beside(self.key), credentials.key_pem, 0o600)
        _write(_beside(self.certificate), credentials.certificate_pem, 0o644)
        for path in (self.root, self.key, self.certificate):
            _beside(path).rename(path)
        _sync_folder(self.folder)

    def remove(self) -> None:
        """Forget the identity: when the node leaves the cluster."""
        for path in (self.certificate, self.key, self.root):
            path.unlink(missing_ok=True)
            _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _belongs(certificate_pem: str, key_pem: str) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except ValueError:
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
