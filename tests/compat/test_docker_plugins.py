"""Managed plugins as `docker plugin` and `swarmctl plugin` use them: our own volume plugin as a container."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE, ROOT
from tests.compat.test_docker_volumes import Docker, mounted, plugin_process
from tests.conftest import HostDaemon, processes
from tests.registries import free_port, registry

pytestmark = pytest.mark.root


def plugin_folder(folder: Path) -> Path:
    """config.json and a root that borrows the host's programs."""
    rootfs = folder / "rootfs"
    for name in ("usr", "mnt/volumes", "run/docker/plugins", "proc", "sys", "dev", "tmp", "etc"):
        (rootfs / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    shutil.copy(ROOT / "tests/plugin_program.py", rootfs / "plugin.py")
    config = {
        "description": "volumes for tests",
        "documentation": "none",
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "test.sock"},
        "entrypoint": ["/usr/bin/python3", "/plugin.py", "/run/docker/plugins/test.sock", "/mnt/volumes"],
        "workdir": "/",
        "network": {"type": "none"},
        "propagatedMount": "/mnt/volumes",
        "linux": {"capabilities": ["CAP_SYS_ADMIN"]},
        "mounts": [
            {
                "name": "usr",
                "source": "/usr",
                "destination": "/usr",
                "type": "bind",
                "options": ["rbind", "ro"],
            }
        ],
        "env": [
            {"name": "GREETING", "value": "hello", "settable": ["value"]},
            {"name": "TMPFS", "value": "1"},
        ],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def docker(host: HostDaemon, tmp_path: Path) -> Iterator[Docker]:
    """With the plugin `own`, made and enabled."""
    made = Docker(host)
    folder = plugin_folder(tmp_path / "plugin")
    try:
        assert made.ok("plugin", "create", "own", str(folder)) == "own"
        assert made.ok("plugin", "enable", "own") == "own"
        yield made
    finally:
        if containers := made.ok("ps", "-aq").split():
            made.ok("rm", "-f", *containers)
        if volumes := made.ok("volume", "ls", "-q").split():
            made.ok("volume", "rm", "-f", *volumes)
        if plugins := made.ok("plugin", "ls", "-q").split():
            made.ok("plugin", "rm", "-f", *plugins)


def wait(what: str, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def plugin_pid(host: HostDaemon) -> int:
    """0 while it does not run."""
    for pid in processes("/plugin.py"):
        with contextlib.suppress(FileNotFoundError):
            if host.cgroup in Path(f"/proc/{pid}/cgroup").read_text():
                return pid
    return 0


def test_its_volumes_reach_containers(host: HostDaemon, docker: Docker) -> None:
    docker.ok("volume", "create", "-d", "own", "made")
    assert docker.ok("volume", "inspect", "made", "-f", "{{.Driver}} {{.Scope}}") == "own:latest global"
    seen = docker.ok(
        "run", "--rm", "-v", "made:/m", "hello", "sh", "-c", "cat /m/greeting; mount | grep ' /m '"
    )
    assert seen.startswith("hellotmpfs on /m type tmpfs")
    docker.ok("run", "-d", "--name", "user", "-v", "made:/m", "hello", "sleep", "1000")
    place = docker.ok("inspect", "user", "-f", "{{(index .Mounts 0).Source}}")
    assert place.startswith(str(host.root / "plugins")) and place.endswith("/propagated-mount/made")
    assert mounted(place)
    host.stop(signal.SIGKILL)
    host.start()
    assert docker.ok("exec", "user", "cat", "/m/greeting") == "hello"
    docker.ok("rm", "-f", "user")
    assert not mounted(place)


def test_it_is_not_disabled_while_it_is_in_use(docker: Docker) -> None:
    docker.ok("volume", "create", "-d", "own:latest", "made")
    assert "plugin own:latest is in use" in docker.run("plugin", "disable", "own").err
    assert "plugin own:latest is enabled" in docker.run("plugin", "rm", "own").err
    docker.ok("volume", "rm", "made")
    docker.ok("plugin", "disable", "own")
    assert "is already disabled" in docker.run("plugin", "disable", "own").err
    assert "found but disabled" in docker.run("volume", "create", "-d", "own", "x1").err
    docker.ok("plugin", "rm", "own")
    missing = docker.run("plugin", "inspect", "own")
    assert missing.code == 1
    assert (
        'plugin "own" not found' in missing.err or "No such plugin: own" in missing.err
    )  # clients before 23


def test_what_its_config_allows_can_be_set(docker: Docker) -> None:
    assert "cannot set on an active plugin" in docker.run("plugin", "set", "own", "GREETING=moin").err
    docker.ok("plugin", "disable", "own")
    assert 'setting "NO" not found' in docker.run("plugin", "set", "own", "NO=x").err
    assert '"TMPFS" is not settable' in docker.run("plugin", "set", "own", "TMPFS=").err
    docker.ok("plugin", "set", "own", "GREETING=moin")
    assert json.loads(docker.ok("plugin", "inspect", "own", "-f", "{{json .Settings.Env}}")) == [
        "GREETING=moin",
        "TMPFS=1",
    ]
    docker.ok("plugin", "enable", "own")
    assert (
        docker.ok("run", "--rm", "--volume-driver", "own", "-v", "made:/m", "hello", "cat", "/m/greeting")
        == "moin"
    )


def test_lists_as_docker_shows_them(host: HostDaemon, docker: Docker) -> None:
    lines = docker.ok("plugin", "ls").splitlines()
    assert lines[1].split() == [
        docker.ok("plugin", "ls", "-q"),
        *["own:latest", "volumes", "for", "tests", "true"],
    ]
    assert host.ok("plugin", "ls").splitlines() == lines
    for filters, count in (
        (("capability=volumedriver", "enabled=true"), 1),
        (("capability=networkdriver",), 0),
        (("enabled=false",), 0),
    ):
        words = [word for text in filters for word in ("--filter", text)]
        assert len(docker.ok("plugin", "ls", "-q", *words).splitlines()) == count, filters
    assert "own:latest" in docker.ok("info", "-f", "{{.Plugins.Volume}}")


def test_one_that_ends_is_started_again(host: HostDaemon, docker: Docker) -> None:
    before = plugin_pid(host)
    os.kill(before, signal.SIGKILL)
    wait("the plugin is not started again", lambda: plugin_pid(host) not in (0, before))
    wait("it does not answer", lambda: docker.run("volume", "create", "-d", "own", "made").code == 0)


def test_our_own_commands_do_the_same(host: HostDaemon, docker: Docker, tmp_path: Path) -> None:
    folder = plugin_folder(tmp_path / "second")
    assert host.ok("plugin", "create", "--compress", "second", str(folder)) == "second"
    host.ok("plugin", "set", "second", "GREETING=ours")
    host.ok("plugin", "enable", "second")
    assert (
        host.ok(
            "run",
            "--rm",
            "--mount",
            "type=volume,src=m2,dst=/m,volume-driver=second",
            "hello",
            "cat",
            "/m/greeting",
        )
        == "ours"
    )
    host.ok("volume", "rm", "m2")
    host.ok("plugin", "disable", "second")
    assert host.ok("plugin", "inspect", "second", "-f", "{{.Enabled}}") == "false"
    assert host.ok("plugin", "rm", "second") == "second"
    assert "is no plugin's folder" in host.run("plugin", "create", "x", str(tmp_path)).err


def test_a_plugin_that_does_not_come_up_leaves_nothing(
    host: HostDaemon, docker: Docker, tmp_path: Path
) -> None:
    folder = plugin_folder(tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"entrypoint": ["/usr/bin/false"]}))
    docker.ok("plugin", "create", "broken", str(folder))
    failed = docker.run("plugin", "enable", "broken")
    assert failed.code == 1 and "ended before it listened" in failed.err
    assert docker.ok("plugin", "inspect", "broken", "-f", "{{.Enabled}}") == "false"
    broken = docker.ok("plugin", "inspect", "broken", "-f", "{{.Id}}")
    assert broken not in Path("/proc/self/mountinfo").read_text()
    (folder / "config.json").write_text(json.dumps({"description": "no more"}))
    assert "invalid plugin config.json" in docker.run("plugin", "create", "worse", str(folder)).err
    assert sorted(path.name for path in (host.root / "plugins").iterdir() if path.name.startswith(".")) == []


def test_from_one_host_to_another_by_a_registry(host: HostDaemon, docker: Docker, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", free_port(), namespace=host.namespaces) as remote:
        name = f"{remote.host}/tests/own:v1"
        folder = plugin_folder(tmp_path / "second")
        docker.ok("plugin", "create", name, str(folder))
        assert "v1: digest: sha256:" in docker.ok("plugin", "push", name)
        docker.ok("plugin", "rm", name)
        asked = docker.run("plugin", "install", name)
        assert "requesting the following privileges" in asked.out + asked.err
        for words in ("mount: [/usr]", "capabilities: [CAP_SYS_ADMIN]"):
            assert words in asked.out + asked.err
        assert docker.run("plugin", "inspect", name).code == 1
        installed = docker.ok(
            "plugin", "install", "--grant-all-permissions", "--alias", "mine", name, "GREETING=far"
        )
        assert f"Installed plugin {name}" in installed
        shown = docker.ok("plugin", "inspect", "mine", "-f", "{{.Name}} {{.Enabled}} {{.PluginReference}}")
        assert shown == f"mine:latest true {name}"
        assert (
            docker.ok("run", "--rm", "--volume-driver", "mine", "-v", "v1:/m", "hello", "cat", "/m/greeting")
            == "far"
        )
        docker.ok("volume", "rm", "v1")
        assert "must be disabled before upgrading" in docker.run("plugin", "upgrade", "mine", name).err
        docker.ok("plugin", "disable", "mine")
        host.ok("plugin", "upgrade", "--grant-all-permissions", "mine")
        assert "GREETING=far" in docker.ok("plugin", "inspect", "mine", "-f", "{{.Settings.Env}}")
        docker.ok("plugin", "enable", "mine")
        assert "this is not a container image" in docker.run("pull", name).err
        assert "not found" in docker.run("plugin", "install", f"{remote.host}/tests/none").err


def test_a_network_of_a_plugin(host: HostDaemon, docker: Docker, tmp_path: Path) -> None:
    """Its bridge and its interfaces, in containers of ours; a crash of the daemon in between."""
    socket = host.run_dir / "plugins/wires.sock"
    program = [sys.executable, str(ROOT / "tests/plugin_program.py"), str(socket), str(tmp_path / "own")]

    def links() -> str:
        return host.inside("ip", "-br", "link").out

    with plugin_process([*host.namespaces, *program], socket):
        docker.ok("network", "create", "-d", "wires", "--subnet", "10.77.0.0/24", "wired")
        assert (
            docker.ok("network", "inspect", "wired", "-f", "{{.Driver}} {{(index .IPAM.Config 0).Gateway}}")
            == "wires 10.77.0.1"
        )
        docker.ok("run", "-d", "--name", "one", "--network", "wired", "hello", "sleep", "1000")
        docker.ok(
            "run", "-d", "--name", "two", "--network", "wired", "--ip", "10.77.0.9", "hello", "sleep", "1000"
        )
        seen = docker.ok("exec", "one", "ip", "address", "show", "plug0")
        assert "inet 10.77.0.2/24" in seen and "UP" in seen
        assert "198.51.100.0/24 dev plug0" in docker.ok("exec", "one", "ip", "route")
        docker.ok("exec", "one", "ping", "-c", "1", "-W", "5", "10.77.0.9")
        host.stop(signal.SIGKILL)
        host.start()
        assert (
            docker.ok("inspect", "two", "-f", "{{.NetworkSettings.Networks.wired.IPAddress}}") == "10.77.0.9"
        )
        assert "active endpoints" in docker.run("network", "rm", "wired").err
        docker.ok("network", "create", "plain")
        docker.ok("run", "-d", "--name", "three", "--network", "plain", "hello", "sleep", "1000")
        docker.ok("network", "connect", "wired", "three")
        docker.ok("exec", "three", "ping", "-c", "1", "-W", "5", "10.77.0.9")
        docker.ok("network", "disconnect", "wired", "three")
        assert "plug0" not in docker.ok("exec", "three", "ip", "link")
        assert links().count("\nto") == 2
        docker.ok("rm", "-f", "one", "two", "three")
        assert "\nto" not in links() and "\nti" not in links()
        docker.ok("network", "rm", "wired", "plain")
        assert "\ntp" not in links()
    assert 'plugin "nosuch" not found' in docker.run("network", "create", "-d", "nosuch", "x").err
