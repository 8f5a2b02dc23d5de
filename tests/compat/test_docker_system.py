"""The daemon as a whole, by the real docker client: mutual TLS, versions, events, disk usage, settings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import certificates
from tests.clients import docker_client
from tests.commands import PATIENCE, Result, run
from tests.conftest import HostDaemon
from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root
ADDRESS = "127.0.0.1:2376"
OLDEST, NEWEST = "1.24", "1.51"


class Guarded(HostDaemon):
    """A daemon on TCP with mutual TLS beside its socket. `docker` goes over TCP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificates = folder / "certificates"
        certificates.make(self.certificates)
        self.settings = folder / "daemon.json"

    def begin(self, settings: dict[str, object]) -> None:
        self.settings.write_text(json.dumps(settings))
        files = {"ca": "ca.pem", "cert": "server-cert.pem", "key": "server-key.pem"}
        words = [word for name, file in files.items() for word in (f"--tls{'cacert' if name == 'ca' else name}",
                 str(self.certificates / file))]  # fmt: skip
        self.start("--config-file", str(self.settings), "-H", f"unix://{self.socket}", "-H", f"tcp://{ADDRESS}",
                   "--tlsverify", *words)  # fmt: skip

    def docker(
        self, *words: str, text: str = "", certificate: Path | None = None, **environment: str
    ) -> Result:
        places = {
            "DOCKER_HOST": f"tcp://{ADDRESS}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(certificate or self.certificates),
        }
        return run([*self.namespaces, str(docker_client()), *words], text, os.environ | places | environment)

    def good(self, *words: str, text: str = "", **environment: str) -> str:
        result = self.docker(*words, text=text, **environment)
        assert result.code == 0, f"docker {' '.join(words)}: {result.err}"
        return result.out

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, hello_archive: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        made.begin(
            {
                "labels": ["where=here"],
                "log-opts": {"max-size": "1m"},
                "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 123, "Hard": 456}},
                "metrics-addr": "127.0.0.1:9323",
                "bip": "10.201.0.1/24",
                "mtu": 1400,
                "default-address-pools": [{"base": "10.202.0.0/16", "size": 24}],
            }
        )
        made.good("load", "-i", str(hello_archive))
        yield made
    finally:
        made.close()


def test_mutual_tls(daemon: Guarded) -> None:
    assert daemon.good("version", "--format", "{{.Server.Version}}")
    stranger = daemon.docker("version", certificate=daemon.certificates / "stranger")
    assert stranger.code == 1
    assert "tls" in stranger.err.lower(), stranger.err
    plain = daemon.docker("version", DOCKER_TLS_VERIFY="")
    assert plain.code == 1
    assert "Client sent an HTTP request to an HTTPS server" in plain.err


def test_input_ends_before_output_over_tls(daemon: Guarded) -> None:
    """The client's half-close; a megabyte, so that neither side holds it all."""
    assert daemon.good("run", "-i", "--rm", "hello", "wc", "-c", text="x" * 1_000_000).strip() == "1000000"
    words = ("run", "-i", "--rm", "hello", "sh", "-c", "cat; echo end")
    assert daemon.good(*words, text="in\n") == "in\nend\n"
    tls = ["--tlsverify"] + [
        word for flag, file in (("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem"))
        for word in (flag, str(daemon.certificates / file))
    ]  # fmt: skip
    ours = daemon.inside(
        str(Path(sys.executable).parent / "swarmctl"), "-H", f"tcp://{ADDRESS}", *tls, *words
    )
    assert ours.out == "end\n", ours.err


@pytest.mark.parametrize("version", [OLDEST, "1.30", "1.40", "1.41", "1.44", "1.47"])
def test_old_clients(daemon: Guarded, version: str) -> None:
    old = {"DOCKER_API_VERSION": version}
    assert daemon.good("version", "--format", "{{.Client.APIVersion}}", **old).strip() == version
    assert daemon.good("run", "--rm", "hello", "echo", "hi", **old) == "hi\n"
    assert "hello" in daemon.good("images", **old)
    assert json.loads(daemon.good("image", "inspect", "hello", **old))[0]["Id"].startswith("sha256:")
    assert "where=here" in daemon.good("info", **old)


def test_versions_that_are_not_served(daemon: Guarded) -> None:
    newer = daemon.docker("ps", DOCKER_API_VERSION="1.99")
    assert f"client version 1.99 is too new. Maximum supported API version is {NEWEST}" in newer.err
    older = daemon.docker("ps", DOCKER_API_VERSION="1.23")
    assert f"client version 1.23 is too old. Minimum supported API version is {OLDEST}" in older.err


def test_settings_reach_containers(daemon: Guarded) -> None:
    assert daemon.good("run", "--rm", "hello", "sh", "-c", "ulimit -n").strip() == "123"
    own = daemon.good("run", "--rm", "--ulimit", "nofile=99:99", "hello", "sh", "-c", "ulimit -n")
    assert own.strip() == "99"
    daemon.good("create", "--name", "logged", "hello")
    assert (
        daemon.good("inspect", "-f", "{{.HostConfig.LogConfig.Config}}", "logged").strip()
        == "map[max-size:1m]"
    )
    daemon.good("rm", "logged")


def test_settings_reach_networks(daemon: Guarded) -> None:
    shown = daemon.good("run", "--rm", "hello", "ip", "addr", "show", "eth0")
    assert re.search(r"inet 10\.201\.0\.\d+/24", shown) and "mtu 1400" in shown, shown
    for name, subnet in (("one", "10.202.0.0/24"), ("two", "10.202.1.0/24")):
        daemon.good("network", "create", name)
        config = json.loads(daemon.good("network", "inspect", name))[0]["IPAM"]["Config"][0]
        assert config["Subnet"] == subnet
    daemon.good("network", "rm", "one", "two")


def test_events_of_a_containers_life(daemon: Guarded) -> None:
    since = f"{time.time():.6f}"
    daemon.good("run", "-d", "--name", "told", "-v", "told:/data", "hello", "sleep", "1000")
    daemon.good("top", "told")
    daemon.good("exec", "told", "true")
    daemon.good("rename", "told", "retold")
    daemon.good("rm", "-f", "retold")
    daemon.good("volume", "rm", "told")
    shown = daemon.good(
        "events", "--since", since, "--until", f"{time.time():.6f}", "--format", "{{.Type}} {{.Action}}"
    ).splitlines()
    expected = [
        *("container create", "network connect", "volume mount", "container start"),
        *("container top", "container exec_create: true", "container exec_start: true", "container exec_die"),
        *("container rename", "container kill", "container die", "network disconnect", "volume unmount"),
        *("container destroy", "volume create", "volume destroy"),
    ]
    assert sorted(shown) == sorted(expected)
    assert shown.index("network connect") < shown.index("container start") < shown.index("container die")
    kinds = ("--filter", "type=volume", "--filter", "event=mount", "--filter", "volume=told")
    only = daemon.good("events", "--since", since, "--until", f"{time.time():.6f}", *kinds)
    assert len(only.splitlines()) == 1 and "destination=/data" in only, only
    wrong = daemon.docker("events", "--until", "1", "--filter", "colour=red")
    assert "invalid filter 'colour'" in wrong.err


def test_disk_usage(daemon: Guarded, tmp_path: Path) -> None:
    daemon.good("run", "--name", "writer", "-v", "kept:/data", "hello", "sh", "-c",
                "head -c 5000 /dev/zero > /data/x; head -c 300000 /dev/zero > /y")  # fmt: skip
    rows = [json.loads(line) for line in daemon.good("system", "df", "--format", "{{json .}}").splitlines()]
    by_type = {row["Type"]: row for row in rows}
    assert (by_type["Images"]["TotalCount"], by_type["Images"]["Active"]) == ("1", "1")
    assert by_type["Local Volumes"]["Size"] == "5kB"
    assert by_type["Containers"]["Size"].startswith("3")
    verbose = daemon.good("system", "df", "-v")
    assert "5kB" in verbose and "UNIQUE SIZE" in verbose
    daemon.good("rm", "-v", "writer")
    daemon.good("volume", "rm", "kept")
    assert "Images" in daemon.good("system", "df", DOCKER_API_VERSION="1.41")


def test_settings_are_read_again(daemon: Guarded) -> None:
    settings = json.loads(daemon.settings.read_text())
    since = f"{time.time():.6f}"
    daemon.settings.write_text(json.dumps(settings | {"labels": ["where=there"], "debug": True}))
    daemon.signal(signal.SIGHUP)
    wait("labels", lambda: "where=there" in daemon.good("info"))
    reload = daemon.good(
        "events", "--since", since, "--until", f"{time.time():.6f}", "--filter", "type=daemon"
    )
    assert "daemon reload" in reload and "where=there" in reload
    daemon.settings.write_text(json.dumps({"colour": "red"}))
    daemon.signal(signal.SIGHUP)
    wait("complaint", lambda: "don't match any configuration option: colour" in daemon.log.read_text())
    assert "where=there" in daemon.good("info")
    daemon.settings.write_text(json.dumps(settings))
    daemon.signal(signal.SIGHUP)
    wait("labels", lambda: "where=here" in daemon.good("info"))


def test_what_it_is_doing(daemon: Guarded) -> None:
    daemon.signal(signal.SIGUSR1)
    stacks = daemon.run_dir / "stacks.log"
    wait("stacks", lambda: "tasks:" in stacks.read_text())
    assert "most recent call first" in stacks.read_text()


def test_metrics(daemon: Guarded) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9323/metrics', timeout=20).read().decode())"
    shown = daemon.inside("python3", "-c", code).out
    for line in (
        'engine_daemon_container_states_containers{state="running"} 0',
        "engine_daemon_engine_cpus_cpus ",
        "engine_daemon_events_total ",
        'engine_daemon_engine_info{architecture="',
        'engine_daemon_container_actions_seconds_count{action="start"} ',
    ):
        assert line in shown, shown


def test_events_of_a_swarm(hello_archive: Path) -> None:
    with lab_of(1, image=hello_archive, kind=Lab) as lab:
        node = lab.node("n1")

        def docker(*words: str) -> str:
            result = run([str(docker_client()), *words], "", os.environ | {"DOCKER_HOST": node.host})
            assert result.code == 0, result.err
            return result.out

        docker("swarm", "init", "--advertise-addr", node.address)
        since = f"{time.time():.6f}"
        docker("service", "create", "-d", "--name", "told", "--replicas", "1", "hello")
        docker("service", "scale", "-d", "told=2")
        docker("service", "rm", "told")

        def shown() -> str:
            words = ("--filter", "scope=swarm", "--filter", "type=service", "--format", "{{json .}}")
            return docker("events", "--since", since, "--until", f"{time.time():.6f}", *words)

        lab.wait("service remove", 10, lambda: '"Action":"remove"' in shown())
        rows = [json.loads(line) for line in shown().splitlines()]
        assert [row["Action"] for row in rows if row["Action"] != "update"] == ["create", "remove"]
        assert {row["Actor"]["Attributes"]["name"] for row in rows} == {"told"}
        scaled = [row["Actor"]["Attributes"] for row in rows if "replicas.new" in row["Actor"]["Attributes"]]
        assert scaled == [{"name": "told", "replicas.old": "1", "replicas.new": "2"}]


def test_tcp_without_tls_is_refused(tmp_path: Path) -> None:
    words = [
        "--root",
        str(tmp_path / "root"),
        "--run-dir",
        str(tmp_path / "run"),
        "-H",
        "tcp://127.0.0.1:2375",
    ]
    swarmd = Path(sys.executable).parent / "swarmd"
    done = subprocess.run([swarmd, *words], capture_output=True, text=True, timeout=20 * PATIENCE)
    assert done.returncode == 2
    assert "allow it explicitly with --tls=false" in done.stderr
    assert not (tmp_path / "root").exists()


def wait(what: str, holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 10 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {10 * PATIENCE:.0f} s"
        time.sleep(0.05)
