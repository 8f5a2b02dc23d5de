"""How commands are put together: lazy groups, help texts as Docker's, options and loops that many commands share."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from cli.errors import ApiError, CliError, SilentExit, UsageError
from cli.registry import BY_NAME, ELSEWHERE, SECTIONS, Entry, Noun

F = TypeVar("F", bound=Callable[..., Any])
DEBUG = "SWARMCTL_DEBUG"  # in the environment: set by --debug


class Command(click.Command):
    """A verb. `usage` is the part of the usage line after the options, such as CONTAINER [CONTAINER...]."""

    def __init__(self, *args: Any, usage: str = "", **attributes: Any) -> None:
        attributes.setdefault("options_metavar", "[OPTIONS]")
        super().__init__(*args, **attributes)
        self.usage = usage

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        flags = any(isinstance(item, click.Option) and not item.hidden for item in self.params)
        return [piece for piece in ("[OPTIONS]" if flags else "", self.usage) if piece]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Flags may carry a value as docker's do: --tty=true, --read-only=false."""
        args, negated = self._split_flag_values(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # not every error of the parser knows where it was
            raise
        ctx.params.update(dict.fromkeys(negated, False))
        if not ctx.resilient_parsing and any(ctx.params.values()):
            from cli.flag_values import check

            check(ctx, self.params)
        return rest

    def _split_flag_values(self, args: list[str]) -> tuple[list[str], list[str]]:
        """The arguments without `=true` and without flags that are `=false`, whose names are returned."""
        options = {
            name: option for option in self.params if isinstance(option, click.Option) for name in option.opts
        }
        interspersed = self.context_settings.get("allow_interspersed_args", True)
        kept: list[str] = []
        negated: list[str] = []
        position = 0
        while position < len(args):
            word = args[position]
            name, equals, value = word.partition("=")
            option = options.get(name)
            position += 1
            if word == "--" or (not word.startswith("-") and not interspersed):
                return [*kept, word, *args[position:]], negated
            if option is not None and option.is_flag and equals and option.name:
                if _flag_value(name, value):
                    kept.append(name)
                else:
                    negated.append(option.name)
                continue
            kept.append(word)
            if _takes_next(word, options) and position < len(args):
                kept.append(args[position])
                position += 1
        return kept, negated

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(self.help or "")


def _flag_value(name: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise UsageError(f'invalid argument "{value}" for "{name}" flag', hint="true or false", exit_code=125)


def _takes_next(word: str, options: dict[str, click.Option]) -> bool:
    """Whether the word is an option (or a bundle of short ones) whose value is the following word."""
    if word.startswith("--"):
        return word in options and not options[word].is_flag
    if not word.startswith("-") or len(word) < 2:
        return False
    for at, letter in enumerate(word[1:], start=1):
        option = options.get(f"-{letter}")
        if option is None or not option.is_flag:
            return option is not None and at == len(word) - 1
    return False


def load(target: str) -> click.Command:
    module, _, name = target.partition(":")
    command = getattr(importlib.import_module(f"cli.commands.{module}"), name)
    assert isinstance(command, click.Command), target
    return command


class NounGroup(click.Group):
    """One noun and its verbs; a verb's module is imported when the verb is used."""

    def __init__(self, noun: Noun) -> None:
        super().__init__(noun.name, help=noun.help, subcommand_metavar="COMMAND", options_metavar="")
        self.noun = noun
        self.no_args_is_help = True

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in self.noun.verbs]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = dict(self.noun.aliases).get(name, name)
        for entry in self.noun.verbs:
            if entry.name == name:
                return load(entry.target)
        return None

    def get_help(self, ctx: click.Context) -> str:
        width = max(len(entry.name) for entry in self.noun.verbs) + 2
        verbs = "\n".join(f"  {entry.name.ljust(max(width, 12))}{entry.help}" for entry in self.noun.verbs)
        return (
            f"Usage:  {ctx.command_path} COMMAND\n\n{self.noun.help}\n\nCommands:\n{verbs}\n\n"
            f"Run '{ctx.command_path} COMMAND --help' for more information on a command."
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _require_known(self, ctx, args)
        return super().resolve_command(ctx, args)


class RootGroup(click.Group):
    """`swarmctl` itself: sections of nouns and top-level verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for _, entries in SECTIONS for entry in entries]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in ELSEWHERE:
            return _elsewhere(name)
        entry = BY_NAME.get(name)
        if entry is None:
            return None
        return NounGroup(entry) if isinstance(entry, Noun) else load(entry.target)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in SECTIONS:
            _section(formatter, title, entries)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _require_known(self, ctx, args)
        return super().resolve_command(ctx, args)


def _elsewhere(name: str) -> click.Command:
    """A command that is a program of its own (docker's plugins), or that there is not here."""
    from cli.commands.elsewhere import elsewhere

    return elsewhere(name)


def _section(formatter: click.HelpFormatter, title: str, entries: Sequence[Entry | Noun]) -> None:
    with formatter.section(title):
        formatter.write_dl([(entry.name, entry.help) for entry in entries])


def _require_known(group: click.Group, ctx: click.Context, args: list[str]) -> None:
    name = args[0] if args else ""
    if ctx.resilient_parsing or not name or name.startswith("-") or group.get_command(ctx, name) is not None:
        return
    import difflib

    close = difflib.get_close_matches(name, group.list_commands(ctx), n=1)
    program = ctx.command_path.split()[0]
    usage = f"\n\nUsage:  {ctx.command_path}" if group is not ctx.find_root().command else ""
    raise UsageError(
        f"{program}: unknown command: {ctx.command_path} {name}{usage}\n\n"
        f"Run '{ctx.command_path} --help' for more information",
        hint=f'did you mean "{close[0]}"?' if close else "",
    )


def command(usage: str = "", **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorator of a verb; `usage` as in Command. The function's docstring is the help text."""
    return click.command(cls=Command, usage=usage, **attributes)


def stop_at_first_argument() -> dict[str, Any]:
    """Everything after the first argument belongs to the container's command, options too."""
    return {"allow_interspersed_args": False}


# --- options that many commands share ---


def format_option(function: F) -> F:
    return click.option(
        "--format", "form", default="", help="json, 'table TEMPLATE' or a Go template such as '{{.ID}}'"
    )(function)


def filter_option(function: F) -> F:
    return click.option(
        "-f", "--filter", "filter_values", multiple=True, help="Filter output based on conditions (key=value)"
    )(function)


def quiet_option(help_text: str = "Only display IDs") -> Callable[[F], F]:
    return click.option("-q", "--quiet", is_flag=True, help=help_text)


def no_trunc_option(function: F) -> F:
    return click.option("--no-trunc", is_flag=True, help="Don't truncate output")(function)


def switch(*names: str, default: bool, help: str) -> Callable[[F], F]:
    """A flag that may be on from the beginning: --sig-proxy, --sig-proxy=false."""
    return click.option(*names, is_flag=True, flag_value=True, default=default, type=bool, help=help)


def refused(*names: str, reason: str, takes_value: bool = True) -> Callable[[F], F]:
    """A flag of docker's that cannot be honoured here; who gives it is told why. It is no argument of the function."""

    def refuse(_: click.Context, option: click.Parameter, value: Any) -> None:
        if value:
            raise UsageError(f"{option.opts[-1]} is not supported: {reason}", exit_code=125)

    return click.option(
        *names,
        is_flag=not takes_value,
        multiple=takes_value,
        callback=refuse,
        expose_value=False,
        help=f"Not supported: {reason}",
    )


def trust_option(function: F) -> F:
    """--disable-content-trust, which is on; off would ask for signatures."""

    def check(_: click.Context, __: click.Parameter, value: Any) -> None:
        if not value:
            raise UsageError(
                "--disable-content-trust=false is not supported: images are not signed here", exit_code=125
            )

    return click.option(
        "--disable-content-trust",
        is_flag=True,
        flag_value=True,
        default=True,
        type=bool,
        callback=check,
        expose_value=False,
        help="Skip image verification (there is none: digests are always checked)",
    )(function)


def repeated(*names: str, help: str) -> Callable[[F], F]:
    """An option that may be given several times."""
    return click.option(*names, multiple=True, help=help)


# --- loops and questions ---


def for_each(
    names: Sequence[str], act: Callable[[str], object], *, missing_is_fine: bool = False, ending: str = ""
) -> None:
    """Calls `act` for every name and prints the name (or what `act` returns); goes on after errors, then fails.

    missing_is_fine: what is not there (404) is told but no failure, as with --force. ending: words before the names
    that failed, told last.
    """
    failed: list[str] = []
    for name in names:
        try:
            answer = act(name)
        except CliError as error:
            report(error)
            if not (missing_is_fine and isinstance(error, ApiError) and error.status == 404):
                failed.append(name)
            continue
        text = name if answer is None else str(answer)
        if text:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    if failed and ending:
        sys.stderr.write(f"{ending} {', '.join(failed)}\n")
    if failed:
        raise SilentExit(1)


def report(error: CliError, *, command: str = "") -> None:
    """The error and what to do next, on stderr. `command`: one that names itself and its help, as `docker run` does."""
    first = f"{command.split()[0]}: " if command else ""
    last = f"\nRun '{command} --help' for more information\n" if command else ""
    sys.stderr.write(f"{first}{error.message}\n{last}")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    cause = error.__cause__
    while os.environ.get(DEBUG) and cause is not None:
        sys.stderr.write(f"debug: {type(cause).__name__}: {cause}\n")
        cause = cause.__cause__ or cause.__context__
    sys.stderr.flush()


def confirm(question: str, force: bool, separator: str = "\n") -> None:
    """Asks before something is lost; without an answer (no terminal) nothing happens."""
    if force:
        return
    sys.stdout.write(f"WARNING! {question}{separator}Are you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SilentExit(0)
