"""Which values a flag takes: checked as soon as the command line is read, before anything is asked or done.

A flag is known by its parameter's name, which means the same in every command. The functions of `parse` raise
UsageError; here it becomes a usage error of the flag: `invalid argument "X" for "-m, --memory" flag: ...`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli import parse
from cli.errors import UsageError


def _one(check: Callable[[list[str]], object]) -> Callable[[str], object]:
    """For functions that take all values of a flag."""
    return lambda text: check([text])


def _stream(text: str) -> None:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise UsageError("valid streams are STDIN, STDOUT and STDERR")


def _swap(text: str) -> None:
    if text != "-1":
        parse.size_bytes(text)


_CHECKS: dict[str, Callable[[str], object]] = {
    "add_host": parse.host_entry,
    "attach": _stream,
    "cpus": parse.nano_cpus,
    "env": _one(parse.environment),
    "filter_values": _one(parse.filters),
    "health_interval": parse.positive_nanoseconds,
    "health_start_interval": parse.positive_nanoseconds,
    "health_start_period": parse.positive_nanoseconds,
    "health_timeout": parse.positive_nanoseconds,
    "limit_cpu": parse.nano_cpus,
    "limit_memory": parse.size_bytes,
    "memory": parse.size_bytes,
    "memory_reservation": parse.size_bytes,
    "memory_swap": _swap,
    "reserve_cpu": parse.nano_cpus,
    "reserve_memory": parse.size_bytes,
    "restart_delay": parse.positive_nanoseconds,
    "restart_window": parse.positive_nanoseconds,
    "rollback_delay": parse.positive_nanoseconds,
    "rollback_monitor": parse.positive_nanoseconds,
    "shm_size": parse.size_bytes,
    "stop_grace_period": parse.positive_nanoseconds,
    "ulimit": _one(parse.ulimits),
    "update_delay": parse.positive_nanoseconds,
    "update_monitor": parse.positive_nanoseconds,
}


def check(ctx: click.Context, params: list[click.Parameter]) -> None:
    """Raises click.UsageError for the first flag of `ctx` whose value is none."""
    for param in params:
        test = _CHECKS.get(param.name or "")
        if test is None or not isinstance(param, click.Option):
            continue
        value: Any = ctx.params.get(param.name or "")
        for text in value if isinstance(value, tuple) else [value]:
            if text in (None, "") and not isinstance(value, tuple):
                continue
            try:
                test(text)
            except UsageError as error:
                flags = ", ".join(sorted(param.opts[:2], key=len))
                problem = error.message.removeprefix(f'invalid argument "{text}" for "{flags}" flag: ')
                raise click.UsageError(
                    f'invalid argument "{text}" for "{flags}" flag: {problem}', ctx
                ) from error
