from __future__ import annotations

from pathlib import Path

from chaos.history import Kind, Outcome, load, save, started


def test_a_saved_history_is_read_back(tmp_path: Path) -> None:
    read = started("c1", "n1", "x", Kind.READ).ended(Outcome.OK, value="a")
    lost = started("c2", "n2", "x", Kind.CAS, value="b", expected="a").ended(
        Outcome.UNKNOWN, detail="no answer"
    )
    path = tmp_path / "below" / "history.jsonl"
    save([lost, read], path)
    assert load(path) == [read, lost]


def test_only_an_answer_bounds_the_effect() -> None:
    swap = started("c1", "n1", "x", Kind.CAS, value="b", expected="a")
    assert swap.ended(Outcome.UNKNOWN).end is None
    ended = swap.ended(Outcome.REFUSED)
    assert ended.end is not None and ended.end >= ended.start
    assert ended.value == "b"
