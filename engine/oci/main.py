"""`swarmctl-runtime`: the built-in runtime as a command, with the verbs and options of runc. Parsing and printing only.

For engines of other people (podman, containerd): each call does one thing and ends. Source: the OCI runtime
specification's runtime.md, and the command line of runc 1.1, which engines rely on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError, InvalidParameter

VERSION = "0.1.0"
SPECIFICATION = "1.1.0"
DEFAULT_ROOT = Path("/run/swarmctl-runtime")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        if given.systemd_cgroup:
            raise InvalidParameter(
                "--systemd-cgroup is not supported: use the cgroupfs manager (podman: --cgroup-manager cgroupfs)"
            )
        return int(_VERBS[given.verb](given) or 0)
    except (EngineError, OSError) as error:
        text = str(error)
        if given.log:
            _log(Path(given.log), given.log_format, text)
        sys.stderr.write(f"{text}\n")
        return 1


def _log(path: Path, form: str, text: str) -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f'time="{now}" level=error msg={json.dumps(text)}'
    if form == "json":
        line = json.dumps({"level": "error", "msg": text, "time": now})
    with path.open("a") as file:
        file.write(f"{line}\n")


# ---- the verbs ------------------------------------------------------------------------------------------------


def _create(given: argparse.Namespace) -> None:
    from engine.oci.creation import CreateOptions, create

    options = CreateOptions(
        bundle=Path(given.bundle).absolute(),
        console_socket=given.console_socket,
        pid_file=given.pid_file,
        preserve_fds=given.preserve_fds + int(os.environ.get("LISTEN_FDS") or 0),
    )
    create(given.root, given.id, options)


def _start(given: argparse.Namespace) -> None:
    from engine.oci.verbs import start

    start(given.root, given.id)


def _run(given: argparse.Namespace) -> None:
    """Detached only: nobody stays to wait."""
    if not given.detach:
        raise InvalidParameter("run serves only with --detach: use create and start, and wait for the pid")
    _create(given)
    _start(given)


def _state(given: argparse.Namespace) -> None:
    from engine.oci.verbs import state

    _show(state(given.root, given.id))


def _kill(given: argparse.Namespace) -> None:
    from engine.oci.verbs import kill
    from engine.signals import parse_signal

    kill(given.root, given.id, parse_signal(given.signal), everything=given.all)


def _delete(given: argparse.Namespace) -> None:
    from engine.oci.verbs import delete

    delete(given.root, given.id, force=given.force)


def _exec(given: argparse.Namespace) -> int:
    from engine.oci.execution import ExecOptions, execute

    options = ExecOptions(
        process_file=given.process,
        args=given.command[1:] if given.command[:1] == ["--"] else given.command,
        cwd=given.cwd,
        env=given.env,
        user=given.user,
        additional_gids=given.additional_gids,
        caps=given.cap,
        no_new_privs=given.no_new_privs,
        tty=given.tty,
        console_socket=given.console_socket,
        pid_file=given.pid_file,
        detach=given.detach,
        preserve_fds=given.preserve_fds,
    )
    return execute(given.root, given.id, options)


def _ps(given: argparse.Namespace) -> None:
    from engine.oci.verbs import processes

    pids = processes(given.root, given.id)
    if given.format == "json":
        sys.stdout.write(json.dumps(pids) + "\n")
    else:
        os.execvp("ps", ["ps", "-f", "-p", ",".join(map(str, pids))])


def _pause(given: argparse.Namespace) -> None:
    from engine.oci.verbs import pause

    pause(given.root, given.id)


def _resume(given: argparse.Namespace) -> None:
    from engine.oci.verbs import resume

    resume(given.root, given.id)


def _update(given: argparse.Namespace) -> None:
    from engine.oci.verbs import update

    text = sys.stdin.read() if given.resources == "-" else Path(given.resources).read_text()
    try:
        resources = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InvalidParameter(f"--resources {given.resources} is not a JSON object: {error}") from error
    update(given.root, given.id, resources)


def _list(given: argparse.Namespace) -> None:
    from engine.oci.verbs import containers

    found = containers(given.root)
    if given.quiet:
        sys.stdout.write("".join(f"{known['id']}\n" for known in found))
    elif given.format == "json":
        _show(found)
    else:
        row = "{:<24} {:<8} {:<10} {:<32} {}\n"
        sys.stdout.write(row.format("ID", "PID", "STATUS", "BUNDLE", "CREATED"))
        for known in found:
            sys.stdout.write(
                row.format(*(known[key] for key in ("id", "pid", "status", "bundle", "created")))
            )


def _features(_: argparse.Namespace) -> None:
    from engine.oci.features import features

    _show(features(SPECIFICATION, VERSION))


def _show(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


_VERBS = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
    "ps": _ps,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "list": _list,
    "features": _features,
}


# ---- the command line -----------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarmctl-runtime", description="Runs containers from OCI bundles.", allow_abbrev=False
    )
    parser.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help="state of the containers (%(default)s)"
    )
    parser.add_argument("--log", default="", help="file for errors")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--debug", action="store_true", help="accepted; errors say all there is")
    parser.add_argument("--systemd-cgroup", action="store_true", help="refused: cgroupfs only")
    version = f"swarmctl-runtime version {VERSION}\nspec: {SPECIFICATION}"
    parser.add_argument("--version", "-v", action="version", version=version)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, *, container: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        if container:
            made.add_argument("id", metavar="CONTAINER")
        return made

    for name, text in (("create", "make a container that waits for start"), ("run", "create and start")):
        made = verb(name, text)
        made.add_argument("--bundle", "-b", default=".", help="folder with config.json (%(default)s)")
        made.add_argument("--console-socket", default="", help="unix socket that gets the terminal")
        made.add_argument("--pid-file", default="")
        made.add_argument(
            "--preserve-fds", type=int, default=0, metavar="N", help="from 3 on, for the command"
        )
        made.add_argument("--no-pivot", action="store_true", help=argparse.SUPPRESS)
        made.add_argument("--no-new-keyring", action="store_true", help=argparse.SUPPRESS)
        if name == "run":
            made.add_argument("--detach", "-d", action="store_true")
    verb("start", "let a created container execute its command")
    verb("state", "what the specification calls the state, as JSON")
    made = verb("kill", "send a signal")
    made.add_argument("signal", nargs="?", default="SIGTERM")
    made.add_argument("--all", "-a", action="store_true", help="to all processes")
    made = verb("delete", "remove a container that has stopped")
    made.add_argument("--force", "-f", action="store_true", help="kill it first")
    _exec_options(verb("exec", "a further process in a container"))
    made = verb("ps", "the processes of a container")
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")
    verb("pause", "stop all processes of a container for a while")
    verb("resume", "let them go on")
    made = verb("update", "change limits")
    made.add_argument(
        "--resources", "-r", required=True, help="file of linux.resources as JSON, - for the input"
    )
    made = verb("list", "all containers below --root", container=False)
    made.add_argument("--quiet", "-q", action="store_true")
    made.add_argument("--format", "-f", choices=("table", "json"), default="table")
    verb("features", "what this runtime can, as JSON", container=False)
    return parser


def _exec_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("command", nargs=argparse.REMAINDER)
    for names in (("--process", "-p"), ("--cwd",), ("--user", "-u"), ("--console-socket",), ("--pid-file",)):
        made.add_argument(*names, default="")
    made.add_argument("--env", "-e", action="append", default=[])
    made.add_argument("--cap", "-c", action="append", default=[])
    made.add_argument("--additional-gids", "-g", action="append", type=int, default=[])
    made.add_argument("--no-new-privs", action="store_true")
    made.add_argument("--tty", "-t", action="store_true")
    made.add_argument("--detach", "-d", action="store_true")
    made.add_argument("--preserve-fds", type=int, default=0)


if __name__ == "__main__":
    sys.exit(main())
