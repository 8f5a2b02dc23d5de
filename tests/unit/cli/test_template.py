"""The Go template subset of --format."""

from __future__ import annotations

import pytest

from cli.template import Template, TemplateError

DATA = {
    "ID": "abc",
    "Names": ["web", "db"],
    "State": {"Running": True, "Pid": 42, "Health": None},
    "Labels": {"b": "2", "a": "1"},
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{.ID}}", "abc"),
        ("id={{ .ID }} pid={{.State.Pid}}", "id=abc pid=42"),
        ("{{.State.Running}} {{.State.Health}}", "true <no value>"),
        ("{{.Names}} {{.Labels}}", "[web db] map[a:1 b:2]"),
        ("{{json .Names}} {{.State.Pid | json}}", '["web","db"] 42'),
        ("{{upper .ID}}{{.ID | upper | lower}}", "ABCabc"),
        ('{{join .Names ", "}}', "web, db"),
        ('{{index .Labels "a"}}{{index .Names 1}}', "1db"),
        ("{{len .Names}}", "2"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Health}}h{{else if eq .ID `abc`}}match{{else}}no{{end}}", "match"),
        ("{{range .Names}}<{{.}}>{{end}}", "<web><db>"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{with .State}}{{.Pid}} {{$.ID}}{{end}}", "42 abc"),
        ("{{$x := .State.Pid}}{{$x}}", "42"),
        ('{{printf "%s-%05d" .ID .State.Pid}}', "abc-00042"),
        ("{{println .ID}}", "abc\n"),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{if and .ID (not .State.Health)}}both{{end}}", "both"),
        ("{{.State.Nothing}}", "<no value>"),
        ("{{/* nothing */}}x", "x"),
        ("{{if gt .State.Pid 41}}more{{end}}", "more"),
    ],
)
def test_renders_as_go_does(source: str, expected: str) -> None:
    assert Template(source).render(DATA) == expected


def test_missing_outer_field_lists_the_fields_there_are() -> None:
    with pytest.raises(TemplateError, match='no field "Nmaes"') as caught:
        Template("{{.Nmaes}}").render(DATA)
    assert "Names" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{.ID", "unclosed action"),
        ("{{if .ID}}x", "without"),
        ("{{end}}", "unexpected"),
        ("{{frobnicate .ID}}", 'function "frobnicate" not defined'),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{.ID |}}", "missing value"),
        ("{{index .Names 9}}", "error calling index"),
    ],
)
def test_errors_say_what_is_wrong(source: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        Template(source).render(DATA)
