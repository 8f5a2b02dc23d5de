"""`exec`: a further process in a container that runs, with the container's namespaces, groups and filter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import Conflict, EngineFailure, InvalidParameter
from engine.oci.configuration import console_size
from engine.oci.creation import check_command, own_streams, send_terminal, write_pid_file
from engine.oci.folders import Folder
from engine.oci.gates import with_preserved
from engine.runtime import host, program, seccomp, spawn, syscalls, terminal
from engine.runtime.cgroup import choose_cgroups
from engine.runtime.plan import StreamWishes, plan_exec
from engine.runtime.replies import spawn_error

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`process_file` holds a whole `process`; else the container's own is taken, with what is given here."""

    process_file: str = ""
    args: Sequence[str] = ()
    cwd: str = ""
    env: Sequence[str] = ()
    user: str = ""
    additional_gids: Sequence[int] = ()
    caps: Sequence[str] = ()
    no_new_privs: bool = False
    tty: bool = False
    console_socket: str = ""
    pid_file: str = ""
    detach: bool = False
    preserve_fds: int = 0


def execute(root: Path, container_id: str, options: ExecOptions) -> int:
    """The exit code, 0 at once when detached."""
    folder = Folder.find(root, container_id)
    status, saved, configuration = folder.status(), folder.saved(), folder.configuration()
    if status not in ("running", "created"):
        raise Conflict(f"cannot exec in a {status} container")
    process = _process(dict(configuration.process), options)
    wants_terminal = bool(process.get("terminal"))
    if wants_terminal != bool(options.console_socket):
        raise InvalidParameter("a terminal and --console-socket need each other: give both or none")
    check_command(process, saved.pid)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # until execve the new process shares this memory
    pidfd = os.pidfd_open(saved.pid)
    made = with_preserved(
        plan_exec(
            process,
            host.gather(root / ".host"),
            pid=saved.pid,
            streams=StreamWishes(terminal=wants_terminal),
            seccomp=seccomp.compiled(configuration.linux.get("seccomp")),
        ),
        options.preserve_fds,
    )
    pair = terminal.terminal_in(saved.pid, console_size(process)) if wants_terminal else None
    membership = choose_cgroups().membership(saved.cgroup)
    try:
        born = spawn.spawn(
            program.pack(made.ops),
            [*([pair.slave] * 3 if pair else own_streams()), -1, pidfd],
            join=membership.join,
            cgroup=membership.into,
            pid_namespace=pidfd,
            own_pid_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC),
        )
    except spawn.ProgramFailed as error:
        raise EngineFailure(spawn_error(made, error.index, error.errno).message) from error
    if pair is not None:
        send_terminal(options.console_socket, pair.master)
        os.close(pair.slave)
        os.close(pair.master)
    if options.pid_file:
        write_pid_file(options.pid_file, born.pid)
    return 0 if options.detach else _wait(born.pid)


def _process(own: dict[str, Any], options: ExecOptions) -> dict[str, Any]:
    if options.process_file:
        try:
            return dict(json.loads(Path(options.process_file).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidParameter(f"--process {options.process_file} cannot be read: {error}") from error
    if not options.args:
        raise InvalidParameter("process args cannot be empty: name the command")
    own |= {"args": list(options.args), "terminal": options.tty}
    own["env"] = [*(own.get("env") or ()), *options.env]
    own["cwd"] = options.cwd or own.get("cwd") or "/"
    own["noNewPrivileges"] = own.get("noNewPrivileges", False) or options.no_new_privs
    user = dict(own.get("user") or {})
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not uid.isdecimal() or not (gid or "0").isdecimal():
            raise InvalidParameter(f"--user {options.user}: must be UID[:GID]")
        user |= {"uid": int(uid), "gid": int(gid or 0)}
    if options.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *options.additional_gids]
    own["user"] = user
    if options.caps and own.get("capabilities"):
        own["capabilities"] = {
            kind: sorted({*(names or ()), *options.caps}) for kind, names in own["capabilities"].items()
        }
    return own


def _wait(pid: int) -> int:
    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
