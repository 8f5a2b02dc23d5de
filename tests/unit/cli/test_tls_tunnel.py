"""The CLI's side of TLS, against the daemon's: both directions whole, also when one ends first."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.connection import Endpoint, TlsFiles, open_endpoint
from cli.errors import DaemonUnreachable, UsageError
from tests import certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    certificates.make(made)
    return made


def serve(folder: Path, answer: Callable[[ssl.SSLSocket], None]) -> int:
    """The port of a server for one connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            raw, _ = listener.accept()
            try:
                with context.wrap_socket(raw, server_side=True) as connection:
                    answer(connection)
            except OSError:
                raw.close()

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def files(folder: Path, *, verify: bool = True) -> TlsFiles:
    return TlsFiles(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"), verify)


def count_and_answer(connection: ssl.SSLSocket) -> None:
    total = 0
    while data := connection.recv(65536):
        total += len(data)
    connection.sendall(b"%d," % total + b"y" * 2_000_000)
    connection.unwrap()


def test_all_of_the_answer_comes_after_the_end_of_input(folder: Path) -> None:
    port = serve(folder, count_and_answer)
    with open_endpoint(Endpoint(f"tcp://127.0.0.1:{port}", files(folder))) as connection:
        connection.settimeout(20)
        connection.sendall(b"x" * 1_000_000)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer == b"1000000," + b"y" * 2_000_000


def test_a_daemon_that_refuses_us_is_heard(folder: Path) -> None:
    port = serve(folder, lambda connection: None)
    with open_endpoint(Endpoint(f"tcp://127.0.0.1:{port}", files(folder / "stranger"))) as connection:
        connection.settimeout(20)
        assert b"the daemon refused our certificate" in connection.recv(65536)


def test_a_daemon_that_is_not_ours_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    certificates.make(tmp_path / "other")
    port = serve(tmp_path / "other", lambda connection: None)
    with pytest.raises(DaemonUnreachable, match="TLS failed"):
        open_endpoint(Endpoint(f"tcp://127.0.0.1:{port}", files(folder)))


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    port = serve(folder, lambda connection: None)
    with pytest.raises(UsageError, match="unable to read the TLS files"):
        open_endpoint(Endpoint(f"tcp://127.0.0.1:{port}", files(tmp_path)))
