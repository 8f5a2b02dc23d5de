"""What a spec may not say. Each case is a good spec with one thing made wrong."""

from __future__ import annotations

import msgspec
import pytest

from raft import constraints, defaults, validate
from raft.errors import InvalidArgument
from raft.objects.base import SECOND, Annotations
from raft.objects.cluster import ClusterSpec, ConfigSpec, IpamConfig, NetworkSpec, SecretSpec
from raft.objects.service import (
    ContainerSpec,
    EndpointMode,
    EndpointSpec,
    FailureAction,
    FileReference,
    HealthCheck,
    MountSpec,
    NetworkAttachmentSpec,
    Placement,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    UpdateConfig,
)

GOOD = ServiceSpec(
    annotations=Annotations(name="web"),
    task=TaskSpec(container=ContainerSpec(image="registry.example:5000/team/hello:1.0")),
)


def with_container(**fields: object) -> ServiceSpec:
    container = msgspec.structs.replace(GOOD.task.container, **fields)
    return msgspec.structs.replace(GOOD, task=msgspec.structs.replace(GOOD.task, container=container))


def with_task(**fields: object) -> ServiceSpec:
    return msgspec.structs.replace(GOOD, task=msgspec.structs.replace(GOOD.task, **fields))


def with_spec(**fields: object) -> ServiceSpec:
    return msgspec.structs.replace(GOOD, **fields)


def named(name: str) -> ServiceSpec:
    return with_spec(annotations=Annotations(name=name))


def reference(name: str, target: str) -> FileReference:
    return FileReference(id=f"id-{name}", name=name, target=target)


def test_good_spec_has_no_problems():
    assert validate.problems(GOOD) == []
    validate.require(GOOD)


BAD = [
    (named(""), "meta: name must be provided"),
    (named("-web"), "name must be valid as a DNS name component"),
    (named("we b"), "name must be valid as a DNS name component"),
    (named("a.b"), "name must be valid as a DNS name component"),
    (named("a" * 64), "name must be 63 characters or fewer"),
    (with_container(image=""), "ContainerSpec: image reference must be provided"),
    (with_container(image="Bad Image"), '"Bad Image" is not a valid repository/tag'),
    (with_container(image="hello:"), "is not a valid repository/tag"),
    (with_container(hostname="a/b"), "invalid hostname 'a/b'"),
    (with_container(working_dir="tmp"), "must be an absolute path"),
    (with_container(env=("=x",)), "invalid environment variable: =x"),
    (with_container(stop_grace_period_ns=-1), "stop-grace-period cannot be negative"),
    (with_container(mounts=(MountSpec(type="pipe", target="/a"),)), 'mount type unknown: "pipe"'),
    (with_container(mounts=(MountSpec(target=""),)), "field Target must not be empty"),
    (with_container(mounts=(MountSpec(target="a"),)), "mount path must be absolute"),
    (with_container(mounts=(MountSpec(target="/"),)), "destination can't be '/'"),
    (with_container(mounts=(MountSpec(type="bind", target="/a"),)), "field Source must not be empty"),
    (
        with_container(mounts=(MountSpec(type="bind", source="b", target="/a"),)),
        "mount path must be absolute",
    ),
    (with_container(mounts=(MountSpec(type="tmpfs", source="/b", target="/a"),)), "must not be specified"),
    (
        with_container(mounts=(MountSpec(type="volume", source="/b", target="/a"),)),
        "invalid volume name '/b'",
    ),
    (with_container(mounts=(MountSpec(target="/a"), MountSpec(target="/a"))), "duplicate mount point: /a"),
    (
        with_container(secrets=(reference("a", "x"), reference("b", "x"))),
        "'b' and 'a' have a conflicting target",
    ),
    (with_container(secrets=(FileReference(id="", name="a", target="x"),)), "malformed secret reference"),
    (with_container(configs=(reference("a", ""),)), "malformed config reference, no target provided"),
    (
        with_container(health_check=HealthCheck(interval_ns=5)),
        "Interval in Healthcheck cannot be less than 1ms",
    ),
    (with_container(health_check=HealthCheck(test=("RUN", "x"))), 'Unknown Type "RUN" in Healthcheck'),
    (with_container(dns_nameservers=("dns",)), "'dns' is not a valid DNS server address"),
    (with_container(hosts=("web 10.0.0.1",)), "invalid host entry"),
    (
        with_task(resources=ResourceRequirements(limits=Resources(nano_cpus=1))),
        "invalid cpu value 1e-09: Must be at least 0.001",
    ),
    (
        with_task(resources=ResourceRequirements(limits=Resources(memory_bytes=4095))),
        "invalid memory value 4095: Must be at least 4MiB",
    ),
    (
        with_task(
            resources=ResourceRequirements(
                limits=Resources(memory_bytes=1 << 23), reservations=Resources(memory_bytes=1 << 24)
            )
        ),
        "memory reservation must not be larger",
    ),
    (with_task(restart=RestartPolicy(delay_ns=-1)), "TaskSpec: restart-delay cannot be negative"),
    (with_task(restart=RestartPolicy(window_ns=-1)), "TaskSpec: restart-window cannot be negative"),
    (with_task(placement=Placement(constraints=("node.role=manager",))), "expected one operator from ==, !="),
    (with_task(placement=Placement(constraints=("node.color==red",))), "key 'node.color' is invalid"),
    (with_task(placement=Placement(constraints=("node.id==",))), "value '' is invalid"),
    (with_task(placement=Placement(preferences=(SpreadPreference(descriptor="rack"),))), "'rack' must be"),
    (
        with_task(networks=(NetworkAttachmentSpec(target="n"), NetworkAttachmentSpec(target="n"))),
        "attached more than once",
    ),
    (with_spec(replicas=-1), "Number of replicas must be non-negative"),
    (
        msgspec.structs.replace(with_task(placement=Placement(max_replicas=1)), mode=ServiceMode.GLOBAL),
        "replicas-max-per-node can only be used with replicated mode",
    ),
    (with_spec(update=UpdateConfig(parallelism=-1)), "update-parallelism cannot be negative"),
    (with_spec(update=UpdateConfig(delay_ns=-1)), "TaskSpec: update-delay cannot be negative"),
    (
        with_spec(update=UpdateConfig(max_failure_ratio=1.5)),
        "update-maxfailureratio cannot be less than 0 or",
    ),
    (with_spec(rollback=UpdateConfig(failure_action=FailureAction.ROLLBACK)), "rollback-failure-action"),
    (with_spec(endpoint=EndpointSpec(ports=(PortConfig(target=0),))), "invalid target port 0"),
    (
        with_spec(endpoint=EndpointSpec(ports=(PortConfig(target=80, published=70000),))),
        "published port 70000",
    ),
    (with_spec(endpoint=EndpointSpec(ports=(PortConfig(target=80, protocol="icmp"),))), "invalid protocol"),
    (
        with_spec(endpoint=EndpointSpec(mode=EndpointMode.DNSRR, ports=(PortConfig(target=80),))),
        "port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        with_spec(
            endpoint=EndpointSpec(
                ports=(PortConfig(target=80, published=8), PortConfig(target=81, published=8))
            )
        ),
        "duplicate published ports provided: 8/tcp",
    ),
    (SecretSpec(annotations=Annotations(name="k")), "secret data must be larger than 0 and less than 512000"),
    (SecretSpec(annotations=Annotations(name="k"), data=b"x" * 512001), "secret data must be larger than 0"),
    (SecretSpec(annotations=Annotations(name="k/"), data=b"x"), "invalid name, only 64"),
    (ConfigSpec(annotations=Annotations(name="k"), data=b"x" * 1024001), "config data must be"),
    (NetworkSpec(annotations=Annotations(name="a b")), "invalid network name 'a b'"),
    (NetworkSpec(annotations=Annotations(name="a"), ingress=True, attachable=True), "cannot be attachable"),
    (
        NetworkSpec(annotations=Annotations(name="a"), ipam=(IpamConfig(subnet="10.0.0.1/24"),)),
        "invalid subnet 10.0.0.1/24",
    ),
    (
        NetworkSpec(
            annotations=Annotations(name="a"), ipam=(IpamConfig(subnet="10.0.0.0/24", gateway="10.0.1.1"),)
        ),
        "gateway 10.0.1.1 is not inside the subnet 10.0.0.0/24",
    ),
    (ClusterSpec(node_cert_expiry_ns=60 * SECOND), "minimum certificate expiry time is 1h0m0s"),
    (ClusterSpec(annotations=Annotations(name="x")), "modification of the cluster's name is not allowed"),
]


@pytest.mark.parametrize(("spec", "text"), BAD, ids=[text[:40] for _, text in BAD])
def test_bad_spec_is_named(spec: object, text: str):
    found = validate.problems(spec)
    assert len(found) == 1, found
    assert text in found[0]
    with pytest.raises(InvalidArgument):
        validate.require(spec)


def test_good_details_are_let_through():
    assert not validate.problems(
        with_container(
            mounts=(
                MountSpec(type="bind", source="/src", target="/dst", propagation="rshared"),
                MountSpec(type="tmpfs", target="/tmp", tmpfs_size_bytes=1 << 20),
                MountSpec(source="data", target="/data"),
            ),
            hostname="{{.Node.Hostname}}-x",
            health_check=HealthCheck(test=("CMD", "true"), interval_ns=SECOND),
        )
    )
    ports = (
        PortConfig(target=53, published=53),
        PortConfig(target=53, published=53, protocol="udp"),
        PortConfig(target=80, published=53, mode=PublishMode.HOST),
    )
    assert not validate.problems(with_spec(endpoint=EndpointSpec(ports=ports)))


@pytest.mark.parametrize(
    "image", ["hello", "a/b:c", "localhost:5000/a", "x@sha256:" + "0" * 64, "sha256:" + "a" * 64]
)
def test_good_images(image: str):
    assert validate.image_problem(image) is None


def test_constraints_are_parsed():
    parsed = constraints.parse("node.labels.Zone != east 1")
    assert (parsed.key, parsed.equal, parsed.value) == ("node.labels.Zone", False, "east 1")
    assert str(constraints.parse("node.role == manager")) == "node.role==manager"
    assert constraints.parse("node.ip==10.0.0.0/8").value == "10.0.0.0/8"


def test_defaults_fill_only_what_is_open_and_are_idempotent():
    filled = defaults.service_spec(with_task(restart=RestartPolicy(delay_ns=0)))
    assert filled.task.restart.delay_ns == 0
    assert filled.task.container.stop_grace_period_ns == 10 * SECOND
    assert filled.update.monitor_ns == filled.rollback.monitor_ns == 5 * SECOND
    assert defaults.service_spec(GOOD).task.restart.delay_ns == 5 * SECOND
    assert defaults.service_spec(filled) == filled
