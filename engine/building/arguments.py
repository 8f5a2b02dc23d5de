"""Build arguments: which are given, which a stage has declared, and what RUN sees of them. Pure.

An ARG before the first FROM counts only in FROM lines, until a stage names it again. Proxy variables need no
declaration; undeclared, they are not part of the history and so of the cache.
"""

from __future__ import annotations

from collections.abc import Mapping

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset(_PROXIES) | {name.lower() for name in _PROXIES}


class BuildArguments:
    def __init__(self, given: Mapping[str, str | None]) -> None:
        self._given = dict(given)
        self._meta: dict[str, str] = {}
        self._declared: dict[str, str | None] = {}
        self._consumed: set[str] = set()

    def declare_meta(self, name: str, default: str | None) -> None:
        self._consumed.add(name)
        value = self._given.get(name, default)
        if value is not None:
            self._meta[name] = value

    def meta(self) -> dict[str, str]:
        """What FROM lines see."""
        return dict(self._meta)

    def begin_stage(self) -> None:
        self._declared = {}

    def declare(self, name: str, default: str | None) -> str | None:
        """Returns what the declaration itself says: its default, or that of the one before the first FROM."""
        self._consumed.add(name)
        if default is None and name in self._meta:
            default = self._meta[name]
        self._declared[name] = default
        return default

    def effective(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The declared ones that have a value; variables of the image win."""
        values = {name: self._given.get(name, default) for name, default in self._declared.items()}
        return {
            name: value for name, value in values.items() if value is not None and name not in environment
        }

    def proxies(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Given but not declared: for RUN, beside the effective ones."""
        return {
            name: value
            for name, value in self._given.items()
            if name in PREDEFINED
            and value is not None
            and name not in self._declared
            and name not in environment
        }

    def unused(self) -> list[str]:
        return sorted(set(self._given) - self._consumed - PREDEFINED)
