"""What a start pays for: which modules a command, the supervisor and the daemon load. No clock is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime import launch
from node.ca import authority

ROOT = Path(__file__).parent.parent
REPORT = """
import json, sys
loaded = {name: str(getattr(module, "__file__", None)) for name, module in sys.modules.items()}
sys.stderr.write("LOADED" + json.dumps(loaded))
"""
# Of the standard library: each of these costs as much as the rest of a command.
HEAVY = {"asyncio", "concurrent", "dataclasses", "email", "http", "logging", "multiprocessing", "pathlib"}
HEAVY |= {"sqlite3", "ssl", "subprocess", "unittest", "urllib"}


def loaded_by(*python: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    """The files of the modules that are loaded when the given program (for `python`) has ended."""
    done = subprocess.run(
        [sys.executable, *python], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60
    )
    assert "LOADED" in done.stderr, done.stderr
    found: dict[str, str] = json.loads(done.stderr.partition("LOADED")[2])
    return found


def top_level(names: dict[str, str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def installed(modules: dict[str, str]) -> set[str]:
    """Those that pip has installed."""
    return top_level({name: file for name, file in modules.items() if "site-packages" in file})


@pytest.mark.parametrize("words", [["version"], ["ps"], ["service", "ls"]])
def test_a_command_loads_click_and_little_else(words: list[str]) -> None:
    arguments = ["-H", "unix:///nobody/listens", *words]
    modules = loaded_by("-c", f"from cli.main import main; assert main({arguments!r}) == 1\n{REPORT}")
    assert installed(modules) - {"_distutils_hack"} == {"click"}  # pip's own: at every start of a Python
    assert top_level(modules) & HEAVY == set()


def test_a_command_loads_no_other_nouns() -> None:
    modules = loaded_by("-c", f"from cli.main import main; main(['version', '--help'])\n{REPORT}")
    assert {name for name in modules if name.startswith("cli.commands.")} == {"cli.commands.system"}


def test_the_supervisor_loads_msgspec_and_little_else() -> None:
    modules = loaded_by("-I", "-S", "-c", launch.this_installation("").import_statements() + REPORT)
    assert "engine.runtime.supervisor" in modules
    assert installed(modules) == {"msgspec"}
    assert top_level(modules) & ((HEAVY | {"inspect"}) - {"pathlib", "urllib"}) == set()
    ours = {name for name in modules if name.startswith("engine.") and not name.startswith("engine.runtime")}
    assert ours == set()


def test_the_daemon_is_imported_without_the_webs_authorities(tmp_path: Path) -> None:
    """The library would read them for clients that we do not have; afterwards everything is as it was."""
    bundle = tmp_path / "authorities.pem"
    bundle.write_text(authority.new_root(0.0).cert_pem)
    code = f"""
import gc, ssl
from node.main import import_daemon
import_daemon()
from aiohttp import connector
assert connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"] == 0, "read them"
assert ssl.create_default_context().cert_store_stats()["x509"] == 1, "the environment is another one"
assert gc.isenabled() and gc.get_freeze_count() > 1000
{REPORT}"""
    modules = loaded_by("-c", code, environment={"SSL_CERT_FILE": str(bundle)})
    assert "node.daemon" in modules
    assert top_level(modules) & {"click", "multiprocessing", "unittest"} == set()


def test_a_verb_of_the_lab_that_asks_no_daemon_loads_no_http_client() -> None:
    modules = loaded_by("-c", f"from node.lab.__main__ import main; main(['ls'])\n{REPORT}")
    assert top_level(modules) & {"email", "http", "ssl"} == set()


def test_help_of_the_daemon_does_not_load_it() -> None:
    code = f"""
import sys
from node.main import main
sys.argv = ["swarmd", "--help"]
try:
    main()
except SystemExit:
    pass
{REPORT}"""
    assert top_level(loaded_by("-c", code)) & {"aiohttp", "cryptography", "engine", "raft"} == set()
