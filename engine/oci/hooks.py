"""The hooks of a bundle: programs that get the container's state on standard input at certain moments of its life.

Those of the runtime run here; createContainer in the container's namespaces with the host's files, startContainer in
its namespaces and its root. Source: OCI runtime specification 1.1, config.md#posix-platform-hooks.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import EngineFailure
from engine.oci.configuration import Configuration
from engine.runtime import syscalls

HOOK_MAX_S = 300.0
_JOINED = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWCGROUP
)


def run_hooks(configuration: Configuration, kind: str, state: Mapping[str, Any]) -> None:
    """EngineFailure names the first that fails."""
    hooks = configuration.hooks(kind)
    if not hooks:
        return
    enter: Callable[[], None] | None = None
    if kind in ("createContainer", "startContainer"):
        enter = _entering(int(state["pid"]), into_root=kind == "startContainer")
    text = json.dumps(state)
    for hook in hooks:
        _run(hook, kind, text, enter)


def _run(hook: Mapping[str, Any], kind: str, state: str, enter: Callable[[], None] | None) -> None:
    path = str(hook["path"])
    environment = dict(item.partition("=")[::2] for item in hook.get("env") or ())
    try:
        done = subprocess.run(
            [str(item) for item in hook.get("args") or (path,)],
            executable=path,
            env=environment,
            input=state,
            capture_output=True,
            text=True,
            timeout=float(hook.get("timeout") or HOOK_MAX_S),
            preexec_fn=enter,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineFailure(f"error running {kind} hook {path}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise EngineFailure(f"error running {kind} hook {path}: exit status {done.returncode}: {said}")


def _entering(pid: int, *, into_root: bool) -> Callable[[], None]:
    """For a child before its execve; this process has one thread."""

    def enter() -> None:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
        pidfd = os.pidfd_open(pid)
        syscalls.setns(pidfd, _JOINED)
        if into_root:
            os.fchdir(root)
            os.chroot(".")

    return enter
