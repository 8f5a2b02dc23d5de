"""Compose files of `stack deploy`: variables, merging, what is refused, and the specs that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.errors import CliError, UsageError
from cli.stack.compose_file import load, warnings
from cli.stack.interpolation import substituted
from cli.stack.resources import networks, payloads
from cli.stack.services import NAMESPACE, service_spec

VARIABLES = {"TAG": "2", "EMPTY": ""}


class Ids:
    def secret(self, name: str) -> str:
        return f"id-of-{name}"

    config = secret


def spec(tmp_path: Path, text: str, service: str = "web") -> dict[str, Any]:
    return service_spec("shop", service, document(tmp_path, text), str(tmp_path), Ids(), {"HOME_OF": "me"})


def document(tmp_path: Path, *texts: str) -> dict[str, Any]:
    paths = []
    for at, text in enumerate(texts):
        path = tmp_path / f"{at}.yml"
        path.write_text(text)
        paths.append(str(path))
    return load(paths, VARIABLES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello:${TAG}", "hello:2"),
        ("$TAG-$$TAG", "2-$TAG"),
        ("${NONE:-a}${NONE-b}", "ab"),
        ("${EMPTY:-a}${EMPTY-b}", "a"),
        ("${TAG:+yes}${NONE+no}${EMPTY+there}", "yesthere"),
        ("${NONE:-${TAG}}", "2"),
        ("${NONE}", ""),
        ("a$", None),
        ("${TAG:?needed}", "2"),
    ],
)
def test_variables(text: str, value: str | None) -> None:
    if value is None:
        with pytest.raises(UsageError, match="invalid interpolation format"):
            substituted(text, VARIABLES, "x")
    else:
        assert substituted(text, VARIABLES, "x") == value


def test_a_variable_may_be_required() -> None:
    with pytest.raises(UsageError, match="NONE is missing a value: set it"):
        substituted("${NONE:?set it}", VARIABLES, "x")


def test_a_plain_service_gets_names_and_labels_of_its_stack(tmp_path: Path) -> None:
    assert spec(tmp_path, "services: {web: {image: 'hello:${TAG}'}}") == {
        "Name": "shop_web",
        "Labels": {NAMESPACE: "shop", "com.docker.stack.image": "hello:2"},
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "hello:2", "Labels": {NAMESPACE: "shop"}},
            "Networks": [{"Target": "shop_default", "Aliases": ["web"]}],
        },
    }


FULL = """
services:
  web:
    image: hello
    command: sleep 1000
    environment: [A=1, HOME_OF]
    ports: ["8080:80", {target: 81, published: 53, mode: host, protocol: udp}]
    volumes: ["data:/data:ro", "./here:/there", {type: tmpfs, target: /t, tmpfs: {size: 1000}}, /anonymous]
    networks: {back: {aliases: [db]}}
    secrets: [pw, {source: other, target: o, mode: 0400, uid: "1"}]
    cap_add: [net_admin]
    ulimits: {nofile: 10}
    healthcheck: {test: "true", interval: 5s}
    stop_grace_period: 1m
    deploy:
      replicas: 3
      resources: {limits: {cpus: "0.5", memory: 50M}}
      restart_policy: {condition: on-failure, max_attempts: 2}
      update_config: {parallelism: 2, order: start-first}
      placement: {constraints: [node.role==manager], preferences: [{spread: node.labels.a}]}
networks: {back: {external: true, name: real}}
volumes: {data: {driver: local, labels: [a=b]}}
secrets: {pw: {external: true}, other: {file: ./0.yml}}
"""


def test_a_full_service(tmp_path: Path) -> None:
    made = spec(tmp_path, FULL)
    task, container = made["TaskTemplate"], made["TaskTemplate"]["ContainerSpec"]
    assert container["Image"] == "hello:latest"
    assert container["Args"] == ["sleep", "1000"]
    assert container["Env"] == ["A=1", "HOME_OF=me"]
    assert container["CapabilityAdd"] == ["CAP_NET_ADMIN"]
    assert container["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 10}]
    assert container["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    assert container["StopGracePeriod"] == 60 * 10**9
    assert [(port["PublishedPort"], port["PublishMode"]) for port in made["EndpointSpec"]["Ports"]] == [
        (53, "host"),
        (8080, "ingress"),
    ]
    volume, bind, tmpfs, anonymous = container["Mounts"]
    assert (volume["Source"], volume["ReadOnly"]) == ("shop_data", True)
    assert volume["VolumeOptions"]["Labels"] == {"a": "b", NAMESPACE: "shop"}
    assert (bind["Type"], bind["Source"]) == ("bind", f"{tmp_path}/here")
    assert tmpfs == {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1000}}
    assert anonymous == {"Type": "volume", "Target": "/anonymous"}
    assert [(item["SecretName"], item["SecretID"]) for item in container["Secrets"]] == [
        ("pw", "id-of-pw"),
        ("shop_other", "id-of-shop_other"),
    ]
    assert container["Secrets"][1]["File"] == {"Name": "o", "UID": "1", "GID": "0", "Mode": 0o400}
    assert task["Networks"] == [{"Target": "real", "Aliases": ["web", "db"]}]
    assert task["Resources"]["Limits"] == {"NanoCPUs": 5 * 10**8, "MemoryBytes": 50 << 20}
    assert task["RestartPolicy"] == {"Condition": "on-failure", "MaxAttempts": 2}
    assert made["Mode"] == {"Replicated": {"Replicas": 3}}
    assert (made["UpdateConfig"]["Parallelism"], made["UpdateConfig"]["Order"]) == (2, "start-first")


def test_later_files_change_earlier_ones_key_by_key(tmp_path: Path) -> None:
    first = "services: {web: {image: a, command: [x], environment: {A: 1, B: 2}, ports: ['80:80']}}"
    second = (
        "services: {web: {image: b, command: [y, z], environment: [B=3], ports: ['81:81']}, db: {image: c}}"
    )
    merged = document(tmp_path, first, second)["services"]
    assert merged["web"] == {
        "image": "b",
        "command": ["y", "z"],
        "environment": {"A": "1", "B": "3"},
        "ports": ["80:80", "81:81"],
    }
    assert merged["db"] == {"image": "c"}


def test_networks_that_are_used_are_made(tmp_path: Path) -> None:
    text = "services: {web: {image: a}, db: {image: b, networks: [back, out]}}\nnetworks: {back: {internal: true}, out: {external: true}, idle: {}}"  # noqa: E501
    made, external = networks("shop", document(tmp_path, text))
    assert external == ["out"]
    assert made == {
        "shop_back": {
            "Name": "shop_back",
            "Driver": "overlay",
            "Labels": {NAMESPACE: "shop"},
            "Internal": True,
        },
        "shop_default": {"Name": "shop_default", "Driver": "overlay", "Labels": {NAMESPACE: "shop"}},
    }


def test_contents_of_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b"key")
    text = "services: {}\nsecrets: {a: {file: ./pw}, b: {environment: B}, c: {external: true}}"
    made = payloads("shop", "secret", document(tmp_path, text), str(tmp_path), {"B": "x"})
    assert {name: body["Data"] for name, body in made.items()} == {"shop_a": "a2V5", "shop_b": "eA=="}
    with pytest.raises(UsageError, match=r"open .*/nowhere: no such file"):
        payloads("shop", "secret", document(tmp_path, "secrets: {a: {file: nowhere}}"), str(tmp_path), {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1]", "top-level object must be a mapping"),
        ("services: {web: {image: a, nonsense: 1}}", "services.web Additional property nonsense"),
        ("services: {web: {image: a, extends: {}}}", "unsupported options: extends"),
        ("services: {web: {build: .}}", "no image specified"),
        ("services: {web: {image: a, labels: {x: true}}}", "labels.x must be a string, number or null"),
        ("things: {}", "Additional property things"),
        ("services: [web]", "services must be a mapping"),
        ("a: b: c", "is no YAML"),
        ("volumes: {v: {size: 1}}", "volumes.v Additional property size"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(CliError, match=problem):
        document(tmp_path, text)


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ("networks: [nowhere]", "undefined network 'nowhere'"),
        ("volumes: ['nowhere:/x']", 'undefined volume "nowhere"'),
        ("secrets: [nowhere]", "undefined secret 'nowhere'"),
        ("restart: sometimes", "unknown restart policy: sometimes"),
        ("deploy: {mode: often}", "unknown deploy.mode 'often'"),
        ("deploy: {replicas: many}", "must be a number, not 'many'"),
        ("deploy: {mode: global, replicas: 2}", "replicas can only be used"),
        ("healthcheck: {disable: true, test: x}", "exclude each other"),
    ],
)
def test_what_a_service_cannot_have_is_named(tmp_path: Path, service: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        spec(tmp_path, f"services: {{web: {{image: a, {service}}}}}")


def test_what_a_swarm_does_not_do_is_told(tmp_path: Path) -> None:
    text = "services: {web: {image: a, build: ., container_name: x, privileged: true}}"
    unsupported, deprecated = warnings(document(tmp_path, text))
    assert unsupported == "Ignoring unsupported options: build, privileged\n"
    assert "container_name: Setting the container name is not supported." in deprecated
