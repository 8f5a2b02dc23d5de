"""The flags of `service create` and `service update`, declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.command import repeated

Options = dict[str, Any]
Option = Callable[[Any], Any]


def _text(*names: str, help: str) -> Option:
    """A single value; None when it was not given, so that an update leaves the field alone."""
    return click.option(*names, default=None, help=help)


def _number(*names: str, help: str) -> Option:
    return click.option(*names, type=click.IntRange(min=0), default=None, help=help)


_SHARED: tuple[Option, ...] = (
    click.option("-d", "--detach", is_flag=True, help="Exit immediately instead of waiting for the service"),
    _text("--credential-spec", help="Credential spec for managed service account (Windows only)"),
    _text("--isolation", help="Service container isolation mode"),
    _number("--max-concurrent", help="Number of job tasks to run concurrently (default equal to --replicas)"),
    click.option(
        "--oom-score-adj", type=int, default=None, help="Tune host's OOM preferences (-1000 to 1000)"
    ),
    _text("--endpoint-mode", help="Endpoint mode (vip or dnsrr)"),
    _text("--entrypoint", help="Overwrite the default ENTRYPOINT of the image"),
    _text("--health-cmd", help="Command to run to check health"),
    _text("--health-interval", help="Time between running the check (ms|s|m|h)"),
    _number("--health-retries", help="Consecutive failures needed to report unhealthy"),
    _text("--health-start-interval", help="Time between checks during the start period (ms|s|m|h)"),
    _text("--health-start-period", help="Time to initialize before failures count (ms|s|m|h)"),
    _text("--health-timeout", help="Maximum time to allow one check to run (ms|s|m|h)"),
    click.option("--no-healthcheck", is_flag=True, help="Disable any container-specified HEALTHCHECK"),
    _text("--hostname", help="Container hostname"),
    click.option("--init", is_flag=True, default=None, help="Use an init inside each service container"),
    _text("--limit-cpu", help="Limit CPUs"),
    _text("--limit-memory", help="Limit Memory"),
    _number("--limit-pids", help="Limit maximum number of processes (0 = unlimited)"),
    _text("--log-driver", help="Logging driver for service"),
    repeated("--log-opt", help="Logging driver options"),
    click.option("-q", "--quiet", is_flag=True, help="Suppress progress output"),
    click.option(
        "--read-only", type=bool, is_flag=True, default=None, help="Mount the root filesystem read only"
    ),
    _number("--replicas", help="Number of tasks"),
    _number("--replicas-max-per-node", help="Maximum number of tasks per node (0 = unlimited)"),
    _text("--reserve-cpu", help="Reserve CPUs"),
    _text("--reserve-memory", help="Reserve Memory"),
    _text("--restart-condition", help='Restart when condition is met ("none", "on-failure", "any")'),
    _text("--restart-delay", help="Delay between restart attempts (ns|us|ms|s|m|h)"),
    _number("--restart-max-attempts", help="Maximum number of restarts before giving up"),
    _text("--restart-window", help="Window used to evaluate the restart policy"),
    _text("--rollback-delay", help="Delay between task rollbacks"),
    _text("--rollback-failure-action", help='Action on rollback failure ("pause", "continue")'),
    click.option(
        "--rollback-max-failure-ratio", type=click.FloatRange(0, 1), help="Failure rate to tolerate"
    ),
    _text("--rollback-monitor", help="Duration after each task rollback to monitor for failure"),
    _text("--rollback-order", help='Rollback order ("start-first", "stop-first")'),
    _number("--rollback-parallelism", help="Maximum number of tasks rolled back at once (0 = all)"),
    _text("--stop-grace-period", help="Time to wait before force killing a container"),
    _text("--stop-signal", help="Signal to stop the container"),
    click.option("-t", "--tty", is_flag=True, default=None, help="Allocate a pseudo-TTY"),
    _text("--update-delay", help="Delay between updates"),
    _text("--update-failure-action", help='Action on update failure ("pause", "continue", "rollback")'),
    click.option("--update-max-failure-ratio", type=click.FloatRange(0, 1), help="Failure rate to tolerate"),
    _text("--update-monitor", help="Duration after each task update to monitor for failure"),
    _text("--update-order", help='Update order ("start-first", "stop-first")'),
    _number("--update-parallelism", help="Maximum number of tasks updated at once (0 = all)"),
    _text("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    click.option("--with-registry-auth", is_flag=True, help="Send registry authentication details to agents"),
    _text("-w", "--workdir", help="Working directory inside the container"),
    click.option("--no-resolve-image", is_flag=True, help="Do not resolve the image's digest"),
    repeated("--cap-add", help="Add Linux capabilities"),
    repeated("--cap-drop", help="Drop Linux capabilities"),
)

_CREATE: tuple[Option, ...] = (
    click.option("--name", default="", help="Service name"),
    click.option("--mode", default="replicated", help='Service mode ("replicated", "global")'),
    repeated("--config", help="Specify configurations to expose to the service"),
    repeated("--constraint", help="Placement constraints"),
    repeated("--container-label", help="Container labels"),
    repeated("--dns", help="Set custom DNS servers"),
    repeated("--dns-option", help="Set DNS options"),
    repeated("--dns-search", help="Set custom DNS search domains"),
    repeated("-e", "--env", help="Set environment variables"),
    repeated("--env-file", help="Read in a file of environment variables"),
    repeated("--generic-resource", help="User defined resources"),
    repeated("--group", help="Set one or more supplementary user groups for the container"),
    repeated("--host", help="Set one or more custom host-to-IP mappings (host:ip)"),
    repeated("-l", "--label", help="Service labels"),
    repeated("--mount", help="Attach a filesystem mount to the service"),
    repeated("--network", help="Network attachments"),
    repeated("--placement-pref", help="Add a placement preference (spread=node.labels.NAME)"),
    repeated("-p", "--publish", help="Publish a port as a node port"),
    repeated("--secret", help="Specify secrets to expose to the service"),
    repeated("--sysctl", help="Sysctl options"),
    repeated("--ulimit", help="Ulimit options"),
)

_UPDATE: tuple[Option, ...] = (
    _text("--args", help="Service command args"),
    click.option("--force", is_flag=True, help="Force update even if no changes require it"),
    _text("--image", help="Service image tag"),
    click.option("--rollback", is_flag=True, help="Rollback to previous specification"),
    *(
        option
        for name, what in (
            ("config", "a config file on the service"),
            ("constraint", "a placement constraint"),
            ("container-label", "a container label"),
            ("dns", "a custom DNS server"),
            ("dns-option", "a DNS option"),
            ("dns-search", "a custom DNS search domain"),
            ("env", "an environment variable"),
            ("generic-resource", "a user defined resource"),
            ("group", "a supplementary user group"),
            ("host", "a custom host-to-IP mapping (host:ip)"),
            ("label", "a service label"),
            ("mount", "a mount (removed by its target path)"),
            ("network", "a network"),
            ("placement-pref", "a placement preference"),
            ("publish", "a published port (removed by its target port)"),
            ("secret", "a secret on the service"),
            ("sysctl", "a sysctl option"),
            ("ulimit", "a ulimit option"),
        )
        for option in (
            repeated(f"--{name}-add", help=f"Add or update {what}"),
            repeated(f"--{name}-rm", help=f"Remove {what}"),
        )
    ),
)


def _applied(function: Any, options: tuple[Option, ...]) -> Any:
    for option in reversed(options):
        function = option(function)
    return function


def create_options(function: Any) -> Any:
    return _applied(function, (*_CREATE, *_SHARED))


def update_options(function: Any) -> Any:
    return _applied(function, (*_UPDATE, *_SHARED))
