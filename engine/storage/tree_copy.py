"""Copying a file tree as it is: owners, modes, times, extended attributes, hard links and device nodes."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def copy_tree(source: Path, target: Path) -> None:
    """The content of `source` into the existing directory `target`, whose own attributes are set too."""
    links: dict[tuple[int, int], Path] = {}
    _copy_directory(source, target, links)


def _copy_directory(source: Path, target: Path, links: dict[tuple[int, int], Path]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            _copy_entry(Path(entry.path), target / entry.name, links)
    _copy_attributes(source, target)


def _copy_entry(source: Path, target: Path, links: dict[tuple[int, int], Path]) -> None:
    status = source.lstat()
    if stat.S_ISDIR(status.st_mode):
        target.mkdir(exist_ok=True)
        _copy_directory(source, target, links)
        return
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and key in links:
        os.link(links[key], target, follow_symlinks=False)
        return
    links[key] = target
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(source, target)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    _copy_attributes(source, target)


def _copy_attributes(source: Path, target: Path) -> None:
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
