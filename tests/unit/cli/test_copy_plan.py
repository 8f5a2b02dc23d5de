from __future__ import annotations

import pytest

from cli.copy_plan import Side, plan, split_argument
from cli.errors import UsageError

FILE, FOLDER, MISSING = (True, False), (True, True), (False, False)


@pytest.mark.parametrize(
    ("source", "of", "target", "at", "planned"),
    [
        ("/a/f", FILE, "/t", FOLDER, {"folder": "/t", "f": "f"}),
        ("/a/f", FILE, "/t/g", FILE, {"folder": "/t", "f": "g"}),
        ("/a/f", FILE, "/t/g", MISSING, {"folder": "/t", "f": "g"}),
        ("/a/d", FOLDER, "/t", FOLDER, {"folder": "/t", "d": "d", "d/x": "d/x"}),
        ("/a/d/", FOLDER, "/t", FOLDER, {"folder": "/t", "d/x": "d/x"}),
        ("/a/d", FOLDER, "/t/n", MISSING, {"folder": "/t", "d": "n", "d/d": "n/d"}),
        ("/a/d/.", FOLDER, "/t", FOLDER, {"folder": "/t", ".": "", "./x": "x", ".hidden": ".hidden"}),
        ("/a/d/.", FOLDER, "/t/n/", MISSING, {"folder": "/t", ".": "n", "./x": "n/x", "x": "n/x"}),
        ("/", FOLDER, "/t/n", MISSING, {"folder": "/t", "/": "n", "/etc": "n/etc"}),
        ("/", FOLDER, "/t", FOLDER, {"folder": "/t", "/": "", "/etc/x": "etc/x"}),
    ],
)
def test_where_a_copy_goes(
    source: str, of: tuple[bool, bool], target: str, at: tuple[bool, bool], planned: dict[str, str]
) -> None:
    made = plan(Side(source, *of), Side(target, *at))
    assert made.folder == planned.pop("folder")
    assert {member: made.renamed(member) for member in planned} == planned


@pytest.mark.parametrize(
    ("of", "target", "at", "words"),
    [
        (FOLDER, "/t", FILE, "cannot copy directory"),
        (FILE, "/t/", MISSING, "no such directory"),
        (FILE, "/t/.", FILE, "not a directory"),
    ],
)
def test_what_cannot_be_is_refused(
    of: tuple[bool, bool], target: str, at: tuple[bool, bool], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        plan(Side("/a", *of), Side(target, *at))


def test_a_link_that_was_followed_keeps_its_name_in_a_folder_only() -> None:
    assert plan(Side("/real", *FILE), Side("/t", *FOLDER), "link").renamed("real") == "link"
    assert plan(Side("/real", *FILE), Side("/t/real", *MISSING), "link").renamed("real") == "real"


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("box:/etc", ("box", "/etc")),
        ("box:rel:ative", ("box", "rel:ative")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("file", ("", "file")),
        ("-", ("", "-")),
    ],
)
def test_an_argument_names_a_container_or_not(argument: str, parts: tuple[str, str]) -> None:
    assert split_argument(argument) == parts
