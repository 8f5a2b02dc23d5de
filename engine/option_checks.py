"""What of a container's options this engine and this host can honour; everything else is refused by name.

Pure but for looking at the host's device nodes. Invariant: an option that would change how a container runs is
either honoured elsewhere or refused here, never ignored (tests/unit/engine/test_option_fields.py walks all fields).
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.bundle import SecurityOptions
from engine.config import ContainerConfig, HostConfig
from engine.devices import device_rule
from engine.errors import InvalidParameter, NotFound
from engine.signals import parse_signal

# Settings of the kernel that each container has for itself; every other one would change the host.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_JOINED = ("container:",)
_ARCHITECTURE_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_ARCHITECTURES = frozenset(
    ("amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "loong64")
)


def check_options(host: HostConfig, config: ContainerConfig) -> None:
    """InvalidParameter with the first option that cannot be honoured."""
    check_namespaces(host)
    for rule in host.device_cgroup_rules or ():
        device_rule(rule)
    SecurityOptions.parse(host)
    _check_sysctls(host)
    for problem in _unsupported(host):
        raise InvalidParameter(problem)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidParameter(
            f"invalid StopTimeout {config.stop_timeout}: seconds, or -1 to wait without an end"
        )
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    size = host.console_size
    if size is not None and (len(size) != 2 or not all(0 <= number <= 0xFFFF for number in size)):
        raise InvalidParameter(f"invalid ConsoleSize {size}: it is [height, width]")


def check_platform(image: str, wished: str, architecture: str) -> None:
    """`--platform OS[/ARCHITECTURE[/VARIANT]]` against the image's; NotFound lets a client pull another one."""
    if not wished:
        return
    system, _, rest = wished.lower().partition("/")
    asked = rest.partition("/")[0]
    asked = _ARCHITECTURE_NAMES.get(asked, asked)
    if system in _ARCHITECTURES:
        system, asked = "linux", system
    if system not in ("linux", "windows", "darwin", "freebsd") or (asked and asked not in _ARCHITECTURES):
        raise InvalidParameter(f'"{wished}": unknown operating system or architecture: such as linux/amd64')
    if system != "linux" or (asked and architecture and asked != architecture):
        raise NotFound(
            f"image with reference {image} was found but its platform (linux/{architecture}) does not match the "
            f"specified platform ({wished})"
        )


def check_remapped(host: HostConfig) -> list[str]:
    """For a container whose users are remapped: InvalidParameter for what cannot be had then, and warnings."""
    if host.userns_mode == "host":
        return []
    if host.privileged:
        raise InvalidParameter(
            "privileged mode is incompatible with user namespaces. You must run the container in the host namespace "
            "when running privileged mode (--userns host)"
        )
    if host.network_mode == "host":
        raise InvalidParameter(
            "cannot share the host's network namespace when user namespaces are enabled (use --userns host)"
        )
    if host.pid_mode == "host":
        raise InvalidParameter(
            "cannot share the host PID namespace when user namespaces are enabled (use --userns host)"
        )
    return [
        f"{name} was added, but gives no right over the kernel's namespaces to a container whose users are remapped"
        for name in host.cap_add or ()
    ]


def check_namespaces(host: HostConfig) -> None:
    for name, mode, words, prefixes in (
        ("PID", host.pid_mode, ("", "host", "private"), _JOINED),
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host"), _JOINED),
        ("UTS", host.uts_mode, ("", "host"), ()),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host"), ()),
        ("userns", host.userns_mode, ("", "host"), ()),
    ):
        if mode not in words and not (mode.startswith(prefixes) and mode.partition(":")[2]):
            raise InvalidParameter(f"invalid {name} mode: {mode}")


def _check_sysctls(host: HostConfig) -> None:
    for name in host.sysctls or {}:
        if name.startswith("net."):
            if host.network_mode == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed in host network namespace")
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if host.ipc_mode == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed in host ipc namespace")
        elif name == "kernel.domainname":
            if host.uts_mode == "host":
                raise InvalidParameter(f"sysctl '{name}' not allowed in host uts namespace")
        else:
            raise InvalidParameter(
                f"sysctl '{name}' is not in a separate kernel namespace: set it on the host itself"
            )


def _unsupported(host: HostConfig) -> Iterator[str]:
    """Docker's words where it refuses the same on such a host."""
    if host.isolation not in ("", "default"):
        yield f'invalid isolation "{host.isolation}": only "default" exists on Linux'
    for request in host.device_requests or ():
        sets = " ".join(f"[{' '.join(map(str, words or ()))}]" for words in request.get("Capabilities") or ())
        yield (
            f'could not select device driver "{request.get("Driver") or ""}" with capabilities: [{sets}]: '
            "pass the device nodes with --device instead"
        )
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        yield "Your kernel does not support CPU real-time scheduler: leave --cpu-rt-period and --cpu-rt-runtime out"
    if host.cgroup:
        yield "HostConfig.Cgroup is not supported: use CgroupParent and CgroupnsMode"
    for name, value in (
        ("CpuCount", host.cpu_count),
        ("CpuPercent", host.cpu_percent),
        ("IOMaximumIOps", host.io_maximum_iops),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth),
    ):
        if value:
            yield f"HostConfig.{name} exists on Windows only: leave it out"
