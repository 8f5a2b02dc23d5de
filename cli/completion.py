"""What may come next on a command line: commands, flags, values of flags, and the names that the daemon knows.

`swarmctl __complete WORD...` (the last word is the one being written) prints one candidate on each line, with its
meaning after a tab. The scripts of cli.completion_scripts call it at every key: nothing here may be slow, nothing
may fail, and nothing is ever changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from cli.client import Client
from cli.contexts import DEFAULT, Flags, Store, endpoint
from cli.errors import CliError

Candidate = tuple[str, str]
_LINES_MAX = 500
NAMESPACE = "com.docker.stack.namespace"

# Words of usage lines, and what stands for them.
_KINDS = {
    **{
        word: word.lower() for word in ("CONTAINER", "IMAGE", "NETWORK", "VOLUME", "SERVICE", "NODE", "STACK")
    },
    **{word: word.lower() for word in ("SECRET", "CONFIG", "PLUGIN", "CONTEXT")},
    "SOURCE_IMAGE": "image",
    "TARGET_IMAGE": "image",
    "SERVICE|TASK": "service",
    "self|NODE": "node",
    "NAME|ID": "any",
    "SERVICE=REPLICAS": "service",
    "bash|zsh|fish": ("bash", "zsh", "fish"),
    "(worker|manager)": ("worker", "manager"),
}
# Of commands that only take containers in some states.
_STATES = {
    **dict.fromkeys(("attach", "exec", "kill", "pause", "stats", "stop", "top"), ("running",)),
    "start": ("created", "exited"),
    "unpause": ("paused",),
}
_AVAILABILITY = ("active", "pause", "drain")
# Parameters of flags -> a kind, or the words there are.
_VALUES: dict[str, Any] = {
    "availability": _AVAILABILITY,
    "context_name": "context",
    "endpoint_mode": ("vip", "dnsrr"),
    "kind": (
        "config",
        "container",
        "image",
        "network",
        "node",
        "plugin",
        "secret",
        "service",
        "task",
        "volume",
    ),
    "log_driver": ("journald", "json-file", "local", "none", "syslog"),
    "log_level": ("debug", "info", "warn", "error", "fatal"),
    "mode": ("replicated", "global"),
    "network": "network",
    "pull": ("always", "missing", "never"),
    "resolve_image": ("always", "changed", "never"),
    "restart": ("no", "always", "unless-stopped", "on-failure"),
    "restart_condition": ("none", "on-failure", "any"),
    "role": ("worker", "manager"),
    "source": "context",
    "volumes_from": "container",
}
_VALUES |= {f"{kind}_add": kind for kind in ("network", "secret", "config")} | {"network_rm": "network"}
_VALUES |= {"secret": "secret", "config": "config", "form": ("json", "table")}


def complete(words: Sequence[str]) -> list[Candidate]:
    """`words` without the program's name; the last one is incomplete, and may be empty."""
    from cli.main import root

    *before, current = words or [""]
    line = _Line(root, before)
    found = line.next_words(current)
    return sorted({item for item in found if item[0].startswith(current)})[:_LINES_MAX]


class _Line:
    """The words before the one that is written, understood."""

    def __init__(self, root: click.Group, words: Sequence[str]) -> None:
        self._command: click.Command = root
        self._path: list[str] = []
        self._given: dict[str, str] = {}  # values of the global flags
        self._arguments: list[str] = []
        self._open: click.Option | None = None  # a flag that waits for its value
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self._open is not None:
            self._given[self._open.name or ""] = word
            self._open = None
            return
        if word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            option = self._option(name)
            if option is not None and not option.is_flag:
                if equals:
                    self._given[option.name or ""] = value
                else:
                    self._open = option
            return
        if isinstance(self._command, click.Group):
            chosen = self._command.get_command(click.Context(self._command), word)
            if chosen is not None:
                self._command = chosen
                self._path.append(word)
                return
        self._arguments.append(word)

    def _option(self, name: str) -> click.Option | None:
        for item in self._command.params:
            if isinstance(item, click.Option) and (
                name in item.opts or (len(name) > 2 and name[:2] in item.opts)
            ):
                return item
        return None

    def next_words(self, current: str) -> list[Candidate]:
        if self._open is not None:
            return self._of_kind(_VALUES.get(self._open.name or "", ()))
        if current.startswith("-"):
            name, equals, _ = current.partition("=")
            option = self._option(name) if equals else None
            if option is not None:
                values = self._of_kind(_VALUES.get(option.name or "", ()))
                return [(f"{name}={value}", help) for value, help in values]
            return list(self._flags())
        if isinstance(self._command, click.Group):
            return list(_commands(self._command))
        return self._of_kind(self._kind_of_argument())

    def _flags(self) -> Iterator[Candidate]:
        for item in self._command.params:
            if isinstance(item, click.Option) and not item.hidden:
                yield from ((name, item.help or "") for name in item.opts if name.startswith("--"))
        yield "--help", "Show help"

    def _kind_of_argument(self) -> Any:
        """By the usage line: its word at this place, the last one again when it may be repeated."""
        usage = getattr(self._command, "usage", "")
        pieces = [piece.strip("[]") for piece in usage.split()]
        places = [re.sub(r"\[?[:@/].*", "", piece) for piece in pieces]
        at = len(self._arguments)
        if not places or (at >= len(places) and not pieces[-1].endswith("...")):
            return ()
        word = places[min(at, len(places) - 1)].removesuffix("...").rstrip("]").rstrip("[")
        return _KINDS.get(word, ())

    def _of_kind(self, kind: Any) -> list[Candidate]:
        if isinstance(kind, tuple):
            return [(word, "") for word in kind]
        try:
            if kind == "context":
                return [(name, "") for name in (DEFAULT, *Store(os.environ).rows)]
            flags = Flags(self._given.get("hosts"), self._given.get("context_name"))
            client = Client(*endpoint(flags, os.environ))
            states = _STATES.get(self._path[-1], ()) if self._path else ()
            return [
                (name, help) for name, help in _names(client, kind, states) if name not in self._arguments
            ]
        except (CliError, OSError, KeyError, TypeError, ValueError):
            return []  # no daemon, no swarm: nothing to offer


def _commands(group: click.Group) -> Iterator[Candidate]:
    from cli.registry import SECTIONS, Noun

    noun = getattr(group, "noun", None)
    if isinstance(noun, Noun):
        yield from ((entry.name, entry.help) for entry in noun.verbs)
        return
    for _, entries in SECTIONS:
        yield from ((entry.name, entry.help) for entry in entries)


def _names(client: Client, kind: str, states: tuple[str, ...]) -> Iterator[Candidate]:
    if kind == "any":
        for each in ("container", "image", "network", "volume"):
            yield from _names(client, each, ())
    elif kind == "container":
        query: dict[str, Any] = {"all": True, "filters": {"status": list(states)} if states else None}
        for item in client.get("/containers/json", query):
            yield item["Names"][0].lstrip("/"), f"{item['Image']}, {item['Status']}"
    elif kind in _LISTS:
        path, candidates = _LISTS[kind]
        yield from candidates(client.get(path) or [])


def _image_names(images: list[Any]) -> Iterator[Candidate]:
    for tag in (tag for item in images for tag in item.get("RepoTags") or []):
        if tag != "<none>:<none>":
            yield tag, ""
            if tag.endswith(":latest"):
                yield tag.removesuffix(":latest"), ""


def _node_names(nodes: list[Any]) -> Iterator[Candidate]:
    yield "self", "the node that is asked"
    yield from ((item["Description"]["Hostname"], item["ID"]) for item in nodes)


def _spec_names(items: list[Any]) -> Iterator[Candidate]:
    return ((item["Spec"]["Name"], "") for item in items)


def _stack_names(services: list[Any]) -> Iterator[Candidate]:
    labels = (item["Spec"].get("Labels") or {} for item in services)
    return ((each[NAMESPACE], "") for each in labels if NAMESPACE in each)


# Kind -> where the daemon tells of them, and how its answer is read.
_LISTS: dict[str, tuple[str, Callable[[Any], Iterator[Candidate]]]] = {
    "image": ("/images/json", _image_names),
    "network": ("/networks", lambda found: ((item["Name"], item["Driver"]) for item in found)),
    "volume": ("/volumes", lambda found: ((item["Name"], item["Driver"]) for item in found["Volumes"] or [])),
    "plugin": ("/plugins", lambda found: ((item["Name"], "") for item in found)),
    "node": ("/nodes", _node_names),
    "service": ("/services", _spec_names),
    "secret": ("/secrets", _spec_names),
    "config": ("/configs", _spec_names),
    "stack": ("/services", _stack_names),
}
