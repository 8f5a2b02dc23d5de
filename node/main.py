"""`swarmd`: reads the command line and the configuration file, sets up logging and signals, runs the daemon."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node import daemon_file, options
from node.hosts import handed_over

if TYPE_CHECKING:
    from node.config import NodeConfig
    from node.daemon import Signals

_AUTHORITIES = "SSL_CERT_FILE"  # of OpenSSL: a file of certificate authorities instead of the system's


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_ignored: Any, **_also: Any) -> None:
        from node.config import VERSION

        sys.stdout.write(f"swarmd {VERSION}\n")
        parser.exit()


class Invocation:
    """One command line. `settings` reads the file anew: when the daemon starts, and at every SIGHUP."""

    def __init__(self, arguments: Sequence[str]) -> None:
        parser = argparse.ArgumentParser(
            prog="swarmd", description="The daemon of one swarmctl node.", allow_abbrev=False
        )
        parser.add_argument(
            "--config-file", type=Path, metavar="FILE", help=f"settings ({daemon_file.DEFAULT_FILE})"
        )
        parser.add_argument("--validate", action="store_true", help="check the settings, then exit")
        parser.add_argument("-v", "--version", action=_Version, nargs=0, help="show the version, then exit")
        options.add_to(parser)
        given = vars(parser.parse_args(arguments))
        self.validates = bool(given["validate"])
        self._file: Path | None = given["config_file"]
        try:
            self._flags = options.from_flags(given)
        except ValueError as error:
            parser.error(str(error))

    def settings(self) -> dict[str, Any]:
        """daemon_file.FileProblem names what is wrong with the file."""
        path = self._file or daemon_file.DEFAULT_FILE
        return daemon_file.settings(path, must_exist=self._file is not None, flags=self._flags)

    def config(self) -> NodeConfig:
        """ConfigError names a bad setting."""
        from node.config import ConfigError, node_config

        try:
            return node_config(self.settings())
        except daemon_file.FileProblem as error:
            raise ConfigError(str(error)) from error


def parse_arguments(arguments: Sequence[str]) -> NodeConfig:
    """ConfigError names a bad setting."""
    return Invocation(arguments).config()


def main() -> int:
    if not __debug__:
        sys.stderr.write(
            "swarmd: runs without -O and PYTHONOPTIMIZE only: its assertions stop it before it does harm\n"
        )
        return 2
    invocation = Invocation(sys.argv[1:])
    from node.config import ConfigError

    try:
        config = invocation.config()
    except ConfigError as error:
        sys.stderr.write(f"swarmd: {error}\n")
        return 2
    if invocation.validates:
        return _validated(config)
    logging.basicConfig(
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Files that containers see (hosts, resolv.conf, volumes) have the same modes however the daemon was started.
    os.umask(0o022)
    try:
        return asyncio.run(_serve(config, invocation))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"swarmd: {error}\n")
        return 1


def _validated(config: NodeConfig) -> int:
    from node.config import ConfigError
    from node.engine_settings import check

    try:
        check(config)
    except ConfigError as error:
        sys.stderr.write(f"swarmd: {error}\n")
        return 1
    sys.stdout.write("configuration OK\n")
    return 0


def import_daemon() -> Callable[[NodeConfig, Signals], Coroutine[Any, Any, None]]:
    """`node.daemon.run`; a few hundred milliseconds, for which --help and bad settings need not wait.

    Modules stay: looking for garbage among them would take a fifth of that time, and go on later.
    """
    gc.disable()
    authorities = os.environ.get(_AUTHORITIES)
    # aiohttp reads the system's certificate authorities when it is imported, 40 ms, for clients of the web's
    # servers. Ours bring contexts of their own: they trust the cluster's root and nobody else.
    os.environ[_AUTHORITIES] = os.devnull
    try:
        from node.daemon import run
    finally:
        if authorities is None:
            del os.environ[_AUTHORITIES]
        else:
            os.environ[_AUTHORITIES] = authorities
        gc.enable()
    gc.freeze()
    return run


async def _serve(config: NodeConfig, invocation: Invocation) -> int:
    run = import_daemon()
    from node.daemon import Signals

    signals = Signals(handed_over(os.environ), invocation.config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, signals.reload.set)
    loop.add_signal_handler(signal.SIGUSR1, signals.dump.set)
    await run(config, signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
