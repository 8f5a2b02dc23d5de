"""Secrets and configs: create, label, remove, look at. A secret's data is never given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec

from node.manager.control import listing
from node.manager.control.base import Control, Filters, check_version, find_named
from raft import validate
from raft.errors import AlreadyExists, InvalidArgument
from raft.objects.base import Kind, new_id
from raft.objects.cluster import Config, ConfigSpec, Secret, SecretSpec, without_payload
from raft.objects.request import Request
from raft.store import Transaction, View

File = TypeVar("File", Secret, Config)


class FileControl(Control):
    async def create_secret(self, spec: SecretSpec, *, request: Request | None = None) -> Secret:
        validate.require(spec)
        return without_payload(await self._create(Kind.SECRET, Secret(id=new_id(), spec=spec), request))

    async def get_secret(self, ref: str) -> Secret:
        return without_payload(cast(Secret, find_named(Kind.SECRET, self._store.view(), ref)))

    async def list_secrets(self, filters: Filters) -> list[Secret]:
        found = listing.passing(self._store.view().secrets.values(), filters, _FILTERS)
        return [without_payload(secret) for secret in found]

    async def update_secret(
        self, id: str, version: int, spec: SecretSpec, *, request: Request | None = None
    ) -> Secret:
        def update(tx: Transaction) -> str:
            secret = cast(Secret, find_named(Kind.SECRET, tx, id))
            check_version(secret, version)
            _check_only_labels(secret, spec)
            annotations = msgspec.structs.replace(secret.spec.annotations, labels=spec.annotations.labels)
            changed = msgspec.structs.replace(secret.spec, annotations=annotations)
            tx.put(msgspec.structs.replace(secret, spec=changed))
            return secret.id

        written = await self._store.update(update, request)
        return without_payload(self._store.view().secrets.get(written) or Secret(id=written, spec=spec))

    async def remove_secret(self, ref: str, *, request: Request | None = None) -> None:
        await self._remove(Kind.SECRET, ref, request)

    async def create_config(self, spec: ConfigSpec, *, request: Request | None = None) -> Config:
        validate.require(spec)
        return await self._create(Kind.CONFIG, Config(id=new_id(), spec=spec), request)

    async def get_config(self, ref: str) -> Config:
        return cast(Config, find_named(Kind.CONFIG, self._store.view(), ref))

    async def list_configs(self, filters: Filters) -> list[Config]:
        return listing.passing(self._store.view().configs.values(), filters, _FILTERS)

    async def update_config(
        self, id: str, version: int, spec: ConfigSpec, *, request: Request | None = None
    ) -> Config:
        def update(tx: Transaction) -> str:
            config = cast(Config, find_named(Kind.CONFIG, tx, id))
            check_version(config, version)
            _check_only_labels(config, spec)
            annotations = msgspec.structs.replace(config.spec.annotations, labels=spec.annotations.labels)
            changed = msgspec.structs.replace(config.spec, annotations=annotations)
            tx.put(msgspec.structs.replace(config, spec=changed))
            return config.id

        written = await self._store.update(update, request)
        return self._store.view().configs.get(written) or Config(id=written, spec=spec)

    async def remove_config(self, ref: str, *, request: Request | None = None) -> None:
        await self._remove(Kind.CONFIG, ref, request)

    async def _create(self, kind: Kind, file: File, request: Request | None) -> File:
        name = file.spec.annotations.name

        def create(tx: Transaction) -> str:
            if tx.by_name(kind, name) is not None:
                raise AlreadyExists(f"name conflicts with an existing object: {kind} {name} already exists")
            tx.put(file)
            return file.id

        written = await self._store.update(create, request)
        return cast(File, self._store.view().get(kind, written) or msgspec.structs.replace(file, id=written))

    async def _remove(self, kind: Kind, ref: str, request: Request | None) -> None:
        def remove(tx: Transaction) -> None:
            file = find_named(kind, tx, ref)
            users = _users(tx, kind, file.id)
            if users:
                name = file.spec.annotations.name  # type: ignore[attr-defined]
                word = "service" if len(users) == 1 else "services"
                raise InvalidArgument(
                    f"{kind} '{name}' is in use by the following {word}: {', '.join(users)}"
                )
            tx.delete(kind, file.id)

        await self._update_alone(remove, request)


def _users(view: View, kind: Kind, file_id: str) -> list[str]:
    """Names of the services that have the secret or config in their spec."""
    users = []
    for service in view.services.values():
        container = service.spec.task.container
        references = container.secrets if kind is Kind.SECRET else container.configs
        if any(reference.id == file_id for reference in references):
            users.append(service.spec.annotations.name)
    return sorted(users)


def _check_only_labels(file: Secret | Config, spec: SecretSpec | ConfigSpec) -> None:
    """Clients send the data back or leave it out; both mean that it stays."""
    same_name = spec.annotations.name in ("", file.spec.annotations.name)
    if not same_name or spec.data not in (b"", file.spec.data):
        raise InvalidArgument("only updates to Labels are allowed")


_FILTERS: Mapping[str, listing.Test[Secret | Config]] = {
    "id": listing.by_id,
    "name": lambda file, values: listing.has_prefix(file.spec.annotations.name, values),
    "names": lambda file, values: file.spec.annotations.name in values,
    "label": lambda file, values: listing.has_labels(file.spec.annotations.labels, values),
}
