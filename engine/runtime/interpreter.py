"""The program of `program.py` interpreted by ctypes, for where `_spawn` could not be compiled.

The child is a copy of this process (no CLONE_VM) in which only the calling thread lives, so nobody else may
be inside the C library's allocator: call it from a process with one thread. Slower than `_spawn`, same
results; both pass the same tests.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import stat
import struct
from collections.abc import Sequence

from engine.runtime import program, syscalls
from engine.runtime.syscalls import (
    CLONE_CLEAR_SIGHAND,
    CLONE_INTO_CGROUP,
    CLONE_NEWPID,
    CLONE_PIDFD,
    CLONE_VFORK,
    NUMBERS,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

JOIN_FAILED = -1
LINKS_MAX = 40
_CLONE_ARGS = struct.Struct("11Q")
_RESULT = struct.Struct("ii")
_NAME_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def spawn(
    packed: bytes,
    registers: Sequence[int],
    clone_flags: int,
    join: Sequence[int],
    cgroup: int,
    pidns: int,
    own_pidns: int,
) -> tuple[int, int, int, int]:
    """(pid, pidfd, index, errno) as `_spawn.spawn`."""
    loaded = _Loaded(packed, registers)
    flags = clone_flags | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND
    if cgroup >= 0:
        flags |= CLONE_INTO_CGROUP
    pidfd_buffer, pidfd_address = syscalls.memory(bytes(4))
    arguments = (flags, pidfd_address, 0, 0, 17, 0, 0, 0, 0, 0, max(cgroup, 0))
    clone_buffer, clone_address = syscalls.memory(_CLONE_ARGS.pack(*arguments))
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        if pidns >= 0:
            syscalls.setns(pidns, CLONE_NEWPID)
        pid = syscalls.raw_syscall(NUMBERS["clone3"], [clone_address, _CLONE_ARGS.size])
        if pid == 0:
            _child(loaded, join, shared)
        if pidns >= 0:
            syscalls.setns(own_pidns, CLONE_NEWPID)
        index, code = _RESULT.unpack_from(shared)
    del clone_buffer
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    pidfd = int(struct.unpack("i", pidfd_buffer.raw[:4])[0])
    if code:
        os.waitpid(pid, 0)
        os.close(pidfd)
        return pid, -1, index, code
    return pid, pidfd, 0, 0


class _Loaded:
    """The unpacked operations, with pointers into a buffer that lives as long as this object."""

    def __init__(self, packed: bytes, registers: Sequence[int]) -> None:
        magic, count, relocations, size = program.HEADER.unpack_from(packed)
        body = program.HEADER.size + count * program.OPERATION.size
        if magic != program.MAGIC or len(packed) != body + relocations * 8 + size:
            raise ValueError("not a program of this version")
        data = bytearray(packed[body + relocations * 8 :])
        self._buffer, base = syscalls.memory(bytes(data))
        for offset in struct.unpack_from(f"<{relocations}Q", packed, body):
            (value,) = struct.unpack_from("<Q", data, offset)
            struct.pack_into("<Q", self._buffer, offset, value + base)
        self.registers = [*registers, *([0] * (program.REGISTERS_MAX - len(registers)))]
        self.operations = [
            self._operation(fields, base)
            for fields in program.OPERATION.iter_unpack(packed[program.HEADER.size : body])
        ]

    def _operation(
        self, fields: tuple[int, ...], base: int
    ) -> tuple[int, tuple[int, ...], list[int], int, int, tuple[int, ...]]:
        number, kinds, out, skip, tolerated, values = (
            fields[0],
            fields[1:7],
            fields[7],
            fields[8],
            fields[9:11],
            fields[11:],
        )
        arguments = [value + base if kind == 1 else value for kind, value in zip(kinds, values, strict=True)]
        return number, kinds, arguments, out, skip, tolerated

    def resolved(self, kinds: tuple[int, ...], arguments: list[int]) -> list[int]:
        return [
            self.registers[value] if kind == 2 else value
            for kind, value in zip(kinds, arguments, strict=True)
        ]

    def strings(self, address: int) -> list[tuple[int, str]]:
        """(pointer, text) of a null-terminated array of strings."""
        found: list[tuple[int, str]] = []
        base = syscalls.address_of(self._buffer)
        while True:
            (pointer,) = struct.unpack_from("<Q", self._buffer, address - base)
            if pointer == 0:
                return found
            found.append((pointer, os.fsdecode(syscalls.string_at(pointer))))
            address += 8


def _child(loaded: _Loaded, join: Sequence[int], shared: mmap.mmap) -> None:
    """Never returns: whatever goes wrong is written to `shared`."""
    index, code = JOIN_FAILED, errno.EINVAL
    try:
        for descriptor in join:
            os.write(descriptor, b"0")
        index, code = _interpret(loaded)
    except OSError as error:
        code = error.errno or errno.EINVAL
    finally:
        _RESULT.pack_into(shared, 0, index, code)
        os._exit(127)


def _interpret(loaded: _Loaded) -> tuple[int, int]:
    """(index, errno) of the operation that failed."""
    index = 0
    while index < len(loaded.operations):
        number, kinds, arguments, out, skip, tolerated = loaded.operations[index]
        values = loaded.resolved(kinds, arguments)
        try:
            result = _perform(loaded, number, values)
        except OSError as error:
            result = -(error.errno or errno.EINVAL)
        if result < 0:
            if program.ANY_ERROR not in tolerated and -result not in tolerated:
                return index, -result
            index += skip
        elif out >= 0:
            loaded.registers[out] = result
        index += 1
    return index, errno.ENOEXEC


def _perform(loaded: _Loaded, number: int, values: list[int]) -> int:
    if number == program.TARGET:
        return _open_target(values[0], os.fsdecode(syscalls.string_at(values[1])), values[2], values[3])
    if number == program.RLIMIT:
        return _set_rlimit(values[0], values[1], values[2])
    if number == program.EXEC:
        return _execute(loaded, values)
    return syscalls.raw_syscall(number, values)


def _open_target(root: int, path: str, kind: int, like: int) -> int:
    path = path.lstrip("/")
    with contextlib.suppress(FileNotFoundError):
        return syscalls.openat2(root, path or ".", os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    directory = kind == program.TARGET_DIRECTORY or (
        kind == program.TARGET_LIKE and stat.S_ISDIR(os.fstat(like).st_mode)
    )
    return _make_target(root, path, directory)


def _make_target(root: int, path: str, directory: bool) -> int:
    """As `make_target` of `_spawn.c`: links are resolved inside the root, what is missing is made."""
    done: list[str] = []
    rest = [part for part in path.split("/") if part]
    links = 0
    while rest:
        name = rest.pop(0)
        if name == ".":
            continue
        if name == "..":
            del done[-1:]
            continue
        parent = _open_directory(root, done)
        try:
            descriptor = _open_or_make(parent, name, directory or bool(rest))
        finally:
            os.close(parent)
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            done.append(name)
            if not rest:
                return descriptor
            os.close(descriptor)
            continue
        link = os.readlink("", dir_fd=descriptor)
        os.close(descriptor)
        links += 1
        if links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        done = [] if link.startswith("/") else done
        rest = [part for part in link.split("/") if part] + rest
    return _open_directory(root, done)


def _open_directory(root: int, parts: list[str]) -> int:
    flags = os.O_PATH | os.O_DIRECTORY
    return syscalls.openat2(root, "/".join(parts) or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)


def _open_or_make(parent: int, name: str, directory: bool) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, _NAME_FLAGS, dir_fd=parent)
    with contextlib.suppress(FileExistsError):
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=parent))
    return os.open(name, _NAME_FLAGS, dir_fd=parent)


def _set_rlimit(kind: int, soft: int, hard: int) -> int:
    try:
        resource.setrlimit(kind, (soft, hard))
    except (ValueError, PermissionError):
        _, inherited = resource.getrlimit(kind)
        if inherited != resource.RLIM_INFINITY:
            hard = inherited if hard == resource.RLIM_INFINITY else min(hard, inherited)
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(kind, (soft, hard))
    return 0


def _execute(loaded: _Loaded, values: list[int]) -> int:
    worst = -errno.ENOENT
    for pointer, _ in loaded.strings(values[0]):
        result = syscalls.raw_syscall(NUMBERS["execve"], [pointer, values[1], values[2]])
        if result == -errno.EACCES:
            worst = result
        elif result not in (-errno.ENOENT, -errno.ENOTDIR):
            return result
    return worst
