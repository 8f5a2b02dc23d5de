"""What the specification says of each operation (tests/data/docker_api_shapes.json), and values held against it.

Made by scripts/docker_api_shapes.py. A list or an object may be null whatever the specification says: Go writes an
empty one so, and clients know it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
_FILE = Path(__file__).parent.parent / "data" / "docker_api_shapes.json"
_API: dict[str, Any] = json.loads(_FILE.read_text())
DEFINITIONS: dict[str, Schema] = _API["definitions"]
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


@dataclasses.dataclass(frozen=True)
class Operation:
    method: str
    path: str
    parameters: tuple[Schema, ...]
    body: Schema | None
    answers: dict[int, Schema | None]
    produces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def among(self, place: str) -> list[Schema]:
        return [parameter for parameter in self.parameters if parameter["in"] == place]


OPERATIONS = tuple(
    Operation(
        row["method"],
        row["path"],
        tuple(row["parameters"]),
        row.get("body"),
        {int(status): schema for status, schema in row["answers"].items()},
        tuple(row.get("produces", ())),
    )
    for row in _API["operations"]
)


def operation(method: str, path: str) -> Operation:
    return next(op for op in OPERATIONS if (op.method, op.path) == (method, path))


def resolved(schema: Schema) -> Schema:
    """Without references at its top; it may be null if a reference on the way says so."""
    null = bool(schema.get("null"))
    while "ref" in schema:
        schema = DEFINITIONS[schema["ref"]]
        null = null or bool(schema.get("null"))
    return schema | {"null": True} if null else schema


def mismatches(value: Any, schema: Schema, place: str = "answer") -> Iterator[str]:
    """Each difference, with its place."""
    schema = resolved(schema)
    kind = schema.get("type")
    if value is None:
        if not schema.get("null") and kind in ("string", "integer", "number", "boolean"):
            yield f"{place} is null, not {kind}"
        return
    if kind is not None and not _is(value, kind):
        yield f"{place} is {json.dumps(value)[:60]}, not {kind}"
        return
    if kind == "string":
        yield from _text(value, schema, place)
    elif kind == "array":
        for number, entry in enumerate(value):
            yield from mismatches(entry, schema.get("items", {}), f"{place}[{number}]")
    elif isinstance(value, dict):
        yield from _object(value, schema, place)


def _object(value: dict[str, Any], schema: Schema, place: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}.{name} is missing"
    for name, entry in value.items():
        expected = properties.get(name, schema.get("values"))
        if expected is not None:
            yield from mismatches(entry, expected, f"{place}.{name}")


def _text(value: str, schema: Schema, place: str) -> Iterator[str]:
    if "enum" in schema and value and value not in schema["enum"]:
        yield f"{place} is {value!r}, not one of {', '.join(schema['enum'])}"
    if schema.get("format") in ("date-time", "dateTime") and value:
        try:
            datetime.datetime.fromisoformat(_FRACTION.sub(r".\1", value))
        except ValueError:
            yield f"{place} is {value!r}, not a time of RFC 3339"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(
        value,
        {
            "string": str,
            "integer": int,
            "number": (int, float),
            "array": list,
            "object": dict,
            "boolean": bool,
        }[kind],
    )
