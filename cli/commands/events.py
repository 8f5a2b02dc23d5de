"""`swarmctl events`: what happens on the host and, on a manager, in the swarm, as it happens."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from cli.client import Client
from cli.command import command, filter_option
from cli.output import show
from cli.parse import filters


@command("")
@filter_option
@click.option("--format", "form", default="", help="json or a Go template such as '{{.Action}}'")
@click.option("--since", default="", help="Show all events created since timestamp")
@click.option("--until", default="", help="Stream events until this timestamp")
@click.pass_obj
def events(client: Client, filter_values: tuple[str, ...], form: str, since: str, until: str) -> None:
    """Get real time events from the server"""
    from cli.moments import moment
    from cli.template import Template

    template = Template(form) if form and form != "json" else None
    query = {"since": moment(since), "until": moment(until), "filters": filters(filter_values)}
    for event in client.stream("GET", "/events", query).documents():
        if template is not None:
            show(template.render(event))
        elif form == "json":
            show(json.dumps(event, separators=(",", ":"), ensure_ascii=False))
        else:
            show(_event_line(event))
        sys.stdout.flush()


def _event_line(event: dict[str, Any]) -> str:
    moment_ns = event.get("timeNano") or event["time"] * 1_000_000_000
    seconds, rest = divmod(moment_ns, 1_000_000_000)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    line = f"{clock}.{rest:09d}{zone[:3]}:{zone[3:]} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{line} ({attributes})" if attributes else line
