"""The cluster itself, and the named things that tasks use: networks, secrets and configs."""

from __future__ import annotations

import msgspec

from raft.objects.base import SECOND, Annotations, Driver, ObjectRecord, Record

CLUSTER_ID = "cluster"  # the key of the one row of the cluster table; Cluster.cluster_id is its public id


class IpamConfig(Record, frozen=True):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""


class NetworkSpec(Record, frozen=True):
    annotations: Annotations = Annotations()
    driver: Driver = Driver(name="overlay")
    ipam: tuple[IpamConfig, ...] = ()  # empty: taken from the default pool
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    ipv6: bool = False


class Network(ObjectRecord, frozen=True):
    """`ipam`, `vni` and `mtu` are written by the allocator; vni 0 means not yet allocated."""

    spec: NetworkSpec = NetworkSpec()
    ipam: tuple[IpamConfig, ...] = ()
    vni: int = 0
    pending_delete: bool = False


class SecretSpec(Record, frozen=True):
    annotations: Annotations = Annotations()
    data: bytes = b""


class Secret(ObjectRecord, frozen=True):
    spec: SecretSpec = SecretSpec()


class ConfigSpec(Record, frozen=True):
    annotations: Annotations = Annotations()
    data: bytes = b""


class Config(ObjectRecord, frozen=True):
    spec: ConfigSpec = ConfigSpec()


class ClusterSpec(Record, frozen=True):
    annotations: Annotations = Annotations(name="default")
    task_history_limit: int = 5
    heartbeat_ns: int = 1 * SECOND
    node_cert_expiry_ns: int = 90 * 24 * 3600 * SECOND
    autolock: bool = False
    snapshot_interval: int = 10_000
    keep_old_snapshots: int = 0
    log_entries_for_slow_followers: int = 500
    election_tick: int = 10
    heartbeat_tick: int = 1
    force_rotate: int = 0


class RootCA(Record, frozen=True):
    """PEM; the key is stored here so that every manager can sign (the store is encrypted at rest)."""

    cert_pem: str = ""
    key_pem: str = ""
    digest: str = ""  # base-36 SHA-256 of the certificate, 50 characters
    worker_token: str = ""
    manager_token: str = ""


class ManagerLock(Record, frozen=True):
    """Autolock: what wraps the keys on the managers' disks. Never shown, but by `swarm unlock-key`.

    `unlock_key`: SWMKEY-1-..., "" while autolock is off. `generation` counts the changes, so that a manager
    that replays its log does not go back to a former key.
    """

    unlock_key: str = ""
    generation: int = 0

    def __repr__(self) -> str:
        return f"ManagerLock({'on' if self.unlock_key else 'off'}, generation={self.generation})"


class Cluster(ObjectRecord, frozen=True):
    cluster_id: str = ""
    spec: ClusterSpec = ClusterSpec()
    root_ca: RootCA = RootCA()
    lock: ManagerLock = ManagerLock()
    default_address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789


def without_payload(secret: Secret) -> Secret:
    """The secret as the API shows it: the data never leaves the managers except to tasks."""
    return msgspec.structs.replace(secret, spec=msgspec.structs.replace(secret.spec, data=b""))
