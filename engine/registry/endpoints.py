"""Where the images of a domain are: the URLs to ask, in order, and how much they are trusted. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from engine.errors import InvalidParameter
from engine.images.reference import DEFAULT_DOMAIN
from engine.registry.settings import RegistrySettings

HUB_URL = "https://registry-1.docker.io"
HUB_ACCOUNT = "https://index.docker.io/v1/"  # what clients call docker.io in their credentials
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Endpoint(msgspec.Struct, frozen=True):
    """`url` has no slash at its end. Without `verify` any certificate is taken."""

    url: str
    verify: bool = True
    is_mirror: bool = False

    @property
    def host(self) -> str:
        """host[:port], the name of its folder of certificates."""
        return urlsplit(self.url).netloc


def endpoints(domain: str, settings: RegistrySettings, *, push: bool = False) -> list[Endpoint]:
    """To be asked one after the other; pushes never go to a mirror."""
    if domain == DEFAULT_DOMAIN:
        mirrors = [] if push else [_mirror(url, settings) for url in settings.mirrors]
        return [*mirrors, Endpoint(HUB_URL)]
    if not is_insecure(domain, settings):
        return [Endpoint(f"https://{domain}")]
    return [Endpoint(f"https://{domain}", verify=False), Endpoint(f"http://{domain}", verify=False)]


def is_insecure(domain: str, settings: RegistrySettings) -> bool:
    """`domain` is host[:port]. Names other than localhost are not looked up: list them by name."""
    host = urlsplit(f"//{domain}").hostname or domain
    address = _address("127.0.0.1" if host == "localhost" else host)
    for entry in (*LOOPBACK, *settings.insecure_registries):
        if entry in (domain, host):
            return True
        network = _network(entry)
        if address is not None and network is not None and address in network:
            return True
    return False


def account_domain(server: str) -> str:
    """The domain that a server address of credentials means: a URL, a host, or the hub's old name."""
    text = server.partition("://")[2] if "://" in server else server
    host = text.partition("/")[0]
    return DEFAULT_DOMAIN if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def _mirror(url: str, settings: RegistrySettings) -> Endpoint:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InvalidParameter(f"invalid registry mirror {url!r}: must be https://HOST[:PORT]")
    verify = not is_insecure(parts.netloc, settings)
    return Endpoint(url.rstrip("/"), verify=verify, is_mirror=True)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
