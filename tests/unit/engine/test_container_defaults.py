"""What new containers get from the daemon's settings, and what their creators keep."""

from __future__ import annotations

import msgspec
import pytest

from engine.config import ContainerCreate, HostConfig, LogConfig, PortBinding, Ulimit
from engine.container_defaults import complete
from engine.settings import ContainerDefaults, DefaultUlimit


def completed(host: HostConfig | None = None, **defaults: object) -> HostConfig:
    body = ContainerCreate(image="x", host_config=host)
    complete(body, msgspec.convert(defaults, ContainerDefaults))
    assert body.host_config is not None
    return body.host_config


def test_without_settings_only_the_log_driver_is_written_down() -> None:
    assert completed() == HostConfig(log_config=LogConfig(type="json-file", config={}))


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (None, ("json-file", {"max-size": "1m", "max-file": "2"})),
        (LogConfig(config={"max-file": "5"}), ("json-file", {"max-size": "1m", "max-file": "5"})),
        (LogConfig(type="json-file"), ("json-file", {"max-size": "1m", "max-file": "2"})),
        (LogConfig(type="none"), ("none", None)),
    ],
)
def test_log_options_belong_to_their_driver(asked: LogConfig | None, made: tuple[str, object]) -> None:
    log = completed(HostConfig(log_config=asked), log_options={"max-size": "1m", "max-file": "2"}).log_config
    assert log is not None and (log.type, log.config) == made


def test_limits_that_a_container_names_are_its_own() -> None:
    limits = (DefaultUlimit("nofile", 1, 2), DefaultUlimit("nproc", 3, 4))
    asked = HostConfig(ulimits=[Ulimit(name="nofile", soft=9, hard=9)])
    made = completed(asked, ulimits=limits).ulimits or []
    assert [(limit.name, limit.soft) for limit in made] == [("nofile", 9), ("nproc", 3)]


def test_security() -> None:
    both = {"no_new_privileges": True, "seccomp_profile": "unconfined"}
    assert completed(None, **both).security_opt == ["no-new-privileges", "seccomp=unconfined"]
    own = ["no-new-privileges:false", "seccomp={}"]
    assert completed(HostConfig(security_opt=list(own)), **both).security_opt == own
    assert completed(HostConfig(privileged=True), **both).security_opt == ["no-new-privileges"]


def test_names_modes_and_addresses() -> None:
    asked = HostConfig(dns=["1.1.1.1"], port_bindings={"80/tcp": [PortBinding(), PortBinding(host_ip="::")]})
    made = completed(
        asked,
        dns=("9.9.9.9",),
        dns_search=("x",),
        init=True,
        ipc_mode="shareable",
        publish_address="127.0.0.1",
    )
    assert (made.dns, made.dns_search, made.init, made.ipc_mode) == (["1.1.1.1"], ["x"], True, "shareable")
    assert made.port_bindings is not None
    assert [binding.host_ip for binding in made.port_bindings["80/tcp"] or ()] == ["127.0.0.1", "::"]
