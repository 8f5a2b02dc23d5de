"""Programs beside us that are subcommands of docker: its CLI plugins, such as docker-compose and docker-buildx.

Owns where they are looked for and how they are run; they take our place, with the daemon that is meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
# Programs that may also stand for themselves, anywhere in PATH.
_STANDALONE = ("compose",)


def find(name: str, environment: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The program and the words that go before the user's own; None when there is none."""
    settings = environment.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    for folder in (os.path.join(settings, "cli-plugins"), *_FOLDERS):
        path = os.path.join(folder, f"docker-{name}")
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path, [name]
    if name in _STANDALONE:
        for folder in environment.get("PATH", "").split(os.pathsep):
            path = os.path.join(folder or ".", f"docker-{name}")
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path, []
    return None


def become(path: str, words: list[str], settings: Mapping[str, str]) -> NoReturn:
    """Its exit status is ours then. `settings`: of the environment, for the daemon that is meant."""
    environment = {**os.environ, "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND": "swarmctl", **settings}
    os.execve(path, [path, *words], environment)
