"""From flags of `run` to the body of POST /containers/create; how a failed start becomes an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from cli.command import Command
from cli.commands.run import start_failure_status
from cli.container_body import container_options, create_body
from cli.errors import UsageError


def body(*words: str, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command(cls=Command)
    @container_options
    def command(**values: Any) -> None:
        seen.update(values)

    command.main(list(words), standalone_mode=False)
    return create_body(seen, "image", arguments)


def test_a_plain_container() -> None:
    made = body(arguments=("sh", "-c", "true"))
    assert (made["Image"], made["Cmd"]) == ("image", ["sh", "-c", "true"])
    assert made["HostConfig"]["NetworkMode"] == "default"
    assert "Entrypoint" not in made
    assert "Healthcheck" not in made


def test_many_flags() -> None:
    made = body(
        *(
            "-it",
            "--rm",
            "-m",
            "64m",
            "--memory-swap",
            "-1",
            "--cpus",
            "1.5",
            "--pids-limit",
            "9",
            "-p",
            "80:8080/udp",
        ),
        *(
            "-v",
            "data:/data",
            "-v",
            "/anonymous",
            "--tmpfs",
            "/run:size=1m",
            "--mount",
            "type=bind,src=/a,dst=/b",
        ),
        *("--network", "front", "--network-alias", "www", "--ip", "10.0.0.9", "--ulimit", "nofile=10:20"),
        *(
            "--entrypoint",
            "",
            "--init",
            "--device",
            "/dev/fuse:rw",
            "--add-host",
            "db:10.0.0.1",
            "--sysctl",
            "a.b=1",
        ),
    )
    host = made["HostConfig"]
    assert (made["Tty"], made["OpenStdin"], host["AutoRemove"], host["Init"]) == (True, True, True, True)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        64 << 20,
        -1,
        15 * 10**8,
        9,
    )
    assert host["PortBindings"] == {"8080/udp": [{"HostIp": "", "HostPort": "80"}]}
    assert made["ExposedPorts"] == {"8080/udp": {}}
    assert (host["Binds"], made["Volumes"]) == (["data:/data"], {"/anonymous": {}})
    assert host["Tmpfs"] == {"/run": "size=1m"}
    assert host["Mounts"] == [{"Type": "bind", "Source": "/a", "Target": "/b"}]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Devices"][0] == {
        "PathOnHost": "/dev/fuse",
        "PathInContainer": "/dev/fuse",
        "CgroupPermissions": "rw",
    }
    assert host["ExtraHosts"] == ["db:10.0.0.1"]
    assert host["NetworkMode"] == "front"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}
    }
    assert made["Entrypoint"] == [""]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--restart", "on-failure:many"], "must be an integer: on-failure:many"),
        (["--restart", "always", "--rm"], "cannot specify both"),
        (["--cpus", "1", "--cpu-quota", "5"], "--cpus cannot be combined"),
        (["--device", "fuse"], "fuse is not an absolute path"),
        (["--device", "/dev/fuse:/dev/x:qq"], '"qq"'),
        (["--ulimit", "nofile"], '"nofile" for "--ulimit" flag'),
        (["--sysctl", "novalue"], '"novalue"'),
        (["-e", "=x"], "=x"),
        (["--add-host", "db"], '"db"'),
        (["--tmpfs", "run"], '"run"'),
    ],
)
def test_wrong_values_are_named(words: list[str], problem: str) -> None:
    with pytest.raises((UsageError, click.UsageError), match=problem):
        body(*words)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec /x: no such file or directory", 127),
        ("exec /etc/passwd: permission denied", 126),
        ("exec /etc: is a directory", 126),
        ("Ports are not available", 125),
    ],
)
def test_exit_status_of_a_start_that_failed(message: str, status: int) -> None:
    assert start_failure_status(message) == status


def test_limits_of_devices() -> None:
    made = body(
        *("--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sdb:300"),
        *("--blkio-weight-device", "/dev/sda:200", "--device-cgroup-rule", "c 1:3 rwm"),
        *("--memory-swappiness", "0", "--cgroup-parent", "/apps", "--cgroupns", "host"),
    )["HostConfig"]
    assert made["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert made["BlkioDeviceWriteIOps"] == [{"Path": "/dev/sdb", "Rate": 300}]
    assert made["BlkioWeightDevice"] == [{"Path": "/dev/sda", "Weight": 200}]
    assert made["DeviceCgroupRules"] == ["c 1:3 rwm"]
    assert (made["MemorySwappiness"], made["CgroupParent"], made["CgroupnsMode"]) == (0, "/apps", "host")
    assert "MemorySwappiness" not in body()["HostConfig"]
    with pytest.raises(UsageError, match="bad format for path: sda:1mb"):
        body("--device-read-bps", "sda:1mb")


def test_a_seccomp_profile_is_read_by_the_client(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    host = body("--security-opt", f"seccomp={tmp_path}/profile.json", "--security-opt", "no-new-privileges")
    assert host["HostConfig"]["SecurityOpt"] == [
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',
        "no-new-privileges",
    ]
    with pytest.raises(UsageError, match="opening seccomp profile"):
        body("--security-opt", "seccomp=/nowhere")
    open_paths = body("--security-opt", "systempaths=unconfined")["HostConfig"]
    assert (open_paths["MaskedPaths"], open_paths["ReadonlyPaths"]) == ([], [])
    with pytest.raises(UsageError, match="Invalid --security-opt"):
        body("--security-opt", "bogus")


def test_flags_that_only_the_daemon_can_judge_reach_it() -> None:
    made = body(
        *("--gpus", "all", "--storage-opt", "size=1G", "--annotation", "a=b", "--isolation", "hyperv"),
        *(
            "--ip6",
            "fd00::2",
            "--link-local-ip",
            "169.254.1.1",
            "--cpu-rt-runtime",
            "1000",
            "--volume-driver",
            "nfs",
        ),
    )
    host = made["HostConfig"]
    assert host["DeviceRequests"][0]["Count"] == -1
    assert (host["StorageOpt"], host["Annotations"]) == ({"size": "1G"}, {"a": "b"})
    assert (host["Isolation"], host["CpuRealtimeRuntime"], host["VolumeDriver"]) == ("hyperv", 1000, "nfs")
    assert made["NetworkingConfig"]["EndpointsConfig"]["default"]["IPAMConfig"] == {
        "IPv6Address": "fd00::2",
        "LinkLocalIPs": ["169.254.1.1"],
    }


@pytest.mark.parametrize(
    ("recursion", "options"),
    [("disabled", {"NonRecursive": True}), ("writable", {"ReadOnlyNonRecursive": True})],
)
def test_how_deep_a_bind_mount_reaches(recursion: str, options: dict[str, bool]) -> None:
    made = body("--mount", f"type=bind,source=/,target=/x,readonly,bind-recursive={recursion}")
    assert made["HostConfig"]["Mounts"][0]["BindOptions"] == options
