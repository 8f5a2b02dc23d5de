"""Attaching and exec at the level of the connection: input that comes early, half-closes, WebSockets, ends and races."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.commands import PATIENCE
from tests.conftest import HostDaemon
from tests.raw_http import call

pytestmark = pytest.mark.root
WAIT_S = 30 * PATIENCE
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Stream:
    """A connection that was taken over."""

    def __init__(
        self, daemon: Path, path: str, body: bytes = b"", *, early: bytes = b"", upgrade: bool = True
    ) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(daemon))
        head = f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.sock.sendall(f"{head}{UPGRADE if upgrade else ''}\r\n".encode() + body + early)
        self.head, self._rest = b"", b""

    def read_head(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            assert piece, data
            data += piece
        self.head, _, self._rest = data.partition(b"\r\n\r\n")
        return self.head

    def read_until(self, words: bytes) -> bytes:
        while words not in self._rest:
            piece = self.sock.recv(65536)
            assert piece, self._rest
            self._rest += piece
        return self._rest

    def read_all(self) -> bytes:
        if not self.head:
            self.read_head()
        while piece := self.sock.recv(65536):
            self._rest += piece
        self.sock.close()
        return self._rest

    def frames(self) -> dict[int, bytes]:
        data, found = self.read_all(), {1: b"", 2: b""}
        while data:
            stream, size = struct.unpack(">B3xI", data[:8])
            found[stream] += data[8 : 8 + size]
            data = data[8 + size :]
        return found


@pytest.fixture
def name(host: HostDaemon) -> Iterator[str]:
    made = f"c{uuid.uuid4().hex[:8]}"
    yield made
    host.run("rm", "-f", "-v", made)


def exec_of(host: HostDaemon, container: str, *words: str, **fields: object) -> str:
    body = {"Cmd": list(words), "AttachStdout": True, "AttachStderr": True, **fields}
    answer = call(host.socket, "POST", f"/containers/{container}/exec", body=json.dumps(body).encode())
    assert answer.status == 201, answer.body
    return str(json.loads(answer.body)["Id"])


def exit_code(host: HostDaemon, exec_id: str) -> int:
    return int(json.loads(call(host.socket, "GET", f"/exec/{exec_id}/json").body)["ExitCode"])


@pytest.mark.parametrize(("upgrade", "status"), [(True, b"101 UPGRADED"), (False, b"200 OK")])
def test_both_ways_of_taking_over(host: HostDaemon, name: str, upgrade: bool, status: bytes) -> None:
    host.ok(
        "run", "-di", "--name", name, "hello", "sh", "-c", "read line; echo out $line; echo err >&2; exit 3"
    )
    stream = Stream(
        host.socket, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1", upgrade=upgrade
    )
    head = stream.read_head()
    assert head.startswith(b"HTTP/1.1 " + status)
    assert (b"Upgrade: tcp" in head) is upgrade
    stream.sock.sendall(b"word\n")
    assert stream.frames() == {1: b"out word\n", 2: b"err\n"}
    assert host.ok("wait", name) == "3"


def test_input_that_comes_with_the_request_is_kept(host: HostDaemon, name: str) -> None:
    host.ok("run", "-di", "--name", name, "hello", "cat")
    host.ok("exec", name, "true")
    stream = Stream(host.socket, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1", early=b"early\n")
    stream.read_head()
    assert stream.read_until(b"early\n")
    stream.sock.close()
    for size in (10, 300_000) * 3:  # more than the server reads ahead
        text = b"x" * size
        made = exec_of(host, name, "cat", AttachStdin=True)
        stream = Stream(host.socket, f"/exec/{made}/start", b"{}", early=text)
        stream.read_head()
        stream.sock.shutdown(socket.SHUT_WR)
        got = stream.frames()
        assert got == {1: text, 2: b""}
        assert exit_code(host, made) == 0


def test_a_half_close_ends_the_input_only(host: HostDaemon, name: str) -> None:
    host.ok("run", "-d", "--name", name, "hello", "sleep", "100000")
    made = exec_of(host, name, "sh", "-c", "cat >/dev/null; echo after the end; exit 4", AttachStdin=True)
    stream = Stream(host.socket, f"/exec/{made}/start", b"{}")
    stream.read_head()
    stream.sock.sendall(b"some")
    stream.sock.shutdown(socket.SHUT_WR)
    assert stream.frames()[1] == b"after the end\n"
    assert exit_code(host, made) == 4


def test_an_exec_that_is_over_at_once_loses_nothing(host: HostDaemon, name: str) -> None:
    host.ok("run", "-d", "--name", name, "hello", "sleep", "100000")
    for code in range(20):
        made = exec_of(host, name, "sh", "-c", f"echo first; echo second >&2; echo last; exit {code}")
        stream = Stream(host.socket, f"/exec/{made}/start", b'{"Detach":false}')
        assert stream.frames() == {1: b"first\nlast\n", 2: b"second\n"}
        assert exit_code(host, made) == code


def test_an_attachment_to_one_that_is_over_at_once_loses_nothing(host: HostDaemon, name: str) -> None:
    for code in (0, 7):
        host.ok(
            "create",
            "--name",
            name,
            "hello",
            "sh",
            "-c",
            f"dd if=/dev/zero bs=1000 count=300 2>/dev/null; exit {code}",
        )
        stream = Stream(host.socket, f"/containers/{name}/attach?stream=1&stdout=1&stderr=1")
        stream.read_head()
        assert call(host.socket, "POST", f"/containers/{name}/start").status == 204
        assert stream.frames()[1] == bytes(300_000)
        assert host.ok("wait", name) == str(code)
        host.ok("rm", name)


@pytest.mark.parametrize("driver", ["json-file", "local", "syslog"])
def test_what_was_logged_comes_first_and_nothing_twice(host: HostDaemon, name: str, driver: str) -> None:
    flags = ["--log-driver", driver]
    flags += ["--log-opt", "syslog-address=udp://127.0.0.1:5514"] if driver == "syslog" else []
    script = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo line $n; done; sleep 1; echo end"
    host.ok("run", "-d", "--name", name, *flags, "hello", "sh", "-c", script)
    stream = Stream(host.socket, f"/containers/{name}/attach?logs=1&stream=1&stdout=1&stderr=1")
    lines = stream.frames()[1].decode().split("\n")
    assert lines == [*(f"line {n}" for n in range(1, 401)), "end", ""]
    only = Stream(host.socket, f"/containers/{name}/attach?logs=1&stdout=1")
    assert only.frames()[1].decode().split("\n") == lines


def test_the_detach_keys_leave_the_process_alone(host: HostDaemon, name: str) -> None:
    since = f"{time.time():.6f}"
    host.ok("run", "-dit", "--name", name, "hello", "cat")
    stream = Stream(host.socket, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,y")
    stream.read_head()
    stream.sock.sendall(b"\x10\x11said\r")  # the usual keys are input now
    stream.read_until(b"\x10said")
    stream.sock.sendall(b"\x18y")
    stream.read_all()
    assert host.ok("inspect", "-f", "{{.State.Running}}", name) == "true"
    made = exec_of(host, name, "cat", AttachStdin=True, Tty=True, DetachKeys="ctrl-a")
    stream = Stream(host.socket, f"/exec/{made}/start", b'{"Tty":true,"ConsoleSize":[33,77]}')
    stream.read_head()
    stream.sock.sendall(b"\x01")
    stream.read_all()
    assert json.loads(call(host.socket, "GET", f"/exec/{made}/json").body)["Running"] is True
    wrong = call(host.socket, "POST", f"/containers/{name}/attach", {"detachKeys": "ctrl-nosuch"})
    assert wrong.status == 400 and b"invalid detach keys" in wrong.body
    told = call(host.socket, "GET", "/events", {"since": since, "until": f"{time.time():.6f}"}).body
    actions = [json.loads(line)["Action"] for line in told.splitlines()]
    assert [action for action in actions if "detach" in action] == ["detach", "exec_detach"]


def test_an_exec_gives_the_streams_that_were_asked_for_and_has_the_size_that_was(
    host: HostDaemon, name: str
) -> None:
    host.ok("run", "-d", "--name", name, "hello", "sleep", "100000")
    made = exec_of(host, name, "sh", "-c", "echo out; echo err >&2", AttachStdout=False)
    assert Stream(host.socket, f"/exec/{made}/start", b"{}").frames() == {1: b"", 2: b"err\n"}
    made = exec_of(host, name, "stty", "size", Tty=True)
    shown = Stream(host.socket, f"/exec/{made}/start", b'{"Tty":true,"ConsoleSize":[33,77]}').read_all()
    assert shown == b"33 77\r\n"


async def test_a_web_socket_is_attached(host: HostDaemon, name: str) -> None:
    host.ok("run", "-di", "--name", name, "hello", "sh", "-c", "read a; echo got $a; echo err >&2")
    connector = aiohttp.UnixConnector(str(host.socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"http://d/v1.45/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
        async with session.ws_connect(url) as ws:
            await ws.send_bytes(b"wor")
            await ws.send_str("d\n")
            got = b"".join([message.data async for message in ws])
            assert sorted(got.splitlines()) == [b"err", b"got word"]
            assert ws.close_code == 1000
    plain = call(host.socket, "GET", f"/containers/{name}/attach/ws", {"stream": "1"})
    assert plain.status == 400 and b"WebSocket" in plain.body
    missing = call(host.socket, "GET", "/containers/nosuch/attach/ws")
    assert missing.status in (400, 404)


def test_swarmctl_copies_both_ways(host: HostDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/file").write_text("content")
    (tmp_path / "d/link").symlink_to("sub/file")
    os.utime(tmp_path / "d/sub/file", (1_000_000_000, 1_000_000_000))
    host.ok("run", "-d", "--name", name, "hello", "sleep", "100000")
    done = host.run("cp", "--quiet=false", str(tmp_path / "d"), f"{name}:/tmp")
    assert (
        done.code == 0
        and done.err.startswith("Successfully copied ")
        and done.err.endswith(f" to {name}:/tmp\n")
    )
    assert host.ok("exec", name, "stat", "-c", "%Y", "/tmp/d/sub/file") == "1000000000"
    host.ok("cp", f"{tmp_path}/d/.", f"{name}:/tmp/e")
    assert host.ok("exec", name, "cat", "/tmp/e/link") == "content"
    host.ok("cp", f"{name}:/tmp/d", str(tmp_path / "back"))
    assert (tmp_path / "back/link").readlink() == Path("sub/file")
    host.ok("cp", "-L", f"{name}:/tmp/d/link", str(tmp_path))
    assert (tmp_path / "link").read_text() == "content"
    host.ok("cp", f"{name}:/tmp/d/sub/.", str(tmp_path / "again"))
    assert (tmp_path / "again/file").stat().st_mtime == 1_000_000_000
    missing = host.run("cp", f"{name}:/nosuch", str(tmp_path))
    assert missing.code == 1 and f"Could not find the file /nosuch in container {name}" in missing.err
    assert "must specify at least one container" in host.run("cp", "a", "b").err
    assert host.run("cp", str(tmp_path / "d"), f"{name}:/nosuch/below").code == 1
    host.ok("export", "-o", str(tmp_path / "x.tar"), name)
    assert (tmp_path / "x.tar").stat().st_size > 100_000
    assert "A /tmp/d/sub/file" in host.ok("diff", name)
