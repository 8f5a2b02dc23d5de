"""What a run has found, for people: a table, the violations, and the block of docs/reliability.md."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from chaos.history import Kind, Operation, Outcome
from chaos.linearizability import Violation
from chaos.run import Result

BEGIN, END = "<!-- chaos:begin -->", "<!-- chaos:end -->"
_PART_MAX = 30
_VIOLATIONS_MAX = 5
_NAMES_MAX = 10
_HEAD = (
    *("managers", "nemesis", "rounds", "operations", "acknowledged", "failed", "unknown", "lost"),
    *("duplicated", "linearizable", "longest without an accepted write (s)"),
)


def table(results: Sequence[Result]) -> str:
    """Markdown, the columns aligned."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _row(result: Result) -> tuple[str, ...]:
    numbers = (result.rounds, result.operations, result.acknowledged, result.failed, result.unknown)
    return (
        str(result.managers),
        result.nemesis,
        *(f"{number:,}" for number in numbers),
        str(len(result.lost)),
        str(len(result.duplicated)),
        "yes" if result.is_linearizable else "NO",
        f"{result.longest_gap_s:.1f}",
    )


def problems(result: Result) -> str:
    """All that is wrong with one run, "" when nothing is."""
    lines = [*result.problems]
    lines += _named("acknowledged, but lost", result.lost)
    lines += _named("done twice", result.duplicated)
    lines += [_violation(violation) for violation in result.violations[:_VIOLATIONS_MAX]]
    if len(result.violations) > _VIOLATIONS_MAX:
        lines.append(f"and {len(result.violations) - _VIOLATIONS_MAX} registers more")
    return "\n".join(lines)


def _named(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return [f"{what}: {', '.join(names[:_NAMES_MAX])}{more}"]


def _violation(violation: Violation) -> str:
    shown = violation.part[-_PART_MAX:]
    count = f"{len(violation.part)} of its {violation.whole} operations contradict themselves"
    if len(shown) < len(violation.part):
        count += f", the last {len(shown)} of them"
    lines = [f"register {violation.key} is not linearizable; {count}:"]
    began = shown[0].start
    lines += [f"  {_operation(operation, began)}" for operation in shown]
    lines.append(f"  no order explains: {_operation(violation.operation, began)}")
    return "\n".join(lines)


def _operation(operation: Operation, began: int) -> str:
    """Milliseconds since `began`, who, through whom, what, and how it ended."""
    start = (operation.start - began) / 1e6
    end = "   ...   " if operation.end is None else f"{(operation.end - began) / 1e6:9.1f}"
    if operation.kind is Kind.READ:
        what = f"read {operation.value}"
    elif operation.kind is Kind.WRITE:
        what = f"write {operation.value}"
    else:
        what = f"{operation.expected} -> {operation.value}"
    outcome = "" if operation.outcome is Outcome.OK else f" {operation.outcome}"
    detail = f" ({operation.detail})" if operation.detail else ""
    return f"{start:9.1f} {end} ms  {operation.client:>5} by {operation.manager}: {what}{outcome}{detail}"


def block(results: Sequence[Result], seconds: float, seed: int) -> str:
    """Between the two markers, for docs/reliability.md."""
    acknowledged = sum(result.acknowledged for result in results)
    return "\n".join(
        [
            BEGIN,
            f"Made by `./dev chaos --docs` on {datetime.date.today().isoformat()}: Linux {platform.release()}, "
            f"{os.cpu_count()} cores, {seconds:g} s for each nemesis, seed {seed}; "
            f"{acknowledged:,} acknowledged operations.",
            "",
            table(results).rstrip(),
            END,
        ]
    )


def write_docs(page: Path, text: str) -> None:
    """Replaces the block of the page; appends it when there is none yet."""
    old = page.read_text()
    before, begins, rest = old.partition(BEGIN)
    if not begins:
        page.write_text(f"{old.rstrip()}\n\n{text}\n")
        return
    _, ends, after = rest.partition(END)
    if not ends:
        raise ValueError(f"{page}: {BEGIN} without {END}")
    page.write_text(before + text + after)
