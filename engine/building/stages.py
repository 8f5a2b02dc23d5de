"""The stages of a Dockerfile: what stands before the first FROM, then one stage for each FROM. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.building.dockerfile import parse_lines
from engine.building.instructions import Instruction, parse_instruction
from engine.errors import InvalidParameter


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is its FROM; `name` is in lower case, "" when it has none."""

    source: Instruction
    name: str
    instructions: tuple[Instruction, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments`: the ARG instructions before the first FROM."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.arguments) + sum(1 + len(stage.instructions) for stage in self.stages)


def parse_plan(text: str, *, target: str = "", labels: Mapping[str, str] | None = None) -> Plan:
    """Up to the stage `target`, whose image gets the labels. InvalidParameter for what is no Dockerfile."""
    parsed = parse_lines(text)
    if not parsed.lines:
        raise InvalidParameter("file with no instructions")
    arguments: list[Instruction] = []
    heads: list[Instruction] = []
    bodies: list[list[Instruction]] = []
    for line in parsed.lines:
        instruction = parse_instruction(line, parsed.escape)
        if instruction.keyword == "FROM":
            heads.append(instruction)
            bodies.append([])
        elif heads:
            bodies[-1].append(instruction)
        elif instruction.keyword == "ARG":
            arguments.append(instruction)
        else:
            raise InvalidParameter(
                f"dockerfile parse error line {line.number}: no build stage in current context"
            )
    if not heads:
        raise InvalidParameter("no build stage in current context")
    last = _target_index(heads, target)
    if labels:
        bodies[last].append(_label_instruction(labels))
    stages = tuple(
        Stage(source=head, name=_stage_name(head), instructions=tuple(body))
        for head, body in zip(heads[: last + 1], bodies[: last + 1], strict=True)
    )
    return Plan(arguments=tuple(arguments), stages=stages, warnings=parsed.warnings)


def _stage_name(head: Instruction) -> str:
    return head.words[1] if len(head.words) > 1 else ""


def _target_index(heads: Sequence[Instruction], target: str) -> int:
    if not target:
        return len(heads) - 1
    names = [_stage_name(head) for head in heads]
    if target.lower() in names:
        return names.index(target.lower())
    if target.isdecimal() and int(target) < len(heads):
        return int(target)
    raise InvalidParameter(f"failed to reach build target {target} in Dockerfile")


def _label_instruction(labels: Mapping[str, str]) -> Instruction:
    """Values are quoted, so that nothing in them is substituted."""
    pairs = tuple((_quoted(name), _quoted(value)) for name, value in sorted(labels.items()))
    text = "LABEL " + " ".join(f"{name}={value}" for name, value in labels.items())
    return Instruction(keyword="LABEL", text=text, number=0, pairs=pairs)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\"'\"'") + "'"
