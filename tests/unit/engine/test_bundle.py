from __future__ import annotations

import json
from typing import Any

import pytest

from engine.bundle import BundleContext, SecurityOptions, build_spec, device_rules, resources_section
from engine.config import ContainerConfig, DeviceMapping, HostConfig, Ulimit
from engine.container import ResolvedMount
from engine.creation import checked_host_config
from engine.errors import InvalidParameter
from engine.runtime.limit_support import LimitSupport
from tests.records import container_record, volume_mount

MIB = 1024 * 1024


def context(**fields: Any) -> BundleContext:
    files = {"hostname_path": "/c/hostname", "hosts_path": "/c/hosts", "resolv_path": "/c/resolv.conf"}
    return BundleContext(
        **{"uid": 0, "gid": 0, "groups": (), "environment": ("A=1",), "hostname": "h", **files, **fields}
    )


def spec(
    host: HostConfig | None = None, mounts: tuple[ResolvedMount, ...] = (), **fields: Any
) -> dict[str, Any]:
    return build_spec(container_record(host=host, mounts=list(mounts)), context(**fields))


def targets(made: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in made["mounts"]]


def mount_at(made: dict[str, Any], target: str) -> dict[str, Any]:
    return next(mount for mount in made["mounts"] if mount["destination"] == target)


def test_a_plain_container() -> None:
    made = spec()
    assert [n["type"] for n in made["linux"]["namespaces"]] == ["mount", "pid", "ipc", "uts", "cgroup"]
    assert made["process"]["args"] == ["server", "--fast"]
    assert made["process"]["cwd"] == "/"
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    assert "/proc/sys" in made["linux"]["readonlyPaths"]
    assert "seccomp" in made["linux"]
    assert "ro" in mount_at(made, "/sys")["options"]
    assert made["linux"]["resources"] == {"devices": device_rules(HostConfig())}


def test_a_privileged_container() -> None:
    made = spec(HostConfig(privileged=True))
    linux = made["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert "seccomp" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in mount_at(made, "/sys")["options"]


def test_another_user_has_its_capabilities_only_as_a_bound() -> None:
    held = spec(uid=1000)["process"]["capabilities"]
    assert held["effective"] == held["permitted"] == held["ambient"] == []
    assert "CAP_CHOWN" in held["bounding"]


@pytest.mark.parametrize(
    ("host", "resources"),
    [
        (HostConfig(memory=64 * MIB), {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        (HostConfig(memory=64 * MIB, memory_swap=-1), {"memory": {"limit": 64 * MIB, "swap": -1}}),
        (
            HostConfig(memory=64 * MIB, memory_swap=64 * MIB),
            {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
        ),
        (HostConfig(memory_reservation=8 * MIB), {"memory": {"reservation": 8 * MIB}}),
        (HostConfig(memory_swappiness=0), {"memory": {"swappiness": 0}}),
        (HostConfig(memory_swappiness=-1, pids_limit=0), {}),
        (HostConfig(pids_limit=-1), {"pids": {"limit": -1}}),
        (HostConfig(nano_cpus=1_500_000_000), {"cpu": {"period": 100_000, "quota": 150_000}}),
        (
            HostConfig(cpu_shares=512, cpu_period=50_000, cpu_quota=25_000, cpuset_cpus="0-1"),
            {"cpu": {"shares": 512, "period": 50_000, "quota": 25_000, "cpus": "0-1"}},
        ),
        (HostConfig(pids_limit=100, blkio_weight=300), {"pids": {"limit": 100}, "blockIO": {"weight": 300}}),
    ],
)
def test_limits(host: HostConfig, resources: dict[str, Any]) -> None:
    made = resources_section(host)
    del made["devices"]
    assert made == resources


def test_limits_of_processes() -> None:
    made = spec(HostConfig(ulimits=[Ulimit(name="nofile", soft=10, hard=20)], oom_score_adj=-500))
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert made["process"]["oomScoreAdj"] == -500


def test_network_settings_are_not_the_runtimes() -> None:
    made = spec(HostConfig(sysctls={"net.core.somaxconn": "1024", "kernel.shmmax": "1"}))
    assert made["linux"]["sysctl"] == {"kernel.shmmax": "1"}


def test_mounts_of_the_user() -> None:
    made = spec(
        mounts=(
            volume_mount("data", "/data", read_only=True),
            ResolvedMount(kind="bind", source="/srv", target="/srv", propagation="rslave"),
            ResolvedMount(kind="bind", source="/one", target="/one", non_recursive=True),
            ResolvedMount(kind="tmpfs", source="", target="/run", options=["nosuid", "size=1m"]),
        )
    )
    assert mount_at(made, "/data")["options"] == ["rbind", "rprivate", "rro"]
    assert mount_at(made, "/srv")["options"] == ["rbind", "rslave"]
    assert mount_at(made, "/one")["options"] == ["bind", "rprivate"]
    assert mount_at(made, "/run") == {
        "destination": "/run",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "size=1m", "rw"],
    }


def test_files_of_the_network_show_also_in_a_volume_at_etc() -> None:
    order = targets(spec(mounts=(volume_mount("etc", "/etc"),)))
    assert order.index("/etc") < order.index("/etc/hosts")


def test_what_the_user_mounts_takes_the_place_of_a_default() -> None:
    mounts = (volume_mount("hosts", "/etc/hosts"), volume_mount("shm", "/dev/shm"))
    made = spec(mounts=mounts)
    assert targets(made).count("/etc/hosts") == targets(made).count("/dev/shm") == 1
    assert mount_at(made, "/dev/shm")["source"] == "/volumes/shm/_data"
    below_dev = [t for t in targets(spec(mounts=(volume_mount("dev", "/dev"),))) if t.startswith("/dev")]
    assert below_dev == ["/dev"]


def test_secrets_lie_over_everything_and_cannot_be_written() -> None:
    made = spec(mounts=(volume_mount("run", "/run"),), memory_files=(("/m/0", "/run/secrets/key"),))
    assert made["mounts"][-1] == {
        "destination": "/run/secrets/key",
        "type": "bind",
        "source": "/m/0",
        "options": ["bind", "rprivate", "ro"],
    }


def test_shared_memory_follows_the_ipc_mode() -> None:
    assert "size=1048576" in mount_at(spec(HostConfig(shm_size=MIB)), "/dev/shm")["options"]
    shared = spec(HostConfig(ipc_mode="host"), ipc_namespace="host")
    assert mount_at(shared, "/dev/shm")["source"] == "/dev/shm"
    assert "/dev/shm" not in targets(spec(HostConfig(ipc_mode="none")))


def test_a_device() -> None:
    host = HostConfig(
        devices=[
            DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/hole", cgroup_permissions="r")
        ]
    )
    made = spec(host)
    device = made["linux"]["devices"][0]
    assert (device["path"], device["type"], device["major"], device["minor"]) == ("/dev/hole", "c", 1, 3)
    rule = made["linux"]["resources"]["devices"][-1]
    assert (rule["major"], rule["minor"], rule["access"]) == (1, 3, "r")
    with pytest.raises(InvalidParameter, match='custom device "/nowhere"'):
        spec(HostConfig(devices=[DeviceMapping(path_on_host="/nowhere")]))
    with pytest.raises(InvalidParameter, match="not a device node"):
        spec(HostConfig(devices=[DeviceMapping(path_on_host="/etc/passwd")]))
    with pytest.raises(InvalidParameter, match="no devices in that folder"):
        spec(HostConfig(devices=[DeviceMapping(path_on_host="/proc/self/ns")]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], SecurityOptions()),
        (["no-new-privileges"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges:true"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges=false"], SecurityOptions()),
        (["seccomp=unconfined"], SecurityOptions(seccomp="unconfined")),
        (["seccomp:unconfined"], SecurityOptions(seccomp="unconfined")),
        (["seccomp=builtin", "label=disable", "apparmor=unconfined"], SecurityOptions()),
        (['seccomp={"a": "b=c"}'], SecurityOptions(seccomp='{"a": "b=c"}')),
    ],
)
def test_security_options(options: list[str], expected: SecurityOptions) -> None:
    assert SecurityOptions.parse(HostConfig(security_opt=options)) == expected


@pytest.mark.parametrize("option", ["no-new-privileges=maybe", "apparmor=profile", "label=user:x", "bogus"])
def test_security_options_that_cannot_be_honoured_are_refused_early(option: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid --security-opt"):
        checked_host_config(HostConfig(security_opt=[option]), ContainerConfig(), LimitSupport())


def test_an_own_seccomp_profile_holds_also_when_privileged() -> None:
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []})
    made = spec(HostConfig(privileged=True, security_opt=[f"seccomp={profile}"]))
    assert made["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"
