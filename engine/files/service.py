"""Files of containers for the API: looking, copying out, copying in, exporting, and what a container changed.

Slow work runs in threads of its own, a few at a time. A container that does not run cannot be started or removed
while its files are in use (its root would be mounted twice); one that runs may end meanwhile.
"""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import datetime
import errno
import functools
import gzip
import lzma
import os
import posixpath
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar, cast

from engine.container import Container, Status
from engine.containers import Containers
from engine.errors import Conflict, EngineFailure, InvalidParameter, NotFound, Unavailable
from engine.events import EventBus
from engine.files import inside, pack
from engine.files.changes import users_changes
from engine.files.extract import Extractor
from engine.files.pipes import read_by, written_by
from engine.files.view import JustEnded, View, ViewMount, view_of_running, view_of_stopped
from engine.preparation import HostPreparation
from engine.runtime.birth import start_ticks
from engine.settings import EngineSettings
from engine.storage.driver import StorageDriver
from engine.timings import Timings

COPIES_MAX = 16
SLOT_WAIT_S = 60.0
EXIT_WAIT_S = 3.0  # until the end of a process is in the container's record
_NETWORK_FILES = ("hosts", "hostname", "resolv.conf")
_RACES = (errno.EAGAIN, errno.EBUSY, errno.ESTALE)
_T = TypeVar("_T")


class Files:
    """`engine.files`."""

    def __init__(
        self,
        settings: EngineSettings,
        containers: Containers,
        storage: StorageDriver,
        preparation: HostPreparation,
        events: EventBus,
        timings: Timings,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._storage = storage
        self._preparation = preparation
        self._events = events
        self._timings = timings
        self._pool = ThreadPoolExecutor(COPIES_MAX, thread_name_prefix="container-files")
        self._slots = asyncio.Semaphore(COPIES_MAX)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def stat(self, ref: str, path: str) -> dict[str, Any]:
        """What X-Docker-Container-Path-Stat carries. NotFound when there is nothing at `path`."""
        container = self._containers.find(ref)
        async with self._opened(container) as view:
            return await self._run(_described, view, checked_path(path), ref)

    @contextlib.asynccontextmanager
    async def archive(
        self, ref: str, path: str
    ) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """(what `stat` says, a tar archive of `path` in pieces)."""
        container = self._containers.find(ref)
        path = checked_path(path)
        async with self._opened(container) as view:
            described = await self._run(_described, view, path, ref)
            pieces = written_by(self._pool, functools.partial(_pack, view, path, ref))
            self._publish(container, "archive-path")
            async with contextlib.aclosing(cast("Any", pieces)):
                yield described, pieces

    async def extract(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keeps_kinds: bool,
        to_user: bool,
    ) -> None:
        """Unpack an archive into the folder at `path`. `to_user`: everything becomes the container's user's."""
        container = self._containers.find(ref)
        path = checked_path(path)
        owner = None
        if to_user:
            user = await asyncio.to_thread(self._preparation.exec_user, container, "")
            owner = (user.uid, user.gid)
        async with self._opened(container) as view:
            folder = await self._run(_destination, view, path, ref)
            extractor = Extractor(
                view.root, folder, path, keeps_kinds=keeps_kinds, owner=owner, remapping=view.remapping
            )
            try:
                await read_by(self._pool, source, lambda file: _extract(extractor, file))
            finally:
                os.close(folder)
        self._publish(container, "extract-to-dir")

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """The container's root as a tar archive, without what is mounted below it."""
        container = self._containers.find(ref)
        if container.state.status is Status.REMOVING:
            raise Conflict(f"You cannot export container {container.id} which is being removed")
        if container.state.status is Status.DEAD:
            raise Conflict(f"You cannot export container {container.id} which is dead")
        async with self._opened(container, bare=True) as view:
            pieces = written_by(self._pool, lambda target: pack.pack_tree(view.root, target, view.remapping))
            self._publish(container, "export")
            async with contextlib.aclosing(cast("Any", pieces)):
                async for piece in pieces:
                    yield piece

    async def changes(self, ref: str) -> list[dict[str, Any]]:
        container = self._containers.find(ref)
        with self._timings.of("changes"):
            found = await self._run(self._storage.changes, container.id)
        return [{"Path": path, "Kind": kind} for path, kind in users_changes(found)]

    @contextlib.asynccontextmanager
    async def _opened(self, container: Container, *, bare: bool = False) -> AsyncIterator[View]:
        """`bare`: the root alone."""
        async with contextlib.AsyncExitStack() as held:
            await self._take_slot(held)
            view = await self._view(container, bare, held)
            try:
                yield view
            finally:
                await asyncio.shield(self._submit(view.close))

    async def _view(self, container: Container, bare: bool, held: contextlib.AsyncExitStack) -> View:
        """Of a container that has just ended as soon as its record says so."""
        is_locked = False
        deadline = time.monotonic() + EXIT_WAIT_S
        while True:
            if not container.is_running and not is_locked:
                await held.enter_async_context(self._containers.lock(container))
                is_locked = True
            opened = self._running_view if container.is_running else self._stopped_view
            try:
                return await asyncio.shield(self._submit(opened, container, bare))
            except JustEnded:
                if is_locked or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    async def _take_slot(self, held: contextlib.AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable(f"{COPIES_MAX} copies run already: try again when one has ended") from error
        held.callback(self._slots.release)

    def _running_view(self, container: Container, bare: bool) -> View:
        pid, ticks = container.state.pid, container.state.start_ticks
        mounts = [] if bare else self._mounts(container)
        return view_of_running(pid, lambda: start_ticks(pid) == ticks, mounts)

    def _stopped_view(self, container: Container, bare: bool) -> View:
        mounts = [] if bare else self._mounts(container)
        mounted = functools.partial(self._storage.mounted, container.id)
        return view_of_stopped(mounted, mounts, read_only=container.host_config.readonly_rootfs)

    def _mounts(self, container: Container) -> list[ViewMount]:
        """What the container has mounted and a user may copy: not the kernel's own, and not secrets."""
        mounts = [
            ViewMount(
                target=mount.target,
                source="" if mount.kind == "tmpfs" else mount.source,
                read_only=mount.read_only,
                recursive=mount.kind == "bind" and not mount.non_recursive,
            )
            for mount in container.mounts
        ]
        taken = {mount.target for mount in mounts}
        folder = self._settings.container_dir(container.id)
        for name in _NETWORK_FILES:
            if f"/etc/{name}" not in taken:
                mounts.append(ViewMount(target=f"/etc/{name}", source=str(folder / name), optional=True))
        return mounts

    def _submit(self, work: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def _run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await self._submit(work, *arguments)

    def _publish(self, container: Container, action: str) -> None:
        self._events.publish("container", action, container.id, container.event_attributes())


def checked_path(path: str) -> str:
    """Absolute and normal; `/.` or `/` at its end stays, for there it says that a folder is meant."""
    if not path or "\0" in path:
        raise InvalidParameter("bad parameter: path cannot be empty" if not path else "bad parameter: path")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return f"{clean.rstrip('/')}/."
    return f"{clean.rstrip('/')}/" if path.endswith("/") else clean


def _described(view: View, path: str, ref: str) -> dict[str, Any]:
    with _told(path, ref):
        status = inside.status_inside(view.root, path)
        is_link = inside.go_mode(status.st_mode) & 1 << 27
        target = inside.final_target(view.root, path) if is_link else ""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return {
        "name": path.rstrip("/").rpartition("/")[2] or "/",
        "size": status.st_size,
        "mode": inside.go_mode(status.st_mode),
        "mtime": f"{moment}{fraction}Z",
        "linkTarget": target,
    }


def _pack(view: View, path: str, ref: str, target: IO[bytes]) -> None:
    with _told(path, ref):
        pack.pack_path(view.root, path, target, view.remapping)


def _destination(view: View, path: str, ref: str) -> int:
    """The folder to unpack into, which can be written."""
    with _told(path, ref):
        try:
            folder = inside.open_inside(view.root, path, os.O_PATH | os.O_DIRECTORY)
        except NotADirectoryError as error:
            raise InvalidParameter("extraction point is not a directory") from error
    if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
        is_root = _mount_id(folder) == _mount_id(view.root)
        os.close(folder)
        what = "container rootfs" if is_root else "mounted volume"
        raise InvalidParameter(f"{what} is marked read-only")
    return folder


@contextlib.contextmanager
def _told(path: str, ref: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {path} in container {ref}") from error
    except OSError as error:
        problem = f"lstat {path}: {(error.strerror or str(error)).lower()}"
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise InvalidParameter(problem) from error
        raise EngineFailure(problem) from error


def _mount_id(descriptor: int) -> str:
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def _extract(extractor: Extractor, file: IO[bytes]) -> None:
    try:
        extractor.extract(_decompressed(file))
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InvalidParameter(f"archive is damaged: {error}") from error
    except OSError as error:
        if error.errno in _RACES:
            raise Conflict(f"the container changes its files all the time: {error}") from error
        if error.errno is not None:
            raise
        raise InvalidParameter(f"archive is damaged: {error}") from error


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """By its first bytes, as Docker does."""
    start = cast("Any", file).peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(file))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(file))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        raise InvalidParameter("archives compressed with zstd are not supported yet: send gzip, or plain tar")
    return file
