"""Making the swarm as a compose file says, and taking a stack away again.

Order of a deployment, as docker has it: what is no longer named (--prune), networks, secrets, configs, services.
What is there already is updated, never made a second time. Everything of a stack carries its name as a label.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from cli.client import Client
from cli.errors import ApiError, CliError
from cli.output import show, warn
from cli.resolver import ApiResolver
from cli.stack.compose_file import Document
from cli.stack.resources import networks, payloads
from cli.stack.services import IMAGE, NAMESPACE, scoped, service_spec
from cli.urls import quote

_GONE_SECONDS_MAX = 300.0
_ATTEMPTS = 4


def of_stack(client: Client, kind: str, stack: str, **query: Any) -> list[dict[str, Any]]:
    """`kind`: services, networks, secrets or configs; sorted by name."""
    found = client.get(f"/{kind}", {"filters": {"label": [f"{NAMESPACE}={stack}"]}, **query}) or []
    return sorted(found, key=name_of)


def name_of(item: Mapping[str, Any]) -> str:
    return str((item.get("Spec") or item)["Name"])


class Deployment:
    """One `stack deploy`. `run` gives the ids of its services."""

    def __init__(self, client: Client, stack: str, document: Document, folder: str) -> None:
        self._client = client
        self._stack = stack
        self._document = document
        self._folder = folder

    def run(self, *, prune: bool, resolve_image: str, with_registry_auth: bool) -> list[str]:
        if prune:
            self._prune()
        made, external = networks(self._stack, self._document)
        for name in external:
            self._check_external(name)
        self._networks(made)
        self._payloads("secret")
        self._payloads("config")
        there = {name_of(item): item for item in of_stack(self._client, "services", self._stack)}
        return [
            self._service(name, there, resolve_image, with_registry_auth)
            for name in sorted(self._document["services"])
        ]

    def _prune(self) -> None:
        kept = {scoped(self._stack, name) for name in self._document["services"]}
        gone = [item for item in of_stack(self._client, "services", self._stack) if name_of(item) not in kept]
        _remove(self._client, "service", gone)

    def _check_external(self, name: str) -> None:
        if name in ("host", "none", "bridge"):
            return
        try:
            network = self._client.get(f"/networks/{quote(name)}")
        except ApiError as error:
            if error.status != 404:
                raise
            raise CliError(
                f'network "{name}" is declared as external, but could not be found. '
                "You need to create a swarm-scoped network before the stack is deployed"
            ) from error
        if network.get("Scope") != "swarm":
            raise CliError(
                f'network "{name}" is declared as external, but it is not in the right scope: '
                f'"{network.get("Scope")}" instead of "swarm"'
            )

    def _payloads(self, kind: str) -> None:
        bodies = payloads(self._stack, kind, self._document, self._folder, os.environ)
        for name, body in bodies.items():
            try:
                known = self._client.get(f"/{kind}s/{quote(name)}")
            except ApiError as error:
                if error.status != 404:
                    raise
                show(f"Creating {kind} {name}")
                self._client.post(f"/{kind}s/create", body)
                continue
            # The daemon refuses another content: what a task has must not change under it.
            query = {"version": known["Version"]["Index"]}
            try:
                self._client.post(f"/{kind}s/{quote(known['ID'])}/update", body, query)
            except ApiError as error:
                hint = (
                    f"give the {kind} another name in the file (name: {name}_v2)"
                    if error.status == 400
                    else ""
                )
                raise CliError(f"failed to update {kind} {name}: {error.message}", hint=hint) from error

    def _networks(self, made: Mapping[str, dict[str, Any]]) -> None:
        there = {name_of(item) for item in of_stack(self._client, "networks", self._stack)}
        for name, body in made.items():
            if name not in there:
                show(f"Creating network {name}")
                self._client.post("/networks/create", body)

    def _service(
        self, name: str, there: Mapping[str, dict[str, Any]], resolve_image: str, with_registry_auth: bool
    ) -> str:
        ids = ApiResolver(self._client)
        spec = service_spec(self._stack, name, self._document, self._folder, ids, os.environ)
        for network in spec["TaskTemplate"].get("Networks") or []:
            network["Target"] = ids.network(network["Target"])
        image = spec["TaskTemplate"]["ContainerSpec"]["Image"]
        headers: dict[str, str] = {}
        if with_registry_auth:
            from cli.credentials import auth_headers

            headers = auth_headers(image)
        full = scoped(self._stack, name)
        known = there.get(full)
        if known is None:
            show(f"Creating service {full}")
            answer = self._client.post("/services/create", spec, headers=headers)
            _warn(answer)
            return str(answer["ID"])
        show(f"Updating service {full} (id: {known['ID']})")
        self._update(known, spec, resolve_image, headers)
        return str(known["ID"])

    def _update(
        self, known: dict[str, Any], spec: dict[str, Any], resolve_image: str, headers: dict[str, str]
    ) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            before = known["Spec"]["TaskTemplate"]
            same = (known["Spec"].get("Labels") or {}).get(IMAGE) == spec["Labels"][IMAGE]
            if same and resolve_image != "always":
                # The image that runs may carry a digest: without a change it is to stay as it is.
                spec["TaskTemplate"]["ContainerSpec"]["Image"] = before["ContainerSpec"]["Image"]
            # A task is only replaced when its template is another one.
            spec["TaskTemplate"]["ForceUpdate"] = before.get("ForceUpdate", 0)
            try:
                query = {"version": known["Version"]["Index"]}
                _warn(self._client.post(f"/services/{quote(known['ID'])}/update", spec, query, headers))
                return
            except ApiError as error:
                if "out of sequence" not in error.reason or attempt == _ATTEMPTS:
                    raise
                known = self._client.get(f"/services/{quote(known['ID'])}")


def _warn(answer: dict[str, Any] | None) -> None:
    for warning in (answer or {}).get("Warnings") or []:
        warn(f"WARNING: {warning}")


# --- taking away ---


def remove_stack(client: Client, stack: str, *, wait: bool) -> bool:
    """False when there is nothing of that name. Raises CliError naming what could not be removed."""
    kinds = ("service", "secret", "config", "network")
    found = {kind: of_stack(client, f"{kind}s", stack) for kind in kinds}
    if not any(found.values()):
        warn(f"Nothing found in stack: {stack}")
        return False
    problems = [problem for kind in kinds for problem in _remove(client, kind, found[kind])]
    if problems:
        raise CliError("\n".join([*problems, f"Failed to remove some resources from stack: {stack}"]))
    if wait:
        _until_gone(client, {item["ID"] for item in found["service"]})
    return True


def _remove(client: Client, kind: str, items: list[dict[str, Any]]) -> list[str]:
    problems = []
    for item in items:
        show(f"Removing {kind} {name_of(item)}")
        remove = _removal(client, kind, str(item.get("ID") or item.get("Id")))
        try:
            _when_unused(remove) if kind == "network" else remove()
        except ApiError as error:
            problems.append(f"Failed to remove {kind} {item.get('ID') or item.get('Id')}: {error.message}")
    return problems


def _removal(client: Client, kind: str, identifier: str) -> Callable[[], object]:
    return lambda: client.delete(f"/{kind}s/{quote(identifier)}")


def _when_unused(remove: Callable[[], object]) -> None:
    """A network goes when the last task of the stack has left it: that takes as long as containers take to stop."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            remove()
            return
        except ApiError as error:
            if "in use" not in error.reason or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _until_gone(client: Client, services: set[str]) -> None:
    """Until no task of them is left that may still run."""
    if not services:
        return
    deadline = time.monotonic() + _GONE_SECONDS_MAX
    while True:
        tasks = client.get("/tasks") or []
        left = [
            task
            for task in tasks
            if task.get("ServiceID") in services
            and task["Status"]["State"]
            not in ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")
        ]
        if not left:
            return
        if time.monotonic() > deadline:
            raise CliError(
                f"{len(left)} tasks still run after {_GONE_SECONDS_MAX:.0f} s", hint="swarmctl node ps"
            )
        time.sleep(0.2)
