"""From flags of `service create` and `service update` to specs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import click
import pytest

from cli.command import Command
from cli.errors import UsageError
from cli.service_flags import create_options, update_options
from cli.service_spec import new_spec
from cli.service_update import change_spec, merged


class Resolver:
    """Ids are the names with a prefix."""

    def network(self, name: str) -> str:
        return f"net-{name}"

    def secret(self, name: str) -> str:
        return f"sec-{name}"

    def config(self, name: str) -> str:
        return f"cfg-{name}"


def options_of(decorate: Callable[[Any], Any], words: list[str]) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command(cls=Command)
    @decorate
    def command(**values: Any) -> None:
        seen.update(values)

    command.main(words, standalone_mode=False)
    return seen


def created(*words: str, image: str = "hello", arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    return new_spec(options_of(create_options, list(words)), image, arguments, Resolver())


def updated(spec: dict[str, Any], *words: str) -> dict[str, Any]:
    changed = copy.deepcopy(spec)
    change_spec(changed, options_of(update_options, list(words)), Resolver())
    return changed


def test_a_plain_service_leaves_defaults_to_the_daemon() -> None:
    assert created("--name", "web", arguments=("sleep", "1")) == {
        "Name": "web",
        "Labels": {},
        "Mode": {"Replicated": {"Replicas": 1}},
        "TaskTemplate": {"ContainerSpec": {"Image": "hello:latest", "Args": ["sleep", "1"]}, "Placement": {}},
    }


def test_many_flags() -> None:
    spec = created(
        *("--name", "web", "--replicas", "3", "--network", "name=front,alias=www", "-p", "8080:80"),
        *("--constraint", "node.role==worker", "--placement-pref", "spread=node.labels.rack"),
        *(
            "--limit-cpu",
            "0.5",
            "--limit-memory",
            "64m",
            "--reserve-memory",
            "16m",
            "--replicas-max-per-node",
            "2",
        ),
        *("--restart-condition", "on-failure", "--restart-delay", "2s", "--restart-max-attempts", "4"),
        *("--update-parallelism", "2", "--update-delay", "1s", "--update-failure-action", "rollback"),
        *("--secret", "source=key,target=k", "--config", "conf", "--env", "A=1", "--host", "db:10.0.0.1"),
        *(
            "--health-cmd",
            "true",
            "--health-interval",
            "5s",
            "--stop-grace-period",
            "3s",
            "--entrypoint",
            "sh -c",
        ),
    )
    task = spec["TaskTemplate"]
    assert task["Networks"] == [{"Target": "net-front", "Aliases": ["www"]}]
    assert task["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20},
        "Reservations": {"MemoryBytes": 16 << 20},
    }
    assert task["RestartPolicy"] == {"Condition": "on-failure", "Delay": 2 * 10**9, "MaxAttempts": 4}
    assert task["Placement"] == {
        "Constraints": ["node.role==worker"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}],
        "MaxReplicas": 2,
    }
    assert spec["UpdateConfig"] == {
        "Parallelism": 2,
        "Delay": 10**9,
        "FailureAction": "rollback",
        "Order": "stop-first",
    }
    container = task["ContainerSpec"]
    assert container["Secrets"][0]["SecretID"] == "sec-key"
    assert container["Secrets"][0]["File"]["Name"] == "k"
    assert container["Configs"][0]["File"]["Name"] == "/conf"
    assert container["Hosts"] == ["10.0.0.1 db"]
    assert container["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    assert container["Command"] == ["sh", "-c"]
    assert container["StopGracePeriod"] == 3 * 10**9
    assert spec["EndpointSpec"]["Ports"][0]["PublishedPort"] == 8080


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--mode", "sometimes"], '"sometimes"'),
        (["--mode", "global", "--replicas", "2"], "replicas can only be used"),
        (["--restart-condition", "never"], '"never"'),
        (["--update-order", "both"], '"both"'),
        (["--rollback-failure-action", "rollback"], '"rollback"'),
        (["--placement-pref", "pack=x"], '"pack=x"'),
        (["--restart-delay", "5"], '"5"'),
        (["--limit-cpu", "two"], '"two"'),
        (["--secret", "a", "--secret", "source=b,target=a"], "duplicate secret target for a"),
        (["--endpoint-mode", "lb"], '"lb"'),
        (["--network", "alias=x"], "name is missing"),
        (["--no-healthcheck", "--health-cmd", "x"], "conflicts"),
    ],
)
def test_wrong_values_are_named(words: list[str], problem: str) -> None:
    with pytest.raises((UsageError, click.UsageError), match=problem):
        created(*words)


BASE = created(
    *(
        "--name",
        "web",
        "--env",
        "A=1",
        "--env",
        "B=2",
        "-p",
        "8080:80",
        "--network",
        "front",
        "--label",
        "x=1",
    ),
    *("--constraint", "node.role==worker", "--mount", "source=v,target=/v", "--limit-memory", "64m"),
)


def test_an_update_without_flags_changes_nothing_but_an_empty_endpoint() -> None:
    assert updated(BASE) == BASE


def test_update_adds_replaces_and_removes() -> None:
    spec = updated(
        BASE,
        *("--env-add", "B=3", "--env-add", "C=4", "--env-rm", "A", "--label-rm", "x", "--label-add", "y=2"),
        *("--publish-rm", "80", "--publish-add", "9090:90", "--network-rm", "front", "--network-add", "back"),
        *("--mount-rm", "/v", "--constraint-rm", "node.role==worker", "--limit-cpu", "1"),
        *("--image", "other", "--args", "sleep 5", "--replicas", "4", "--force", "--dns-add", "10.0.0.9"),
    )
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container["Env"] == ["B=3", "C=4"]
    assert container["Mounts"] == []
    assert (container["Image"], container["Args"]) == ("other:latest", ["sleep", "5"])
    assert container["DNSConfig"] == {"Nameservers": ["10.0.0.9"]}
    assert spec["Labels"] == {"y": "2"}
    assert [port["TargetPort"] for port in spec["EndpointSpec"]["Ports"]] == [90]
    assert spec["TaskTemplate"]["Networks"] == [{"Target": "net-back"}]
    assert spec["TaskTemplate"]["Placement"]["Constraints"] == []
    assert spec["TaskTemplate"]["Resources"]["Limits"] == {"MemoryBytes": 64 << 20, "NanoCPUs": 10**9}
    assert spec["Mode"] == {"Replicated": {"Replicas": 4}}
    assert spec["TaskTemplate"]["ForceUpdate"] == 1


def test_capabilities_move_between_the_lists() -> None:
    spec = updated(updated(BASE, "--cap-add", "NET_ADMIN"), "--cap-drop", "NET_ADMIN")
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert (container["CapabilityAdd"], container["CapabilityDrop"]) == ([], ["CAP_NET_ADMIN"])


def test_a_global_service_cannot_be_scaled() -> None:
    with pytest.raises(UsageError, match="scale can only be used with replicated"):
        updated(created("--mode", "global"), "--replicas", "2")


def test_merged_keeps_the_order_of_what_stays() -> None:
    assert merged(["a", "b", "c"], ["b"], ["d", "a"]) == ["a", "c", "d"]
    assert merged(None, [], ["x"]) == ["x"]
