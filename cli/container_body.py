"""The flags of `run` and `create`, and the body of POST /containers/create that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli import parse, parse_mounts, parse_ports, parse_security
from cli.command import refused, repeated, trust_option
from cli.errors import UsageError

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    repeated("--add-host", help="Add a custom host-to-IP mapping (host:ip)"),
    repeated("--annotation", help="Add an annotation to the container (passed to the OCI runtime)"),
    repeated("-a", "--attach", help="Attach to STDIN, STDOUT or STDERR"),
    click.option("--blkio-weight", default=0, help="Block IO (relative weight), between 10 and 1000"),
    repeated("--blkio-weight-device", help="Block IO weight (relative device weight), path:weight"),
    repeated("--cap-add", help="Add Linux capabilities"),
    repeated("--cap-drop", help="Drop Linux capabilities"),
    click.option("--cgroup-parent", default="", help="Parent cgroup for the container"),
    click.option("--cgroupns", default="", help="Cgroup namespace to use (host|private)"),
    click.option("--cidfile", default="", help="Write the container ID to the file"),
    click.option("--cpu-count", default=0, help="CPU count (Windows only)"),
    click.option("--cpu-percent", default=0, help="CPU percent (Windows only)"),
    click.option("--cpu-period", default=0, help="Limit CPU CFS period, in microseconds"),
    click.option("--cpu-quota", default=0, help="Limit CPU CFS quota, in microseconds"),
    click.option("--cpu-rt-period", default=0, help="Limit CPU real-time period in microseconds"),
    click.option("--cpu-rt-runtime", default=0, help="Limit CPU real-time runtime in microseconds"),
    click.option("-c", "--cpu-shares", default=0, help="CPU shares (relative weight)"),
    click.option("--cpus", default="", help="Number of CPUs"),
    click.option("--cpuset-cpus", default="", help="CPUs in which to allow execution (0-3, 0,1)"),
    click.option("--cpuset-mems", default="", help="MEMs in which to allow execution (0-3, 0,1)"),
    repeated("--device", help="Add a host device to the container"),
    repeated("--device-cgroup-rule", help="Add a rule to the cgroup allowed devices list"),
    repeated("--device-read-bps", help="Limit read rate (bytes per second) from a device, path:rate"),
    repeated("--device-read-iops", help="Limit read rate (IO per second) from a device, path:rate"),
    repeated("--device-write-bps", help="Limit write rate (bytes per second) to a device, path:rate"),
    repeated("--device-write-iops", help="Limit write rate (IO per second) to a device, path:rate"),
    trust_option,
    refused(
        "--use-api-socket",
        reason="mount the socket yourself: -v /run/swarmctl/swarmd.sock:/var/run/docker.sock",
        takes_value=False,
    ),
    repeated("--dns", help="Set custom DNS servers"),
    repeated("--dns-option", help="Set DNS options"),
    repeated("--dns-search", help="Set custom DNS search domains"),
    click.option("--domainname", default="", help="Container NIS domain name"),
    click.option("--entrypoint", default=None, help="Overwrite the default ENTRYPOINT of the image"),
    repeated("-e", "--env", help="Set environment variables"),
    repeated("--env-file", help="Read in a file of environment variables"),
    repeated("--expose", help="Expose a port or a range of ports"),
    repeated("--gpus", help="GPU devices to add to the container ('all' to pass all GPUs)"),
    repeated("--group-add", help="Add additional groups to join"),
    click.option("--health-cmd", default="", help="Command to run to check health"),
    click.option("--health-interval", default="", help="Time between running the check (ms|s|m|h)"),
    click.option("--health-retries", default=0, help="Consecutive failures needed to report unhealthy"),
    click.option("--health-start-interval", default="", help="Time between checks during the start period"),
    click.option("--health-start-period", default="", help="Time to initialize before failures count"),
    click.option("--health-timeout", default="", help="Maximum time to allow one check to run"),
    click.option("-h", "--hostname", default="", help="Container host name"),
    click.option("--init", is_flag=True, help="Run an init that forwards signals and reaps processes"),
    click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached"),
    click.option("--ip", default="", help="IPv4 address (e.g., 172.30.100.104)"),
    click.option("--io-maxbandwidth", default="", help="Maximum IO bandwidth limit (Windows only)"),
    click.option("--io-maxiops", default=0, help="Maximum IOps limit (Windows only)"),
    click.option("--ip6", default="", help="IPv6 address (e.g., 2001:db8::33)"),
    click.option("--ipc", default="", help="IPC mode to use"),
    click.option("--isolation", default="", help="Container isolation technology"),
    click.option("--kernel-memory", default="", help="Kernel memory limit (no kernel has it any more)"),
    repeated("-l", "--label", help="Set meta data on a container"),
    repeated("--label-file", help="Read in a line delimited file of labels"),
    repeated("--link", help="Add link to another container"),
    repeated("--link-local-ip", help="Container IPv4/IPv6 link-local addresses"),
    click.option("--log-driver", default="", help="Logging driver for the container"),
    repeated("--log-opt", help="Log driver options"),
    click.option("--mac-address", default="", help="Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    click.option("-m", "--memory", default="", help="Memory limit"),
    click.option("--memory-reservation", default="", help="Memory soft limit"),
    click.option("--memory-swap", default="", help="Memory plus swap: '-1' for unlimited swap"),
    click.option("--memory-swappiness", default=-1, help="Tune container memory swappiness (0 to 100)"),
    repeated("--mount", help="Attach a filesystem mount to the container"),
    click.option("--name", default="", help="Assign a name to the container"),
    repeated("--network", "--net", help="Connect a container to a network"),
    repeated("--network-alias", "--net-alias", help="Add network-scoped alias for the container"),
    click.option("--no-healthcheck", is_flag=True, help="Disable any container-specified HEALTHCHECK"),
    click.option("--oom-kill-disable", is_flag=True, help="Disable OOM Killer"),
    click.option("--oom-score-adj", default=0, help="Tune host's OOM preferences (-1000 to 1000)"),
    click.option("--pid", default="", help="PID namespace to use"),
    click.option("--pids-limit", default=0, help="Tune container pids limit (-1 for unlimited)"),
    click.option("--platform", default="", help="Set platform if server is multi-platform capable"),
    click.option("--privileged", is_flag=True, help="Give extended privileges to this container"),
    repeated("-p", "--publish", help="Publish a container's port(s) to the host"),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports to random ports"),
    click.option(
        "--pull", default="missing", help='Pull image before running ("always", "missing", "never")'
    ),
    click.option("-q", "--quiet", is_flag=True, help="Suppress the pull output"),
    click.option("--read-only", is_flag=True, help="Mount the container's root filesystem as read only"),
    click.option("--restart", default="no", help="Restart policy to apply when a container exits"),
    click.option(
        "--rm", "auto_remove", is_flag=True, help="Remove the container and its volumes when it exits"
    ),
    click.option("--runtime", default="", help="Runtime to use for this container"),
    repeated("--security-opt", help="Security Options"),
    click.option("--shm-size", default="", help="Size of /dev/shm"),
    click.option("--stop-signal", default="", help="Signal to stop the container"),
    click.option("--stop-timeout", type=int, default=None, help="Timeout (in seconds) to stop a container"),
    repeated("--storage-opt", help="Storage driver options for the container"),
    repeated("--sysctl", help="Sysctl options"),
    repeated("--tmpfs", help="Mount a tmpfs directory"),
    click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY"),
    repeated("--ulimit", help="Ulimit options"),
    click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    click.option("--userns", default="", help="User namespace to use"),
    click.option("--uts", default="", help="UTS namespace to use"),
    repeated("-v", "--volume", help="Bind mount a volume"),
    click.option("--volume-driver", default="", help="Optional volume driver for the container"),
    repeated("--volumes-from", help="Mount volumes from the specified container(s)"),
    click.option("-w", "--workdir", default="", help="Working directory inside the container"),
)

Options = dict[str, Any]


def container_options(function: Any) -> Any:
    """Adds the flags that `run` and `create` share."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def create_body(options: Options, image: str, words: tuple[str, ...]) -> dict[str, Any]:
    """ContainerConfig + HostConfig + NetworkingConfig; attaching is decided by the caller."""
    exposed, bindings = parse_ports.container_ports(list(options["publish"]), list(options["expose"]))
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for text in options["volume"]:
        kind, value = parse_mounts.volume(text)
        if kind == "anonymous":
            volumes[value] = {}
        else:
            binds.append(value)
    networks = [_network(text) for text in options["network"]]
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": list(words) or None,
        "Hostname": options["hostname"],
        "Domainname": options["domainname"],
        "User": options["user"],
        "Tty": options["tty"],
        "OpenStdin": options["interactive"],
        "StdinOnce": False,
        "Env": parse.environment(options["env"], options["env_file"]),
        "Labels": parse.labels(options["label"], options["label_file"]),
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "WorkingDir": options["workdir"],
        "StopSignal": options["stop_signal"] or None,
        "StopTimeout": options["stop_timeout"],
        "Healthcheck": healthcheck(options),
        "HostConfig": _host_config(options, binds, bindings, networks),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(options, networks)},
    }
    if options["entrypoint"] is not None:
        # An empty --entrypoint takes the image's own away.
        body["Entrypoint"] = [options["entrypoint"]]
    return {key: value for key, value in body.items() if value is not None}


def _host_config(
    options: Options, binds: list[str], bindings: dict[str, Any], networks: list[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    restart = restart_policy(options["restart"])
    if options["pid"] not in ("", "host") and not options["pid"].startswith("container:"):
        raise UsageError("--pid: invalid PID mode", hint="host, or container:NAME")
    if options["auto_remove"] and restart["Name"] not in ("no", ""):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    host = {
        "Binds": binds,
        "PortBindings": bindings,
        "PublishAllPorts": options["publish_all"],
        "NetworkMode": networks[0][0] if networks else "default",
        "RestartPolicy": restart,
        "AutoRemove": options["auto_remove"],
        "VolumesFrom": list(options["volumes_from"]),
        "Mounts": [parse_mounts.mount(text) for text in options["mount"]],
        "Tmpfs": parse_mounts.tmpfs(list(options["tmpfs"])),
        "CapAdd": parse.capabilities(options["cap_add"]),
        "CapDrop": parse.capabilities(options["cap_drop"]),
        "Dns": list(options["dns"]),
        "DnsOptions": list(options["dns_option"]),
        "DnsSearch": list(options["dns_search"]),
        "ExtraHosts": [":".join(parse.host_entry(text)) for text in options["add_host"]],
        "GroupAdd": list(options["group_add"]),
        "IpcMode": options["ipc"],
        "Links": list(options["link"]),
        "OomScoreAdj": options["oom_score_adj"],
        "PidMode": options["pid"],
        "Privileged": options["privileged"],
        "ReadonlyRootfs": options["read_only"],
        "StorageOpt": parse.key_values(options["storage_opt"], "storage-opt"),
        "Annotations": parse.key_values(options["annotation"], "annotation"),
        "Isolation": options["isolation"],
        "VolumeDriver": options["volume_driver"],
        "ContainerIDFile": options["cidfile"],
        "UTSMode": options["uts"],
        "UsernsMode": options["userns"],
        "Sysctls": parse.key_values(options["sysctl"], "sysctl"),
        "Runtime": options["runtime"],
        "ConsoleSize": [0, 0],
        "ShmSize": parse.size_bytes(options["shm_size"]) if options["shm_size"] else 0,
        "LogConfig": {
            "Type": options["log_driver"],
            "Config": parse.key_values(options["log_opt"], "log-opt"),
        },
        "Ulimits": parse.ulimits(options["ulimit"]),
        "Devices": [_device(text) for text in options["device"]],
        "DeviceCgroupRules": list(options["device_cgroup_rule"]),
        "CgroupParent": options["cgroup_parent"],
        "CgroupnsMode": options["cgroupns"],
        "Init": True if options["init"] else None,
    }
    host |= _limits(options)
    given = {
        key: value for key, value in host.items() if value not in (None, "", 0, [], {}) or value is False
    }
    if options["memory_swappiness"] != -1:
        given["MemorySwappiness"] = options["memory_swappiness"]  # 0 is a wish too
    return given | parse_security.security_options(options["security_opt"])


def _limits(options: Options) -> dict[str, Any]:
    if options["cpus"] and (options["cpu_period"] or options["cpu_quota"]):
        raise UsageError("conflicting options: --cpus cannot be combined with --cpu-period or --cpu-quota")
    return {
        "BlkioWeight": options["blkio_weight"],
        "BlkioWeightDevice": [
            {"Path": path, "Weight": weight}
            for path, weight in map(_device_number, options["blkio_weight_device"])
        ],
        **{
            field: [{"Path": path, "Rate": rate} for path, rate in map(_device_number, options[name])]
            for field, name in (
                ("BlkioDeviceReadBps", "device_read_bps"),
                ("BlkioDeviceWriteBps", "device_write_bps"),
                ("BlkioDeviceReadIOps", "device_read_iops"),
                ("BlkioDeviceWriteIOps", "device_write_iops"),
            )
        },
        "CpuPeriod": options["cpu_period"],
        "CpuQuota": options["cpu_quota"],
        "CpuShares": options["cpu_shares"],
        "CpusetCpus": options["cpuset_cpus"],
        "CpusetMems": options["cpuset_mems"],
        "NanoCpus": parse.nano_cpus(options["cpus"]) if options["cpus"] else 0,
        "Memory": parse.size_bytes(options["memory"]) if options["memory"] else 0,
        "MemoryReservation": parse.size_bytes(options["memory_reservation"])
        if options["memory_reservation"]
        else 0,
        "MemorySwap": swap_bytes(options["memory_swap"]),
        "KernelMemory": parse.size_bytes(options["kernel_memory"]) if options["kernel_memory"] else 0,
        "OomKillDisable": True if options["oom_kill_disable"] else None,
        "PidsLimit": options["pids_limit"],
        "CpuRealtimePeriod": options["cpu_rt_period"],
        "CpuRealtimeRuntime": options["cpu_rt_runtime"],
        "CpuCount": options["cpu_count"],
        "CpuPercent": options["cpu_percent"],
        "IOMaximumIOps": options["io_maxiops"],
        "IOMaximumBandwidth": parse.size_bytes(options["io_maxbandwidth"])
        if options["io_maxbandwidth"]
        else 0,
        "DeviceRequests": parse_security.device_requests(options["gpus"]),
    }


def _device_number(text: str) -> tuple[str, int]:
    """/dev/sda:1mb, /dev/sda:300"""
    path, _, number = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise UsageError(f"bad format for path: {text}", hint="such as /dev/sda:1mb")
    return path, parse.size_bytes(number)


def swap_bytes(text: str) -> int:
    """0 for none given, -1 for unlimited."""
    if text == "-1":
        return -1
    return parse.size_bytes(text) if text else 0


def restart_policy(text: str) -> dict[str, Any]:
    """no, always, unless-stopped, on-failure[:max-retries]"""
    name, colon, count = text.partition(":")
    if colon and not count.isdigit():
        raise UsageError(
            f"invalid restart policy format: maximum retry count must be an integer: {text}",
            hint="no, always, unless-stopped, on-failure[:max-retries]",
        )
    return {"Name": name, "MaximumRetryCount": int(count) if colon else 0}


def healthcheck(options: Options) -> dict[str, Any] | None:
    """HealthConfig of the --health-* flags; None when none is given."""
    durations = {
        "Interval": "health_interval",
        "Timeout": "health_timeout",
        "StartPeriod": "health_start_period",
        "StartInterval": "health_start_interval",
    }
    config: dict[str, Any] = {
        field: parse.positive_nanoseconds(options[name]) for field, name in durations.items() if options[name]
    }
    if options["health_cmd"]:
        config["Test"] = ["CMD-SHELL", options["health_cmd"]]
    if options["health_retries"]:
        config["Retries"] = options["health_retries"]
    if options["no_healthcheck"]:
        if config:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    return config or None


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0].startswith("/"):
        raise UsageError(f"{parts[0]} is not an absolute path", hint="such as /dev/fuse:/dev/fuse:rwm")
    inside = parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]
    mode = parts[-1] if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    if not set(mode) <= set("rwm"):
        raise UsageError(f'invalid device mode "{mode}" in "{text}"', hint="letters of rwm")
    return {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": mode}


def _network(text: str) -> tuple[str, dict[str, Any]]:
    """NAME, or name=NAME,alias=A,ip=ADDRESS,... to (name, EndpointSettings)."""
    if "=" not in text:
        return text, {}
    name = ""
    settings: dict[str, Any] = {}
    options: dict[str, str] = {}
    for key, value in parse.comma_fields(text, "network"):
        if key == "name":
            name = value or ""
        elif key == "alias":
            settings.setdefault("Aliases", []).append(value or "")
        elif key in ("ip", "ip6"):
            settings.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = value
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "driver-opt" and value:
            options |= parse.key_values([value], "network driver-opt")
        else:
            raise UsageError(
                f'invalid field key "{key}" in --network "{text}"', hint="name, alias, ip, driver-opt"
            )
    if not name:
        raise UsageError(f'invalid network "{text}": the name is missing', hint="name=NAME,alias=ALIAS")
    if options:
        settings["DriverOpts"] = options
    return name, settings


def _endpoints(options: Options, networks: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    first = networks[0][1] if networks else {}
    if options["network_alias"]:
        first["Aliases"] = [*first.get("Aliases", []), *options["network_alias"]]
    for field, name in (("IPv4Address", "ip"), ("IPv6Address", "ip6"), ("LinkLocalIPs", "link_local_ip")):
        if options[name]:
            value = options[name] if isinstance(options[name], str) else list(options[name])
            first.setdefault("IPAMConfig", {})[field] = value
    if options["mac_address"]:
        first["MacAddress"] = options["mac_address"]
    if networks:
        return dict(networks)
    return {"default": first} if first else {}
