#!/usr/bin/env python3
"""Extracts what tests/fuzz needs from the specification of the Docker Engine API (its swagger.yaml).

Usage: python3 scripts/docker_api_shapes.py swagger.yaml tests/data/docker_api_shapes.json

Needs PyYAML (apt: python3-yaml), which nothing else of the project does. The result has for each operation
its parameters, its body and what it answers, without prose; a schema that has a name stands once, below
"definitions", and is referred to by {"ref": NAME}. What stands in allOf is put together into one object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

DEPTH_MAX = 16
KEPT = ("type", "enum", "format", "minimum", "maximum")
Json = dict[str, Any]


def schema_of(node: Json, definitions: Json, depth: int = 0) -> Json:
    """Without descriptions and examples."""
    if "$ref" in node:
        return {"ref": node["$ref"].rpartition("/")[2]} | nullable(node)
    if depth > DEPTH_MAX:
        return {}
    if "allOf" in node:
        return together(node, definitions, depth)
    shape: Json = {key: node[key] for key in KEPT if key in node} | nullable(node)
    properties = node.get("properties")
    if properties:
        shape["type"] = "object"
        shape["properties"] = {
            name: schema_of(entry or {}, definitions, depth + 1) for name, entry in properties.items()
        }
        if node.get("required"):
            shape["required"] = node["required"]
    if isinstance(node.get("additionalProperties"), dict):
        shape["values"] = schema_of(node["additionalProperties"], definitions, depth + 1)
    if "items" in node:
        shape["items"] = schema_of(node["items"], definitions, depth + 1)
    return shape


def nullable(node: Json) -> Json:
    return {"null": True} if node.get("x-nullable") or node.get("nullable") else {}


def together(node: Json, definitions: Json, depth: int) -> Json:
    """One object with the properties of all parts of an allOf."""
    shape: Json = {"type": "object", "properties": {}} | nullable(node)
    required: list[str] = []
    for part in node["allOf"]:
        while "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]]
        resolved = schema_of(part, definitions, depth + 1)
        if "properties" not in resolved and len(node["allOf"]) == 1:
            return resolved | nullable(node)
        shape["properties"] |= resolved.get("properties", {})
        required += resolved.get("required", [])
    return shape | ({"required": required} if required else {})


def operation_of(method: str, path: str, node: Json, shared: list[Json], definitions: Json) -> Json:
    found: Json = {"method": method.upper(), "path": path, "parameters": [], "answers": {}}
    for parameter in (*shared, *node.get("parameters", [])):
        if parameter["in"] == "body":
            found["body"] = schema_of(parameter["schema"], definitions)
            continue
        row = {"name": parameter["name"], "in": parameter["in"]} | schema_of(parameter, definitions)
        if parameter.get("required") is True:
            row["required"] = True
        found["parameters"].append(row)
    for status, answer in node["responses"].items():
        found["answers"][str(status)] = (
            schema_of(answer["schema"], definitions) if answer.get("schema") else None
        )
    if node.get("produces"):
        found["produces"] = node["produces"]
    return found


def main(source: str, target: str) -> None:
    with open(source, encoding="utf-8") as file:
        api = yaml.safe_load(file)
    definitions = api["definitions"]
    operations = [
        operation_of(method, path, node, entry.get("parameters", []), definitions)
        for path, entry in api["paths"].items()
        for method, node in entry.items()
        if method != "parameters"
    ]
    names = {name: schema_of(node, definitions) for name, node in definitions.items()}
    rows = ",\n".join(json.dumps(row) for row in operations)
    known = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in names.items())
    version = json.dumps(api["info"]["version"])
    whole = f'{{"version": {version},\n"operations": [\n{rows}\n],\n"definitions": {{\n{known}\n}}}}\n'
    Path(target).write_text(whole)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
