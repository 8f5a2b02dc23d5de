"""The overlay driver: one directory per layer, stacked by the kernel; each container has its own upper one.

A container's folder holds {chain,upper,work}. Mounting a running container is the runtime's part (inside the
container's mount namespace); `mounted` is for the host's own reading and writing of a container's files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import InvalidParameter
from engine.runtime import syscalls
from engine.runtime.plan import RootfsLike
from engine.storage.driver import ADDED, DELETED, MODIFIED, DriverUnusable, Rootfs
from engine.storage.file_system import file_system_name, mount_of
from engine.storage.layer_folders import LayerFolders
from engine.storage.layer_tree import OPAQUE_XATTR, LayerUnpacker, is_whiteout
from engine.storage.trees import PATH_MAX, tree_bytes, walk


class OverlayDriver(LayerFolders):
    name = "overlay2"

    def status(self) -> list[list[str]]:
        return [*super().status(), ["Supports d_type", "true"], ["Native Overlay Diff", "true"]]

    def _check_host(self) -> None:
        """By doing it: a kernel that refuses, or file types that listings do not tell, shows at once."""
        trial = self._new_name()
        try:
            for name in ("lower", "upper", "work"):
                (trial / name).mkdir(parents=True)
            (trial / "lower/file").touch()
            rootfs = Rootfs(
                lower=(str(trial / "lower"),), upper=str(trial / "upper"), work=str(trial / "work")
            )
            with self._mounted(rootfs) as root:
                (root / "file").unlink()
                if list(root.iterdir()):
                    raise OSError("deleted files stay in its listings (a file system without d_type)")
        except OSError as error:
            raise DriverUnusable(
                f"'{self.name}' is not supported over {file_system_name(self._root)} by this kernel "
                f"({error.strerror or error}): use --storage-driver fuse-overlayfs or vfs, or another --root"
            ) from error
        finally:
            self._delete(trial)

    def _unpacker(self, diff: Path, below: Sequence[Path]) -> LayerUnpacker:
        diff.mkdir(mode=0o755)
        return LayerUnpacker(diff, "overlay", below)

    def _check_container_options(self, options: Mapping[str, str]) -> None:
        for name in options:
            if name != "size":
                raise InvalidParameter(f"unknown option {name}: {self.name} knows only size")
            kind, mounted = mount_of(self._root)
            has_quota = kind == "xfs" and bool({"pquota", "prjquota"} & set(mounted.split(",")))
            why = "which this engine does not set yet" if has_quota else f"this is {kind}"
            raise InvalidParameter(
                f"--storage-opt is supported only for overlay over xfs with 'pquota' mount option ({why}): "
                "leave size out, or use --storage-driver btrfs"
            )

    def _make_root(self, folder: Path, below: Sequence[Path], options: Mapping[str, str]) -> None:
        (folder / "upper").mkdir(mode=0o755)
        (folder / "work").mkdir(mode=0o700)

    def _rootfs(self, folder: Path, below: Sequence[Path]) -> Rootfs:
        return Rootfs(lower=tuple(map(str, below)), upper=str(folder / "upper"), work=str(folder / "work"))

    def places(self, container_id: str) -> dict[str, str]:
        return places_of(self.rootfs(container_id))

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        """Not for a container that runs: its upper directory must be mounted once only."""
        rootfs = self.rootfs(container_id)
        if not rootfs.lower:
            yield Path(rootfs.upper)
            return
        with self._mounted(rootfs) as root:
            yield root

    @contextlib.contextmanager
    def _mounted(self, rootfs: Rootfs) -> Iterator[Path]:
        with self._mount_point() as target:
            mount_overlay(rootfs, target)
            yield target

    def changes(self, container_id: str) -> list[tuple[str, int]]:
        return changes_of(self.rootfs(container_id))

    def usage(self, container_id: str) -> int:
        folder = self._containers / container_id
        return tree_bytes(folder / "upper") if folder.is_dir() else 0


def places_of(rootfs: Rootfs) -> dict[str, str]:
    return {"LowerDir": ":".join(rootfs.lower), "UpperDir": rootfs.upper, "WorkDir": rootfs.work}


def changes_of(rootfs: Rootfs) -> list[tuple[str, int]]:
    """What the upper directory says about the lower ones. What is too deep for a path to name is left out."""
    found: list[tuple[str, int]] = []
    new: set[str] = set()  # folders that no layer has: nor does one have anything in them
    for folder in walk(Path(rootfs.upper), longest=PATH_MAX):
        above = folder.path
        for name in (*folder.folders, *folder.others):
            path, status = f"{above}/{name}", folder.status(name)
            if status is None:
                continue
            is_new = above in new or not _is_below(rootfs.lower, Path(path[1:]))
            if is_new and stat.S_ISDIR(status.st_mode):
                new.add(path)
            found.append((path, DELETED if is_whiteout(status) else ADDED if is_new else MODIFIED))
        if above not in new and _is_opaque(folder.descriptor):
            hidden = _names_below(rootfs.lower, Path(above[1:])) - {*folder.folders, *folder.others}
            found += [(f"{above}/{name}", DELETED) for name in hidden]
    return sorted(found)


def mount_overlay(rootfs: RootfsLike, target: Path) -> None:
    with _short_names(rootfs) as options:
        syscalls.mount("overlay", str(target), "overlay", 0, options)


@contextlib.contextmanager
def _short_names(rootfs: RootfsLike) -> Iterator[str]:
    """The mount options by open descriptors: a page of options takes 200 of them, but only 40 long paths."""
    with contextlib.ExitStack() as opened:

        def short(path: str) -> str:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        lower = ":".join(map(short, rootfs.lower))
        yield f"lowerdir={lower},upperdir={short(rootfs.upper)},workdir={short(rootfs.work)}"


def _is_below(lowers: Sequence[str], inside: Path) -> bool:
    """Whether the layers show something at that path: the topmost that knows of it decides."""
    steps = [*reversed(inside.parents[:-1]), inside]
    for lower in lowers:
        for step in steps:
            path = Path(lower, step)
            try:
                status = path.lstat()
            except FileNotFoundError:
                break
            if step == inside:
                return not is_whiteout(status)
            if not stat.S_ISDIR(status.st_mode):
                return False
        if any(_is_opaque(Path(lower, above)) for above in inside.parents):
            return False
    return False


def _names_below(lowers: Sequence[str], folder: Path) -> set[str]:
    """What the layers show in a folder."""
    names: set[str] = set()
    for lower in lowers:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names.update(entry.name for entry in Path(lower, folder).iterdir())
    return {name for name in names if _is_below(lowers, folder / name)}


def _is_opaque(folder: Path | int) -> bool:
    try:
        return os.getxattr(folder, OPAQUE_XATTR, follow_symlinks=isinstance(folder, int)) == b"y"
    except OSError:
        return False
