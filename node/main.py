"""`swarmd`: reads the command line, sets up logging and signals, runs the daemon."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from node.config import (
    DEFAULT_PORT,
    DEFAULT_ROOT,
    DEFAULT_RUN_DIR,
    VERSION,
    ConfigError,
    NodeConfig,
    parse_host,
)

_AUTHORITIES = "SSL_CERT_FILE"  # of OpenSSL: a file of certificate authorities instead of the system's
LEVELS = ("debug", "info", "warning", "error")


def parse_arguments(arguments: Sequence[str]) -> NodeConfig:
    """ConfigError names a bad setting."""
    parser = argparse.ArgumentParser(prog="swarmd", description="The daemon of one swarmctl node.")
    parser.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help="state that survives a reboot (%(default)s)"
    )
    parser.add_argument(
        "--run-dir", type=Path, default=DEFAULT_RUN_DIR, help="sockets and namespaces (%(default)s)"
    )
    parser.add_argument(
        "--host", action="append", default=[], metavar="unix://PATH", help="socket of the API"
    )
    parser.add_argument("--group", default="", help="group that may use the socket")
    parser.add_argument("--advertise-addr", default="", help="this node's address for other nodes")
    parser.add_argument(
        "--listen-port", type=int, default=DEFAULT_PORT, help="port between nodes (%(default)s)"
    )
    parser.add_argument("--cgroup-parent", default="swarmctl", help="cgroup below which containers are made")
    parser.add_argument("--hostname", default="", help="name of this node (the machine's name)")
    parser.add_argument("--storage-driver", default="overlay", help="overlay or vfs")
    parser.add_argument(
        "--userns-remap",
        default="",
        metavar="USER[:GROUP]",
        help='run containers as subordinate ids of this user ("default": dockremap), see /etc/subuid',
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="label of this engine"
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info")
    parser.add_argument("--version", action="version", version=f"swarmd {VERSION}")
    given = parser.parse_args(arguments)
    labels = {}
    for label in given.label:
        name, separator, value = label.partition("=")
        if not name or not separator:
            raise ConfigError(f"--label {label}: must be KEY=VALUE")
        labels[name] = value
    if not 0 < given.listen_port < 65536:
        raise ConfigError(f"--listen-port {given.listen_port}: must be 1 to 65535")
    return NodeConfig(
        root=given.root.absolute(),
        run_dir=given.run_dir.absolute(),
        sockets=tuple(parse_host(host) for host in given.host),
        advertise_address=given.advertise_addr,
        listen_port=given.listen_port,
        cgroup_parent=given.cgroup_parent.strip("/"),
        hostname=given.hostname,
        storage_driver=given.storage_driver,
        userns_remap=given.userns_remap,
        labels=labels,
        group=given.group,
        log_level=given.log_level,
    )


def main() -> int:
    if not __debug__:
        sys.stderr.write(
            "swarmd: runs without -O and PYTHONOPTIMIZE only: its assertions stop it before it does harm\n"
        )
        return 2
    try:
        config = parse_arguments(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"swarmd: {error}\n")
        return 2
    logging.basicConfig(
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Files that containers see (hosts, resolv.conf, volumes) have the same modes however the daemon was started.
    os.umask(0o022)
    try:
        return asyncio.run(_serve(config))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"swarmd: {error}\n")
        return 1


def import_daemon() -> Callable[[NodeConfig, asyncio.Event], Awaitable[None]]:
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


async def _serve(config: NodeConfig) -> int:
    run = import_daemon()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await run(config, stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main())
