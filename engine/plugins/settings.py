"""`plugin set`: which of a plugin's values its config lets the user change, and the changed settings. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import msgspec

from engine.errors import InvalidParameter
from engine.plugins.config import PluginConfig, PluginSettings, first_settings

_FIELDS = {"env": ("value",), "args": ("value",), "mounts": ("source",), "devices": ("path",)}


def changed(config: PluginConfig, settings: PluginSettings, wishes: Iterable[str]) -> PluginSettings:
    """`NAME=VALUE` or `NAME.FIELD=VALUE` each; InvalidParameter names one that cannot be set."""
    made = msgspec.convert(msgspec.to_builtins(settings), PluginSettings)
    for wish in wishes:
        _change(config, made, wish)
    return made


def carried_over(settings: PluginSettings, config: PluginConfig) -> PluginSettings:
    """What was set before, for another version's config; what that one does not let be set is as it says."""
    wishes = list(settings.env)
    wishes += [f"{mount.name}.source={mount.source}" for mount in settings.mounts if mount.source]
    wishes += [f"{device.name}.path={device.path}" for device in settings.devices if device.path]
    made = first_settings(config)
    for wish in wishes:
        with contextlib.suppress(InvalidParameter):
            made = changed(config, made, [wish])
    return made


def _change(config: PluginConfig, made: PluginSettings, wish: str) -> None:
    key, equals, value = wish.partition("=")
    name, _, field = key.partition(".")
    if not equals or not name:
        raise InvalidParameter(f'invalid setting "{wish}": use NAME=VALUE')
    for env in config.env or ():
        if env.name == name:
            _check(name, field, "env", env.settable)
            position = next((n for n, entry in enumerate(made.env) if entry.partition("=")[0] == name), None)
            if position is None:
                made.env.append(f"{name}={value}")
            else:
                made.env[position] = f"{name}={value}"
            return
    for mount in made.mounts:
        if mount.name == name:
            _check(name, field, "mounts", mount.settable)
            mount.source = value
            return
    for device in made.devices:
        if device.name == name:
            _check(name, field, "devices", device.settable)
            device.path = value
            return
    if config.args.name == name:
        _check(name, field, "args", config.args.settable)
        made.args = value.split()
        return
    raise InvalidParameter(f'setting "{name}" not found in the plugin configuration')


def _check(name: str, field: str, kind: str, settable: Sequence[str] | None) -> None:
    """Without a field it is the one that the kind has."""
    wanted = field or _FIELDS[kind][0]
    if wanted not in _FIELDS[kind] or wanted not in (settable or ()):
        raise InvalidParameter(f'"{name}{"." + field if field else ""}" is not settable')
