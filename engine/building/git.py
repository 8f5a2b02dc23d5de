"""A git repository as a build context: `URL[#REF[:FOLDER]]`, fetched by the host's own git.

Nothing of the address can become an option or a program: only the usual protocols are allowed, nobody is asked for
a password, and hooks do not run. What is half-fetched lies in the build's folder, which goes with the build.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

from engine.building.arguments import PREDEFINED
from engine.building.sources import resolve_inside
from engine.errors import EngineFailure, InvalidParameter
from engine.storage.trees import remove_tree

TIMEOUT_S = 600.0
_HOSTED = ("github.com/",)
_SCHEMES = ("git://", "git@", "ssh://")
_GIT_URL = re.compile(r"https?://[^#]*\.git(?:#.*)?", re.IGNORECASE)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "HOME": "/nonexistent",
}


def is_git(remote: str) -> bool:
    return remote.startswith((*_SCHEMES, *_HOSTED)) or _GIT_URL.fullmatch(remote) is not None


def parse_remote(remote: str) -> tuple[str, str, str]:
    """(address, reference, folder). InvalidParameter for what git could take for an option."""
    address, _, fragment = remote.partition("#")
    if address.startswith(_HOSTED):
        address = f"https://{address}"
    reference, _, folder = fragment.partition(":")
    if address.startswith("-") or reference.startswith("-"):
        raise InvalidParameter(f"invalid git address: {remote}")
    return address, reference, folder


async def clone(remote: str, target: Path) -> Path:
    """Fetches one commit and its submodules into `target`; returns the folder that is the context."""
    address, reference, folder = parse_remote(remote)
    if shutil.which("git") is None:
        raise EngineFailure(
            f"cannot build from {remote}: git is not installed on the daemon's host: install it there, or clone "
            "the repository and build from its folder"
        )
    target.mkdir()
    await _git(target, "init", "--quiet")
    await _git(target, "remote", "add", "origin", address)
    await _git(target, "fetch", "--quiet", "--depth", "1", "origin", "--", reference or "HEAD")
    await _git(target, "checkout", "--quiet", "FETCH_HEAD")
    await _git(target, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    context = resolve_inside(target, folder)
    if not context.is_dir():
        raise InvalidParameter(f"{folder} is no folder of {address}")
    remove_tree(target / ".git", ignore_errors=True)
    return context


async def _git(folder: Path, *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *("git", "-c", "core.hooksPath=/dev/null", *words),
        cwd=folder,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **_proxies(), **_ENVIRONMENT},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise EngineFailure(f"git {words[0]} took longer than {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise InvalidParameter(f"git {words[0]} failed: {errors.decode(errors='replace').strip()[-500:]}")


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in PREDEFINED}
