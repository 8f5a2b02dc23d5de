"""What is wrong with a command line, in the words and with the exit codes that users of docker know.

Wrong flags end with 125, wrong numbers of arguments and unknown commands with 1.
"""

from __future__ import annotations

import sys

import click


def tell(error: click.UsageError) -> int:
    """Writes it to stderr; the process's exit status."""
    ctx = error.ctx
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.message + "\n")
        return 0
    path = ctx.command_path if ctx is not None else "swarmctl"
    word, status = "Run", 125
    if isinstance(error, click.NoSuchOption):
        message = _unknown_flag(error.option_name)
    elif error.message.startswith("invalid argument "):
        message = error.message
    elif isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        message = _without_value(error.option_name)
    elif (
        isinstance(error, click.BadParameter)
        and isinstance(error.param, click.Option)
        and not _missing(error)
    ):
        message = f'invalid argument for "{_names(error.param)}" flag: {error.message}'
    elif ctx is not None and (_missing(error) or error.message.startswith("Got unexpected extra")):
        needs = _needs(ctx.command)
        message, status = f"{path.split()[0]}: '{path}' {needs}", 1
        word = "See" if "at least" in needs else "Run"
    else:
        message, status = error.format_message(), 1
    usage = ctx.get_usage().replace("Usage: ", "Usage:  ", 1) if ctx is not None else ""
    sys.stderr.write(f"{message}\n\n" + (f"{usage}\n\n" if usage else ""))
    sys.stderr.write(f"{word} '{path} --help' for more information\n")
    if hint := getattr(error.__cause__, "hint", ""):
        sys.stderr.write(f"hint: {hint}\n")
    return status


def _missing(error: click.UsageError) -> bool:
    return isinstance(error, click.MissingParameter)


def _unknown_flag(name: str) -> str:
    if name.startswith("--"):
        return f"unknown flag: {name}"
    return f"unknown shorthand flag: '{name.lstrip('-')[:1]}' in {name}"


def _without_value(name: str) -> str:
    if name.startswith("--"):
        return f"flag needs an argument: {name}"
    return f"flag needs an argument: '{name.lstrip('-')[:1]}' in {name}"


def _names(option: click.Option) -> str:
    return ", ".join(sorted(option.opts, key=len))


def _needs(command: click.Command) -> str:
    """ "requires at least 1 argument", "accepts no arguments", ..."""
    arguments = [item for item in command.params if isinstance(item, click.Argument)]
    least = sum(max(item.nargs, 1) for item in arguments if item.required)
    if any(item.nargs == -1 for item in arguments):
        return f"requires at least {_counted(least)}"
    most = sum(item.nargs for item in arguments)
    if most == 0:
        return "accepts no arguments"
    if least == most:
        return f"requires {_counted(most)}"
    if least == 0:
        return f"requires at most {_counted(most)}"
    return f"requires at least {least} and at most {_counted(most)}"


def _counted(number: int) -> str:
    return f"{number} argument" if number == 1 else f"{number} arguments"
