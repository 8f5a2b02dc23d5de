"""Who may import whom: the rules of ARCHITECTURE.md, checked on the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("chaos", "cli", "engine", "node", "overlay_net", "raft", "scheduler")

# The longest matching prefix of a module decides; it may import its own package and what is listed.
RULES: dict[str, tuple[str, ...]] = {
    "chaos": ("chaos", "node.lab"),
    "cli": ("cli",),
    "engine": ("engine",),
    "overlay_net": ("overlay_net",),
    "raft": ("raft",),
    "raft.objects": ("raft.objects",),
    "scheduler": ("scheduler", "raft.objects", "raft.defaults"),
    "scheduler.allocator": ("scheduler", "raft.objects", "raft.defaults", "overlay_net.ipam"),
    "node.peers": (),
    "node.call_frames": ("node.peers",),
    "node.calls": ("node.call_frames", "node.peers"),
    "node.rpc": ("node.calls", "node.peers"),
    "node.loop": (),
    "node.ca": ("node.ca", "node.rpc", "raft.objects"),
    "node.api": (
        *("node.api", "node.config", "engine.config", "engine.errors", "engine.filter_values"),
        "engine.names",  # of services without one
        "engine.build_config",
        "engine.registry.credentials",
        *("raft.objects", "raft.errors"),
    ),
    "node.agent": (
        *("node.agent", "node.ca", "node.rpc", "node.loop", "engine", "overlay_net"),
        *("raft.objects", "raft.codec"),
    ),
    "node.manager": ("node.manager", "node.ca", "node.rpc", "node.loop", "raft", "scheduler"),
    "node.manager.logreader": (
        "node.manager",
        "node.rpc",
        "raft",
        "engine.config",
    ),  # LogOptions is the API's word
    "node.lab": ("node.lab", "node.config", "overlay_net"),
    "node": ("node", "engine", "overlay_net", "raft"),  # the modules that put the parts together
}

# Libraries that only certain modules may use.
GUARDED = {
    "ctypes": ("engine.runtime.syscalls", "overlay_net.namespaces", "overlay_net.nft"),
    "pysyncobj": (
        "raft.stock",
        "raft.syncobj",
        "raft.transport",
        "raft.consensus",
        "raft.voting",
        "raft.replication",
    ),
    "dnslib": ("overlay_net.dns_message",),
    "click": ("cli",),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, path


def imports(path: Path) -> Iterator[str]:
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def rule_for(module: str) -> tuple[str, ...]:
    return RULES[max((prefix for prefix in RULES if below(module, prefix)), key=len)]


def below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def forbidden(module: str, path: Path) -> list[str]:
    """Imports of ours that the module's rule does not allow; `from a import b` counts when a or a.b is allowed."""
    allowed = rule_for(module)
    found = []
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names = [[alias.name] for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names = [[statement.module, f"{statement.module}.{alias.name}"] for alias in statement.names]
        else:
            continue
        for alternatives in names:
            ours = alternatives[0].split(".")[0] in OURS
            if ours and not any(below(name, prefix) for name in alternatives for prefix in allowed):
                found.append(alternatives[-1])
    return found


def test_every_import_is_allowed() -> None:
    broken = {module: bad for module, path in modules() if (bad := forbidden(module, path))}
    assert broken == {}


@pytest.mark.parametrize("library", sorted(GUARDED))
def test_guarded_libraries_are_used_where_they_may_be(library: str) -> None:
    users = {module for module, path in modules() if any(below(name, library) for name in imports(path))}
    assert users, f"nobody uses {library} any more: remove the rule"
    assert {
        module for module in users if not any(below(module, prefix) for prefix in GUARDED[library])
    } == set()


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    """The rule itself: an engine module that reaches for the managers."""
    path = tmp_path / "bad.py"
    path.write_text("from raft.store import Store\nimport node.rpc\nfrom engine import errors\n")
    assert forbidden("engine.bad", path) == ["raft.store.Store", "node.rpc"]
