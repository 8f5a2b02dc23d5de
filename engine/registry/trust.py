"""TLS towards registries: the system's authorities, those of one registry, and our certificate for it.

Owns the contexts of this host; they are made anew when files of a registry's folder change. Layout of the
folder: *.crt are authorities, NAME.cert with NAME.key is who we are (as in /etc/docker/certs.d).
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

from engine.errors import InvalidParameter
from engine.registry.endpoints import Endpoint

_Key = tuple[str, bool, tuple[tuple[str, int], ...]]


class Trust:
    def __init__(self, certs_dir: Path) -> None:
        self._certs_dir = certs_dir
        self._lock = threading.Lock()
        self._contexts: dict[tuple[str, bool], tuple[_Key, ssl.SSLContext]] = {}

    def context(self, endpoint: Endpoint) -> ssl.SSLContext:
        """Reads files: call it in a thread. InvalidParameter names the file that is wrong."""
        files = self._files(endpoint.host)
        key = (endpoint.host, endpoint.verify, tuple((str(f), f.stat().st_mtime_ns) for f in files))
        with self._lock:
            known = self._contexts.get(key[:2])
            if known is None or known[0] != key:
                known = self._contexts[key[:2]] = (key, _make(endpoint, files))
            return known[1]

    def _files(self, host: str) -> list[Path]:
        folder = self._certs_dir / host
        if not folder.is_dir() or folder.parent != self._certs_dir:
            return []
        return sorted(path for path in folder.iterdir() if path.suffix in (".crt", ".cert", ".key"))


def _make(endpoint: Endpoint, files: list[Path]) -> ssl.SSLContext:
    if endpoint.verify:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in files:
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                if path.with_suffix(".key") not in files:
                    raise InvalidParameter(
                        f"missing key {path.with_suffix('.key')} for client certificate {path.name}. "
                        "CA certificates must use the extension .crt"
                    )
                context.load_cert_chain(path, path.with_suffix(".key"))
            elif path.with_suffix(".cert") not in files:
                raise InvalidParameter(
                    f"missing client certificate {path.with_suffix('.cert')} for key {path.name}"
                )
        except OSError as error:  # ssl.SSLError as well
            raise InvalidParameter(f"certificate file {path} cannot be used: {error}") from error
    return context
