"""`--mount`, `--volume`, `--tmpfs`, and the files of `--secret` and `--config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.errors import UsageError
from cli.parse import boolean, choice, comma_fields, labels, size_bytes

_HINT = "such as type=volume,source=data,target=/data or type=bind,source=/srv,target=/srv,readonly"
_TYPES = ("bind", "volume", "tmpfs")


def mount(text: str) -> dict[str, Any]:
    """One --mount value to the API's Mount."""
    parsed: dict[str, Any] = {"Type": "volume"}
    options: dict[str, dict[str, Any]] = {"volume": {}, "bind": {}, "tmpfs": {}}
    for key, value in comma_fields(text, "mount"):
        if key in ("readonly", "ro"):
            parsed["ReadOnly"] = boolean(value, key)
        elif key == "volume-nocopy":
            options["volume"]["NoCopy"] = boolean(value, key)
        elif key == "bind-nonrecursive":
            options["bind"]["NonRecursive"] = boolean(value, key)
        elif value is None:
            raise UsageError(f'invalid field "{key}" in mount "{text}": must be a key=value pair', hint=_HINT)
        elif key.startswith(("bind-", "volume-", "tmpfs-")):
            _option(options, key, value, text)
        elif key == "type":
            parsed["Type"] = choice(value.lower(), _TYPES, "mount type")
        elif key in ("source", "src"):
            parsed["Source"] = _absolute(value)
        elif key in ("target", "dst", "destination"):
            parsed["Target"] = value
        elif key == "consistency":
            parsed["Consistency"] = value
        else:
            raise UsageError(f'unexpected key "{key}" in mount "{text}"', hint=_HINT)
    return _checked(parsed, options, text)


def _option(options: dict[str, dict[str, Any]], key: str, value: str, text: str) -> None:
    """A key that belongs to one type of mount, such as volume-label."""
    if key == "bind-propagation":
        options["bind"]["Propagation"] = value.lower()
    elif key == "bind-recursive":
        options["bind"].update(_recursion(value))
    elif key == "volume-subpath":
        options["volume"]["Subpath"] = value
    elif key == "volume-label":
        options["volume"].setdefault("Labels", {}).update(labels([value]))
    elif key == "volume-driver":
        options["volume"].setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-subpath":
        options["volume"]["Subpath"] = value
    elif key == "volume-opt":
        name, _, setting = value.partition("=")
        options["volume"].setdefault("DriverConfig", {}).setdefault("Options", {})[name] = setting
    elif key == "tmpfs-size":
        options["tmpfs"]["SizeBytes"] = size_bytes(value)
    elif key == "tmpfs-mode":
        options["tmpfs"]["Mode"] = _octal(value, text)
    else:
        raise UsageError(f'unexpected key "{key}" in mount "{text}"', hint=_HINT)


def _recursion(value: str) -> dict[str, Any]:
    """How a bind mount treats what is mounted below its source."""
    fields: dict[str, dict[str, Any]] = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }
    if value not in fields:
        raise UsageError(f'invalid value for bind-recursive: "{value}"', hint=f"one of: {', '.join(fields)}")
    return fields[value]


def _absolute(source: str) -> str:
    """Relative sources are relative to where the command is run, and ~ is the user's home."""
    if source.startswith(("./", "../", "~/")) or source in (".", ".."):
        return str(Path(source).expanduser().resolve())
    return source


def _checked(parsed: dict[str, Any], options: dict[str, dict[str, Any]], text: str) -> dict[str, Any]:
    kind = str(parsed["Type"])
    if not parsed.get("Target"):
        raise UsageError(f'invalid mount "{text}": target is required', hint=_HINT)
    if kind == "bind" and not parsed.get("Source"):
        raise UsageError(f'invalid mount "{text}": source is required for type bind', hint=_HINT)
    if kind == "tmpfs" and parsed.get("Source"):
        raise UsageError(f'invalid mount "{text}": type tmpfs takes no source', hint=_HINT)
    for other, values in options.items():
        if values and other != kind:
            raise UsageError(f'invalid mount "{text}": cannot mix {other}-* options with mount type "{kind}"')
    field = {"volume": "VolumeOptions", "bind": "BindOptions", "tmpfs": "TmpfsOptions"}[kind]
    return parsed | ({field: options[kind]} if options[kind] else {})


def _octal(value: str, text: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise UsageError(f'invalid mode "{value}" in "{text}"', hint="an octal number such as 0440") from None


def volume(text: str) -> tuple[str, str]:
    """One -v value: ("bind", SOURCE:TARGET[:MODE]) or ("anonymous", TARGET). Relative sources become absolute."""
    parts = text.split(":")
    if len(parts) == 1:
        if not text.startswith("/"):
            raise UsageError(
                f'invalid volume specification: "{text}"', hint="such as data:/data or /srv:/srv:ro"
            )
        return "anonymous", text
    if len(parts) > 3 or not parts[0] or not parts[1].startswith("/"):
        raise UsageError(f'invalid volume specification: "{text}"', hint="such as data:/data or /srv:/srv:ro")
    parts[0] = _absolute(parts[0])
    return "bind", ":".join(parts)


def tmpfs(values: list[str]) -> dict[str, str]:
    """--tmpfs /path[:options]"""
    found: dict[str, str] = {}
    for value in values:
        path, _, options = value.partition(":")
        if not path.startswith("/"):
            raise UsageError(f'invalid tmpfs "{value}"', hint="such as /run:size=64m,mode=1777")
        found[path] = options
    return found


def file_reference(text: str, what: str) -> dict[str, Any]:
    """One --secret or --config value: NAME or source=NAME,target=FILE,uid=,gid=,mode=. `what` names the flag."""
    source, target = "", ""
    file: dict[str, Any] = {"UID": "0", "GID": "0", "Mode": 0o444}
    for key, value in comma_fields(text, what):
        if value is None and not source and "," not in text:
            source = text
        elif value is None:
            raise UsageError(f'invalid field "{key}" in {what} "{text}": must be a key=value pair')
        elif key in ("source", "src"):
            source = value
        elif key == "target":
            target = value
        elif key in ("uid", "gid"):
            file[key.upper()] = value
        elif key == "mode":
            file["Mode"] = _octal(value, text)
        else:
            raise UsageError(
                f'invalid field "{key}" in {what} "{text}"', hint="source, target, uid, gid, mode"
            )
    if not source:
        raise UsageError(
            f'invalid {what} "{text}": source is required', hint=f"--{what} source=NAME,target=FILE"
        )
    file["Name"] = target or (source if what == "secret" else f"/{source}")
    return {"Name": source, "File": file}
