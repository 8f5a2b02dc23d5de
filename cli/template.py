"""The part of Go's text/template that `--format` needs: fields, pipelines, if, with, range, variables, functions.

Owns parsing and rendering only; what a field means is decided by the value that is rendered (plain JSON data,
and functions, which are its methods).
A missing field of the outermost value is an error that lists the fields there are; deeper ones print <no value>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cli.errors import UsageError

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<assign>:=|=)"""
    r"""|(?P<punct>[()|,])|(?P<name>\$?[A-Za-z_]\w*(?:\.\w+)*|\$(?:\.\w+)*|\.[A-Za-z_]\w*(?:\.\w+)*|\.))"""
)
_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
MISSING = "<no value>"


class TemplateError(UsageError):
    """Says which part of the template is wrong."""


# --- syntax tree ---


@dataclass
class Term:
    """One operand: kind is literal, field, variable, call or group."""

    kind: str
    value: Any = None
    path: tuple[str, ...] = ()
    pipeline: list[list[Term]] = field(default_factory=list)


@dataclass
class Node:
    """kind: text, output, if, with, range, assign. `clauses` are (condition, body) of an if-chain."""

    kind: str
    text: str = ""
    pipeline: list[list[Term]] = field(default_factory=list)
    names: tuple[str, ...] = ()
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


def _tokens(action: str) -> list[tuple[str, str]]:
    found, position = [], 0
    action = action.rstrip()
    while position < len(action):
        match = _TOKEN.match(action, position)
        if match is None:
            raise TemplateError(
                f'template parsing error: unexpected "{action[position:].strip()}" in command'
            )
        kind = match.lastgroup or ""
        found.append((kind, match.group(kind)))
        position = match.end()
    return found


class _Parser:
    def __init__(self, source: str) -> None:
        self._pieces = self._split(source)
        self._at = 0

    @staticmethod
    def _split(source: str) -> list[tuple[bool, str]]:
        pieces: list[tuple[bool, str]] = []
        position, trim_next = 0, False
        for match in _ACTION.finditer(source):
            text = source[position : match.start()]
            text = text.lstrip() if trim_next else text
            pieces.append((False, text.rstrip() if match.group(1) else text))
            if not match.group(2).startswith("/*"):
                pieces.append((True, match.group(2).strip()))
            position, trim_next = match.end(), bool(match.group(3))
        rest = source[position:]
        if "{{" in rest:
            raise TemplateError(f'template parsing error: unclosed action in "{source}"')
        pieces.append((False, rest.lstrip() if trim_next else rest))
        return pieces

    def parse(self) -> list[Node]:
        nodes, end = self._block()
        if end:
            raise TemplateError(f"template parsing error: unexpected {{{{{end}}}}}")
        return nodes

    def _block(self) -> tuple[list[Node], str]:
        """Nodes up to the action that ends the block: "", "end" or "else..."."""
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            is_action, text = self._pieces[self._at]
            self._at += 1
            if not is_action:
                if text:
                    nodes.append(Node("text", text))
                continue
            word = text.split(None, 1)[0] if text else ""
            if word in ("end", "else"):
                return nodes, text
            nodes.append(self._control(word, text) if word in ("if", "with", "range") else _simple(text))
        return nodes, ""

    def _control(self, word: str, text: str) -> Node:
        node = _simple(text[len(word) :], kind=word)
        node.body, end = self._block()
        if end.startswith("else"):
            chained = end[4:].strip()
            if chained.startswith(("if", "with")):
                inner = chained.split(None, 1)[0]
                node.otherwise = [self._control(inner, chained)]
                return node
            node.otherwise, end = self._block()
        if end != "end":
            raise TemplateError(f"template parsing error: {{{{{word}}}}} without {{{{end}}}}")
        return node


def _simple(text: str, kind: str = "output") -> Node:
    tokens = _tokens(text)
    names: list[str] = []
    assigns = next((at for at, token in enumerate(tokens) if token[0] == "assign"), None)
    if assigns is not None:
        names = [value for token, value in tokens[:assigns] if token == "name"]
        tokens = tokens[assigns + 1 :]
        kind = "assign" if kind == "output" else kind
    pipeline, rest = _pipeline(tokens)
    if rest or not pipeline or not pipeline[0]:
        raise TemplateError(f'template parsing error: cannot understand "{{{{{text}}}}}"')
    return Node(kind, pipeline=pipeline, names=tuple(names))


def _pipeline(tokens: list[tuple[str, str]]) -> tuple[list[list[Term]], list[tuple[str, str]]]:
    commands: list[list[Term]] = [[]]
    while tokens:
        kind, text = tokens[0]
        if (kind, text) == ("punct", ")"):
            break
        tokens = tokens[1:]
        if (kind, text) == ("punct", "|"):
            commands.append([])
        elif (kind, text) == ("punct", "("):
            inner, tokens = _pipeline(tokens)
            if not tokens:
                raise TemplateError("template parsing error: unclosed left paren")
            tokens = tokens[1:]
            commands[-1].append(Term("group", pipeline=inner))
        else:
            commands[-1].append(_term(kind, text))
    if any(not command for command in commands):
        raise TemplateError("template parsing error: missing value for command")
    return commands, tokens


def _term(kind: str, text: str) -> Term:
    if kind == "string":
        return Term("literal", text[1:-1] if text[0] == "`" else json.loads(text))
    if kind == "number":
        return Term("literal", float(text) if "." in text else int(text))
    if text in ("true", "false", "nil"):
        return Term("literal", {"true": True, "false": False, "nil": None}[text])
    if text.startswith("."):
        return Term("field", path=tuple(part for part in text.split(".") if part))
    if text.startswith("$"):
        name, *path = text.split(".")
        return Term("variable", name, path=tuple(path))
    if text not in FUNCTIONS:
        raise TemplateError(f'template parsing error: function "{text}" not defined', hint=_function_hint())
    return Term("call", text)


def _function_hint() -> str:
    return "functions: " + ", ".join(sorted(FUNCTIONS))


# --- rendering ---


class Template:
    """Parse once, `render` for every row. Raises TemplateError with the part that is wrong."""

    def __init__(self, source: str) -> None:
        self._nodes = _Parser(source).parse()

    def render(self, data: Any) -> str:
        return "".join(_render(self._nodes, data, {"$": data}, data))

    def fields(self) -> list[str]:
        """The first-level fields that are printed, in order (for the headers of `table` formats)."""
        found: list[str] = []
        _collect(self._nodes, found)
        return found


def _collect(nodes: list[Node], found: list[str]) -> None:
    for node in nodes:
        for command in node.pipeline:
            found += [term.path[0] for term in command if term.kind == "field" and term.path]
        _collect(node.body, found)
        _collect(node.otherwise, found)


def _render(nodes: list[Node], dot: Any, variables: dict[str, Any], root: Any) -> list[str]:
    out: list[str] = []
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
            continue
        value = _evaluate(node.pipeline, dot, variables, root)
        if node.kind == "output":
            out.append(go_text(value))
        elif node.kind == "assign":
            variables[node.names[0]] = value
        elif node.kind == "range":
            out += _range(node, value, dot, variables, root)
        else:
            chosen = node.body if _truth(value) else node.otherwise
            inner = value if node.kind == "with" and _truth(value) else dot
            out += _render(chosen, inner, variables, root)
    return out


def _range(node: Node, value: Any, dot: Any, variables: dict[str, Any], root: Any) -> list[str]:
    items = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value or []))
    if not items:
        return _render(node.otherwise, dot, variables, root)
    out: list[str] = []
    for key, item in items:
        scope = dict(variables)
        if node.names:
            scope.update(zip(node.names, (key, item) if len(node.names) == 2 else (item,), strict=False))
        out += _render(node.body, item, scope, root)
    return out


_NOTHING: Any = object()


def _evaluate(pipeline: list[list[Term]], dot: Any, variables: dict[str, Any], root: Any) -> Any:
    value = _NOTHING
    for command in pipeline:
        head, *arguments = command
        values = [_operand(term, dot, variables, root) for term in arguments]
        if value is not _NOTHING:
            values.append(value)
        if head.kind == "call":
            value = _call(head.value, values)
        else:
            value = _operand(head, dot, variables, root)
            if callable(value):
                value = _called(head, value, values)
            elif values:
                raise TemplateError("template error: can't give argument to non-function")
    return value


def _called(head: Term, method: Callable[..., Any], values: list[Any]) -> Any:
    """A method of the value, such as {{.Label "name"}}."""
    try:
        return method(*values)
    except TypeError as error:
        raise TemplateError(f"template error: wrong number of args for {head.path[-1]}") from error


def _operand(term: Term, dot: Any, variables: dict[str, Any], root: Any) -> Any:
    if term.kind == "literal":
        return term.value
    if term.kind == "group":
        return _evaluate(term.pipeline, dot, variables, root)
    if term.kind == "call":
        return _call(term.value, [])
    if term.kind == "variable":
        if term.value not in variables:
            raise TemplateError(f'template error: undefined variable "{term.value}"')
        return _walk(variables[term.value], term.path, root)
    return _walk(dot, term.path, root)


def _walk(value: Any, path: tuple[str, ...], root: Any) -> Any:
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, dict) and value is root:
            raise TemplateError(
                f'template error: no field "{name}"', hint="fields: " + ", ".join(sorted(map(str, value)))
            )
        else:
            return _Missing()
    return value


class _Missing:
    """What a field that does not exist evaluates to; false, and printed as <no value>."""

    def __bool__(self) -> bool:
        return False


def _call(name: str, values: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*values)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise TemplateError(f"template error: error calling {name}: {error}") from error


def _truth(value: Any) -> bool:
    return bool(value)


def go_text(value: Any) -> str:
    """A value as Go's fmt.Print shows it: true, [a b], map[k:v], <no value>."""
    if value is None or isinstance(value, _Missing):
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(go_text(item) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    shown = None if isinstance(value, _Missing) else value
    if isinstance(shown, dict):
        shown = {name: entry for name, entry in shown.items() if not callable(entry)}
    from cli.output import json_line

    return json_line(shown)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(str(key), "") if isinstance(value, dict) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    remaining = list(values)

    def one(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        value = remaining.pop(0) if remaining else MISSING
        verb = match.group()[-1]
        if verb == "q":
            return json.dumps(go_text(value))
        text = f"{match.group()[:-1]}{verb}" if verb in "dxXfeg" else f"{match.group()[:-1]}s"
        return text % (value if verb in "dxXfeg" else go_text(value))

    return re.sub(r"%%|%[-+0 #]*\d*(?:\.\d+)?[a-zA-Z]", one, form)


def _truncate(text: str, count: int) -> str:
    return text[:count]


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda items, glue: str(glue).join(go_text(item) for item in items or []),
    "split": lambda text, glue: str(text).split(glue),
    "pad": lambda text, before, after: " " * before + str(text) + " " * after if text else text,
    "truncate": _truncate,
    "print": lambda *values: "".join(go_text(value) for value in values),
    "println": lambda *values: " ".join(go_text(value) for value in values) + "\n",
    "printf": _printf,
    "len": len,
    "index": _index,
    "slice": lambda value, *ends: value[slice(*ends) if len(ends) == 2 else slice(*(*ends, None))],
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "eq": _equal,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
