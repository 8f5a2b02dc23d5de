"""Instructions that change only an image's configuration: ENV, CMD, LABEL, EXPOSE and their like. Pure.

`apply` takes an instruction whose variables are not substituted yet, and a configuration in the API's field
names; it returns the new one and the words by which the image's history remembers the step.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.building.instructions import Instruction, parse_change
from engine.building.words import expand, expand_words
from engine.config import HealthConfig
from engine.errors import InvalidParameter
from engine.health import checked_health
from engine.signals import parse_signal

Config = dict[str, Any]
DEFAULT_SHELL = ("/bin/sh", "-c")
CHANGES = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+|0")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> Config:
    """`--change` of commit: the configuration after all of them. InvalidParameter names the one that is wrong."""
    result, command_is_set = dict(config), False
    for change in changes:
        for line in filter(str.strip, change.splitlines()):
            keyword = line.split(maxsplit=1)[0].upper()
            if keyword not in CHANGES:
                raise InvalidParameter(f"{keyword} is not a valid change command: use {', '.join(CHANGES)}")
            instruction = parse_change(line)
            result, _ = apply(result, instruction, environment(result))
            command_is_set = command_is_set or keyword == "CMD"
            if keyword == "ENTRYPOINT" and not command_is_set:
                result.pop("Cmd", None)  # an inherited command is not for this entrypoint
    return result


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


def shell_of(config: Mapping[str, Any]) -> list[str]:
    return list(config.get("Shell") or DEFAULT_SHELL)


def apply(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> tuple[Config, str]:
    """(new configuration, comment). The given one is not changed."""
    changed = dict(config)
    return changed, _APPLY[instruction.keyword](changed, instruction, variables)


def applies(keyword: str) -> bool:
    return keyword in _APPLY


def command_words(instruction: Instruction, shell: Sequence[str]) -> list[str]:
    """RUN, CMD, ENTRYPOINT: the JSON form as it is, else through the shell."""
    return list(instruction.words) if instruction.is_json else [*shell, *instruction.words]


def _env(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    entries = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    shown = []
    for raw_name, raw_value in instruction.pairs:
        name = expand(raw_name, variables, instruction.escape)
        value = expand(raw_value or "", variables, instruction.escape)
        entries[name] = f"{name}={value}"
        shown.append(entries[name])
    config["Env"] = list(entries.values())
    return "ENV " + " ".join(shown)


def _label(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    labels = {
        expand(name, variables, instruction.escape): expand(value or "", variables, instruction.escape)
        for name, value in instruction.pairs
    }
    config["Labels"] = {**(config.get("Labels") or {}), **labels}
    return "LABEL " + " ".join(f"{name}={value}" for name, value in labels.items())


def _command(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    config["Cmd"] = command_words(instruction, shell_of(config))
    return f"CMD {_go_list(config['Cmd'])}"


def _entrypoint(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    config["Entrypoint"] = command_words(instruction, shell_of(config))
    return f"ENTRYPOINT {_go_list(config['Entrypoint'])}"


def _shell(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    config["Shell"] = list(instruction.words)
    return f"SHELL [{' '.join(instruction.words)}]"


def _expose(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    words = [word for text in instruction.words for word in expand_words(text, variables, instruction.escape)]
    ports = sorted({port for word in words for port in _ports(word)})
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
    return "EXPOSE " + " ".join(sorted(words))


def _ports(word: str) -> list[str]:
    """80 -> 80/tcp; 8000-8002/udp -> each of them."""
    match = _PORTS.fullmatch(word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 1 <= first <= last <= 65535:
        raise InvalidParameter(
            f'invalid containerPort "{word}": use PORT, FIRST-LAST or PORT/udp, 1 to 65535'
        )
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _volume(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    paths = [expand(word, variables, instruction.escape) for word in instruction.words]
    if not all(paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
    return f"VOLUME [{' '.join(paths)}]"


def _user(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    config["User"] = expand(instruction.words[0], variables, instruction.escape)
    return f"USER {config['User']}"


def _workdir(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    wanted = expand(instruction.words[0], variables, instruction.escape)
    if not wanted:
        raise InvalidParameter("cannot normalize nothing")
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", wanted))
    config["WorkingDir"] = "/" + joined.lstrip("/")
    return f"WORKDIR {config['WorkingDir']}"


def _stop_signal(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    signal = expand(instruction.words[0], variables, instruction.escape)
    parse_signal(signal)
    config["StopSignal"] = signal
    return f"STOPSIGNAL {signal}"


def _on_build(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.words[0]]
    return f"ONBUILD {instruction.words[0]}"


def _health(config: Config, instruction: Instruction, variables: Mapping[str, str]) -> str:
    flags = instruction.flags
    health: dict[str, Any] = {"Test": list(instruction.words)}
    for flag, field in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ):
        if flag in flags:
            health[field] = _nanoseconds(flag, flags[flag])
    if "retries" in flags:
        health["Retries"] = int(flags["retries"])
    checked_health(msgspec.convert(health, HealthConfig))
    config["Healthcheck"] = health
    shown = " ".join(f"--{name}={value}" for name, value in flags.items())
    return f"HEALTHCHECK {f'{shown} ' if shown else ''}{_go_list(instruction.words)}"


def _nanoseconds(flag: str, text: str) -> int:
    if not _DURATION.fullmatch(text):
        raise InvalidParameter(f'invalid duration "{text}" of --{flag}: such as 30s, 1m30s or 500ms')
    total = round(sum(float(number) * _UNITS_NS[unit] for number, unit in _DURATION_PART.findall(text)))
    if total and total < 1_000_000:
        raise InvalidParameter(f"Interval {flag!r} cannot be less than 1ms")
    return total


def _go_list(words: Sequence[str]) -> str:
    """As Docker writes them into the history: ["a" "b"]."""
    return "[" + " ".join(msgspec.json.encode(word).decode() for word in words) + "]"


_APPLY: dict[str, Callable[[Config, Instruction, Mapping[str, str]], str]] = {
    "ENV": _env,
    "LABEL": _label,
    "CMD": _command,
    "ENTRYPOINT": _entrypoint,
    "SHELL": _shell,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "USER": _user,
    "WORKDIR": _workdir,
    "STOPSIGNAL": _stop_signal,
    "ONBUILD": _on_build,
    "HEALTHCHECK": _health,
}
