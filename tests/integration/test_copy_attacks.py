"""Hostile containers and archives against copying: the host's files and the daemon itself stay as they are."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import docker_client
from tests.commands import PATIENCE
from tests.conftest import HostDaemon
from tests.raw_http import Answer, call

pytestmark = pytest.mark.root
SECRET = "only the host has this"
ROUNDS = 40


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def victim() -> Iterator[Path]:
    """A folder of the host whose path also exists in the container, as an attacker would arrange it."""
    folder = Path("/tmp") / f"swarmctl-victim-{os.getpid()}"
    folder.mkdir()
    (folder / "file").write_text(SECRET)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def box(host: HostDaemon, victim: Path) -> str:
    host.ok("run", "-d", "--name", "hostile", "hello", "sleep", "100000")
    host.ok(
        "exec",
        "hostile",
        "sh",
        "-c",
        f"mkdir -p {victim} /plain; echo inner >{victim}/file; echo inner >/plain/file",
    )
    return "hostile"


def put(host: HostDaemon, path: str, data: bytes, **query: str) -> Answer:
    return call(host.socket, "PUT", "/containers/hostile/archive", {"path": path, **query}, data)


def get(host: HostDaemon, path: str) -> Answer:
    return call(host.socket, "GET", "/containers/hostile/archive", {"path": path})


class Swapper:
    """A process in the container that makes /swap a folder and a link, in turn, as fast as it can."""

    def __init__(self, host: HostDaemon, target: str) -> None:
        self._script = (
            "mkdir -p /a /real; echo inner >/real/file; ln -sfn " + target + " /evil; rm -rf /swap; "
            "while :; do mv -T /real /swap 2>/dev/null; mv -T /swap /real; mv -T /evil /swap; mv -T /swap /evil; done"
        )
        self._host = host

    def __enter__(self) -> Swapper:
        environment = os.environ | {"DOCKER_HOST": f"unix://{self._host.socket}"}
        self._process = subprocess.Popen(
            [str(docker_client()), "exec", "hostile", "sh", "-c", self._script],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._host.run("exec", "hostile", "sh", "-c", "pkill -f 'while :' ; true")
        self._process.kill()
        self._process.wait(20 * PATIENCE)


def test_a_path_that_is_swapped_while_it_is_read_never_leads_to_the_host(
    host: HostDaemon, box: str, victim: Path
) -> None:
    """The class of CVE-2018-15664, reading."""
    outcomes: set[str] = set()
    with Swapper(host, str(victim)):
        deadline = time.monotonic() + 5 * PATIENCE
        for _ in range(ROUNDS):
            answer = get(host, "/swap/file")
            if answer.status == 200:
                with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
                    read = tar.extractfile("file")
                    assert read is not None
                    outcomes.add(read.read().decode())
            else:
                outcomes.add(str(answer.status))
            if time.monotonic() > deadline:
                break
    assert SECRET not in outcomes
    assert "500" not in outcomes
    assert "inner\n" in outcomes  # the race was really run


def test_a_path_that_is_swapped_while_it_is_written_never_leads_to_the_host(
    host: HostDaemon, box: str, victim: Path
) -> None:
    """The class of CVE-2018-15664, writing: also a file in the middle of an archive."""
    data = archive(*(member(f"sub{n}/planted", b"x", mode=0o644) for n in range(50)))
    with Swapper(host, str(victim)):
        written = sum(put(host, "/swap", data).status == 200 for _ in range(ROUNDS))
    assert written
    assert sorted(entry.name for entry in victim.iterdir()) == ["file"]
    assert (victim / "file").read_text() == SECRET


def test_links_of_the_container_are_its_own(host: HostDaemon, box: str, victim: Path) -> None:
    host.ok("exec", box, "sh", "-c", f"ln -sfn {victim} /away; ln -sfn ../../../../../..{victim}/file /up")
    assert put(host, "/away", archive(member("planted", b"x"))).status == 200
    assert host.ok("exec", box, "cat", f"{victim}/planted") == "x"
    assert sorted(entry.name for entry in victim.iterdir()) == ["file"]
    assert SECRET.encode() not in get(host, "/up").body
    assert get(host, "/up/").status in (400, 404)


def test_the_daemon_loads_nothing_from_a_container(host: HostDaemon, box: str, tmp_path: Path) -> None:
    """The class of CVE-2019-14271: libraries, Python modules and name services that lie in wait in the container."""
    marker = "planted-by-the-container"
    lib = "/lib/x86_64-linux-gnu"
    script = "; ".join(
        f"mkdir -p {Path(path).parent}; cp /bin/busybox {path}"
        for path in (
            *(f"{lib}/{name}" for name in ("libnss_files.so.2", "libnss_dns.so.2", "libc.so.6", "libz.so.1")),
            "/usr/lib/python3.11/lib-dynload/_lzma.so",
        )
    )
    host.ok("exec", box, "sh", "-c", script)
    host.ok(
        "exec",
        box,
        "sh",
        "-c",
        f'mkdir -p /usr/lib/python3.11/encodings; echo \'open("/{marker}","w")\' >/usr/lib/python3.11/encodings/idna.py',
    )
    host.ok("exec", box, "sh", "-c", "echo 'passwd: files dns evil' >/etc/nsswitch.conf")
    odd = archive(member("owned", b"x", uid=4242, gid=4242, uname="nobody-knows", gname="nobody-knows"))
    for data in (odd, compressed(odd, "gz"), compressed(odd, "bz2"), compressed(odd, "xz")):
        assert put(host, "/plain", data, copyUIDGID="1").status == 200
    assert get(host, "/plain").status == 200
    assert get(host, "/usr/lib").status == 200
    host.ok("export", "-o", str(tmp_path / "all.tar"), box)
    assert not Path(f"/{marker}").exists()
    assert host.run("exec", box, "ls", f"/{marker}").code != 0
    inner = host.ok("exec", box, "stat", "-c", "%i", f"{lib}/libnss_files.so.2")
    for task in Path(f"/proc/{host.pid}/task").iterdir():
        assert (task / "root").readlink() == Path("/")
    maps = Path(f"/proc/{host.pid}/maps").read_text()
    assert "overlay" not in maps
    assert all(line.split()[4] != inner for line in maps.splitlines() if "libnss_files" in line)


def compressed(data: bytes, kind: str) -> bytes:
    import bz2
    import gzip
    import lzma

    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)


@pytest.mark.parametrize(
    "members",
    [
        [member("../../../../../../../../tmp/escaped", b"x")],
        [member("a/../../escaped", b"x")],
        [member("h", type=tarfile.LNKTYPE, linkname="../../../../etc/passwd")],
        [
            member("l", type=tarfile.SYMTYPE, linkname="/"),
            member("h", type=tarfile.LNKTYPE, linkname="l/../../x"),
        ],
        [member("x", type=b"Q")],
        [member("n" * 300, b"x")],
        [member("f", b"x"), member("f/below", b"x")],
    ],
    ids=[
        "dots",
        "dots inside",
        "hard link out",
        "hard link by a link",
        "unknown type",
        "name",
        "below a file",
    ],
)
def test_hostile_entries_are_the_archives_fault(
    host: HostDaemon, box: str, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    answer = put(host, "/plain", archive(*members))
    assert answer.status == 400, answer.body
    assert b"archive" in answer.body


def test_links_in_an_archive_stay_in_the_container(host: HostDaemon, box: str, victim: Path) -> None:
    data = archive(
        member("out", type=tarfile.SYMTYPE, linkname=str(victim)),
        member("out/through", b"x"),
        member("abs", type=tarfile.LNKTYPE, linkname="/file"),
    )
    assert put(host, "/plain", data).status == 200
    assert sorted(entry.name for entry in victim.iterdir()) == ["file"]
    assert host.ok("exec", box, "cat", f"{victim}/through") == "x"
    assert host.ok("exec", box, "cat", "/plain/abs") == "inner"  # from the folder on, as every name


def test_devices_and_pipes_are_made_as_docker_does(host: HostDaemon, box: str) -> None:
    data = archive(
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("loop", type=tarfile.BLKTYPE, devmajor=7, devminor=0, mode=0o600),
        member("pipe", type=tarfile.FIFOTYPE, mode=0o644),
        member("suid", b"x", mode=0o4755),
    )
    assert put(host, "/plain", data).status == 200
    shown = host.ok("exec", box, "sh", "-c", "cd /plain; stat -c '%A %t:%T' null loop pipe suid")
    assert shown.splitlines() == ["crw-rw-rw- 1:3", "brw------- 7:0", "prw-r--r-- 0:0", "-rwsr-xr-x 0:0"]
    back = get(host, "/plain")  # a pipe is not opened: nobody would ever write to it
    with tarfile.open(fileobj=io.BytesIO(back.body)) as tar:
        assert tar.getmember("plain/loop").isblk() and tar.getmember("plain/pipe").isfifo()


def test_bombs_go_off_in_nobodys_memory(host: HostDaemon, box: str) -> None:
    before = peak_kib(host)
    files = (member(f"many/{n % 100}/{n}") for n in range(500))
    folders = (member(f"many/{n % 100}", type=tarfile.DIRTYPE, mode=0o755) for n in range(8_000))
    many = archive(*files, *folders)
    assert put(host, "/plain", compressed(many, "gz")).status == 200
    sparse = sparse_archive(1 << 40)
    assert put(host, "/plain", sparse).status == 200
    assert host.ok("exec", box, "stat", "-c", "%s %b", "/plain/sparse").split()[0] == str(1 << 40)
    assert int(host.ok("exec", box, "stat", "-c", "%b", "/plain/sparse")) < 100
    host.ok("exec", box, "rm", "/plain/sparse")
    header = member("h", type=tarfile.XHDTYPE)[0]
    header.size = 1 << 33
    assert put(host, "/plain", header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)).status == 400
    assert peak_kib(host) - before < 60_000


def sparse_archive(size: int) -> bytes:
    """One file of `size` bytes in GNU's sparse form, of which five are there."""
    info, _ = member("sparse", type=tarfile.GNUTYPE_SPARSE, mode=0o644)
    info.size = 5
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % (size - 5), b"%011o\0" % 5
    block[483:495] = b"\x80" + size.to_bytes(11, "big")
    if size - 5 >= 8**11:
        block[386:398] = b"\x80" + (size - 5).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"tail!".ljust(512, b"\0") + bytes(1024)


def peak_kib(host: HostDaemon) -> int:
    lines = Path(f"/proc/{host.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_large_files_stream_in_bounded_memory(host: HostDaemon, box: str) -> None:
    host.ok("exec", box, "dd", "if=/dev/zero", "of=/plain/large", "bs=1M", "count=200")
    before = peak_kib(host)
    seen = 0

    def count(data: bytes) -> None:
        nonlocal seen
        seen += len(data)

    answer = call(host.socket, "GET", "/containers/hostile/archive", {"path": "/plain/large"}, into=count)
    assert answer.status == 200 and seen > 200 << 20
    assert peak_kib(host) - before < 40_000
    host.ok("exec", box, "rm", "/plain/large")


def test_a_client_that_goes_away_leaves_no_view_behind(host: HostDaemon, box: str) -> None:
    host.ok("exec", box, "dd", "if=/dev/zero", "of=/plain/large", "bs=1M", "count=50")
    stop = threading.Event()
    call(
        host.socket,
        "GET",
        "/containers/hostile/archive",
        {"path": "/plain/large"},
        into=lambda _: stop.set(),
        until=stop,
    )
    deadline = time.monotonic() + 10 * PATIENCE
    while own_namespaces(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert own_namespaces(host) == []
    host.ok("exec", box, "rm", "/plain/large")


def test_an_archive_that_breaks_off_is_no_fault_of_the_daemon(host: HostDaemon, box: str) -> None:
    before = host.log.read_text()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.socket))
        head = "PUT /containers/hostile/archive?path=/plain HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + archive(member("whole", b"x"))[:1024] + member("half")[0].tobuf())
        deadline = time.monotonic() + 10 * PATIENCE
        while not own_namespaces(host) and time.monotonic() < deadline:
            time.sleep(0.01)  # it has begun
    while own_namespaces(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert own_namespaces(host) == []
    assert "Traceback" not in host.log.read_text().removeprefix(before)


def own_namespaces(host: HostDaemon) -> list[str]:
    """Mount namespaces that the daemon holds by a descriptor."""
    found = []
    for entry in Path(f"/proc/{host.pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("mnt:"):
            found.append(target)
    return found
