from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.plugins.client import PluginAddress, TlsFiles
from engine.plugins.discovery import Discovery


class Folders:
    def __init__(self, root: Path) -> None:
        self.sockets, self.etc, self.lib = root / "run", root / "etc", root / "lib"
        for folder in (self.sockets, self.etc, self.lib):
            folder.mkdir()
        self.discovery = Discovery((self.sockets,), (self.etc, self.lib))
        self._open: list[socket.socket] = []

    def listen(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        self._open.append(made)

    def close(self) -> None:
        for made in self._open:
            made.close()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    made = Folders(tmp_path)
    yield made
    made.close()


def test_sockets_then_specs(folders: Folders) -> None:
    (folders.etc / "nfs.spec").write_text("tcp://127.0.0.1:8787\n")
    (folders.lib / "nfs.spec").write_text("tcp://127.0.0.1:1\n")
    assert folders.discovery.find("nfs") == PluginAddress("tcp://127.0.0.1:8787")
    folders.listen(folders.sockets / "nfs.sock")
    assert folders.discovery.find("nfs") == PluginAddress(f"unix://{folders.sockets}/nfs.sock")
    folders.listen(folders.sockets / "own/own.sock")
    assert folders.discovery.find("own") == PluginAddress(f"unix://{folders.sockets}/own/own.sock")
    (folders.lib / "deep").mkdir()
    (folders.lib / "deep/deep.spec").write_text("unix:///run/deep.sock")
    assert folders.discovery.find("deep") == PluginAddress("unix:///run/deep.sock")
    assert folders.discovery.names() == ["deep", "nfs", "own"]


def test_json_with_tls(folders: Folders) -> None:
    tls = {"InsecureSkipVerify": False, "CAFile": "/ca", "CertFile": "/cert", "KeyFile": "/key"}
    spec = {"Name": "far", "Addr": "https://far.example.com:8080", "TLSConfig": tls}
    (folders.etc / "far.json").write_text(json.dumps(spec))
    files = TlsFiles(ca_file="/ca", cert_file="/cert", key_file="/key")
    assert folders.discovery.find("far") == PluginAddress("tcp://far.example.com:8080", files)


@pytest.mark.parametrize("name", ["", "../etc/x", ".hidden", "a/b", "none"])
def test_what_is_no_plugin(folders: Folders, name: str) -> None:
    (folders.sockets / "none.sock").touch()  # no socket
    assert folders.discovery.find(name) is None


@pytest.mark.parametrize(
    ("file", "content"),
    [("x.spec", ""), ("x.spec", "ftp://here:1"), ("x.spec", "tcp://here"), ("x.json", "{"), ("x.json", "{}")],
)
def test_a_file_that_is_wrong_is_named(folders: Folders, file: str, content: str) -> None:
    (folders.etc / file).write_text(content)
    with pytest.raises(InvalidParameter, match=f"the plugin file {folders.etc}/{file}"):
        folders.discovery.find("x")
    assert folders.discovery.names() == ["x"]
