"""GET /info as lines, in Docker's order and words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli import humanize

Answer = dict[str, Any]


def lines(answer: Answer) -> Iterator[str]:
    yield "Server:"
    yield from _engine(answer)
    yield from _swarm(answer.get("Swarm") or {})
    yield from _runtimes(answer)
    yield from _host(answer)
    yield from _settings(answer)


def _engine(answer: Answer) -> Iterator[str]:
    supervisor = answer.get("Supervisor") or {}
    yield f" Containers: {answer.get('Containers', 0)}"
    for state in ("Running", "Paused", "Stopped"):
        yield f"  {state}: {answer.get(f'Containers{state}', 0)}"
    yield f" Images: {answer.get('Images', 0)}"
    yield f" Server Version: {answer.get('ServerVersion', '')}"
    yield f" Supervisor: {supervisor.get('Build', '')} (pid {supervisor.get('Pid', '')})"
    yield f" Storage Driver: {answer.get('Driver', '')}"
    for name, value in answer.get("DriverStatus") or []:
        yield f"  {name}: {value}"
    yield f" Logging Driver: {answer.get('LoggingDriver', '')}"
    yield f" Cgroup Driver: {answer.get('CgroupDriver', '')}"
    yield f" Cgroup Version: {answer.get('CgroupVersion', '')}"
    yield " Plugins:"
    for kind in ("Volume", "Network", "Authorization", "Log"):
        if names := (answer.get("Plugins") or {}).get(kind):
            yield f"  {kind}: {' '.join(names)}"


def _swarm(swarm: Answer) -> Iterator[str]:
    yield f" Swarm: {swarm.get('LocalNodeState') or 'inactive'}"
    if swarm.get("Error"):
        yield f"  Error: {swarm['Error']}"
    if not swarm.get("NodeID"):
        return
    yield f"  NodeID: {swarm['NodeID']}"
    yield f"  Is Manager: {_truth(swarm.get('ControlAvailable'))}"
    cluster = swarm.get("Cluster") or {}
    if swarm.get("ControlAvailable") and cluster:
        yield f"  ClusterID: {cluster.get('ID', '')}"
        yield f"  Managers: {swarm.get('Managers', 0)}"
        yield f"  Nodes: {swarm.get('Nodes', 0)}"
        if cluster.get("DefaultAddrPool"):
            yield f"  Default Address Pool: {'  '.join(cluster['DefaultAddrPool'])}  "
            yield f"  SubnetSize: {cluster.get('SubnetSize', 0)}"
        yield f"  Data Path Port: {cluster.get('DataPathPort', 4789)}"
        yield from _spec(cluster.get("Spec") or {})
        encryption = cluster.get("Spec", {}).get("EncryptionConfig", {})
        yield f"  Autolock Managers: {_truth(encryption.get('AutoLockManagers'))}"
        yield f"  Root Rotation In Progress: {_truth(cluster.get('RootRotationInProgress'))}"
    yield f"  Node Address: {swarm.get('NodeAddr', '')}"
    if managers := swarm.get("RemoteManagers"):
        yield "  Manager Addresses:"
        yield from (f"   {manager['Addr']}" for manager in managers)


def _spec(spec: Answer) -> Iterator[str]:
    raft, authority = spec.get("Raft") or {}, spec.get("CAConfig") or {}
    yield "  Orchestration:"
    history = (spec.get("Orchestration") or {}).get("TaskHistoryRetentionLimit")
    yield f"   Task History Retention Limit: {0 if history is None else history}"
    yield "  Raft:"
    yield f"   Snapshot Interval: {raft.get('SnapshotInterval', 0)}"
    if raft.get("KeepOldSnapshots") is not None:
        yield f"   Number of Old Snapshots to Retain: {raft['KeepOldSnapshots']}"
    yield f"   Heartbeat Tick: {raft.get('HeartbeatTick', 0)}"
    yield f"   Election Tick: {raft.get('ElectionTick', 0)}"
    yield "  Dispatcher:"
    period = (spec.get("Dispatcher") or {}).get("HeartbeatPeriod", 0)
    yield f"   Heartbeat Period: {humanize.duration(period / 1e9)}"
    yield "  CA Configuration:"
    yield f"   Expiry Duration: {humanize.duration(authority.get('NodeCertExpiry', 0) / 1e9)}"
    yield f"   Force Rotate: {authority.get('ForceRotate', 0)}"


def _runtimes(answer: Answer) -> Iterator[str]:
    yield f" Runtimes: {' '.join(sorted(answer.get('Runtimes') or {}))}"
    yield f" Default Runtime: {answer.get('DefaultRuntime', '')}"
    yield f" Init Binary: {answer.get('InitBinary', '')}"
    if options := answer.get("SecurityOptions"):
        yield " Security Options:"
    for option in options or []:
        words = dict(word.partition("=")[::2] for word in option.split(","))
        yield f"  {words.pop('name', option)}"
        yield from (f"   {name.capitalize()}: {value}" for name, value in words.items())


def _host(answer: Answer) -> Iterator[str]:
    yield f" Kernel Version: {answer.get('KernelVersion', '')}"
    yield f" Operating System: {answer.get('OperatingSystem', '')}"
    yield f" OSType: {answer.get('OSType', '')}"
    yield f" Architecture: {answer.get('Architecture', '')}"
    yield f" CPUs: {answer.get('NCPU', 0)}"
    yield f" Total Memory: {humanize.binary_size(answer.get('MemTotal', 0))}"
    yield f" Name: {answer.get('Name', '')}"
    yield f" ID: {answer.get('ID', '')}"
    yield f" Root Dir: {answer.get('DockerRootDir', '')}"
    yield f" Debug Mode: {_truth(answer.get('Debug'))}"
    if answer.get("Debug"):
        yield f"  File Descriptors: {answer.get('NFd', 0)}"
        yield f"  Tasks: {answer.get('NGoroutines', 0)}"
        yield f"  System Time: {answer.get('SystemTime', '')}"
        yield f"  EventsListeners: {answer.get('NEventsListener', 0)}"


def _settings(answer: Answer) -> Iterator[str]:
    for title, name in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if answer.get(name):
            yield f" {title}: {answer[name]}"
    yield from _titled(" Labels:", answer.get("Labels"))
    yield f" Experimental: {_truth(answer.get('ExperimentalBuild'))}"
    registries = answer.get("RegistryConfig") or {}
    named = [
        name for name, index in (registries.get("IndexConfigs") or {}).items() if not index.get("Secure")
    ]
    yield from _titled(" Insecure Registries:", [*named, *(registries.get("InsecureRegistryCIDRs") or [])])
    yield from _titled(" Registry Mirrors:", registries.get("Mirrors"))
    yield f" Live Restore Enabled: {_truth(answer.get('LiveRestoreEnabled'))}"


def _titled(title: str, values: list[str] | None) -> Iterator[str]:
    if values:
        yield title
        yield from (f"  {value}" for value in values)


def _truth(value: object) -> str:
    return str(bool(value)).lower()
