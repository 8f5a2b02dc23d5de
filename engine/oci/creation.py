"""`create`: a container that is whole, and waits for `start` with its command not yet executed.

The first process is made by a child of this command, the birth process, which shares its memory until the command is
executed and so waits with it; when that has happened, or failed, it ends, and the container's process goes to whoever
adopts orphans of the caller (conmon, a supervisor, init). Invariant: a failed creation leaves nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engine.errors import EngineFailure, InvalidParameter
from engine.oci.configuration import Configuration, console_size
from engine.oci.folders import Folder, Saved
from engine.oci.gates import NUMBER_MIN, Gates, with_gates
from engine.oci.hooks import run_hooks
from engine.runtime import host, plan_process, program, seccomp, spawn, syscalls, terminal
from engine.runtime.birth import start_ticks
from engine.runtime.cgroup import Cgroups, Membership, choose_cgroups
from engine.runtime.plan import StreamWishes, plan_container
from engine.runtime.replies import spawn_error

GATE_MAX_S = 120.0
GROUP_ENDS_S = 5.0
_CREDENTIALS = struct.Struct("3i")


class CreateOptions(msgspec.Struct, frozen=True, kw_only=True):
    bundle: Path
    console_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0


def create(root: Path, container_id: str, options: CreateOptions) -> Folder:
    configuration = Configuration.read(options.bundle)
    if configuration.wants_terminal and not options.console_socket:
        raise InvalidParameter("cannot allocate tty if runc will detach without setting console socket")
    if options.console_socket and not configuration.wants_terminal:
        raise InvalidParameter("cannot use console socket if runc will not detach or allocate tty")
    if not configuration.process.get("args"):
        raise InvalidParameter("process.args of config.json is empty: there is nothing to execute")
    folder = Folder.create(root, container_id, configuration)
    with contextlib.ExitStack() as undo:
        undo.callback(folder.remove)
        cgroups = choose_cgroups()
        cgroup = configuration.cgroup(container_id)
        membership = cgroups.create(cgroup, configuration.resources)
        undo.callback(end_group, cgroups, cgroup)
        birth = _Birth(root, configuration, folder, options, cgroups, cgroup)
        undo.callback(birth.kill)
        birth.begin(membership)
        membership.close()
        birth.wait_whole()
        undo.pop_all()
    birth.close()
    if options.pid_file:
        write_pid_file(options.pid_file, birth.pid)
    return folder


class _Birth:
    """One container on its way to its second gate."""

    def __init__(
        self,
        root: Path,
        configuration: Configuration,
        folder: Folder,
        options: CreateOptions,
        cgroups: Cgroups,
        cgroup: str,
    ) -> None:
        self._configuration, self._folder, self._options = configuration, folder, options
        self._cgroups, self._cgroup = cgroups, cgroup
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._ours.settimeout(GATE_MAX_S)
        gate = os.open(folder.gate, os.O_RDWR | os.O_CLOEXEC)
        self._gates = _placed(theirs.fileno(), gate)
        theirs.close()
        os.close(gate)
        self._terminal = (
            terminal.new_terminal(console_size(configuration.process))
            if configuration.wants_terminal
            else None
        )
        facts = host.gather(root / ".host")
        try:
            made = plan_container(
                configuration.raw,
                configuration.rootfs,
                facts,
                netns=configuration.network,
                cgroup=cgroup,
                streams=StreamWishes(terminal=configuration.wants_terminal),
                seccomp=seccomp.compiled(configuration.linux.get("seccomp")),
            )
        except (ValueError, KeyError) as error:
            raise InvalidParameter(f"config.json: {error}") from error
        self._plan = with_gates(made, self._gates, options.preserve_fds)
        self.pid = self._birth_pid = 0

    def begin(self, membership: Membership) -> None:
        self._birth_pid = os.fork()
        if self._birth_pid == 0:
            self._bear(membership)
        for descriptor in (self._gates.socket, self._gates.fifo):
            os.close(descriptor)

    def wait_whole(self) -> None:
        self.pid = self._wait_gate()
        self._folder.save(
            Saved(
                id=self._folder.path.name,
                bundle=str(self._options.bundle),
                created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                pid=self.pid,
                start_ticks=start_ticks(self.pid),
                birth_pid=self._birth_pid,
                birth_ticks=start_ticks(self._birth_pid),
                cgroup=self._cgroup,
                cgroup_parents=self._cgroups.made_parents(self._cgroup),
                annotations=self._configuration.annotations,
                rootfs=self._configuration.rootfs.upper,
            )
        )
        for kind in ("prestart", "createRuntime", "createContainer"):
            run_hooks(self._configuration, kind, self._folder.state("creating"))
        self._ours.send(b"!")
        self._wait_gate()
        check_command(self._configuration.process, self.pid)
        if self._terminal is not None:
            send_terminal(self._options.console_socket, self._terminal.master)

    def kill(self) -> None:
        """Whatever lives of it. The birth process ends with its child."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._cgroups.kill(self._cgroup)
        if self._birth_pid:
            os.kill(self._birth_pid, signal.SIGKILL)
            os.waitpid(self._birth_pid, 0)

    def close(self) -> None:
        self._ours.close()
        if self._terminal is not None:
            for descriptor in (self._terminal.master, self._terminal.slave, self._terminal.mount):
                os.close(descriptor)

    def _wait_gate(self) -> int:
        """The pid of the process that waits there. EngineFailure when it did not get so far."""
        try:
            said, ancillary, _, _ = self._ours.recvmsg(64 * 1024, socket.CMSG_SPACE(_CREDENTIALS.size))
        except TimeoutError as error:
            raise EngineFailure(
                f"the container is not whole after {GATE_MAX_S:.0f} s: the host is stuck"
            ) from error
        if not said:
            raise EngineFailure("unable to start container process: it was killed on its way")
        if len(said) > 1:
            raise EngineFailure(said.decode())
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0])
        raise EngineFailure("the kernel did not tell the pid of the container")

    def _bear(self, membership: Membership) -> NoReturn:
        """In the birth process: until the command is executed, or something failed."""
        code = 1
        try:
            self._ours.close()
            os.setsid()
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            message = self._spawned(membership)
            if message:
                with contextlib.suppress(OSError):
                    os.write(self._gates.socket, message.encode())
                (self._folder.path / "failure").write_text(message)
            code = 0
        finally:
            os._exit(code)

    def _spawned(self, membership: Membership) -> str:
        """Why not, or ""."""
        made = self._plan
        pid_namespace = os.open(made.pid_namespace, os.O_RDONLY | os.O_CLOEXEC) if made.pid_namespace else -1
        registers = [*own_streams(), -1]
        if self._terminal is not None:
            registers = [*[self._terminal.slave] * 3, self._terminal.mount]
        try:
            spawn.spawn(
                program.pack(made.ops),
                registers,
                clone_flags=made.clone_flags,
                join=membership.join,
                cgroup=membership.into,
                pid_namespace=pid_namespace,
                own_pid_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC),
            )
        except spawn.ProgramFailed as error:
            return spawn_error(made, error.index, error.errno).message
        except OSError as error:
            return f"unable to start container process: {error}"
        return ""


def _placed(sock: int, fifo: int) -> Gates:
    """Copies of both at two numbers in a row."""
    number = NUMBER_MIN
    while True:
        first = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, number)
        second = fcntl.fcntl(fifo, fcntl.F_DUPFD_CLOEXEC, first + 1)
        if second == first + 1:
            return Gates(first, second)
        os.close(first)
        os.close(second)
        number = second


def own_streams() -> list[int]:
    """Copies of ours, because a program moves them to 0, 1 and 2."""
    return [os.dup(number) for number in range(3)]


def check_command(process: Any, pid: int) -> None:
    """Before `start`, in runc's words: a command that is not there. The container's mounts are all made."""
    args = [str(item) for item in process["args"]]
    env = [str(item) for item in process.get("env") or ()]
    cwd = str(process.get("cwd") or "/")
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    problem = errno.ENOENT
    try:
        for candidate in plan_process.candidates(args[0], env):
            try:
                flags, resolve = os.O_PATH, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
                found = syscalls.openat2(root, str(Path(cwd, candidate)), flags, resolve)
            except OSError as error:
                problem = error.errno if error.errno == errno.EACCES else problem
                continue
            mode = os.fstat(found).st_mode
            os.close(found)
            if mode & 0o111 and mode & 0o170000 == 0o100000:
                return
            problem = errno.EACCES
    finally:
        os.close(root)
    words = "permission denied"
    if problem == errno.ENOENT:
        words = f"stat {args[0]}: no such file or directory"
        if "/" not in args[0]:
            words = "executable file not found in $PATH"
    raise EngineFailure(f'unable to start container process: exec: "{args[0]}": {words}')


def send_terminal(path: str, master: int) -> None:
    """To whoever listens on the console socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.settimeout(10)
            console.connect(path)
            socket.send_fds(console, [b"/dev/ptmx"], [master])
    except OSError as error:
        raise EngineFailure(f"the console socket {path} takes no terminal: {error}") from error


def write_pid_file(path: str, pid: int) -> None:
    """All of it at once: whoever waits for the file reads a whole number."""
    new = Path(f"{path}.new")
    new.write_text(str(pid))
    new.rename(path)


def end_group(cgroups: Cgroups, cgroup: str) -> None:
    """Kill what is in it and remove it; it takes a moment until it is empty."""
    deadline = time.monotonic() + GROUP_ENDS_S
    with contextlib.suppress(OSError):
        cgroups.kill(cgroup)
        while not cgroups.remove(cgroup) and time.monotonic() < deadline:
            cgroups.kill(cgroup)
            time.sleep(0.01)
