"""Mounts from the API, in containers and in services."""

from __future__ import annotations

from engine.config import BindOptions, MountPoint, TmpfsOptions
from raft.errors import InvalidArgument
from raft.objects.base import Driver
from raft.objects.service import MountSpec


def check_mount(body: MountPoint) -> None:
    """InvalidArgument names an option that no mount has here."""
    bind, tmpfs = body.bind_options or BindOptions(), body.tmpfs_options or TmpfsOptions()
    for name, given in (
        ("BindOptions.ReadOnlyNonRecursive", bind.read_only_non_recursive),
        ("BindOptions.ReadOnlyForceRecursive", bind.read_only_force_recursive),
        ("TmpfsOptions.Options", bool(tmpfs.options)),
        ("ImageOptions", body.image_options is not None),
    ):
        if given:
            raise InvalidArgument(f"Mounts.{name} is not supported yet: leave it out")


def check_container_mount(body: MountPoint) -> None:
    """Also what can be told without the host; in services this is checked with the spec."""
    check_mount(body)
    where = f'invalid mount config for type "{body.type}"'
    if not body.target:
        raise InvalidArgument(f"{where}: field Target must not be empty")
    if body.type == "bind" and not body.source:
        raise InvalidArgument(f"{where}: field Source must not be empty")
    if body.tmpfs_options is not None and body.tmpfs_options.size_bytes < 0:
        raise InvalidArgument(f"{where}: TmpfsOptions.SizeBytes cannot be negative")


def mount_spec(body: MountPoint) -> MountSpec:
    """A mount of a service's tasks."""
    check_mount(body)
    volume, bind, tmpfs = body.volume_options, body.bind_options, body.tmpfs_options
    driver = volume.driver_config if volume else None
    if volume is not None and volume.subpath:
        raise InvalidArgument(
            "Mounts.VolumeOptions.Subpath is not supported yet: mount the volume as a whole"
        )
    if bind is not None and bind.non_recursive:
        raise InvalidArgument("Mounts.BindOptions.NonRecursive is not supported yet: leave it out")
    if bind is not None and bind.create_mountpoint:
        raise InvalidArgument(
            "Mounts.BindOptions.CreateMountpoint is not supported yet: make the folder first"
        )
    return MountSpec(
        type=body.type,
        source=body.source,
        target=body.target,
        read_only=body.read_only,
        propagation=bind.propagation if bind else "",
        no_copy=volume.no_copy if volume else False,
        volume_labels=(volume.labels if volume else None) or {},
        volume_driver=Driver(name=driver.name, options=driver.options or {}) if driver else Driver(),
        tmpfs_size_bytes=tmpfs.size_bytes if tmpfs else 0,
        tmpfs_mode=tmpfs.mode if tmpfs else 0,
    )
