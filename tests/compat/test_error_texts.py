"""The statuses and words of errors by which clients of Docker tell them apart, from a real daemon.

Source of the words: moby (daemon/, api/, volume/, libnetwork/, daemon/cluster/), as docker and compose match them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)
ALREADY_PART = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)


class Api:
    """Plain requests, as `curl` would send them."""

    def __init__(self, host: HostDaemon) -> None:
        self._client = docker.APIClient(base_url=f"unix://{host.socket}", version="1.45")

    def ask(self, line: str, body: Any = None) -> tuple[int, str]:
        """`line`: method and path. The status, and the message of an error."""
        method, path = line.split(" ", 1)
        url = f"{self._client.base_url}/v1.45{path}"
        answer = self._client.request(method, url, json=body)
        message = answer.json().get("message", "") if answer.status_code >= 400 else ""
        return answer.status_code, message

    def made(self, name: str, **config: Any) -> str:
        status, message = self.ask(f"POST /containers/create?name={name}", {"Image": "hello", **config})
        assert status == 201, message
        return str(self._client.inspect_container(name)["Id"])

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def api(host: HostDaemon) -> Iterator[Api]:
    api = Api(host)
    yield api
    api.close()


@pytest.fixture(scope="module")
def running(api: Api) -> str:
    """The id of a container `web` that runs."""
    web = api.made("web", Cmd=["sleep", "1000"])
    assert api.ask("POST /containers/web/start")[0] == 204
    return web


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("GET /containers/x/json", "No such container: x"),
        ("POST /containers/x/start", "No such container: x"),
        ("POST /containers/x/stop", "No such container: x"),
        ("POST /containers/x/wait", "No such container: x"),
        ("POST /containers/x/attach?stream=1&stdout=1", "No such container: x"),
        ("GET /containers/x/logs?stdout=1", "No such container: x"),
        ("GET /containers/x/stats?stream=0", "No such container: x"),
        ("GET /containers/x/top", "No such container: x"),
        ("DELETE /containers/x", "No such container: x"),
        ("GET /images/x/json", "No such image: x:latest"),
        ("GET /images/x:1/json", "No such image: x:1"),
        ("GET /images/x/history", "No such image: x:latest"),
        ("DELETE /images/x", "No such image: x:latest"),
        ("POST /images/x/tag?repo=y", "No such image: x:latest"),
        ("GET /networks/x", "network x not found"),
        ("DELETE /networks/x", "network x not found"),
        ("GET /volumes/x", "get x: no such volume"),
        ("DELETE /volumes/x", "get x: no such volume"),
        ("GET /exec/x/json", "No such exec instance: x"),
        ("GET /nowhere", "page not found"),
    ],
)
def test_what_is_missing_is_named(api: Api, line: str, message: str) -> None:
    assert api.ask(line) == (404, message)


@pytest.mark.parametrize(
    ("line", "body", "message"),
    [
        ("POST /containers/create", {"Image": "x", "Cmd": ["a"]}, "No such image: x:latest"),
        ("POST /networks/x/connect", {"Container": "web"}, "network x not found"),
        ("POST /networks/bridge/connect", {"Container": "y"}, "No such container: y"),
        ("POST /containers/y/exec", {"Cmd": ["a"]}, "No such container: y"),
    ],
)
def test_what_a_body_names_and_is_missing_is_named(
    api: Api, running: str, line: str, body: Any, message: str
) -> None:
    assert api.ask(line, body) == (404, message)


def test_name_that_is_taken(api: Api, running: str) -> None:
    conflict = (
        f'Conflict. The container name "/web" is already in use by container "{running}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert api.ask("POST /containers/create?name=web", {"Image": "hello"}) == (409, conflict)
    api.made("other")
    assert api.ask("POST /containers/other/rename?name=web") == (
        409,
        f"Error when allocating new name: {conflict}",
    )
    assert api.ask("DELETE /containers/other")[0] == 204
    assert api.ask("POST /networks/create", {"Name": "net"})[0] == 201
    assert api.ask("POST /networks/create", {"Name": "net"}) == (409, "network with name net already exists")
    assert api.ask("DELETE /networks/net")[0] == 204


def test_state_that_does_not_allow_it(api: Api, running: str) -> None:
    assert api.ask("POST /containers/web/start")[0] == 304
    status, message = api.ask("DELETE /containers/web")
    assert (status, message) == (
        409,
        'cannot remove container "/web": container is running: stop the container before removing or force remove',
    )
    stopped = api.made("stopped")
    assert api.ask("POST /containers/stopped/stop")[0] == 304
    status, message = api.ask("POST /containers/stopped/kill")
    assert (status, message) == (409, f"cannot kill container: stopped: container {stopped} is not running")
    assert api.ask("POST /containers/stopped/exec", {"Cmd": ["a"]}) == (
        409,
        f"container {stopped} is not running",
    )
    assert api.ask("DELETE /containers/stopped")[0] == 204


def test_volume_in_use(api: Api) -> None:
    mounts = {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "vol", "Target": "/v"}]}}
    user = api.made("user", **mounts)
    assert api.ask("DELETE /volumes/vol") == (409, f"remove vol: volume is in use - [{user}]")
    assert api.ask("DELETE /containers/user")[0] == 204
    assert api.ask("DELETE /volumes/vol")[0] == 204


@pytest.mark.parametrize(
    "line",
    [
        "GET /nodes",
        "GET /services",
        "GET /tasks",
        "GET /secrets",
        "GET /configs",
        "GET /swarm",
        "GET /swarm/unlockkey",
    ],
)
def test_without_a_swarm(api: Api, line: str) -> None:
    assert api.ask(line) == (503, NOT_A_MANAGER)


def test_unlocking_without_a_swarm(api: Api) -> None:
    assert api.ask("POST /swarm/unlock", {"UnlockKey": "x"}) == (503, NOT_A_MANAGER)


def test_leaving_without_a_swarm(api: Api) -> None:
    assert api.ask("POST /swarm/leave") == (503, "This node is not part of a swarm")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"Image": ""}, "Image"),
        ({"Cmd": 5}, r"\$\.Cmd"),
        ({"Env": ["=x"]}, "=x"),
        ({"WorkingDir": "relative"}, "relative"),
        ({"StopSignal": "SIGNONE"}, "SIGNONE"),
        ({"StopTimeout": "5"}, r"\$\.StopTimeout"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}}, "Interval in Healthcheck"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Timeout": -1}}, "Timeout in Healthcheck"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "StartPeriod": 1}}, "StartPeriod in Healthcheck"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "StartInterval": 1}}, "StartInterval in Healthcheck"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Retries": -1}}, "Retries in Healthcheck"),
        ({"Healthcheck": {"Test": ["WHAT"]}}, 'Unknown Type "WHAT" in Healthcheck'),
        ({"ExposedPorts": {"99999/tcp": {}}}, "99999"),
        ({"ExposedPorts": {"80/none": {}}}, "none"),
    ],
)
def test_wrong_container_configuration_is_named(api: Api, config: dict[str, Any], words: str) -> None:
    status, message = api.ask("POST /containers/create", {"Image": "hello", **config})
    assert status == 400
    assert re.search(words, message), message


@pytest.mark.parametrize(
    ("host_config", "words"),
    [
        ({"Memory": 1}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": "1g"}, r"\$\.HostConfig\.Memory"),
        ({"Memory": 1 << 30, "MemorySwap": 1 << 20}, "memoryswap"),
        ({"Memory": 1 << 30, "MemoryReservation": 2 << 30}, "memory reservation"),
        ({"MemorySwappiness": 101}, "swappiness"),
        ({"NanoCpus": -1}, "CPUs"),
        ({"CpuPeriod": 5}, "CPU cfs period"),
        ({"CpuQuota": 5}, "CPU cfs quota"),
        ({"CpusetCpus": "x"}, "cpuset"),
        ({"ShmSize": -1}, "SHM size"),
        ({"OomScoreAdj": 2000}, "-1000"),
        ({"Ulimits": [{"Name": "nosuch", "Soft": 1, "Hard": 1}]}, "nosuch"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}, "nofile"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "sometimes"),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}, "retry count"),
        ({"NetworkMode": "container:"}, "container:"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}, "99999"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "http"}]}}, "http"),
        ({"PortBindings": {"80/tcp": [{"HostIp": "1.2.3"}]}}, r"1\.2\.3"),
        ({"PortBindings": {"0/tcp": [{}]}}, "0/tcp"),
        ({"Dns": ["name"]}, "name"),
        ({"ExtraHosts": ["nocolon"]}, "nocolon"),
        ({"Binds": ["relative"]}, "relative"),
        ({"Binds": ["/a:/"]}, "destination can't be '/'"),
        ({"Binds": ["/a:b"]}, "absolute"),
        ({"Binds": ["/a:/b:what"]}, "what"),
        ({"Binds": ["/a:/b", "/c:/b"]}, "Duplicate mount point: /b"),
        ({"Mounts": [{"Type": "what", "Target": "/a"}]}, 'mount type unknown: "what"'),
        ({"Mounts": [{"Type": "bind", "Source": "/tmp"}]}, "Target"),
        ({"Mounts": [{"Type": "bind", "Target": "/a"}]}, "Source"),
        (
            {"Mounts": [{"Type": "bind", "Source": "/nosuch-x", "Target": "/a"}]},
            "bind source path does not exist",
        ),
        ({"Mounts": [{"Type": "tmpfs", "Source": "/x", "Target": "/a"}]}, "Source"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": -1}}]}, "tmpfs"),
        ({"Mounts": [{"Type": "volume", "Source": "/v", "Target": "/a"}]}, "/v"),
        ({"Mounts": [{"Type": "image", "Target": "/a", "ImageOptions": {}}]}, "Mounts.ImageOptions"),
        ({"Tmpfs": {"relative": ""}}, "relative"),
        ({"SecurityOpt": ["what"]}, "what"),
        ({"LogConfig": {"Type": "nosuch"}}, "nosuch"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}}, "max-size"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-file": "0"}}}, "max-file"),
        ({"LogConfig": {"Type": "json-file", "Config": {"what": "1"}}}, "unknown log opt 'what'"),
        ({"UTSMode": "what"}, "invalid UTS mode: what"),
        ({"CgroupnsMode": "what"}, "invalid cgroup namespace mode: what"),
        ({"BlkioWeight": 5}, "blkio weight"),
        (
            {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "x"}]},
            "x",
        ),
        ({"PidMode": "what"}, "what"),
        ({"IpcMode": "what"}, "what"),
    ],
)
def test_wrong_host_configuration_is_named(api: Api, host_config: dict[str, Any], words: str) -> None:
    status, message = api.ask("POST /containers/create", {"Image": "hello", "HostConfig": host_config})
    assert status == 400, message
    assert re.search(words, message), message


@pytest.mark.parametrize(
    ("line", "body", "words"),
    [
        ("POST /containers/create?name=a%20b", {"Image": "hello"}, r"Invalid container name \(a b\)"),
        ("POST /containers/web/rename?name=", None, "names may be empty"),
        ("POST /containers/web/rename?name=b%2Fc", None, "b/c"),
        ("POST /containers/web/kill?signal=NONE", None, "NONE"),
        ("POST /containers/web/stop?t=soon", None, "soon"),
        ("POST /containers/web/resize?h=x&w=1", None, "h"),
        ("POST /containers/web/wait?condition=never", None, "never"),
        ("POST /containers/web/update", {"Memory": 1}, "6MB"),
        ("POST /containers/web/update", {"Memory": "x"}, "Memory"),
        ("POST /containers/web/exec", {"Cmd": []}, "[Nn]o exec command"),
        ("GET /containers/web/logs", None, "at least one stream"),
        ("GET /containers/web/logs?stdout=1&since=x", None, "since"),
        ("GET /containers/web/logs?stdout=1&tail=x", None, "tail"),
        ("GET /containers/json?limit=x", None, "limit"),
        ('GET /containers/json?filters={"what":["x"]}', None, "what"),
        ('GET /containers/json?filters={"status":["x"]}', None, "status"),
        ('GET /images/json?filters={"what":["x"]}', None, "what"),
        ('GET /volumes?filters={"what":["x"]}', None, "what"),
        ('GET /networks?filters={"what":["x"]}', None, "what"),
        ('GET /events?filters={"what":["x"]}&until=1', None, "what"),
        ("GET /events?since=x", None, "since"),
        ("GET /system/df?type=x", None, "unknown object type: x"),
        ("POST /networks/create", {"Name": ""}, "name"),
        ("POST /networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.300.0.0/8"}]}}, "10.300"),
        (
            "POST /networks/create",
            {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1"}]}},
            "10.8.0.1",
        ),
        ("POST /networks/create", {"Name": "n", "IPAM": {"Driver": "dhcp"}}, "IPAM.Driver"),
        ("POST /volumes/create", {"Name": "a b"}, "a b"),
        ("POST /volumes/create", {"Name": "vol", "DriverOpts": {"type": "nfs"}}, "device"),
        ("POST /images/hello/tag?repo=UPPER", None, "UPPER|lowercase"),
        ("POST /images/create?fromSrc=ftp://x", None, "ftp"),
        ("POST /swarm/init", {"Availability": "idle"}, "Availability"),
        ("POST /swarm/init", {"ListenAddr": "here:there"}, "here:there"),
        ("POST /swarm/init", {"SubnetSize": 99}, "SubnetSize|subnet size|99"),
        ("POST /swarm/init", {"DefaultAddrPool": ["10.0.0.0/99"]}, "10.0.0.0/99"),
        ("POST /swarm/init", {"DataPathPort": 5}, "DataPathPort"),
        ("POST /swarm/join", {"RemoteAddrs": []}, "RemoteAddrs"),
        ("POST /swarm/join", {"RemoteAddrs": ["127.0.0.1:1"], "JoinToken": "x"}, "join token"),
    ],
)
def test_wrong_value_is_named(api: Api, running: str, line: str, body: Any, words: str) -> None:
    status, message = api.ask(line, body)
    assert status == 400, message
    assert re.search(words, message), message


@pytest.fixture(scope="module")
def member(api: Api) -> Iterator[Api]:
    """The only manager of a swarm."""
    status, message = api.ask("POST /swarm/init", {"ListenAddr": "127.0.0.1:2377"})
    assert status == 200, message
    yield api
    assert api.ask("POST /swarm/leave?force=1")[0] == 200


def service(**task: Any) -> dict[str, Any]:
    return {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "hello"}, **task}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("GET /services/x", "service x not found"),
        ("DELETE /services/x", "service x not found"),
        ("GET /services/x/logs?stdout=1", "service x not found"),
        ("GET /nodes/x", "node x not found"),
        ("DELETE /nodes/x", "node x not found"),
        ("GET /tasks/x", "task x not found"),
        ("GET /secrets/x", "secret x not found"),
        ("DELETE /secrets/x", "secret x not found"),
        ("GET /configs/x", "config x not found"),
        ("GET /networks/x", "network x not found"),
        ("DELETE /networks/x", "network x not found"),
    ],
)
def test_what_is_missing_in_a_swarm_is_named(member: Api, line: str, message: str) -> None:
    assert member.ask(line) == (404, message)


def test_second_swarm(member: Api) -> None:
    assert member.ask("POST /swarm/init", {"ListenAddr": "127.0.0.1:2377"}) == (503, ALREADY_PART)
    joining = {"RemoteAddrs": ["127.0.0.1:2377"], "JoinToken": "SWMTKN-1-x-y"}
    assert member.ask("POST /swarm/join", joining) == (503, ALREADY_PART)


@pytest.mark.parametrize(
    ("line", "body", "words"),
    [
        ("POST /services/create", {"Name": "a.b", **service()} | {"Name": "a.b"}, "DNS name component"),
        ("POST /services/create", service() | {"Mode": {"Replicated": {"Replicas": -1}}}, "Replicas"),
        ("POST /services/create", service() | {"Mode": {"What": {}}}, "What"),
        ("POST /services/create", service() | {"Mode": {"ReplicatedJob": {}}}, "ReplicatedJob"),
        ("POST /services/create", service() | {"UpdateConfig": {"Parallelism": -1}}, "update-parallelism"),
        ("POST /services/create", service() | {"UpdateConfig": {"Delay": -1}}, "update-delay"),
        ("POST /services/create", service() | {"UpdateConfig": {"Monitor": -1}}, "update-monitor"),
        ("POST /services/create", service() | {"UpdateConfig": {"Delay": "5s"}}, r"\$\.UpdateConfig\.Delay"),
        (
            "POST /services/create",
            service() | {"UpdateConfig": {"MaxFailureRatio": 2}},
            "update-maxfailureratio",
        ),
        (
            "POST /services/create",
            service() | {"UpdateConfig": {"FailureAction": "cry"}},
            "UpdateConfig.FailureAction",
        ),
        ("POST /services/create", service() | {"RollbackConfig": {"Order": "any"}}, "RollbackConfig.Order"),
        (
            "POST /services/create",
            service() | {"EndpointSpec": {"Ports": [{"TargetPort": 0}]}},
            "target port 0",
        ),
        (
            "POST /services/create",
            service() | {"EndpointSpec": {"Ports": [{"TargetPort": 1, "PublishedPort": 70000}]}},
            "published port 70000",
        ),
        (
            "POST /services/create",
            service() | {"EndpointSpec": {"Ports": [{"TargetPort": 1, "Protocol": "x"}]}},
            "protocol 'x'",
        ),
        (
            "POST /services/create",
            service() | {"EndpointSpec": {"Ports": [{"TargetPort": 1, "PublishMode": "x"}]}},
            "PublishMode",
        ),
        ("POST /services/create", service() | {"EndpointSpec": {"Mode": "x"}}, "EndpointSpec.Mode"),
        ("POST /services/create", service(RestartPolicy={"Condition": "x"}), "RestartPolicy.Condition"),
        ("POST /services/create", service(RestartPolicy={"Delay": -1}), "restart-delay"),
        ("POST /services/create", service(Resources={"Limits": {"MemoryBytes": 1}}), "memory value 1"),
        ("POST /services/create", service(Resources={"Limits": {"NanoCPUs": 1}}), "cpu value"),
        ("POST /services/create", service(Resources={"SwapBytes": 1}), "Resources.SwapBytes"),
        ("POST /services/create", service(Resources={"MemorySwappiness": 1}), "Resources.MemorySwappiness"),
        ("POST /services/create", service(Placement={"Constraints": ["a"]}), "constraint 'a'"),
        ("POST /services/create", service(Placement={"Preferences": [{}]}), "Placement.Preferences"),
        ("POST /services/create", service(Networks=[{"Target": "nosuch"}]), "network nosuch not found"),
        ("POST /services/create", service(ContainerSpec={"Image": "Hello"}), "Hello"),
        (
            "POST /services/create",
            service(ContainerSpec={"Image": "a", "StopGracePeriod": -1}),
            "stop-grace-period",
        ),
        (
            "POST /services/create",
            service(ContainerSpec={"Image": "a", "Mounts": [{"Type": "x", "Target": "/a"}]}),
            "mount type unknown",
        ),
        (
            "POST /services/create",
            service(ContainerSpec={"Image": "a", "Mounts": [{"Type": "volume", "Target": "a"}]}),
            "mount path must be absolute",
        ),
        (
            "POST /services/create",
            service(ContainerSpec={"Image": "a", "HealthCheck": {"Interval": 1}}),
            "Interval in Healthcheck",
        ),
        (
            "POST /networks/create",
            {"Name": "n", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "x"}]}},
            "invalid subnet x",
        ),
        ("POST /networks/create", {"Name": "", "Driver": "overlay"}, "name"),
        ("POST /secrets/create", {"Name": "a/b", "Data": "eA=="}, "invalid name"),
        ("POST /secrets/create", {"Name": "a", "Data": "?"}, "Data"),
        ("POST /configs/create", {"Name": "a", "Data": ""}, "config data"),
        ("POST /swarm/update?version=1", {"CAConfig": {"NodeCertExpiry": 1}}, "certificate expiry"),
        ("POST /swarm/update?version=1", {"CAConfig": {"ForceRotate": 1}}, "CAConfig.ForceRotate"),
        ("POST /swarm/update?version=x", {}, "version"),
    ],
)
def test_wrong_value_in_a_swarm_is_named(member: Api, line: str, body: Any, words: str) -> None:
    status, message = member.ask(line, body)
    assert status == (404 if words.endswith("not found") else 400), message
    assert re.search(words, message), message
