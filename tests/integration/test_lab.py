"""`swarmctl lab`: several at once, cuts and their healing, power cuts, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import cgroup_hierarchies
from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def labs() -> Iterator[tuple[Lab, Lab]]:
    """Two labs side by side, of two nodes each, in no swarm."""
    with lab_of(2, kind=Lab) as first, lab_of(2, kind=Lab) as second:
        yield first, second


def reaches(lab: Lab, source: str, target: str) -> bool:
    address = lab.node(target).address
    return lab.inside(source, "busybox", "ping", "-c", "1", "-W", "1", address).code == 0


def test_status_has_what_scripts_need(labs: tuple[Lab, Lab]) -> None:
    for name, row in labs[0].status().items():
        assert set(row) >= {"name", "address", "netns", "socket", "state_dir", "pids", "role"}
        supervisor, daemon = row["pids"]  # type: ignore[misc]
        assert b"swarmctl-supervisor" in Path(f"/proc/{supervisor}/cmdline").read_bytes(), name
        assert b"node.main" in Path(f"/proc/{daemon}/cmdline").read_bytes(), name
        assert Path(str(row["socket"])).is_socket() and Path(str(row["state_dir"])).is_dir()


def test_labs_do_not_see_each_other(labs: tuple[Lab, Lab]) -> None:
    first, second = labs
    assert reaches(first, "n1", "n2") and reaches(second, "n1", "n2")
    addresses = {lab.node(name).address for lab in labs for name in lab.names}
    for lab in labs:
        names = lab.inside("n1", "ip", "-br", "addr").out
        own = {address for address in addresses if f"{address}/" in names}
        assert own == {lab.node("n1").address}
    volume = first.ok("n1", "volume", "create", "mine")
    assert volume == "mine" and second.ok("n1", "volume", "ls", "-q") == ""


def test_env_points_clients_at_a_node(labs: tuple[Lab, Lab]) -> None:
    lab = labs[0]
    script = f'{lab.lab("env", "n2").out}\necho "$DOCKER_HOST"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert said == lab.node("n2").host


def test_cuts_and_their_healing(labs: tuple[Lab, Lab]) -> None:
    lab, other = labs
    assert lab.lab("cut", "n1", "n2").code == 0
    assert not reaches(lab, "n1", "n2") and not reaches(lab, "n2", "n1")
    assert reaches(other, "n1", "n2"), "the other lab has nothing to do with it"
    assert lab.lab("heal").code == 0
    assert reaches(lab, "n1", "n2")
    assert lab.lab("cut", "n1", "n2", "--one-way").code == 0
    probe = (
        "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind((sys.argv[1],7007));"
        "s.settimeout(60); print('up',flush=True); print(s.recv(9).decode())"
    )
    for source, target, arrives in (("n1", "n2", False), ("n2", "n1", True)):
        at = lab.node(target)
        command = ["nsenter", f"--net={at.netns_path}", "python3", "-c", probe]
        listener = subprocess.Popen(
            [*command, at.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert listener.stdout is not None and listener.stdout.readline() == "up\n"
        # Without asking: the answer to its question might be what is cut.
        known = ("ip", "neigh", "replace", at.address, "lladdr", at.mac, "dev", "eth0")
        assert lab.inside(source, *known).code == 0
        for sender, word in ((source, "hi"), (target, "end")):  # who never hears the first hears the second
            send = f"s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b'{word}',('{at.address}',7007))"
            assert lab.inside(sender, "python3", "-c", f"import socket; {send}").code == 0
        out, _ = listener.communicate(timeout=60)
        assert out.strip() == ("hi" if arrives else "end"), f"{source} to {target}"
    assert lab.lab("heal", "n1", "n2").code == 0
    assert lab.lab("cut", "n1", "n1").code != 0


def test_a_power_cut_takes_the_containers_and_a_start_brings_the_machine_back(
    labs: tuple[Lab, Lab], hello_archive: Path
) -> None:
    lab = labs[0]
    lab.ok("n2", "load", "-i", str(hello_archive))
    for name, policy in (("always", "always"), ("never", "no")):
        lab.ok("n2", "run", "-d", "--name", name, "--restart", policy, "hello", "sleep", "1000")
    assert lab.lab("kill", "n2").code == 0
    assert lab.status()["n2"]["pids"] == []
    assert lab.lab("start", "n2").code == 0
    lab.wait("always runs again", 10, lambda: lab.ok("n2", "ps", "--format", "{{.Names}}") == "always")
    assert "Exited (255)" in lab.ok("n2", "ps", "-a", "--filter", "name=never", "--format", "{{.Status}}")
    lab.ok("n2", "rm", "-f", "always", "never")


def test_down_leaves_nothing_even_after_everything_was_killed(
    labs: tuple[Lab, Lab], hello_archive: Path
) -> None:
    lab, other = labs
    lab.ok("n1", "load", "-i", str(hello_archive))
    lab.ok("n1", "run", "-d", "hello", "sleep", "1000")
    for row in lab.status().values():
        for pid in row["pids"]:  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
    assert lab.lab("down").code == 0
    mounts = Path("/proc/self/mountinfo").read_text()
    assert lab.name not in mounts
    for folder in ("/run/netns", "/run/swarmctl/labs", "/var/lib/swarmctl/labs"):
        assert list(Path(folder).glob(f"*{lab.name}*")) == []
    assert not [path for top in cgroup_hierarchies() for path in top.glob(f"swarmctl/*{lab.name}*")]
    assert other.ok("n1", "version"), "the other lab goes on"
