"""The processes of a container for `docker top`: the host's `ps`, filtered to the container's pids."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from engine.errors import EngineFailure, InvalidParameter

PS_TIMEOUT_S = 10.0


async def process_table(pids: Iterable[int], ps_args: str) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...], ...]}. InvalidParameter when ps refuses or shows no PID."""
    process = await asyncio.create_subprocess_exec(
        "ps",
        *(ps_args.split() or ["-ef"]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PS_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EngineFailure("ps did not answer in 10 s") from error
    if process.returncode:
        raise InvalidParameter(f"ps: {errors.decode(errors='replace').strip()}")
    return parse_table(output.decode(errors="replace"), pids)


def parse_table(text: str, pids: Iterable[int]) -> dict[str, Any]:
    """Keep the rows whose PID is one of `pids`; the last column may contain spaces."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return {
        "Titles": titles,
        "Processes": [row for row in rows if len(row) > column and row[column] in wanted],
    }
