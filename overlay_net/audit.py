"""Whether the tables in the kernel are still those that were put there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from overlay_net import nft
from overlay_net.records import Finding


class TableAudit:
    """Remembers how the kernel lists what was programmed: rules have no other identity. Blocks."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path | None, str], tuple[str, str]] = {}

    def repair(self, namespace: Path | None, tables: Sequence[str], rules: str) -> list[Finding]:
        """`tables` ("ip name") are made by the text `rules`, which replaces them as a whole.

        The first time that these rules are seen they are programmed again, to learn how the kernel lists them.
        """
        place = namespace, ", ".join(tables)
        listed = self._listing(namespace, tables)
        known_rules, known = self._known.get(place, ("", ""))
        if known_rules == rules and known == listed:
            return []
        nft.apply(rules, namespace)
        again = self._listing(namespace, tables)
        self._known[place] = rules, again
        if again == listed:
            return []
        where = "" if namespace is None else f" of container {namespace.name[:12]}"
        problem = "they were missing" if not listed else "they had been changed"
        return [Finding(subject=f"nft rules{where}", problem=problem, repaired=True)]

    def forget_all_but(self, namespaces: set[Path | None]) -> None:
        self._known = {place: known for place, known in self._known.items() if place[0] in namespaces}

    @staticmethod
    def _listing(namespace: Path | None, tables: Sequence[str]) -> str:
        return "".join(nft.listing(table, namespace) for table in tables)
