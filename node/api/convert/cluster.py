"""Nodes, networks, secrets, configs and the cluster itself, both ways."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from node.api import bodies
from node.api.convert.times import head
from raft.errors import InvalidArgument
from raft.objects.base import Annotations
from raft.objects.cluster import (
    Cluster,
    ClusterSpec,
    Config,
    ConfigSpec,
    Secret,
    SecretSpec,
)
from raft.objects.node import Availability, Node, NodeRole, NodeSpec


def node_to_api(node: Node) -> dict[str, Any]:
    description = node.description
    shown: dict[str, Any] = {
        **head(node),
        "Spec": {
            "Name": node.spec.annotations.name,
            "Labels": node.spec.annotations.labels,
            "Role": str(node.spec.role),
            "Availability": str(node.spec.availability),
        },
        "Description": {
            "Hostname": description.hostname,
            "Platform": {"Architecture": description.platform.architecture, "OS": description.platform.os},
            "Resources": {
                "NanoCPUs": description.resources.nano_cpus,
                "MemoryBytes": description.resources.memory_bytes,
            },
            "Engine": {
                "EngineVersion": description.engine_version,
                "Labels": description.engine_labels,
                "Plugins": [{"Type": kind, "Name": name} for kind, name in description.plugins],
            },
        },
        "Status": {"State": str(node.status.state), "Addr": node.status.address},
    }
    if node.status.message:
        shown["Status"]["Message"] = node.status.message
    if node.manager is not None:
        shown["ManagerStatus"] = {
            "Leader": node.manager.leader,
            "Reachability": "reachable" if node.manager.reachable else "unreachable",
            "Addr": node.manager.address,
        }
    return shown


def node_spec_from_api(body: bodies.NodeBody) -> NodeSpec:
    try:
        role = NodeRole(body.role)
    except ValueError as error:
        raise InvalidArgument(f'invalid Role: "{body.role}": must be worker or manager') from error
    return NodeSpec(
        annotations=Annotations(name=body.name, labels=body.labels or {}),
        role=role,
        availability=availability_from_api(body.availability),
    )


def availability_from_api(text: str) -> Availability:
    try:
        return Availability(text)
    except ValueError as error:
        raise InvalidArgument(f'invalid Availability: "{text}": must be active, pause or drain') from error


def secret_to_api(secret: Secret) -> dict[str, Any]:
    """Without its data, which never leaves the managers except to tasks."""
    annotations = secret.spec.annotations
    return {**head(secret), "Spec": {"Name": annotations.name, "Labels": annotations.labels}}


def config_to_api(config: Config) -> dict[str, Any]:
    annotations = config.spec.annotations
    data = base64.b64encode(config.spec.data).decode()
    return {**head(config), "Spec": {"Name": annotations.name, "Labels": annotations.labels, "Data": data}}


def secret_spec_from_api(body: bodies.NamedData) -> SecretSpec:
    return SecretSpec(annotations=_annotations(body), data=_data(body))


def config_spec_from_api(body: bodies.NamedData) -> ConfigSpec:
    return ConfigSpec(annotations=_annotations(body), data=_data(body))


def cluster_to_api(cluster: Cluster) -> dict[str, Any]:
    """GET /swarm."""
    tokens = {"Worker": cluster.root_ca.worker_token, "Manager": cluster.root_ca.manager_token}
    return {**cluster_info_to_api(cluster), "JoinTokens": tokens}


def cluster_info_to_api(cluster: Cluster) -> dict[str, Any]:
    """Swarm.Cluster of GET /info, which everybody may see."""
    certificate = x509.load_pem_x509_certificate(cluster.root_ca.cert_pem.encode())
    public_key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        **head(cluster),
        "ID": cluster.cluster_id,
        "Spec": cluster_spec_to_api(cluster.spec),
        "TLSInfo": {
            "TrustRoot": cluster.root_ca.cert_pem,
            "CertIssuerSubject": base64.b64encode(certificate.subject.public_bytes()).decode(),
            "CertIssuerPublicKey": base64.b64encode(public_key).decode(),
        },
        "RootRotationInProgress": False,
        "DefaultAddrPool": list(cluster.default_address_pools),
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }


def cluster_spec_to_api(spec: ClusterSpec) -> dict[str, Any]:
    return {
        "Name": spec.annotations.name,
        "Labels": spec.annotations.labels,
        "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
        "Raft": {
            "SnapshotInterval": spec.snapshot_interval,
            "KeepOldSnapshots": spec.keep_old_snapshots,
            "LogEntriesForSlowFollowers": spec.log_entries_for_slow_followers,
            "ElectionTick": spec.election_tick,
            "HeartbeatTick": spec.heartbeat_tick,
        },
        "Dispatcher": {"HeartbeatPeriod": spec.heartbeat_ns},
        "CAConfig": {
            "NodeCertExpiry": spec.node_cert_expiry_ns,
            **({"ForceRotate": spec.force_rotate} if spec.force_rotate else {}),
        },
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": spec.autolock},
    }


def cluster_spec_from_api(
    body: bodies.SwarmSpecBody | None, current: ClusterSpec | None = None
) -> ClusterSpec:
    """What is not given keeps its default. InvalidArgument for what is not supported.

    `current`: of the cluster that is to be changed; a different ForceRotate asks for another root certificate.
    """
    if body is None:
        return ClusterSpec()
    default = ClusterSpec()
    ca = body.ca_config or bodies.CaBody()
    if ca.external_c_as or ca.signing_ca_cert or ca.signing_ca_key:
        raise InvalidArgument("CAConfig: external CAs and roots from elsewhere are not supported yet")
    if current is not None and ca.force_rotate != current.force_rotate:
        raise InvalidArgument(
            "CAConfig.ForceRotate: rotation of the root certificate is not supported yet: "
            f"leave it at {current.force_rotate}"
        )
    if body.task_defaults and body.task_defaults.get("LogDriver"):
        raise InvalidArgument("TaskDefaults.LogDriver is not supported yet: set the log driver per service")
    raft = body.raft or bodies.RaftBody()
    limit = body.orchestration.task_history_retention_limit if body.orchestration else None
    heartbeat = body.dispatcher.heartbeat_period if body.dispatcher else 0
    return ClusterSpec(
        annotations=Annotations(name=body.name or "default", labels=body.labels or {}),
        task_history_limit=default.task_history_limit if limit is None else limit,
        heartbeat_ns=heartbeat or default.heartbeat_ns,
        node_cert_expiry_ns=ca.node_cert_expiry or default.node_cert_expiry_ns,
        snapshot_interval=raft.snapshot_interval or default.snapshot_interval,
        keep_old_snapshots=raft.keep_old_snapshots or default.keep_old_snapshots,
        log_entries_for_slow_followers=raft.log_entries_for_slow_followers
        or default.log_entries_for_slow_followers,
        election_tick=raft.election_tick or default.election_tick,
        heartbeat_tick=raft.heartbeat_tick or default.heartbeat_tick,
        force_rotate=ca.force_rotate,
        autolock=body.encryption_config is not None and body.encryption_config.auto_lock_managers,
    )


def _annotations(body: bodies.NamedData) -> Annotations:
    if body.driver is not None or body.templating is not None:
        raise InvalidArgument("Driver and Templating are not supported yet: leave them out")
    return Annotations(name=body.name, labels=body.labels or {})


def _data(body: bodies.NamedData) -> bytes:
    try:
        return base64.b64decode(body.data or "", validate=True)
    except binascii.Error as error:
        raise InvalidArgument(f"invalid Data: not base64: {error}") from error
