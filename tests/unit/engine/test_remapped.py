from __future__ import annotations

import pytest

from engine.bundle import BundleContext, build_spec
from engine.config import DeviceMapping, HostConfig
from engine.container import ResolvedMount
from engine.errors import InvalidParameter
from engine.option_checks import check_remapped
from engine.runtime.user_namespaces import Remapping
from tests.records import container_record, volume_mount


def test_everything_that_is_made_belongs_to_the_containers_root() -> None:
    container = container_record(
        host=HostConfig(devices=[DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/mine")]),
        mounts=[
            volume_mount("data", "/data"),
            ResolvedMount(kind="bind", source="/srv", target="/srv"),
            ResolvedMount(kind="tmpfs", source="", target="/run", options=["size=1m", "uid=7"]),
        ],
    )
    context = BundleContext(
        uid=0,
        gid=0,
        groups=(),
        environment=(),
        hostname="h",
        hostname_path="",
        hosts_path="",
        resolv_path="",
        remapping=Remapping(uid=100_000, gid=200_000),
        user_namespace="/proc/1/fd/9",
    )
    spec = build_spec(container, context)
    options = {mount["destination"]: mount["options"] for mount in spec["mounts"]}
    assert "idmap" in options["/data"] and "idmap" not in options["/srv"]
    assert options["/run"] == ["size=1m", "uid=100007", "rw", "gid=200000"]
    assert {"uid=100000", "gid=200000"} <= set(options["/dev/shm"]) and "gid=200005" in options["/dev/pts"]
    linux = spec["linux"]
    assert linux["namespaces"][-1] == {"type": "user", "path": "/proc/1/fd/9"}
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    assert (linux["devices"][0]["uid"], linux["devices"][0]["gid"]) == (100_000, 200_000)


@pytest.mark.parametrize(
    "host",
    [HostConfig(privileged=True), HostConfig(network_mode="host"), HostConfig(pid_mode="host")],
)
def test_what_only_users_of_the_host_may_have(host: HostConfig) -> None:
    with pytest.raises(InvalidParameter, match="--userns host"):
        check_remapped(host)
    host.userns_mode = "host"
    assert check_remapped(host) == []


def test_added_capabilities_are_warned_of() -> None:
    assert "SYS_ADMIN was added, but gives no right" in check_remapped(HostConfig(cap_add=["SYS_ADMIN"]))[0]
