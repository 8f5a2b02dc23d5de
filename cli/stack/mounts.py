"""One entry of a service's `volumes:` as a Mount of the API; short and long form."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from cli import parse
from cli.errors import UsageError

Mount = dict[str, Any]
Volume = dict[str, Any]
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def mount_of(
    entry: Any, folder: str, volume_name: Callable[[str], tuple[str, Volume]], labels: dict[str, str]
) -> Mount:
    """`volume_name`: a key of the file to the name in the swarm and what the file says of it."""
    given = dict(entry) if isinstance(entry, dict) else _short(str(entry))
    kind = str(given.get("type") or "volume")
    if not given.get("target"):
        raise UsageError(f"a volume needs a target: {entry}")
    mount: Mount = {"Type": kind, "Target": str(given["target"])}
    if given.get("read_only"):
        mount["ReadOnly"] = True
    if given.get("consistency"):
        mount["Consistency"] = str(given["consistency"])
    source = str(given.get("source") or "")
    if kind == "bind":
        if not source:
            raise UsageError(f"invalid bind source, source cannot be empty: {entry}")
        mount["Source"] = os.path.normpath(os.path.join(folder, os.path.expanduser(source)))
        if propagation := (given.get("bind") or {}).get("propagation"):
            mount["BindOptions"] = {"Propagation": str(propagation)}
    elif kind == "volume":
        _volume(mount, source, given.get("volume") or {}, volume_name, labels)
    elif kind == "tmpfs":
        if source:
            raise UsageError("invalid tmpfs source, source must be empty")
        if size := (given.get("tmpfs") or {}).get("size"):
            mount["TmpfsOptions"] = {"SizeBytes": parse.size_bytes(str(size))}
    else:
        raise UsageError(f"volume type {kind!r} is not supported: {entry}", hint="bind, volume or tmpfs")
    return mount


def _volume(
    mount: Mount,
    source: str,
    options: dict[str, Any],
    volume_name: Callable[[str], tuple[str, Volume]],
    labels: dict[str, str],
) -> None:
    chosen: dict[str, Any] = {"NoCopy": True} if options.get("nocopy") else {}
    if source:
        mount["Source"], volume = volume_name(source)
        if not volume.get("external"):
            own = volume.get("labels") or {}
            pairs = own if isinstance(own, dict) else parse.labels(own)
            chosen["Labels"] = {str(key): str(value) for key, value in pairs.items()} | labels
            if volume.get("driver") or volume.get("driver_opts"):
                driver_options = {
                    str(key): str(text) for key, text in (volume.get("driver_opts") or {}).items()
                }
                chosen["DriverConfig"] = {"Name": volume.get("driver") or "", "Options": driver_options}
    if chosen:
        mount["VolumeOptions"] = chosen


def _short(text: str) -> dict[str, Any]:
    """[SOURCE:]TARGET[:OPTIONS]"""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"invalid volume specification: {text}", hint="such as data:/var/lib/data:ro")
    if len(parts) == 1:
        return {"type": "volume", "target": text}
    source, target = parts[:2]
    given: dict[str, Any] = {"source": source, "target": target}
    given["type"] = "bind" if source.startswith((".", "/", "~")) else "volume"
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option in ("ro", "rw"):
            given["read_only"] = option == "ro"
        elif option == "nocopy":
            given["volume"] = {"nocopy": True}
        elif option in _PROPAGATIONS:
            given["bind"] = {"propagation": option}
        elif option not in ("z", "Z", "cached", "delegated", "consistent"):
            raise UsageError(
                f'invalid option "{option}" in volume {text}', hint="ro, rw, nocopy or a propagation"
            )
    return given
