"""Lists as Docker prints them: tables, `--format` (json, template, `table` template) and `-q`.

A row is a dictionary of the fields that templates may name; a table chooses some of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, str]  # header, field

_MIN_WIDTH = 10
_GAP = 3


def show(text: str) -> None:
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    sys.stderr.write(text + "\n")


def json_line(value: Any) -> str:
    """As Go writes JSON: without spaces, and safe inside of HTML."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u00{ord(letter):02x}")
    return text


def render_table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns at least 10 wide, 3 spaces apart; the last one is not padded. Ends with a newline."""
    return align([list(headers), *[list(line) for line in lines]])


def align(lines: list[list[str]]) -> str:
    columns = max(len(line) for line in lines)
    widths = [
        max(_MIN_WIDTH, max(len(line[at]) + _GAP for line in lines if at < len(line) - 1))
        if any(at < len(line) - 1 for line in lines)
        else 0
        for at in range(columns)
    ]
    out = []
    for line in lines:
        cells = [cell.ljust(widths[at]) for at, cell in enumerate(line[:-1])]
        out.append("".join(cells) + (line[-1] if line else "") + "\n")
    return "".join(out)


def list_rows(
    rows: list[Row],
    columns: Sequence[Column],
    *,
    form: str = "",
    quiet: str = "",
    headers: dict[str, str] | None = None,
) -> str:
    """The whole output of a `ls` command.

    `form` is the --format option, `quiet` the field that -q prints (empty: no -q), `headers` the headings of
    fields that only a `table` template shows.
    """
    if quiet:
        return "".join(f"{row[quiet]}\n" for row in rows)
    if form in ("", "table"):
        return render_table(
            [header for header, _ in columns], [[str(row[f]) for _, f in columns] for row in rows]
        )
    if form == "json":
        shown = [{name: value for name, value in sorted(row.items()) if not callable(value)} for row in rows]
        return "".join(json_line(row) + "\n" for row in shown)
    from cli.template import Template

    is_table = form.startswith("table")
    source = form[5:].lstrip(" ") if is_table else form
    template = Template(source.replace("\\t", "\t").replace("\\n", "\n"))
    texts = [template.render(row) for row in rows]
    if not is_table:
        return "".join(text + "\n" for text in texts)
    known = {name: header for header, name in columns} | (headers or {}) | {"Label": _label_heading}
    heading = template.render({name: known.get(name, name.upper()) for name in {*template.fields(), *known}})
    return align([text.split("\t") for text in [heading, *texts]])


def emit(
    rows: list[Row],
    columns: Sequence[Column],
    *,
    form: str = "",
    quiet: str = "",
    headers: dict[str, str] | None = None,
) -> None:
    sys.stdout.write(list_rows(rows, columns, form=form, quiet=quiet, headers=headers))


def emit_objects(objects: list[Any], form: str) -> None:
    """The output of `inspect`: an indented JSON list, or one template or JSON line for each object."""
    if not form:
        show(json.dumps(objects, indent=4, ensure_ascii=False))
        return
    if form == "json":
        for item in objects:
            show(json_line(item))
        return
    from cli.template import Template

    template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    for item in objects:
        show(template.render(item))


def shorten(text: str, width: int) -> str:
    """Cut to `width` characters, the last of which is an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


def label_of(labels: dict[str, str] | None) -> Callable[[str], str]:
    """The method {{.Label "name"}} of a row."""
    return lambda name: (labels or {}).get(name, "")


def _label_heading(name: str) -> str:
    """As Docker heads that column: com.example.my-kind becomes `my kind`."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def labels_text(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
