"""A container's files as the container sees them, reached by one descriptor and by nothing else.

A view is a mount namespace of its own that holds the container's root, its volumes and bind mounts (and, of a running
one, its tmpfs), but no /proc, /sys or /dev. Nobody runs in it: a descriptor keeps it, so that it ends with its owner,
even by kill -9. Invariants: no thread that does anything but the few system calls below ever has the container's root as
its own, so the host never loads a library or a module from there (CVE-2019-14271); every path is resolved by the kernel
inside the view's root, against whatever is swapped meanwhile (CVE-2018-15664).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from engine.errors import Conflict, EngineFailure
from engine.files.inside import open_inside
from engine.runtime import syscalls
from engine.runtime.syscalls import NUMBERS, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from engine.runtime.user_namespaces import Remapping, running_remapping

_ATTRIBUTES = struct.Struct("QQQQ")  # struct mount_attr: set, clear, propagation, user namespace
_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
_BETWEEN_DESCRIPTORS = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
_PRIVATE = syscalls.MS_REC | syscalls.MS_PRIVATE

_JUST_ENDED = "the container has just ended: try again"


class JustEnded(Conflict):
    """Its first process is gone; its record will soon say so."""


class ViewMount(msgspec.Struct, frozen=True, kw_only=True):
    """Something mounted at `target`. `source`: where it is on the host; "" when only the running container has it."""

    target: str
    source: str = ""
    read_only: bool = False
    recursive: bool = False
    optional: bool = False  # shown where it can be


class View:
    """`root` is a descriptor of the container's root (O_PATH). `close` ends the mounts."""

    remapping: Remapping | None = None  # of the owners that are seen in it

    def __init__(self, root: int, namespace: int) -> None:
        self.root = root
        self._namespace = namespace

    def close(self) -> None:
        os.close(self.root)
        os.close(self._namespace)


def view_of_running(pid: int, is_same: Callable[[], bool], mounts: Sequence[ViewMount]) -> View:
    """Of the container whose first process is `pid`. `is_same`: that number still is that process."""
    try:
        theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise JustEnded(_JUST_ENDED) from error
    try:
        if not is_same():
            raise JustEnded(_JUST_ENDED)
        view = _in_thread(lambda own: _clone_running(theirs, own, mounts))
        # Its mounts show the host's numbers for its users; those of a stopped one show what is on the disk.
        view.remapping = running_remapping(pid)
        return view
    finally:
        os.close(theirs)


def view_of_stopped(
    mounted: Callable[[], AbstractContextManager[Path]], mounts: Sequence[ViewMount], *, read_only: bool
) -> View:
    """Of a container that does not run. `mounted` mounts its root as long as the context lasts."""
    return _in_thread(lambda _own: _assemble_stopped(mounted, mounts, read_only=read_only))


def _in_thread(assemble: Callable[[int], int]) -> View:
    """`assemble` in a thread that has a mount namespace of its own; it gets that namespace and returns the root."""
    views: list[View] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            syscalls.syscall(NUMBERS["unshare"], syscalls.CLONE_FS | syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", _PRIVATE, "")
            own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                root = assemble(own)
                _drop_the_rest(root)
            except BaseException:
                os.close(own)
                raise
            views.append(View(root, own))
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            failures.append(error)

    # Its file system root is no longer the process's: no thread of a pool may come back from this.
    thread = threading.Thread(target=work, name="container-view")
    thread.start()
    thread.join()
    if failures:
        if isinstance(failures[0], OSError):
            raise EngineFailure(f"the container's files cannot be reached: {failures[0]}") from failures[0]
        raise failures[0]
    return views[0]


def _clone_running(theirs: int, own: int, mounts: Sequence[ViewMount]) -> int:
    """Only system calls in between: while the root is the container's, nothing may be looked up by name for us."""
    clones: list[tuple[ViewMount, int]] = []
    root = -1
    try:
        syscalls.setns(theirs, syscalls.CLONE_NEWNS)
        try:
            top = os.open("/", os.O_PATH | os.O_CLOEXEC)
            try:
                root = syscalls.syscall(NUMBERS["open_tree"], top, b"", syscalls.AT_EMPTY_PATH | _CLONE)
                for mount in mounts:
                    clone = _clone_inside(top, mount)
                    if clone >= 0:
                        clones.append((mount, clone))
            finally:
                os.close(top)
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWNS)
        _attach(root, clones)
    except BaseException:
        if root >= 0:
            os.close(root)
        raise
    finally:
        for _, clone in clones:
            os.close(clone)
    return root


def _clone_inside(top: int, mount: ViewMount) -> int:
    """A detached copy of what the container has there; -1 when it has taken that place away."""
    try:
        place = syscalls.openat2(top, mount.target, os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return -1
    flags = syscalls.AT_EMPTY_PATH | _CLONE | (syscalls.AT_RECURSIVE if mount.recursive else 0)
    try:
        return syscalls.syscall(NUMBERS["open_tree"], place, b"", flags)
    finally:
        os.close(place)


def _assemble_stopped(
    mounted: Callable[[], AbstractContextManager[Path]], mounts: Sequence[ViewMount], *, read_only: bool
) -> int:
    with mounted() as path:
        root = syscalls.syscall(NUMBERS["open_tree"], syscalls.AT_FDCWD, os.fsencode(path), _CLONE)
    clones: list[tuple[ViewMount, int]] = []
    try:
        for mount in mounts:
            clone = _clone_source(mount)
            if clone >= 0:
                clones.append((mount, clone))
        _attach(root, clones)
        if read_only:
            _make_read_only(root)
    except BaseException:
        os.close(root)
        raise
    finally:
        for _, clone in clones:
            os.close(clone)
    return root


def _clone_source(mount: ViewMount) -> int:
    flags = _CLONE | (syscalls.AT_RECURSIVE if mount.recursive else 0)
    if not mount.source:
        return -1
    try:
        clone = syscalls.syscall(NUMBERS["open_tree"], syscalls.AT_FDCWD, os.fsencode(mount.source), flags)
    except FileNotFoundError as error:
        if mount.optional:
            return -1
        raise EngineFailure(
            f"bind source path does not exist: {mount.source}: make it again, or create the container anew"
        ) from error
    if mount.read_only:
        _make_read_only(clone)
    return clone


def _attach(root: int, clones: Sequence[tuple[ViewMount, int]]) -> None:
    """The root over this namespace's own, and the rest below it, outer ones first."""
    flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH
    syscalls.syscall(NUMBERS["move_mount"], root, b"", syscalls.AT_FDCWD, b"/", flags)
    for mount, clone in sorted(clones, key=lambda item: item[0].target.count("/")):
        ignored = (OSError,) if mount.optional else ()
        with contextlib.suppress(*ignored), _place(root, mount, clone) as place:
            syscalls.syscall(NUMBERS["move_mount"], clone, b"", place, b"", _BETWEEN_DESCRIPTORS)


@contextlib.contextmanager
def _place(root: int, mount: ViewMount, clone: int) -> Iterator[int]:
    """Where to mount. It is made, as the start of the container would, when it has never been started."""
    try:
        place = open_inside(root, mount.target, os.O_PATH)
    except FileNotFoundError:
        if mount.optional:
            raise
        _make_place(root, mount.target, is_folder=stat.S_ISDIR(os.fstat(clone).st_mode))
        place = open_inside(root, mount.target, os.O_PATH)
    try:
        yield place
    finally:
        os.close(place)


def _make_place(root: int, target: str, *, is_folder: bool) -> None:
    parts = [part for part in target.split("/") if part]
    for depth, name in enumerate(parts):
        parent = open_inside(root, "/".join(parts[:depth]), os.O_PATH | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileExistsError):
                if is_folder or depth < len(parts) - 1:
                    os.mkdir(name, 0o755, dir_fd=parent)
                else:
                    os.mknod(name, stat.S_IFREG | 0o644, dir_fd=parent)
        finally:
            os.close(parent)


def _make_read_only(mount: int) -> None:
    attributes = _ATTRIBUTES.pack(syscalls.MOUNT_ATTR_RDONLY, 0, 0, 0)
    syscalls.syscall(
        NUMBERS["mount_setattr"], mount, b"", syscalls.AT_EMPTY_PATH, attributes, len(attributes)
    )


def _drop_the_rest(root: int) -> None:
    """The host's mounts leave the new namespace, so that a view holds nothing of the host busy."""
    os.fchdir(root)
    try:
        syscalls.syscall(NUMBERS["pivot_root"], b".", b".")
    except OSError as error:
        if error.errno != errno.EINVAL:  # a host whose root cannot be turned away (an initial ram disk)
            raise
        return
    syscalls.umount(".", syscalls.MNT_DETACH)
