"""JSON bodies read as Go's decoder reads them, on which clients of Docker's API have come to rely.

`null` leaves a field as if it had not been sent, and is an empty object among objects ({"80/tcp": null}); a field's
name matches whatever its case. Everything else stays strict. Pure.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

_T = TypeVar("_T")


def decode(data: bytes, kind: type[_T]) -> _T:
    """msgspec.ValidationError with the place of a wrong type; msgspec.DecodeError for what is no JSON."""
    return msgspec.convert(_read(msgspec.json.decode(data), _type(cast(Any, kind))), kind)


@functools.lru_cache(maxsize=256)
def _type(kind: Any) -> inspect.Type:
    """Looking at a large type takes msgspec 20 ms."""
    return inspect.type_info(kind)


def _read(value: Any, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.UnionType):
        kind = _fitting(value, kind)
    if isinstance(value, dict):
        if isinstance(kind, inspect.StructType):
            return _read_struct(value, kind.cls)
        if isinstance(kind, inspect.DictType):
            return {name: _read_entry(entry, kind.value_type) for name, entry in value.items()}
    if isinstance(value, list) and isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return [_read_entry(entry, kind.item_type) for entry in value]
    return value


def _read_struct(value: dict[str, Any], struct: type) -> dict[str, Any]:
    fields = _fields(struct)
    read = {}
    for name, entry in value.items():
        field = fields.get(name) or fields.get(name.lower())
        if field is None:
            read[name] = entry  # ignored, or refused, as its struct says
        elif entry is not None or _takes_null(field.type):
            read[field.encode_name] = _read(entry, field.type)
    return read


@functools.lru_cache(maxsize=256)
def _fields(struct: type) -> dict[str, inspect.Field]:
    """By name as it is written, and in lower case."""
    fields = cast(inspect.StructType, inspect.type_info(struct)).fields
    return {field.encode_name.lower(): field for field in fields} | {
        field.encode_name: field for field in fields
    }


def _read_entry(value: Any, kind: inspect.Type) -> Any:
    if value is not None or _takes_null(kind):
        return _read(value, kind)
    return {} if isinstance(kind, inspect.StructType | inspect.DictType) else value


def _takes_null(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return kind.includes_none
    return isinstance(kind, inspect.AnyType | inspect.NoneType | inspect.RawType)


def _fitting(value: Any, union: inspect.UnionType) -> inspect.Type:
    """The member whose insides have to be looked at; any for a plain value."""
    wanted: tuple[type[inspect.Type], ...] = ()
    if isinstance(value, dict):
        wanted = (inspect.StructType, inspect.DictType)
    elif isinstance(value, list):
        wanted = (inspect.ListType, inspect.VarTupleType)
    return next((member for member in union.types if isinstance(member, wanted)), union.types[0])
