"""Sinks against servers of the test: every kind of socket, and what happens when the server goes."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import struct
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.config import LogRecord
from engine.logging_drivers.journald import JournaldSink, entry, field_name
from engine.logging_drivers.message import Source
from engine.logging_drivers.syslog import SyslogTarget
from engine.logging_drivers.syslog_sink import SyslogSink

NOW = 1_767_323_045_123_456_789
SOURCE = Source(
    container_id="c1" * 32,
    container_name="web",
    image_name="shop/web:1",
    tag="web",
    attributes={"com.shop/tier": "front", "_9": "x"},
)


def line(text: bytes, stream: int = 1, number: int = 1) -> LogRecord:
    return LogRecord(stream, NOW, text, None, number)


def sink(address: str, **options: str) -> SyslogSink:
    given = {f"syslog-{name.replace('_', '-')}": value for name, value in options.items()}
    return SyslogSink(SyslogTarget.parse({"syslog-address": address, **given}), SOURCE)


class StreamServer:
    """Lines that came, and the connections they came on."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while data := await reader.readline():
            self.lines.put_nowait(data)
        writer.close()

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.lines.get(), 10)


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
async def test_a_stream_is_opened_anew_when_its_server_has_closed_it(scheme: str, tmp_path: Path) -> None:
    server = StreamServer()
    if scheme == "tcp":
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        address = f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    else:
        listening = await asyncio.start_unix_server(server.serve, str(tmp_path / "s"))
        address = f"unix://{tmp_path}/s"
    made = sink(address)
    await made.send(line(b"one\n"))
    await made.flush()
    assert (await server.next()).endswith(b": one\n")
    server.writers[0].close()
    await server.writers[0].wait_closed()
    for _ in range(100):  # until this side has seen the end
        await asyncio.sleep(0)
    await made.send(line(b"two\n"))
    await made.flush()
    assert (await server.next()).endswith(b": two\n")
    made.close()
    listening.close()


async def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=f"dial tcp://127.0.0.1:{port}: connection refused"):
        await sink(f"tcp://127.0.0.1:{port}").check()
    with pytest.raises(OSError, match="journald is not enabled on this host"):
        await JournaldSink(SOURCE, str(tmp_path / "no")).check()


async def test_datagrams_of_a_socket_and_of_udp(tmp_path: Path) -> None:
    for family, kind, place in (
        (socket.AF_UNIX, "unixgram", str(tmp_path / "s")),
        (socket.AF_INET, "udp", ("127.0.0.1", 0)),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as server:
            server.bind(place)
            server.settimeout(10)
            name = server.getsockname()
            made = sink(f"{kind}://{name if isinstance(name, str) else f'127.0.0.1:{name[1]}'}")
            await made.send(line(b"one\n", 2))
            assert server.recv(1000).startswith(b"<27>")
            made.close()


async def test_udp_to_nobody_is_lost_and_a_socket_to_nobody_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        udp = sink(f"udp://127.0.0.1:{server.getsockname()[1]}")
        await udp.check()
    for _ in range(4):
        await udp.send(line(b"x\n"))
    udp.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        unix = sink(f"unixgram://{tmp_path}/s")
        await unix.send(line(b"x\n"))
    with pytest.raises(OSError, match="unixgram"):
        await unix.send(line(b"x\n"))


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "logs")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert", folder / "key"


async def test_tls_checks_the_certificate_unless_told_not_to(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    server = StreamServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    for host, options in (
        ("localhost", {"tls_ca_cert": str(cert)}),
        ("127.0.0.1", {"tls_skip_verify": "true"}),
    ):
        made = sink(f"tcp+tls://{host}:{port}", **options)
        await made.send(line(b"secret\n"))
        await made.flush()
        assert (await server.next()).endswith(b": secret\n")
        made.close()
    with pytest.raises(OSError, match="certificate verify failed"):
        await sink(f"tcp+tls://localhost:{port}").check()
    with pytest.raises(OSError, match="no such file"):
        await sink(f"tcp+tls://localhost:{port}", tls_ca_cert=str(tmp_path / "no")).check()
    listening.close()


def fields(data: bytes) -> dict[str, bytes]:
    """An entry of the journal's protocol, read as its documentation says."""
    found: dict[str, bytes] = {}
    while data:
        head, _, rest = data.partition(b"\n")
        name, sign, value = head.partition(b"=")
        if not sign:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value
        data = rest
    return found


async def test_the_journal_gets_the_container_and_the_parts_of_long_lines(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        server.settimeout(10)
        made = JournaldSink(SOURCE, str(tmp_path / "s"))
        sent = (line(b"whole\n", 2), line(b"a" * 16384), line(b"b" * 10), line(b"c\n"), line(b"next\n"))
        entries = []
        for record in sent:
            await made.send(record)
            entries.append(fields(server.recv(1 << 20)))
        made.close()
    first = entries[0]
    assert first["MESSAGE"] == b"whole" and first["PRIORITY"] == b"3"
    assert first["CONTAINER_ID"] == b"c1" * 6 and first["CONTAINER_ID_FULL"] == b"c1" * 32
    assert first["CONTAINER_NAME"] == first["CONTAINER_TAG"] == first["SYSLOG_IDENTIFIER"] == b"web"
    assert first["IMAGE_NAME"] == b"shop/web:1" and first["COM_SHOP_TIER"] == b"front" and first["9"] == b"x"
    assert first["SYSLOG_TIMESTAMP"] == b"2026-01-02T03:04:05.123456789Z"
    partial = [
        tuple(e.get(f"CONTAINER_PARTIAL_{name}") for name in ("MESSAGE", "ORDINAL", "LAST")) for e in entries
    ]
    assert partial == [
        (None, None, None),
        (b"true", b"1", b"false"),
        (b"true", b"2", b"false"),
        (None, b"3", b"true"),
        (None, None, None),
    ]
    assert len({e["CONTAINER_PARTIAL_ID"] for e in entries[1:4]}) == 1


def test_fields_with_a_newline_have_a_length() -> None:
    assert fields(entry({"A": "1", "B": b"x\ny", "C": b""})) == {"A": b"1", "B": b"x\ny", "C": b""}
    assert [field_name(name) for name in ("a.b", "_x", "é", "A1")] == ["A_B", "X", "", "A1"]
