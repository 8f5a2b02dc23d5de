"""Container records for unit tests, as the engine would have made them."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.config import ContainerConfig, HostConfig
from engine.container import Container, ResolvedMount, State, Status


def container_record(
    name: str = "web",
    *,
    id: str = "",
    config: ContainerConfig | None = None,
    host: HostConfig | None = None,
    state: State | None = None,
    **fields: Any,
) -> Container:
    """A container of image `shop/web:1` that is created, unless `state` or `fields` say otherwise."""
    made = Container(
        id=id or (name.encode().hex() + "0" * 64)[:64],
        name=name,
        created_at=1_700_000_000.0,
        image="shop/web:1",
        image_id="sha256:" + "ab" * 32,
        config=config or ContainerConfig(),
        host_config=host or HostConfig(),
        endpoints={},
        process_args=["server", "--fast"],
        driver="overlay",
        state=state or State(),
    )
    return msgspec.structs.replace(made, **fields)


def running(**fields: Any) -> State:
    return State(status=Status.RUNNING, pid=4711, started_at=1_700_000_000.0, **fields)


def exited(code: int = 0, **fields: Any) -> State:
    fields = {"started_at": 1_700_000_000.0, "finished_at": 1_700_000_100.0, **fields}
    return State(status=Status.EXITED, exit_code=code, **fields)


def volume_mount(name: str, target: str, **fields: Any) -> ResolvedMount:
    return ResolvedMount(
        kind="volume", source=f"/volumes/{name}/_data", target=target, name=name, driver="local", **fields
    )
