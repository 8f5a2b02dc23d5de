"""How this host talks to registries; made by the daemon, never changed."""

from __future__ import annotations

from pathlib import Path

import msgspec


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`mirrors`: URLs asked before docker.io itself. `insecure_registries`: host[:port] or networks (10.0.0.0/8)
    that may speak HTTP, or TLS with any certificate; loopback addresses always may.
    `certs_dir`/HOST[:PORT]/ holds *.crt (authorities to trust) and *.cert with *.key (who we are).
    """

    mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    certs_dir: Path = Path("/etc/swarmctl/certs.d")
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    first_retry_delay_s: float = 1.0
