"""Tables and --format of lists."""

from __future__ import annotations

import json

import pytest

from cli.output import label_of, labels_text, list_rows, render_table, short_id, shorten
from cli.template import TemplateError

COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Name"))
ROWS = [
    {"ID": "0123456789ab", "Name": "a-rather-long-name", "Extra": "x"},
    {"ID": "cdef", "Name": "b", "Extra": "y"},
]


def test_table_has_three_blanks_between_columns_and_none_at_the_end() -> None:
    assert list_rows(ROWS, COLUMNS) == (
        "CONTAINER ID   NAMES\n0123456789ab   a-rather-long-name\ncdef           b\n"
    )


def test_columns_are_at_least_ten_wide() -> None:
    assert render_table(["A", "B"], [["1", "2"]]) == "A         B\n1         2\n"


def test_empty_list_still_has_its_header() -> None:
    assert list_rows([], COLUMNS) == "CONTAINER ID   NAMES\n"


def test_quiet_prints_one_field_only() -> None:
    assert list_rows(ROWS, COLUMNS, quiet="ID") == "0123456789ab\ncdef\n"


def test_json_is_one_object_on_each_line() -> None:
    lines = list_rows(ROWS, COLUMNS, form="json").splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_template_renders_one_line_for_each_row_with_escapes() -> None:
    assert (
        list_rows(ROWS, COLUMNS, form=r"{{.ID}}\t{{.Name}}") == "0123456789ab\ta-rather-long-name\ncdef\tb\n"
    )


def test_table_template_has_headers_of_known_and_other_fields() -> None:
    text = list_rows(ROWS, COLUMNS, form=r"table {{.Name}}\t{{.Extra}}", headers={"Extra": "EXTRA STUFF"})
    assert text == "NAMES                EXTRA STUFF\na-rather-long-name   x\nb                    y\n"


def test_small_forms() -> None:
    assert short_id("sha256:0123456789abcdef") == "0123456789ab"
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
    assert labels_text({"b": "2", "a": ""}) == "a=,b=2"


LABELLED = [{"Name": "a", "Label": label_of({"com.example.my-kind": "page"})}]


def test_a_label_is_asked_for_by_name() -> None:
    assert list_rows(LABELLED, COLUMNS, form='{{.Label "com.example.my-kind"}}{{.Label "other"}}') == "page\n"
    table = list_rows(LABELLED, COLUMNS, form=r'table {{.Name}}\t{{.Label "com.example.my-kind"}}')
    assert table.split() == ["NAMES", "my", "kind", "a", "page"]


def test_methods_are_no_fields() -> None:
    assert list_rows(LABELLED, COLUMNS, form="json") == '{"Name":"a"}\n'
    assert list_rows(LABELLED, COLUMNS, form="{{json .}}") == '{"Name":"a"}\n'
    with pytest.raises(TemplateError, match="wrong number of args for Label"):
        list_rows(LABELLED, COLUMNS, form="{{.Label}}")
    with pytest.raises(TemplateError, match="can't give argument to non-function"):
        list_rows(LABELLED, COLUMNS, form='{{.Name "x"}}')
