"""Lines as syslog messages (RFC 3164, RFC 5424 and the local form), and the options of the driver. Pure.

One message per line, told apart by a newline; over TLS with RFC 5424 by its length (RFC 5425). The time is the line's own.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec

from engine.errors import InvalidParameter
from engine.logging_drivers.message import Source

INFO, ERROR = 6, 3
SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
PORT_DEFAULT = 514
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)


class SyslogTarget(msgspec.Struct, frozen=True, kw_only=True):
    """`scheme` "" is the host's own syslog socket. `address`: a path, or host and port."""

    OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {
            *("syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert"),
            *("syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"),
        }
    )

    scheme: str = ""
    path: str = ""
    host: str = ""
    port: int = PORT_DEFAULT
    facility: int = 3
    format: str = ""
    ca_cert: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> SyslogTarget:
        """InvalidParameter, in Docker's words, for an address, a facility or a format that does not exist."""
        form = options.get("syslog-format", "")
        if form not in FORMATS:
            raise InvalidParameter(f"Invalid syslog format: '{form}': use one of {', '.join(FORMATS[1:])}")
        scheme, path, host, port = _address(options.get("syslog-address", ""))
        return cls(
            scheme=scheme,
            path=path,
            host=host,
            port=port,
            facility=_facility(options.get("syslog-facility", "")),
            format=form,
            ca_cert=options.get("syslog-tls-ca-cert", ""),
            cert=options.get("syslog-tls-cert", ""),
            key=options.get("syslog-tls-key", ""),
            skip_verify="syslog-tls-skip-verify" in options,
        )

    def check_path(self) -> None:
        """InvalidParameter when it is a socket of this host that is not there. Only asked when a container is made."""
        if self.path and not Path(self.path).exists():
            raise InvalidParameter(f"stat {self.path}: no such file or directory")

    @property
    def shown(self) -> str:
        """For people: where it is."""
        place = self.path or (f"{self.host}:{self.port}" if self.host else "the syslog of this host")
        return f"{self.scheme}://{place}" if self.scheme else place


def _address(text: str) -> tuple[str, str, str, int]:
    """(scheme, path, host, port)."""
    if not text:
        return "", "", "", PORT_DEFAULT
    if "://" not in text:
        raise InvalidParameter(f"syslog-address should be in form proto://address, got {text}")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or PORT_DEFAULT
    except ValueError as error:
        raise InvalidParameter(f"invalid syslog-address {text}: {error}") from error
    if url.scheme not in SCHEMES:
        raise InvalidParameter(f"unsupported scheme: '{url.scheme}': use one of {', '.join(SCHEMES)}")
    if url.scheme in ("unix", "unixgram"):
        return url.scheme, url.path, "", PORT_DEFAULT
    if not host:
        raise InvalidParameter(f"invalid syslog-address {text}: it names no host")
    return url.scheme, "", host, port


def _facility(text: str) -> int:
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidParameter(f"invalid syslog facility: '{text}': use a name such as local0, or 0 to 23")


class SyslogFormat:
    """Turns lines of one container into the bytes of messages."""

    def __init__(self, target: SyslogTarget, source: Source, hostname: str, pid: int) -> None:
        self._facility = target.facility
        self._form = target.format
        self._counts_octets = target.scheme == "tcp+tls" and target.format.startswith("rfc5424")
        self._tag = source.tag
        self._hostname = hostname or "-"
        self._pid = pid

    def message(self, stream: int, timestamp_ns: int, line: bytes) -> bytes:
        priority = self._facility * 8 + (ERROR if stream == 2 else INFO)
        seconds = timestamp_ns // 1_000_000_000
        if self._form.startswith("rfc5424"):
            head = self._rfc5424(priority, timestamp_ns)
        else:
            host = f" {self._hostname}" if self._form else ""
            local = time.localtime(seconds)
            stamp = f"{time.strftime('%b', local)} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
            head = f"<{priority}>{stamp}{host} {self._tag}[{self._pid}]: "
        data = head.encode() + line.removesuffix(b"\n").removesuffix(b"\r") + b"\n"
        return b"%d %b" % (len(data), data) if self._counts_octets else data

    def _rfc5424(self, priority: int, timestamp_ns: int) -> str:
        micros = self._form == "rfc5424micro"
        seconds, nanoseconds = divmod(timestamp_ns, 1_000_000_000)
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone()
        moment = moment.replace(microsecond=nanoseconds // 1000)
        stamp = moment.isoformat(timespec="microseconds" if micros else "seconds")
        return f"<{priority}>1 {stamp} {self._hostname} {self._tag} {self._pid} {self._tag} - "
