"""From a container to the OCI runtime configuration that any OCI runtime can run. Pure.

Source: OCI runtime specification 1.1, config.md; defaults (mounts, masked paths, devices) as Docker's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from engine import remapped
from engine.config import HostConfig
from engine.container import Container, ResolvedMount
from engine.devices import all_host_devices, block_device, device_rule, host_devices
from engine.errors import InvalidParameter
from engine.runtime import capabilities, seccomp
from engine.runtime.user_namespaces import Remapping

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
INIT_PATH = "/sbin/docker-init"
CPU_PERIOD_US = 100_000
OPEN_FILES_SOFT, OPEN_FILES_HARD = 1024, 524_288


class BundleContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the host adds: paths of made files, resolved ids, namespaces of other containers."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: tuple[str, ...]
    hostname: str
    hostname_path: str
    hosts_path: str
    resolv_path: str
    open_files_max: int = OPEN_FILES_HARD  # RLIMIT_NOFILE that can be given at most
    memory_files: tuple[tuple[str, str], ...] = ()  # (path on the host's tmpfs, target)
    shm_path: str = ""  # of a /dev/shm that other containers may share; "" makes one of its own
    user_namespace: str = ""  # path of one with the mapping `remapping`
    remapping: Remapping | None = None
    init_program: str = ""  # on the host; "" runs the command itself as the first process
    pid_namespace: str = ""  # path of a namespace to join; "host" shares the host's
    ipc_namespace: str = ""
    uts_namespace: str = ""
    cgroup_namespace: str = ""


def build_spec(container: Container, context: BundleContext) -> dict[str, Any]:
    """The content of config.json. InvalidParameter for options that cannot be honoured."""
    host = container.host_config
    security = SecurityOptions.parse(host)
    caps = capabilities.container_capabilities(
        add=host.cap_add or (), drop=host.cap_drop or (), privileged=host.privileged
    )
    spec: dict[str, Any] = {
        "ociVersion": "1.1.0",
        "hostname": context.hostname,
        "domainname": container.config.domainname,
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "process": process_section(container, context, caps, security),
        "mounts": _mounts(container, context),
        "annotations": dict(host.annotations or {}),
        "linux": {
            "namespaces": _namespaces(context),
            "resources": resources_section(host),
            "maskedPaths": shown_paths(host.masked_paths, MASKED_PATHS, host.privileged),
            "readonlyPaths": shown_paths(host.readonly_paths, READONLY_PATHS, host.privileged),
            "devices": [],
            "sysctl": {
                name: value for name, value in (host.sysctls or {}).items() if not name.startswith("net.")
            },
        },
    }
    devices = [
        device
        for wish in host.devices or ()
        for device in host_devices(wish.path_on_host, wish.path_in_container)
    ]
    if host.privileged:
        given = {device["path"] for device in devices}
        devices += [device for device in all_host_devices() if device["path"] not in given]
    spec["linux"]["devices"] = devices
    if context.remapping is not None:
        remapped.apply(spec, context.remapping, context.user_namespace, _volume_targets(container))
    if security.seccomp != "unconfined" and (security.seccomp or not host.privileged):
        spec["linux"]["seccomp"] = seccomp.container_profile(security.seccomp, caps)
    return spec


def _volume_targets(container: Container) -> set[str]:
    return {mount.target for mount in container.mounts if mount.kind == "volume"}


class SecurityOptions(msgspec.Struct, frozen=True):
    """`--security-opt`: no-new-privileges, the seccomp profile ("" is the default one, else JSON text), and whether
    the control groups can be written from inside."""

    no_new_privileges: bool = False
    seccomp: str = ""
    writable_cgroups: bool = False

    @classmethod
    def parse(cls, host: HostConfig) -> SecurityOptions:
        no_new_privileges, profile, writable_cgroups = False, "", host.privileged
        for option in host.security_opt or ():
            name, _, value = option.partition("=" if "=" in option.partition(":")[0] else ":")
            if name == "no-new-privileges" and value in ("", "true", "false"):
                no_new_privileges = value != "false"
            elif name == "seccomp":
                profile = "" if value == "builtin" else value
            elif name == "writable-cgroups" and value in ("", "true", "false"):
                writable_cgroups = value != "false"
            elif (name, value) not in (("label", "disable"), ("apparmor", "unconfined")):
                raise InvalidParameter(_unknown_option(name, option))
        return cls(no_new_privileges, profile, writable_cgroups)


def _unknown_option(name: str, option: str) -> str:
    if name in ("apparmor", "label"):
        what = {"apparmor": "AppArmor profiles", "label": "SELinux labels"}[name]
        word = {"apparmor": "unconfined", "label": "disable"}[name]
        return (
            f'invalid --security-opt "{option}": {what} are not supported: leave it out, or use {name}={word}'
        )
    return (
        f'invalid --security-opt "{option}": known are no-new-privileges, writable-cgroups, seccomp=unconfined '
        "and seccomp=<profile>"
    )


def process_section(
    container: Container, context: BundleContext, caps: Sequence[str], security: SecurityOptions
) -> dict[str, Any]:
    """The `process` object of the first process; exec starts from the same one."""
    host = container.host_config
    process: dict[str, Any] = {
        "terminal": container.config.tty,
        "user": {"uid": context.uid, "gid": context.gid, "additionalGids": list(context.groups)},
        "args": [INIT_PATH, "--", *container.process_args]
        if context.init_program
        else container.process_args,
        "env": list(context.environment),
        "cwd": container.config.working_dir or "/",
        "capabilities": process_capabilities(caps, context.uid),
        "noNewPrivileges": security.no_new_privileges,
        "rlimits": _limits(host, context.open_files_max),
    }
    if host.oom_score_adj:
        process["oomScoreAdj"] = host.oom_score_adj
    if host.console_size:
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    return process


def _limits(host: HostConfig, open_files_max: int) -> list[dict[str, Any]]:
    """The supervisor's own limit of open files is no measure for containers: they get what services have by default."""
    limits = {limit.name.upper(): (limit.soft, limit.hard) for limit in host.ulimits or ()}
    defaults = min(OPEN_FILES_SOFT, open_files_max), min(OPEN_FILES_HARD, open_files_max)
    limits.setdefault("NOFILE", defaults)
    return [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard} for name, (soft, hard) in limits.items()]


def process_capabilities(caps: Sequence[str], uid: int) -> dict[str, list[str]]:
    """As Docker: root has them in force, another user only in the bounding set."""
    names = list(caps)
    held = names if uid == 0 else []
    return {"bounding": names, "effective": held, "permitted": held, "inheritable": [], "ambient": []}


def resources_section(host: HostConfig) -> dict[str, Any]:
    """`linux.resources` from the limits of HostConfig; unset limits are left out."""
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
        memory["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    resources: dict[str, Any] = {"devices": device_rules(host)}
    if memory:
        resources["memory"] = memory
    cpu = _cpu_section(host)
    if cpu:
        resources["cpu"] = cpu
    if host.pids_limit:
        # Below 0 is no limit: said, so that an update takes one away.
        resources["pids"] = {"limit": host.pids_limit}
    block = _block_section(host)
    if block:
        resources["blockIO"] = block
    return resources


def _block_section(host: HostConfig) -> dict[str, Any]:
    block: dict[str, Any] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    if host.blkio_weight_device:
        block["weightDevice"] = [
            {**block_device(device.path), "weight": device.weight} for device in host.blkio_weight_device
        ]
    for key, devices in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if devices:
            block[key] = [{**block_device(device.path), "rate": device.rate} for device in devices]
    return block


def _cpu_section(host: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu["period"], cpu["quota"] = CPU_PERIOD_US, host.nano_cpus * CPU_PERIOD_US // 1_000_000_000
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    return cpu


def device_rules(host: HostConfig) -> list[dict[str, Any]]:
    """Docker's device allow list: nothing, then mknod, then the pseudo devices, then the user's."""
    if host.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)):
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    for device in host.devices or ():
        for made in host_devices(device.path_on_host, device.path_in_container):
            number = {key: made[key] for key in ("type", "major", "minor")}
            rules.append({"allow": True, **number, "access": device.cgroup_permissions or "rwm"})
    return rules + [device_rule(text) for text in host.device_cgroup_rules or ()]


def shown_paths(asked: list[str] | None, default: tuple[str, ...], privileged: bool) -> list[str]:
    """Masked or read-only paths: those asked for ([] is none), else Docker's."""
    if asked is not None:
        return list(asked)
    return [] if privileged else list(default)


def _namespaces(context: BundleContext) -> list[dict[str, str]]:
    namespaces = [{"type": "mount"}]
    for kind, path in (
        ("pid", context.pid_namespace),
        ("ipc", context.ipc_namespace),
        ("uts", context.uts_namespace),
        ("cgroup", context.cgroup_namespace),
    ):
        if path == "host":
            continue
        namespaces.append({"type": kind, "path": path} if path else {"type": kind})
    return namespaces


def _mounts(container: Container, context: BundleContext) -> list[dict[str, Any]]:
    host = container.host_config
    system_access = "rw" if host.privileged else "ro"
    cgroup_access = "rw" if SecurityOptions.parse(host).writable_cgroups else "ro"
    shm = host.shm_size or DEFAULT_SHM_BYTES
    flags = ["nosuid", "noexec", "nodev"]
    mounts: list[dict[str, Any]] = [
        _mount("proc", "proc", "/proc", flags),
        _mount("tmpfs", "tmpfs", "/dev", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "devpts",
            "devpts",
            "/dev/pts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("sysfs", "sysfs", "/sys", [*flags, system_access]),
        _mount("cgroup", "cgroup", "/sys/fs/cgroup", [*flags, "relatime", cgroup_access]),
        _mount("mqueue", "mqueue", "/dev/mqueue", flags),
        _mount("tmpfs", "shm", "/dev/shm", [*flags, "mode=1777", f"size={shm}"]),
    ]
    if host.ipc_mode == "none":
        mounts.pop()
    elif context.ipc_namespace == "host":
        mounts[-1] = _mount("bind", "/dev/shm", "/dev/shm", ["rbind", "rprivate"])
    elif context.shm_path:
        mounts[-1] = _mount("bind", context.shm_path, "/dev/shm", ["bind", "rprivate"])
    targets = {mount.target for mount in container.mounts}
    mounts = [mount for mount in mounts if not _is_hidden(mount["destination"], targets)]
    mounts += [_user_mount(mount) for mount in container.mounts]
    # After the user's, so that a volume at /etc does not hide them.
    for source, target in (
        (context.resolv_path, "/etc/resolv.conf"),
        (context.hostname_path, "/etc/hostname"),
        (context.hosts_path, "/etc/hosts"),
    ):
        if target not in targets and source:
            mounts.append(_mount("bind", source, target, ["rbind", "rprivate"]))
    if context.init_program:
        mounts.append(_mount("bind", context.init_program, INIT_PATH, ["bind", "rprivate", "ro"]))
    mounts += [
        _mount("bind", source, target, ["bind", "rprivate", "ro"]) for source, target in context.memory_files
    ]
    return mounts


def _is_hidden(default: str, targets: Collection[str]) -> bool:
    """A mount of the user at the same place, or at /dev above it, takes the place of a default one."""
    return default in targets or ("/dev" in targets and default.startswith("/dev/"))


def _user_mount(mount: ResolvedMount) -> dict[str, Any]:
    if mount.kind == "tmpfs":
        return _mount("tmpfs", "tmpfs", mount.target, [*mount.options, "ro" if mount.read_only else "rw"])
    depth = "bind" if mount.non_recursive else "rbind"
    # Never "rw": it would open what is mounted read-only on the host.
    access = []
    if mount.read_only:
        access = ["ro" if mount.non_recursive or mount.read_only_top else "rro"]
    made = _mount("bind", mount.source, mount.target, [depth, mount.propagation or "rprivate", *access])
    return made | ({"subpath": mount.subpath} if mount.subpath else {})


def _mount(kind: str, source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}
