"""`docker network` and the network options of `docker run`, as the real client sends them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands import Result, run
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root


class Docker:
    """The installed client, pointed at one daemon."""

    def __init__(self, host: HostDaemon) -> None:
        installed = shutil.which("docker")
        assert installed, "no docker client: apt-get install docker-cli (or docker.io)"
        self._client = installed
        self._environment = os.environ | {"DOCKER_HOST": f"unix://{host.socket}"}

    def run(self, *words: str) -> Result:
        return run([self._client, *words], "", self._environment)

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.code == 0, f"docker {' '.join(words)}: {result.err}"
        return result.out.strip()

    def refused(self, *words: str) -> str:
        result = self.run(*words)
        assert result.code != 0, result
        return result.err

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.ok(kind, "inspect", name))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def docker(host: HostDaemon) -> Iterator[Docker]:
    """What a test leaves, also a failed one, is not the next one's business."""
    made = Docker(host)
    yield made
    if containers := made.ok("ps", "-aq").split():
        made.ok("rm", "-f", *containers)
    made.ok("network", "prune", "-f")


def test_every_flag_of_create(docker: Docker) -> None:
    docker.ok(
        *(
            "network",
            "create",
            "--attachable",
            "--internal",
            "--ipv6",
            "--label",
            "a=1",
            "--driver",
            "bridge",
        ),
        *("--subnet", "10.50.0.0/16", "--ip-range", "10.50.5.0/24", "--gateway", "10.50.0.9"),
        *("--aux-address", "printer=10.50.5.0", "--subnet", "fd00:50::/64", "--gateway", "fd00:50::9"),
        *(
            "--aux-address",
            "other=fd00:50::7",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "--scope",
            "local",
        ),
        *("--ipam-driver", "default", "full"),
    )
    shown = docker.inspect("network", "full")
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.50.0.0/16",
            "IPRange": "10.50.5.0/24",
            "Gateway": "10.50.0.9",
            "AuxiliaryAddresses": {"printer": "10.50.5.0"},
        },
        {"Subnet": "fd00:50::/64", "Gateway": "fd00:50::9", "AuxiliaryAddresses": {"other": "fd00:50::7"}},
    ]
    flags = ("EnableIPv4", "EnableIPv6", "Internal", "Attachable", "Ingress", "ConfigOnly")
    assert [shown[flag] for flag in flags] == [True, True, True, True, False, False]
    assert shown["Options"] == {"com.docker.network.driver.mtu": "1400"} and shown["Labels"] == {"a": "1"}
    for words, reason in (
        (("--ipv4=false",), "EnableIPv4"),
        (("--ipam-driver", "other"), "IPAM.Driver"),
        (("--ipam-opt", "a=b"), "IPAM.Options"),
        (("--ingress",), "Ingress"),
        (("-d", "ipvlan"), "use macvlan"),
        (("-d", "macvlan", "-o", "parent=absent0"), "no such interface"),
        (("--subnet", "10.50.9.0/24"), "Pool overlaps with other one on this address space"),
        (("-o", "com.docker.network.bridge.inhibit_ipv4=true"), "is not supported"),
    ):
        assert reason in docker.refused("network", "create", *words, "bad"), words
    assert "already exists" in docker.refused("network", "create", "full")


def test_a_configuration_is_taken_from_another_network(docker: Docker) -> None:
    docker.ok("network", "create", "--config-only", "--subnet", "10.51.0.0/24", "--label", "a=1", "settings")
    assert docker.inspect("network", "settings")["ConfigOnly"] is True
    docker.ok("network", "create", "--config-from", "settings", "user")
    shown = docker.inspect("network", "user")
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.51.0.0/24", "Gateway": "10.51.0.1"}]
    assert shown["ConfigFrom"] == {"Network": "settings"}
    assert "is in use" in docker.refused("network", "rm", "settings")
    assert "configuration only" in docker.refused("run", "--rm", "--network", "settings", "hello", "true")
    assert docker.ok("run", "--rm", "--network", "user", "hello", "hostname", "-i").startswith("10.51.0.")
    docker.ok("network", "rm", "user", "settings")


def test_list_filters(docker: Docker) -> None:
    docker.ok("network", "create", "--label", "team=x", "used")
    free = docker.ok("network", "create", "free")
    docker.ok("run", "-d", "--network", "used", "hello", "sleep", "1000")

    def names(*filters: str) -> set[str]:
        words = [word for each in filters for word in ("--filter", each)]
        return set(docker.ok("network", "ls", "--format", "{{.Name}}", *words).split())

    assert names("driver=bridge") == {"bridge", "used", "free"} and names("driver=null") == {"none"}
    assert names(f"id={free[:12]}") == {"free"} and names("name=fre") == {"free"}
    assert names("label=team") == names("label=team=x") == {"used"} and names("label=team=y") == set()
    assert (
        names("scope=local") == {"bridge", "host", "none", "used", "free"} and names("scope=swarm") == set()
    )
    assert names("type=builtin") == {"bridge", "host", "none"} and names("type=custom") == {"used", "free"}
    assert names("dangling=true") == {"free"} and "used" in names("dangling=false")
    assert "invalid filter" in docker.refused("network", "ls", "--filter", "size=1")
    assert docker.ok("network", "prune", "-f").splitlines()[1:] == ["free"]


def test_places_on_networks(docker: Docker, host: HostDaemon) -> None:
    docker.ok("network", "create", "--subnet", "10.52.0.0/24", "--subnet", "fd00:52::/64", "--ipv6", "one")
    docker.ok("network", "create", "--subnet", "10.53.0.0/24", "two")
    docker.ok("run", "-d", "--name", "db", "--network", "two", "hello", "sleep", "1000")
    docker.ok(
        *("run", "-d", "--name", "web", "-p", "8080:80", "--link-local-ip", "169.254.7.7", "--network"),
        *(
            "name=one,ip=10.52.0.7,ip6=fd00:52::7,alias=site,driver-opt=com.docker.network.endpoint.ifname=front",
        ),
        *("hello", "sleep", "1000"),
    )
    settings = docker.inspect("container", "web")["NetworkSettings"]
    place = settings["Networks"]["one"]
    assert (
        place["IPAddress"],
        place["GlobalIPv6Address"],
        place["GlobalIPv6PrefixLen"],
        place["IPv6Gateway"],
    ) == (
        *("10.52.0.7", "fd00:52::7"),
        *(64, "fd00:52::1"),
    )
    assert place["DriverOpts"] == {"com.docker.network.endpoint.ifname": "front"}
    assert settings["Ports"]["80/tcp"] == [
        {"HostIp": "0.0.0.0", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": "8080"},
    ]
    assert docker.inspect("network", "one")["Containers"].popitem()[1]["IPv6Address"] == "fd00:52::7/64"
    front = docker.ok("exec", "web", "ip", "addr", "show", "front")
    assert "169.254.7.7/16" in front and "fd00:52::7/64" in front
    hosts = docker.ok("exec", "web", "cat", "/etc/hosts")
    assert "10.52.0.7\t" in hosts and "fd00:52::7\t" in hosts
    docker.ok(
        *(
            "network",
            "connect",
            "--ip",
            "10.53.0.9",
            "--alias",
            "back",
            "--link",
            "db:store",
            "--gw-priority",
            "5",
        ),
        *(
            "--driver-opt",
            "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1",
            "two",
            "web",
        ),
    )
    assert "via 10.53.0.1" in docker.ok("exec", "web", "ip", "route", "show", "default")
    address = docker.inspect("container", "db")["NetworkSettings"]["Networks"]["two"]["IPAddress"]
    hosts = docker.ok("exec", "web", "cat", "/etc/hosts")
    assert "10.53.0.9\t" in hosts and f"{address}\tstore" in hosts
    assert docker.ok("exec", "db", "nslookup", "back").endswith("10.53.0.9")
    host.stop(signal.SIGKILL)
    host.start()
    assert "10.53.0.9" in docker.ok("exec", "db", "nslookup", "back"), "also after a kill"
    assert docker.inspect("container", "web")["NetworkSettings"]["Ports"] == settings["Ports"]
    docker.ok("network", "disconnect", "one", "web")
    assert "10.52.0.7\t" not in docker.ok("exec", "web", "cat", "/etc/hosts")
    assert "endpoint with name web already exists" in docker.refused("network", "connect", "two", "web")
    docker.ok("rm", "-f", "web", "db")
    docker.ok("network", "rm", "one", "two")
    assert "ip6 swarmctl" not in host.inside("nft", "list", "tables").out


def test_what_is_refused_of_a_place(docker: Docker) -> None:
    docker.ok("network", "create", "--subnet", "10.54.0.0/24", "plain")
    for words, reason in (
        (("--ip6", "fd00::5"), "no configured subnet contains IP address fd00::5"),
        (("--link-local-ip", "10.0.0.1"), "invalid link-local IP address"),
        (("-p", "80:80/sctp"), "protocol must be tcp or udp"),
        (("-p", "[::]:80:80"), "with IPv6 addresses"),
    ):
        assert reason in docker.refused("run", "--rm", "--network", "plain", *words, "hello", "true"), words
    option = "name=plain,driver-opt=a=b"
    assert "a is not supported" in docker.refused("run", "--rm", "--network", option, "hello", "true")


def test_macvlan_on_a_link_of_the_host(docker: Docker, host: HostDaemon) -> None:
    assert host.inside("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "far0").code == 0
    for device in ("wire0", "far0"):
        assert host.inside("ip", "link", "set", device, "up").code == 0
    docker.ok("network", "create", "-d", "macvlan", "--subnet", "10.55.0.0/24", "-o", "parent=wire0", "lan")
    docker.ok("run", "-d", "--name", "one", "--network", "lan", "hello", "sleep", "1000")
    assert "10.55.0.2" in docker.ok("run", "--rm", "--network", "lan", "hello", "nslookup", "one")
    assert docker.inspect("network", "lan")["Driver"] == "macvlan"
    docker.ok("restart", "-t", "0", "one")
    assert "10.55.0." in docker.ok("exec", "one", "ip", "addr", "show", "eth0")
    docker.ok("rm", "-f", "one")
    docker.ok("network", "rm", "lan")
    assert host.inside("ip", "link", "del", "wire0").code == 0
