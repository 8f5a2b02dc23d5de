"""The API's TLS: from three files to a context that asks clients for a certificate. ConfigError names the file."""

from __future__ import annotations

import ssl
from pathlib import Path

from node.config import ConfigError, TlsSettings


class ApiTls:
    """One context for all listeners; `reload` reads the certificate again, for connections that come later."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.verify:
            _readable(settings.ca, "CA certificate", "--tlscacert")
            try:
                self.context.load_verify_locations(settings.ca)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"could not read CA certificate {settings.ca}: {error}") from error
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.reload()

    def reload(self) -> None:
        certificate, key = self._settings.certificate, self._settings.key
        _readable(certificate, "TLS certificate", "--tlscert")
        _readable(key, "TLS key", "--tlskey")
        try:
            self.context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"could not load X509 key pair {certificate}, {key}: {error}") from error


def _readable(path: Path, what: str, flag: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"could not read {what} {path}: {error.strerror}: name the file with {flag}"
        ) from error
