"""The entry point of `swarmctl`: global options, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys

import click

from cli.client import Client
from cli.command import DEBUG, RootGroup, report
from cli.connection import DEFAULT_HOST, Endpoint
from cli.contexts import Flags, endpoint
from cli.errors import CliError, SilentExit, UsageError
from cli.registry import ELSEWHERE

VERSION = "0.1.0"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal", "panic", "trace")
_WITHOUT_A_DAEMON = ("context", "lab", "completion", *ELSEWHERE)


@click.group(
    cls=RootGroup, subcommand_metavar="COMMAND", options_metavar="[OPTIONS]", invoke_without_command=True
)
@click.option(
    "--config", "folder", default="", help="Folder of the settings (config.json; also DOCKER_CONFIG)"
)
@click.option("-D", "--debug", is_flag=True, help="Tell with an error what it comes from")
@click.option("-l", "--log-level", default="info", help="Checked only: the client keeps no log")
@click.option(
    "-H",
    "--host",
    "hosts",
    multiple=True,
    help="Daemon to connect to (unix:///PATH, tcp://ADDRESS:PORT or ssh://USER@ADDRESS)",
)
@click.option("-c", "--context", "context_name", help="Name of the context to use (overrides DOCKER_HOST)")
@click.option("--tls", is_flag=True, default=None, help="Use TLS; implied by --tlsverify")
@click.option("--tlsverify", is_flag=True, default=None, help="Use TLS and verify the daemon")
@click.option("--tlscacert", default="", metavar="FILE", help="Trust certs signed only by this CA")
@click.option("--tlscert", default="", metavar="FILE", help="Path to TLS certificate file")
@click.option("--tlskey", default="", metavar="FILE", help="Path to TLS key file")
@click.option("-v", "--version", is_flag=True, help="Print version information and quit")
@click.pass_context
def root(
    ctx: click.Context,
    folder: str,
    debug: bool,
    log_level: str,
    hosts: tuple[str, ...],
    context_name: str | None,
    tls: bool | None,
    tlsverify: bool | None,
    tlscacert: str,
    tlscert: str,
    tlskey: str,
    version: bool,
) -> None:
    """A container engine and a swarm orchestrator"""
    if version:
        click.echo(f"swarmctl version {VERSION}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(0)
    if log_level not in LOG_LEVELS:
        raise UsageError(
            f"Unable to parse logging level: {log_level}", hint="one of: " + ", ".join(LOG_LEVELS)
        )
    if len(hosts) > 1:
        raise UsageError("Specify only one -H")
    if folder:
        os.environ["DOCKER_CONFIG"] = folder
    if debug:
        os.environ[DEBUG] = "1"
    flags = Flags(hosts[0] if hosts else None, context_name, tls, tlsverify, tlscacert, tlscert, tlskey)
    # A broken context must not keep `context` and `lab` from being used.
    known = (
        Endpoint(DEFAULT_HOST) if ctx.invoked_subcommand in _WITHOUT_A_DAEMON else endpoint(flags, os.environ)
    )
    ctx.obj = Client(*known)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the result is the process's exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["__complete"]:
        return _complete(words[1:])
    try:
        result = root.main(arguments, prog_name="swarmctl", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        from cli.usage_errors import tell

        return tell(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SilentExit as ending:
        _flush()
        return ending.exit_code
    except CliError as error:
        _flush()
        report(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); a second error at exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _complete(words: list[str]) -> int:
    """For the scripts of `swarmctl completion`."""
    from cli.completion import complete

    for value, meaning in complete(words):
        first = meaning.partition("\n")[0]
        sys.stdout.write(f"{value}\t{first}\n" if first else f"{value}\n")
    return 0


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
