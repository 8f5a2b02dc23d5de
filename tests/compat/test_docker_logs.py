"""Logs of containers as the docker CLI asks for them: drivers, options, readers, and servers that go away."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients import Cli
from tests.commands import PATIENCE, ROOT
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

COUNT = 'i=0; while [ $i -lt {} ]; do i=$((i+1)); echo "line $i"; done'
RECEIVER = """
import socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
if kind == "udp":
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", port))
    print("ready", flush=True)
    while True:
        print(server.recv(65536).decode(), end="", flush=True)
server = socket.create_server(("127.0.0.1", port))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    for line in connection.makefile():
        print(line, end="", flush=True)
"""


@pytest.fixture(scope="module")
def docker(host: HostDaemon) -> Cli:
    return Cli(host.socket)


@pytest.fixture
def run(docker: Cli) -> Iterator[Callable[..., str]]:
    """`docker run -d` of the hello image; what was made is removed after the test."""
    made: list[str] = []

    def start(script: str, *flags: str) -> str:
        made.append(docker.ok("run", "-d", *flags, "hello", "sh", "-c", script).strip())
        return made[-1]

    yield start
    if made:
        docker.ok("rm", "-f", *made)


class Lines:
    """What a server received, line by line, until `close`."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self.close: Callable[[], object] = lambda: None

    def put(self, line: str) -> None:
        self._lines.put(line)

    def next(self) -> str:
        return self._lines.get(timeout=20 * PATIENCE)

    def rest(self) -> list[str]:
        """What else had come, after `close`."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]

    def until(self, word: str) -> list[str]:
        """Everything up to the line that ends so."""
        seen = [self.next()]
        while not seen[-1].endswith(word):
            seen.append(self.next())
        return seen


def on_internet(host: HostDaemon, kind: str, port: int) -> Lines:
    """A server in the daemon's network namespace."""
    lines = Lines()
    process = subprocess.Popen(
        [*host.namespaces, sys.executable, "-c", RECEIVER, kind, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    output = process.stdout
    assert output.readline() == "ready\n"
    reader = threading.Thread(target=lambda: [lines.put(line.rstrip("\n")) for line in output], daemon=True)
    reader.start()

    def close() -> None:
        process.kill()
        process.wait()
        reader.join(10)
        output.close()

    lines.close = close
    return lines


def on_socket(path: Path, kind: int) -> Lines:
    """A server at a path."""
    lines = Lines()
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(str(path))
    if kind == socket.SOCK_STREAM:
        server.listen()

    def read() -> None:
        with contextlib.suppress(OSError):
            while kind == socket.SOCK_DGRAM and (data := server.recv(65536)):
                lines.put(data.decode().rstrip("\n"))
            while kind == socket.SOCK_STREAM:
                connection, _ = server.accept()
                with connection, connection.makefile() as file:
                    for line in file:
                        lines.put(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def close() -> None:
        """Nothing is taken any more; what was taken has been read."""
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        reader.join(10 * PATIENCE)
        server.close()
        path.unlink(missing_ok=True)

    lines.close = close
    return lines


def expected(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


def wait(holds: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def test_json_file_packs_and_adds_what_its_options_say(
    host: HostDaemon, docker: Cli, run: Callable[..., str]
) -> None:
    options = (
        "max-size=4k",
        "max-file=99",
        "compress=true",
        "labels=tier",
        "env-regex=^V",
        "tag={{.Name}}/1",
    )
    flags = [word for option in options for word in ("--log-opt", option)]
    container = run(COUNT.format(500), *flags, "--label", "tier=a b", "-e", "VAT=7", "--name", "packs")
    docker.ok("wait", container)
    assert docker.ok("logs", container).splitlines() == expected(1, 500)
    assert docker.ok("logs", "--tail", "450", container).splitlines() == expected(51, 500)
    assert docker.ok("logs", "-n", "1", "--details", container) == "VAT=7,tag=packs%2F1,tier=a+b line 500\n"
    path = Path(docker.ok("inspect", "-f", "{{.LogPath}}", container).strip())
    wait(lambda: len(list(path.parent.glob("*.gz"))) == len(list(path.parent.glob("*.log.*"))) > 5)
    assert docker.ok("logs", container).splitlines() == expected(1, 500)
    assert host.ok("logs", container).splitlines() == expected(1, 500)


def test_local_rotates_by_itself_and_is_nobody_elses(docker: Cli, run: Callable[..., str]) -> None:
    container = run(COUNT.format(300), "--log-driver", "local", "--log-opt", "max-size=4k")
    docker.ok("wait", container)
    seen = docker.ok("logs", container).splitlines()
    assert seen == expected(301 - len(seen), 300) and 100 < len(seen) < 300
    assert docker.ok("inspect", "-f", "{{.LogPath}}|{{.HostConfig.LogConfig.Type}}", container) == "|local\n"


def test_without_waiting_for_the_disk_nothing_is_lost_either(docker: Cli, run: Callable[..., str]) -> None:
    container = run(COUNT.format(2000), "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=8m")
    docker.ok("wait", container)
    assert docker.ok("logs", container).splitlines() == expected(1, 2000)


@pytest.mark.parametrize("kind", ["udp", "tcp", "unix", "unixgram"])
def test_syslog_takes_lines_and_docker_logs_reads_them_too(
    kind: str, host: HostDaemon, docker: Cli, run: Callable[..., str], tmp_path: Path
) -> None:
    if kind in ("udp", "tcp"):
        lines, address = on_internet(host, kind, 5514), f"{kind}://127.0.0.1:5514"
    else:
        socket_kind = socket.SOCK_STREAM if kind == "unix" else socket.SOCK_DGRAM
        lines, address = on_socket(tmp_path / "log", socket_kind), f"{kind}://{tmp_path}/log"
    form, head = {
        "udp": ("", r"<158>\w{3} [ \d]\d [\d:]{8} %s/hello\[\d+\]: "),
        "tcp": (
            "rfc5424micro",
            r"<158>1 \d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}[+-][\d:]{5} \S+ %s/hello \d+ %s/hello - ",
        ),
        "unix": ("rfc3164", r"<158>\w{3} [ \d]\d [\d:]{8} \S+ %s/hello\[\d+\]: "),
        "unixgram": ("rfc5424", r"<158>1 \d{4}-\d\d-\d\dT[\d:]{8}[+-][\d:]{5} \S+ %s/hello \d+ %s/hello - "),
    }[kind]
    options = [f"syslog-address={address}", "syslog-facility=local3", "tag={{.ID}}/{{.ImageName}}"]
    options += [f"syslog-format={form}"] if form else []
    flags = [word for option in options for word in ("--log-opt", option)]
    try:
        container = run(f"{COUNT.format(50)}; echo wrong >&2", "--log-driver", "syslog", *flags)
        seen = lines.until(": wrong" if "-" not in head[-3:] else "- wrong")
        pattern = re.compile(head.replace("%s", container[:12]) + "(.*)")
        matches = [pattern.fullmatch(line) for line in seen[:-1]]
        assert [match and match[1] for match in matches] == expected(1, 50), seen[:3]
        assert seen[-1].startswith("<155>"), "what goes to standard error is an error"
        docker.ok("wait", container)
        assert docker.ok("logs", "--tail", "2", container) == "line 50\n"
    finally:
        lines.close()


def test_no_line_is_lost_while_its_server_or_the_daemon_is_away(
    host: HostDaemon, docker: Cli, run: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    lines = on_socket(path, socket.SOCK_DGRAM)
    flags = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{path}")
    script = 'i=0; while [ ! -f /end ]; do i=$((i+1)); echo "line $i"; sleep 0.05; done; echo done'
    try:
        container = run(script, *flags)
        seen = lines.until("line 5")
        lines.close()
        seen += lines.rest()
        wait(lambda: "its lines wait" in host.log.read_text())
        host.stop(signal.SIGKILL)
        lines = on_socket(path, socket.SOCK_DGRAM)
        host.start()
        docker.ok("exec", container, "touch", "/end")
        seen += lines.until("done")
    finally:
        lines.close()
    numbers = [int(line.rpartition(" ")[2]) for line in seen if "line" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    assert docker.ok("logs", container).splitlines() == [*expected(1, len(numbers)), "done"]


def test_a_dead_server_refuses_a_start_and_holds_nobody_up(
    host: HostDaemon, docker: Cli, run: Callable[..., str]
) -> None:
    flags = ("--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:5516")
    refused = docker.run("run", "--name", "refused", *flags, "hello", "true")
    assert refused.code == 125
    assert "failed to initialize logging driver: dial tcp://127.0.0.1:5516: connection refused" in refused.err
    docker.ok("rm", "refused")
    lines = on_internet(host, "tcp", 5516)
    container = run(f"sleep 1; {COUNT.format(20000)}", *flags, "--log-opt", "cache-max-size=1m")
    lines.close()
    assert docker.ok("wait", container) == "0\n"
    assert docker.ok("logs", "--tail", "1", container) == "line 20000\n"
    started = time.monotonic()
    docker.ok("rm", "-f", container)
    assert time.monotonic() - started < 10 * PATIENCE
    assert "lines of its log were taken by their server" in host.log.read_text()


def test_a_cache_that_is_off_is_not_read(docker: Cli, run: Callable[..., str], tmp_path: Path) -> None:
    lines = on_socket(tmp_path / "log", socket.SOCK_DGRAM)
    flags = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{tmp_path}/log")
    try:
        container = run("echo x", *flags, "--log-opt", "cache-disabled=true")
        assert lines.next().endswith(": x")
    finally:
        lines.close()
    for unreadable in (container, run("echo x", "--log-driver", "none")):
        answer = docker.run("logs", unreadable)
        assert answer.code == 1
        assert "configured logging driver does not support reading" in answer.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--log-driver nosuch", "logger: no log driver named 'nosuch' is registered"),
        ("--log-opt max-sise=1m", "unknown log opt 'max-sise' for json-file log driver"),
        (
            "--log-opt compress=true",
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("--log-opt max-buffer-size=1m", "max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("--log-driver local --log-opt tag=x", "unknown log opt 'tag' for local log driver"),
        ("--log-driver syslog --log-opt syslog-address=x", "should be in form proto://address, got x"),
        ("--log-driver syslog --log-opt syslog-facility=x", "invalid syslog facility"),
        ("--log-driver journald --log-opt max-size=1m", "unknown log opt 'max-size' for journald log driver"),
    ],
)
def test_what_cannot_be_is_refused_in_dockers_words(words: str, error: str, docker: Cli) -> None:
    refused = docker.run("run", *words.split(), "hello", "true")
    assert refused.code == 125 and error in refused.err


def test_the_journal_has_the_lines_or_is_refused(docker: Cli) -> None:
    """It depends on the machine; the protocol itself is a unit test's."""
    flags = ("--name", "journal", "--log-driver", "journald")
    ran = docker.run("run", *flags, "hello", "echo", "to the journal")
    try:
        if Path("/run/systemd/journal/socket").exists():
            assert ran.code == 0 and docker.ok("logs", "journal") == "to the journal\n"
        else:
            assert ran.code == 125 and "journald is not enabled on this host" in ran.err
    finally:
        docker.ok("rm", "-f", "journal")


def test_followers_see_the_end_and_long_lines_whole(docker: Cli, run: Callable[..., str]) -> None:
    long = "head -c 40000 /dev/zero | tr '\\0' x; echo"
    container = run(f"echo first; sleep 1; {long}; printf 'no end'")
    followed = docker.ok("logs", "-f", container)
    assert followed == f"first\n{'x' * 40000}\nno end\n"
    assert docker.ok("logs", "--tail", "1000", container) == followed


def test_times_choose_lines(docker: Cli, run: Callable[..., str]) -> None:
    container = run("echo one; sleep 1.2; echo two")
    docker.ok("wait", container)
    stamped = [line.split(" ", 1) for line in docker.ok("logs", "-t", container).splitlines()]
    assert [text for _, text in stamped] == ["one", "two"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z", stamp) for stamp, _ in stamped)
    second = stamped[1][0]
    assert docker.ok("logs", "--since", second, container) == "two\n"
    assert docker.ok("logs", "--until", stamped[0][0], container) == "one\n"
    assert docker.ok("logs", "--since", "10m", container) == "one\ntwo\n"
    assert docker.ok("logs", "--until", "10m", container) == ""
    assert docker.ok("logs", "--since", "2030-01-01", container) == ""


def test_a_restarting_container_has_all_its_logs(docker: Cli, run: Callable[..., str]) -> None:
    container = run("echo again; exit 3", "--restart", "on-failure:2")
    shown = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", container)
    wait(lambda: docker.ok(*shown) == "exited 2 3\n")
    assert docker.ok("logs", container) == "again\n" * 3
