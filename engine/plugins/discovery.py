"""Where plugins that run by themselves say that they are: sockets, .spec and .json files in known folders.

Source: docs.docker.com/engine/extend/plugin_api ("Plugin discovery"). Reads only; a file that is wrong is an error
for who asks for that plugin, and for nobody else.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from engine.errors import InvalidParameter
from engine.plugins.client import PluginAddress, TlsFiles

SOCKET_FOLDERS = (Path("/run/docker/plugins"),)
SPEC_FOLDERS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
SPEC_BYTES_MAX = 64 << 10
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_URL = re.compile(r"unix:///\S+|(?:tcp|http)://\S+:\d{1,5}/?")


class _JsonSpec(msgspec.Struct, rename="pascal"):
    name: str = ""
    addr: str = ""
    tls_config: TlsFiles | None = msgspec.field(default=None, name="TLSConfig")


class Discovery:
    """`sockets` come first, in their order."""

    def __init__(
        self, sockets: Sequence[Path] = SOCKET_FOLDERS, specs: Sequence[Path] = SPEC_FOLDERS
    ) -> None:
        self._sockets, self._specs = tuple(sockets), tuple(specs)

    def find(self, name: str) -> PluginAddress | None:
        """None when nothing is there. InvalidParameter for a file that cannot be used."""
        if not _NAME.fullmatch(name):
            return None
        for folder in self._sockets:
            for path in (folder / f"{name}.sock", folder / name / f"{name}.sock"):
                if _is_socket(path):
                    return PluginAddress(f"unix://{path}")
        for folder in self._specs:
            for base in (folder, folder / name):
                for suffix in (".spec", ".json"):
                    path = base / f"{name}{suffix}"
                    if path.is_file():
                        return _read(path)
        return None

    def names(self) -> list[str]:
        return sorted(set(self._names()))

    def _names(self) -> Iterator[str]:
        for folder, suffixes in (
            *((folder, (".sock",)) for folder in self._sockets),
            *((folder, (".spec", ".json")) for folder in self._specs),
        ):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.suffix in suffixes:
                    yield path.stem
                elif path.is_dir() and any((path / f"{path.name}{suffix}").exists() for suffix in suffixes):
                    yield path.name


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _read(path: Path) -> PluginAddress:
    try:
        with path.open("rb") as file:
            data = file.read(SPEC_BYTES_MAX)
        if path.suffix == ".json":
            spec = msgspec.json.decode(data, type=_JsonSpec)
            address = PluginAddress(spec.addr, spec.tls_config)
        else:
            address = PluginAddress(data.decode().strip())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"the plugin file {path} cannot be read: {error}") from error
    url = address.url.replace("https://", "tcp://", 1)
    if not _URL.fullmatch(url):
        raise InvalidParameter(
            f"the plugin file {path} names no address: write unix:///path/of.sock or tcp://host:port"
        )
    return msgspec.structs.replace(address, url=url)
