"""The judgement of a history beyond linearizability, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import report
from chaos.history import Kind, Operation, Outcome
from chaos.linearizability import check
from chaos.run import Result, duplicated, longest_gap_s, lost

SECOND = 1_000_000_000


def made(name: str, end_s: float, outcome: Outcome = Outcome.OK, detail: str = "") -> Operation:
    end = round(end_s * SECOND)
    return Operation("maker", "n1", name, Kind.CAS, "made", None, end - 1000, end, outcome, detail)


def result(operations: list[Operation], listed: dict[str, list[str]]) -> Result:
    return Result(
        nemesis="kill-one",
        managers=3,
        rounds=2,
        operations=len(operations),
        acknowledged=1234,
        failed=5,
        unknown=6,
        lost=lost(operations, listed),
        duplicated=duplicated(operations, listed),
        longest_gap_s=longest_gap_s(operations),
        violations=check(operations),
    )


def test_what_was_acknowledged_must_be_listed_by_every_manager() -> None:
    operations = [made("a", 1), made("b", 2), made("c", 3, Outcome.UNKNOWN), made("d", 4, Outcome.FAIL)]
    assert lost(operations, {"n1": ["a", "b"], "n2": ["b", "a", "c"]}) == []
    assert lost(operations, {"n1": ["a", "b"], "n2": ["b"]}) == ["a"]


def test_a_name_that_exists_twice_or_was_taken_at_once_was_made_twice() -> None:
    operations = [made("a", 1), made("b", 2), made("c", 3, Outcome.REFUSED, "409: exists already")]
    assert duplicated(operations, {"n1": ["a", "b", "b", "c"], "n2": ["a", "b", "c"]}) == ["b", "c"]


def test_the_longest_gap_is_between_acknowledged_writes() -> None:
    operations = [made("a", 1), made("b", 2.5), made("c", 3, Outcome.FAIL), made("d", 6.5), made("e", 7)]
    assert longest_gap_s(operations) == pytest.approx(4.0)
    assert longest_gap_s([]) == 0


def test_the_table_has_a_row_for_each_run() -> None:
    rows = report.table([result([made("a", 1)], {"n1": ["a"]})]).splitlines()
    assert len({len(row) for row in rows}) == 1
    cells = [cell.strip() for cell in rows[2].strip("|").split("|")]
    assert cells == ["3", "kill-one", "2", "1", "1,234", "5", "6", "0", "0", "yes", "0.0"]


def test_a_violation_is_shown_with_its_smallest_part() -> None:
    stale = Operation("c1", "n2", "x", Kind.READ, None, None, 2 * SECOND, 3 * SECOND, Outcome.OK)
    found = result([made("x", 1), stale], {"n1": []})
    said = report.problems(found)
    assert not found.is_right
    assert "acknowledged, but lost: x" in said
    assert "register x is not linearizable; 2 of its 2 operations contradict themselves" in said
    assert "no order explains:" in said and "c1 by n2: read None" in said
    assert "| NO " in report.table([found])


def test_the_block_of_the_document_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\ntext\n")
    for seconds in (5, 10):
        report.write_docs(page, report.block([], seconds, 1))
    text = page.read_text()
    assert text.startswith("# Title\n\ntext\n\n<!-- chaos:begin -->")
    assert text.count("chaos:begin") == text.count("chaos:end") == 1
    assert "10 s for each" in text and "5 s for each" not in text
    page.write_text("<!-- chaos:begin --> and no end")
    with pytest.raises(ValueError, match="without"):
        report.write_docs(page, "x")
