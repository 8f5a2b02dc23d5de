"""The options of `docker run` as the real client sends them: each is seen to have its effect inside, or is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Cli
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root


class Docker(Cli):
    """The installed client, pointed at one daemon."""

    def __init__(self, host: HostDaemon) -> None:
        super().__init__(host.socket)

    def sh(self, script: str, *options: str) -> list[str]:
        """Lines of a shell's output in a new container with these options."""
        return self.ok("run", "--rm", *options, "hello", "sh", "-c", f"exec 2>&1; {script}").splitlines()

    def refused(self, *options: str) -> str:
        result = self.run("run", "--rm", *options, "hello", "true")
        assert result.code == 125, result
        return result.err


@pytest.fixture(scope="module")
def docker(host: HostDaemon) -> Docker:
    return Docker(host)


@pytest.fixture
def box(docker: Docker) -> Iterator[str]:
    """A name for a container that goes afterwards."""
    name = f"box-{uuid.uuid4().hex[:8]}"
    yield name
    docker.run("rm", "-f", "-v", name)


def test_init_is_the_first_process_and_reaps(docker: Docker) -> None:
    lines = docker.sh(
        "cat /proc/1/comm; (sh -c 'sleep 0.05 &'); sleep 0.2; cat /proc/[0-9]*/stat | grep -c ') Z'; true",
        "--init",
    )
    assert lines[0] == "docker-init"
    assert lines[1] == "0"  # zombies
    assert docker.run("run", "--rm", "--init", "hello", "sh", "-c", "exit 7").code == 7
    assert docker.run("run", "--rm", "--init", "hello", "nosuch").code == 127


def test_init_forwards_signals(docker: Docker, box: str) -> None:
    script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    docker.ok("run", "-d", "--init", "--name", box, "hello", "sh", "-c", script)
    docker.ok("stop", "-t", "20", box)
    assert docker.ok("inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Init}}", box).split() == [
        "3",
        "true",
    ]


def test_file_systems(docker: Docker, tmp_path: Path) -> None:
    lines = docker.sh(
        "touch /x; mount | grep ' /t ' | grep -o 'size=[0-9a-z]*,mode=[0-7]*'; touch /t/y && echo written; "
        "df -k /dev/shm | tail -1 | awk '{print $2}'",
        *("--read-only", "--tmpfs", "/t:size=64k,mode=1770", "--shm-size", "1m"),
    )
    assert lines == ["touch: /x: Read-only file system", "size=64k,mode=1770", "written", "1024"]
    (tmp_path / "below").mkdir()
    bind = f"type=bind,source={tmp_path},target=/b,readonly,bind-nonrecursive"
    lines = docker.sh(
        "touch /b/x; mount | grep -c ' /m '", "--mount", bind, "--mount", "type=tmpfs,target=/m"
    )
    assert lines == ["touch: /b/x: Read-only file system", "1"]


@pytest.mark.needs_client(26)
def test_a_part_of_a_volume(docker: Docker, box: str) -> None:
    docker.ok("volume", "create", box)
    try:
        docker.sh("mkdir -p /v/a; echo deep > /v/a/f; ln -s /etc /v/out", "-v", f"{box}:/v")
        mount = f"type=volume,source={box},target=/m,volume-subpath="
        assert docker.sh("cat /m/f", "--mount", f"{mount}a") == ["deep"]
        # A link in a volume leads nowhere else: /etc of the volume does not exist.
        outside = docker.run("run", "--rm", "--mount", f"{mount}out", "hello", "true")
        assert outside.code and "no such file or directory" in outside.err.lower()
    finally:
        docker.ok("volume", "rm", box)


def test_devices(docker: Docker) -> None:
    lines = docker.sh(
        "exec 3< /dev/mine && echo read; (: > /dev/mine); mknod /null c 1 3 && echo made; ls /dev/net",
        *(
            "--device",
            "/dev/loop-control:/dev/mine:r",
            "--device",
            "/dev/net:/dev/net",
            "--device-cgroup-rule",
            "c 7:* rwm",
        ),
    )
    assert lines[0] == "read" and lines[2:] == ["made", "tun"]
    assert "Operation not permitted" in lines[1]
    missing = docker.run("run", "--rm", "--device", "/dev/nosuch", "hello")
    assert missing.code == 127 and "error gathering device information" in missing.err
    assert "could not select device driver" in docker.refused("--gpus", "all")


def test_limits_of_processes(docker: Docker) -> None:
    limits = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "500")
    assert docker.sh("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj", *limits) == ["100", "200", "500"]
    # More than the host lets us give: as much as it does.
    assert int(docker.sh("ulimit -Hn", "--ulimit", "nofile=1024:1000000000")[0]) >= 1024


def test_limits_of_the_group(docker: Docker, box: str) -> None:
    options = (
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "50",
        "--cpu-shares",
        "512",
    )
    docker.ok("create", "--name", box, *options, "hello")
    shown = json.loads(docker.ok("inspect", "-f", "{{json .HostConfig}}", box))
    assert (shown["Memory"], shown["NanoCpus"], shown["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    assert docker.sh("grep Cpus_allowed_list /proc/self/status", *options)[0].split() == [
        "Cpus_allowed_list:",
        "0",
    ]
    assert "Requested CPUs are not available" in docker.refused("--cpuset-cpus", "4000")
    assert "Minimum memory limit" in docker.refused("--memory", "1m")


def test_kernel_settings(docker: Docker) -> None:
    options = ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=9000")
    assert docker.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", *options) == ["1", "9000"]
    assert "not allowed in host network" in docker.refused(
        "--network", "host", "--sysctl", "net.core.somaxconn=9"
    )


def effective(docker: Docker, *options: str) -> int:
    return int(docker.sh("grep CapEff /proc/self/status", *options)[0].split()[1], 16)


def test_capabilities(docker: Docker) -> None:
    chown, net_admin = 1 << 0, 1 << 12
    assert effective(docker, "--cap-drop", "ALL") == 0
    assert effective(docker, "--cap-drop", "ALL", "--cap-add", "CAP_CHOWN") == chown
    assert effective(docker, "--cap-add", "net_admin") & net_admin
    assert not effective(docker, "--cap-drop", "chown") & chown
    assert 'invalid CapAdd: unknown capability: "CAP_BOGUS"' in docker.refused("--cap-add", "BOGUS")


def test_privileged(docker: Docker) -> None:
    lines = docker.sh(
        "ls /dev/net/tun; ls /dev | wc -l; mount | grep -c ' /sys .*rw'; true",
        "--privileged",
    )
    plain = docker.sh("ls /dev | wc -l; mount | grep -c ' /sys .*ro'")
    assert lines[0] == "/dev/net/tun" and int(lines[1]) > int(plain[0]) and (lines[2], plain[1]) == ("1", "1")


def test_security_options(docker: Docker, tmp_path: Path) -> None:
    assert docker.sh("grep NoNewPrivs /proc/self/status", "--security-opt", "no-new-privileges")[0].endswith(
        "1"
    )
    assert docker.sh("grep Seccomp: /proc/self/status")[0].endswith("2")
    assert docker.sh("grep Seccomp: /proc/self/status", "--security-opt", "seccomp=unconfined")[0].endswith(
        "0"
    )
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    lines = docker.sh("mkdir /x; true", "--security-opt", f"seccomp={tmp_path}/profile.json")
    assert lines == ["mkdir: can't create directory '/x': Operation not permitted"]
    masked = "mount | grep -c ' /proc/[a-z]'"
    assert int(docker.sh(masked)[0]) > 3
    assert docker.sh(f"{masked}; true", "--security-opt", "systempaths=unconfined") == ["0"]
    assert "AppArmor profiles are not supported" in docker.refused("--security-opt", "apparmor=x")
    assert "SELinux labels are not supported" in docker.refused("--security-opt", "label=level:s0")


def test_shared_namespaces(docker: Docker, box: str) -> None:
    docker.ok(
        "run", "-d", "--name", box, "--ipc", "shareable", "--hostname", "donor", "hello", "sleep", "1000"
    )
    docker.ok("exec", box, "sh", "-c", "echo shared > /dev/shm/f")
    joined = f"container:{box}"
    assert docker.sh("cat /dev/shm/f", "--ipc", joined) == ["shared"]
    assert docker.sh("cat /proc/1/comm", "--pid", joined) == ["sleep"]
    address = docker.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", box).strip()
    assert docker.sh(f"ip addr | grep -c {address}", "--network", joined) == ["1"]
    assert docker.sh("hostname", "--uts", "host") != ["donor"]
    private = docker.ok("run", "-d", "--name", f"{box}-private", "hello", "sleep", "1000").strip()
    try:
        assert "non-shareable IPC" in docker.refused("--ipc", f"container:{private}")
    finally:
        docker.ok("rm", "-f", private)


def test_names_and_groups(docker: Docker) -> None:
    options = ("--hostname", "web", "--domainname", "shop.example", "--group-add", "7", "--user", "65534")
    lines = docker.sh("hostname; cat /proc/sys/kernel/domainname; id -G", *options)
    assert lines[:2] == ["web", "shop.example"] and "7" in lines[2].split()
    options = ("--mac-address", "02:42:ac:11:00:99", "--dns", "10.9.9.9", "--add-host", "db:10.1.1.1")
    lines = docker.sh("cat /sys/class/net/eth0/address; cat /etc/hosts /etc/resolv.conf", *options)
    assert lines[0] == "02:42:ac:11:00:99"
    assert "10.1.1.1\tdb" in lines and "nameserver 10.9.9.9" in lines


def test_links(docker: Docker, box: str) -> None:
    options = ("--name", box, "--expose", "5432", "-e", "MODE=fast")
    docker.ok("run", "-d", *options, "hello", "sleep", "1000")
    address = docker.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", box).strip()
    lines = docker.sh(
        "env; cat /etc/hosts; ping -c 1 -w 5 store > /dev/null && echo reached", "--link", f"{box}:store"
    )
    assert f"STORE_PORT_5432_TCP=tcp://{address}:5432" in lines and "STORE_ENV_MODE=fast" in lines
    assert any(line.startswith(f"{address}\tstore ") for line in lines) and lines[-1] == "reached"
    linked = f"{box}-linked"
    docker.ok("run", "-d", "--name", linked, "--link", f"{box}:store", "hello", "sleep", "1000")
    try:
        assert (
            docker.ok("inspect", "-f", "{{.HostConfig.Links}}", linked).strip() == f"[/{box}:/{linked}/store]"
        )
        docker.ok("rm", "--link", f"{linked}/store")
        assert docker.ok("inspect", "-f", "{{.HostConfig.Links}}", linked).strip() == "[]"
        docker.ok("stop", "-t", "0", box)
        assert "Cannot link to a non running container" in docker.refused("--link", box)
    finally:
        docker.ok("rm", "-f", linked)


@pytest.mark.needs_client(24)
def test_files_of_the_client(docker: Docker, box: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=from file\n")
    (tmp_path / "labels").write_text("tier=front\n")
    cid = tmp_path / "cid"
    files = (
        "--env-file",
        str(tmp_path / "env"),
        "--label-file",
        str(tmp_path / "labels"),
        "--cidfile",
        str(cid),
    )
    more = (
        "--annotation",
        "who=me",
        "--stop-signal",
        "SIGQUIT",
        "--stop-timeout",
        "3",
        "--platform",
        "linux/amd64",
    )
    docker.ok("create", "--name", box, *files, *more, "hello")
    shown = json.loads(docker.ok("inspect", box))[0]
    assert shown["Id"] == cid.read_text() and "A=from file" in shown["Config"]["Env"]
    assert shown["Config"]["Labels"]["tier"] == "front" and shown["HostConfig"]["Annotations"] == {
        "who": "me"
    }
    assert (shown["Config"]["StopSignal"], shown["Config"]["StopTimeout"]) == ("SIGQUIT", 3)
    assert "--storage-opt is supported only for overlay over xfs with 'pquota'" in docker.refused(
        "--storage-opt", "size=1G"
    )


def test_volumes_of_another_and_removal_at_the_end(docker: Docker, box: str) -> None:
    docker.ok("run", "--name", box, "-v", "/data", "hello", "sh", "-c", "echo kept > /data/f")
    assert docker.sh("cat /data/f; touch /data/g; true", "--volumes-from", f"{box}:ro") == [
        "kept",
        "touch: /data/g: Read-only file system",
    ]
    docker.ok("run", "--rm", "--name", f"{box}-gone", "-v", "/data", "hello", "true")
    assert docker.run("inspect", f"{box}-gone").code == 1


def test_update_and_filters(docker: Docker, box: str) -> None:
    docker.ok("run", "-d", "--name", box, "--label", f"mine={box}", "hello", "sleep", "1000")
    docker.ok("update", "--cpus", "0.5", "--restart", "always", "--pids-limit", "40", box)
    shown = docker.ok("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}", box)
    assert shown.split() == ["500000000", "always"]
    for name, value in (
        ("label", f"mine={box}"),
        ("status", "running"),
        ("isolation", "default"),
        ("network", "bridge"),
        ("ancestor", "hello"),
    ):
        listed = docker.ok(
            "ps", "-a", "--filter", f"{name}={value}", "--filter", f"name={box}", "--format", "{{.Names}}"
        )
        assert listed.strip() == box, name
    assert "invalid filter" in docker.run("ps", "--filter", "bogus=1").err


def test_restart_and_rename(docker: Docker, box: str) -> None:
    docker.ok("run", "-d", "--rm", "--name", box, "--stop-timeout", "0", "hello", "sleep", "1000")
    docker.ok("restart", box)
    assert docker.ok("inspect", "-f", "{{.State.Running}} {{.HostConfig.AutoRemove}}", box).split() == [
        "true",
        "true",
    ]
    same = docker.run("rename", box, box)
    assert "Renaming a container with the same name as its current name" in same.err
    docker.ok("stop", box)
    assert (
        "does not match the specified platform"
        in docker.run("create", "--pull", "never", "--platform", "linux/arm64", "hello").err
    )
