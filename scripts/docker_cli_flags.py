"""Writes tests/data/docker_cli_flags.json: every command and flag of the installed `docker` client, from its help texts.

    python scripts/docker_cli_flags.py > tests/data/docker_cli_flags.json

No daemon is needed. tests/unit/cli/test_docker_flags.py holds swarmctl against the file. Plugins (buildx, compose) are
no part of it: the client is asked with a folder of settings that is empty.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import TypedDict

_FLAG = re.compile(
    r"  (?:-(?P<short>\w), |    )--(?P<name>[\w-]+)(?: (?P<type>[\w-]+))?(?:   *(?P<help>\S.*))?$"
)
_ENTRY = re.compile(r"  (?P<name>[a-z][\w-]*)\*?(?:  +\S|$)")


class Flag(TypedDict):
    short: str
    type: str  # "" for a switch


class Verb(TypedDict):
    usage: str  # what follows the command's own words
    aliases: list[str]
    flags: dict[str, Flag]


def help_of(words: list[str], settings: str) -> str:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent.sock", "DOCKER_CONFIG": settings}
    result = subprocess.run(
        ["docker", *words, "--help"], capture_output=True, text=True, env=environment, check=True, timeout=60
    )
    return result.stdout


def sections(text: str) -> dict[str, list[str]]:
    """Title -> its lines; "" has what stands before the first title."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][\w ]*:", line):
            title = line[:-1]
            found[title] = []
        else:
            found[title].append(line)
    return found


def verb(words: list[str], parts: dict[str, list[str]]) -> Verb:
    usage = next(line for line in parts[""] if line.startswith("Usage:")).removeprefix("Usage:").strip()
    own = ["docker", *words]
    assert usage.split()[: len(own)] == own, usage
    aliases = [name.strip() for line in parts.get("Aliases", []) for name in line.split(",") if name.strip()]
    flags: dict[str, Flag] = {}
    for line in [*parts.get("Options", []), *parts.get("Global Options", [])]:
        if match := _FLAG.fullmatch(line):
            flags[match["name"]] = {"short": match["short"] or "", "type": match["type"] or ""}
    return {
        "usage": " ".join(usage.split()[len(own) :]),
        "aliases": [alias.removeprefix("docker ") for alias in aliases],
        "flags": flags,
    }


def collect(words: list[str], settings: str, found: dict[str, Verb]) -> None:
    parts = sections(help_of(words, settings))
    found[" ".join(words)] = verb(words, parts)
    for title, lines in parts.items():
        if title.endswith("Commands"):
            for line in lines:
                if match := _ENTRY.match(line):
                    collect([*words, match["name"]], settings, found)


def main() -> None:
    found: dict[str, Verb] = {}
    with tempfile.TemporaryDirectory() as settings:
        collect([], settings, found)
    version = subprocess.run(
        ["docker", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    json.dump({"client": version, "commands": found}, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
