"""Everything around a container's process: folders, root file system, network, files in memory.

`create` is undone by `destroy`, `prepare` (each start) by `release`. Invariant: when `create` or `prepare`
fails, nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import resource
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from engine.bundle import DEFAULT_SHM_BYTES, BundleContext, build_spec
from engine.config import SecretFile
from engine.container import Container
from engine.errors import Conflict, EngineFailure, InvalidParameter
from engine.log_forwarding import LogForwarding
from engine.log_settings import LogSettings, log_settings
from engine.logging_drivers.attributes import chosen_attributes, tag_of
from engine.memory_files import MemoryFiles
from engine.networking import ContainerNetworking, NetworkFiles
from engine.process import runtime_environment
from engine.runtime import syscalls
from engine.runtime.client import ContainerStart
from engine.runtime.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
from engine.runtime.user_namespaces import NamespaceKeeper, Remapping, check_kernel, parse_remapping
from engine.runtime.users import ResolvedUser, resolve_user
from engine.runtime.wire import LogStyle
from engine.settings import EngineSettings
from engine.shared_memory import SharedMemory
from engine.storage.driver import StorageDriver
from engine.storage.trees import remove_tree
from engine.volume_use import VolumeUse
from engine.volumes import VolumeStore, copy_up


class HostPreparation:
    """The engine's implementation of `lifecycle.Preparation`, and of what creation needs."""

    def __init__(
        self,
        settings: EngineSettings,
        storage: StorageDriver,
        volumes: VolumeStore,
        networking: ContainerNetworking,
        memory_files: MemoryFiles,
        find: Callable[[str], Container],
        collect_layers: Callable[[Sequence[str]], object],
        forwarding: LogForwarding,
    ) -> None:
        self._volume_use = VolumeUse(volumes)
        self._settings = settings
        self._storage = storage
        self._volumes = volumes
        self._networking = networking
        self._memory_files = memory_files
        self._find = find
        self._collect_layers = collect_layers
        self._forwarding = forwarding
        self._shared_memory = SharedMemory(settings.run_dir / "shm")
        self._remapping = parse_remapping(settings.userns_remap)
        if self._remapping is not None:
            check_kernel(os.uname().release)
            self._user_namespace = NamespaceKeeper(self._remapping)

    @property
    def remaps(self) -> bool:
        """Whether containers have users of their own, unless they say otherwise."""
        return self._remapping is not None

    def close(self) -> None:
        if self._remapping is not None:
            self._user_namespace.close()

    def _remapping_of(self, container: Container) -> Remapping | None:
        return None if container.host_config.userns_mode == "host" else self._remapping

    def recover(self, known: Collection[str]) -> None:
        """After a crash: nothing is left of containers that are not known."""
        self._memory_files.recover(known)
        self._shared_memory.recover(known)

    async def create(self, container: Container, top_layer: str | None, files: Sequence[SecretFile]) -> None:
        """Folder, root file system, copied-up volumes, files in memory."""
        try:
            self._settings.container_dir(container.id).mkdir(mode=0o710, parents=True)
            await self._create_rootfs(container, top_layer)
            if any(mount.copy_up for mount in container.mounts):
                await asyncio.to_thread(self._copy_up, container)
            if files:
                self._memory_files.write(container.id, _shifted(files, self._remapping_of(container)))
        except BaseException:
            await self.destroy(container, volumes=False)
            raise

    async def prepare(self, container: Container) -> ContainerStart:
        if container.has_memory_files and not self._memory_files.paths(container.id):
            raise EngineFailure(
                f"the secrets of container {container.name} are gone (they live in memory only): create it anew"
            )
        if self._storage.mounts_on_host:
            await asyncio.to_thread(self._storage.rootfs, container.id)
        if container.state.restart_count == 0:
            # Somebody starts it and hears of it. A restart by policy goes on: lines wait for their server.
            await self._forwarding.check(container)
        await self._acquire_volumes(container)
        netns = await self._networking.prepare(container)
        host = container.host_config
        hostname = self._hostname(container)
        self._networking.refresh_links(container)
        network_files = self._networking.write_files(container, hostname)
        remapping = self._remapping_of(container)
        if remapping is not None:
            _own_files(network_files, remapping)
        user = self._user(container)
        environment = [
            *self._networking.link_environment(container),
            *runtime_environment(container.config, hostname),
        ]
        if not any(entry.startswith("HOME=") for entry in environment):
            environment.append(f"HOME={user.home or '/'}")
        context = BundleContext(
            uid=user.uid,
            gid=user.gid,
            groups=tuple(user.groups),
            environment=tuple(environment),
            hostname=hostname,
            hostname_path=network_files.hostname,
            hosts_path=network_files.hosts,
            resolv_path=network_files.resolv,
            open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            memory_files=tuple(self._memory_files.paths(container.id)),
            init_program=init_program() if host.init else "",
            pid_namespace=self._namespace(host.pid_mode, "pid"),
            ipc_namespace=self._namespace(host.ipc_mode, "ipc"),
            uts_namespace="host" if host.uts_mode == "host" else "",
            cgroup_namespace="host" if host.cgroupns_mode == "host" else "",
            shm_path=self._shm_path(container, remapping),
            remapping=remapping,
            user_namespace="" if remapping is None else await asyncio.to_thread(self._user_namespace.path),
        )
        log = log_settings(host.log_config)
        return ContainerStart(
            id=container.id,
            spec=build_spec(container, context),
            rootfs=self._storage.rootfs(container.id),
            netns=netns,
            cgroup=cgroup_path(host.cgroup_parent or self._settings.cgroup_parent, container.id),
            tty=container.config.tty,
            stdin=container.config.open_stdin,
            stdin_once=container.config.stdin_once,
            console_size=(host.console_size[0], host.console_size[1]) if host.console_size else None,
            log_driver="none" if log.driver == "none" else "json-file",
            log_path=str(self._settings.log_path(container.id, log.driver)),
            log_max_size=log.max_size,
            log_max_file=log.max_file,
            log_style=_log_style(container, log),
        )

    async def release(self, container: Container) -> None:
        await self._networking.release(container)
        if self._storage.mounts_on_host:
            await asyncio.to_thread(self._storage.release_rootfs, container.id)
        self._shared_memory.remove(container.id)
        if any(mount.name for mount in container.mounts):
            await self._with_volumes(self._volume_use.release, container)

    def recover_volumes(self, had_process: Iterable[Container]) -> None:
        """After a restart of the daemon: which volumes are in use, before ends are told."""
        self._volume_use.recover(had_process)

    async def _acquire_volumes(self, container: Container) -> None:
        if any(mount.name for mount in container.mounts):
            await self._with_volumes(self._volume_use.acquire, container)

    async def _with_volumes(self, work: Callable[[Container], None], container: Container) -> None:
        """Plugins answer in a thread. Carried to its end: what was mounted meanwhile must be known."""
        if self._volume_use.is_quick(container):
            work(container)
            return
        working = asyncio.ensure_future(asyncio.to_thread(work, container))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.gather(working, return_exceptions=True)
            raise

    async def destroy(self, container: Container, *, volumes: bool) -> None:
        await self._forwarding.end(container)
        await asyncio.to_thread(self._destroy, container, volumes)

    async def _create_rootfs(self, container: Container, top_layer: str | None) -> None:
        """A thread cannot be cancelled: its end is awaited, so that whoever undoes it finds all of it."""
        options = container.host_config.storage_opt or {}
        making = asyncio.ensure_future(
            asyncio.to_thread(self._storage.create_rootfs, container.id, top_layer, options)
        )
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait([making])
            raise

    def exec_user(self, container: Container, user: str) -> ResolvedUser:
        """The user of an exec: the one given, else the container's."""
        return self._user(container, user)

    def _destroy(self, container: Container, volumes: bool) -> None:
        self._collect_layers(self._storage.remove_rootfs(container.id))
        remove_tree(self._settings.container_dir(container.id), ignore_errors=True)
        self._memory_files.remove(container.id)
        if volumes:
            for mount in container.mounts:
                if mount.anonymous and mount.name:
                    self._volumes.remove_with(mount.name, container.id)

    def _copy_up(self, container: Container) -> None:
        """What the image has at a volume's place into the volume, while that is empty."""
        self._volume_use.acquire(container)
        try:
            self._copy_image_content(container)
        finally:
            self._volume_use.release(container)

    def _copy_image_content(self, container: Container) -> None:
        with self._storage.mounted(container.id) as root:
            for mount in container.mounts:
                target = Path(mount.source)
                if mount.copy_up and target.is_dir() and not any(target.iterdir()):
                    with _directory_inside(root, mount.target) as source:
                        if source is not None:
                            copy_up(source, target)

    def _hostname(self, container: Container) -> str:
        mode = container.network_mode
        if mode.startswith("container:"):
            return self._hostname(self._find(mode.partition(":")[2]))
        if mode == "host" or container.host_config.uts_mode == "host":
            return container.config.hostname or self._settings.hostname
        return container.config.hostname or container.short_id

    def _shm_path(self, container: Container, remapping: Remapping | None) -> str:
        mode = container.host_config.ipc_mode
        if mode == "shareable":
            size = container.host_config.shm_size or DEFAULT_SHM_BYTES
            owner = (remapping.uid, remapping.gid) if remapping else (0, 0)
            return self._shared_memory.make(container.id, size, *owner)
        if not mode.startswith("container:"):
            return ""
        donor = self._find(mode.partition(":")[2])
        path = self._shared_memory.path(donor.id)
        if not path:
            raise Conflict(
                f"cannot join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the "
                "donor container)"
            )
        return path

    def _namespace(self, mode: str, kind: str) -> str:
        if mode in ("", "private", "shareable", "none"):
            return ""
        if mode == "host":
            return "host"
        other = self._find(mode.partition(":")[2])
        if not other.is_running:
            raise Conflict(f"cannot join {kind} namespace of a non running container: {other.id}")
        return f"/proc/{other.state.pid}/ns/{kind}"

    def _user(self, container: Container, user: str = "") -> ResolvedUser:
        text = user or container.config.user
        extra = container.host_config.group_add or ()
        rootfs = self._storage.rootfs(container.id)
        try:
            return resolve_user(text, rootfs, extra_groups=extra)
        except LookupError as error:
            raise InvalidParameter(str(error)) from error


def _shifted(files: Sequence[SecretFile], remapping: Remapping | None) -> list[SecretFile]:
    """Owners as the host numbers them: these files are shown as they are."""
    if remapping is None:
        return list(files)
    uid, gid = remapping.uid, remapping.gid
    return [msgspec.structs.replace(file, uid=uid + file.uid, gid=gid + file.gid) for file in files]


def _own_files(files: NetworkFiles, remapping: Remapping) -> None:
    """/etc/hosts and the like belong to the container's root."""
    for path in (files.hostname, files.hosts, files.resolv):
        if path:
            os.chown(path, remapping.uid, remapping.gid)


def init_program() -> str:
    """The program for `--init`. EngineFailure when it was not built."""
    path = Path(syscalls.__file__).with_name("docker-init")
    if not os.access(path, os.X_OK):
        raise EngineFailure(
            f"the program for --init is missing: {path}; install gcc and libc6-dev, and install this software anew "
            "(or: python setup.py build_ext --inplace)"
        )
    return str(path)


def cgroup_path(parent: str, container_id: str) -> str:
    """Below every hierarchy, and nowhere else: `..` ends at the top."""
    return posixpath.join(posixpath.normpath(f"/{parent}"), container_id).lstrip("/")


@contextlib.contextmanager
def _directory_inside(root: Path, path: str) -> Iterator[Path | None]:
    """A directory as a process whose root is `root` finds it, links followed; None when there is none."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        flags = os.O_PATH | os.O_DIRECTORY
        found = syscalls.openat2(top, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    finally:
        os.close(top)
    try:
        yield Path(f"/proc/self/fd/{found}").readlink()
    finally:
        os.close(found)


def _log_style(container: Container, log: LogSettings) -> LogStyle:
    """Of drivers that forward, the server gets the attributes; only json-file keeps them."""
    attributes: dict[str, str] = {}
    if log.driver == "json-file":
        config = container.host_config.log_config
        options = (config.config if config else None) or {}
        attributes = chosen_attributes(container, options)
        if options.get("tag"):
            attributes["tag"] = tag_of(container, options["tag"])
    return LogStyle(
        compress=log.compress,
        buffer_bytes=log.buffer_bytes,
        attributes=attributes,
        numbered=log.is_remote,
    )
