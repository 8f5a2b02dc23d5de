"""How the command, environment and settings of a container come from the image and from the request.

Pure. Rules as Docker's: an entrypoint of the request drops the image's command; `[]` and `[""]` clear the
image's entrypoint, and only `[]` keeps its command; variables of the request win by name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from engine.config import ContainerConfig, ContainerCreate, HealthConfig
from engine.errors import InvalidParameter
from engine.images.config import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merged_config(body: ContainerCreate, image: ImageConfig) -> ContainerConfig:
    """The container's configuration: the request over the image's. The request is not changed."""
    fields = {name: copy.copy(getattr(body, name)) for name in ContainerConfig.__struct_fields__}
    config = ContainerConfig(**fields)
    entrypoint, command = as_list(body.entrypoint), as_list(body.cmd)
    inherits_entrypoint = body.entrypoint is None
    config.entrypoint = list(image.entrypoint) or None if inherits_entrypoint else entrypoint
    if config.entrypoint == [""]:
        config.entrypoint = None
    config.cmd = command or (list(image.cmd) or None if entrypoint is None else None)
    config.env = merged_environment(image.env, body.env or ())
    config.working_dir = body.working_dir or image.working_dir
    config.user = body.user or image.user
    config.labels = {**image.labels, **(body.labels or {})}
    config.exposed_ports = {
        **{port: {} for port in image.exposed_ports},
        **(body.exposed_ports or {}),
    } or None
    config.volumes = {**{path: {} for path in image.volumes}, **(body.volumes or {})} or None
    config.stop_signal = body.stop_signal or image.stop_signal or None
    config.healthcheck = _merged_health(body.healthcheck, image.healthcheck)
    return config


def process_args(config: ContainerConfig) -> list[str]:
    """What is executed. InvalidParameter when there is nothing to execute."""
    args = [*(as_list(config.entrypoint) or ()), *(as_list(config.cmd) or ())]
    if not args:
        raise InvalidParameter("no command specified")
    return args


def as_list(value: Sequence[str] | str | None) -> list[str] | None:
    """Entrypoint and Cmd may be a string or a list in the API; what is empty has no words: None."""
    if value is None or len(value) == 0:
        return None
    return [value] if isinstance(value, str) else list(value)


def merged_environment(image: Iterable[str], request: Iterable[str]) -> list[str]:
    """Later entries win by name; a bare NAME in the request removes the variable."""
    merged: dict[str, str | None] = {}
    for entry in image:
        name, _, value = entry.partition("=")
        merged[name] = value
    for entry in request:
        name, separator, value = entry.partition("=")
        if not name:
            raise InvalidParameter(f"invalid environment variable: {entry}")
        merged[name] = value if separator else None
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


def runtime_environment(config: ContainerConfig, hostname: str) -> list[str]:
    """The environment of the first process: PATH, HOSTNAME, TERM with a terminal, HOME is set by the runtime."""
    names = {entry.partition("=")[0] for entry in config.env or ()}
    environment = []
    if "PATH" not in names:
        environment.append(f"PATH={DEFAULT_PATH}")
    if "HOSTNAME" not in names:
        environment.append(f"HOSTNAME={hostname}")
    if config.tty and "TERM" not in names:
        environment.append("TERM=xterm")
    return environment + list(config.env or ())


def _merged_health(request: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    if request is None or (not request.test and image is None):
        return image if request is None else (request if request.test else None)
    if image is None:
        return request
    return HealthConfig(
        test=request.test or image.test,
        interval=request.interval or image.interval,
        timeout=request.timeout or image.timeout,
        start_period=request.start_period or image.start_period,
        start_interval=request.start_interval or image.start_interval,
        retries=request.retries or image.retries,
    )
