"""The flags of `volume create` for volumes of the whole cluster (CSI), and the ClusterVolumeSpec that they make."""

from __future__ import annotations

from typing import Any

import click

from cli import parse
from cli.command import repeated
from cli.errors import UsageError

_OPTIONS = (
    click.option("--availability", help='Cluster Volume availability ("active", "pause", "drain")'),
    click.option("--group", help="Cluster Volume group (cluster volumes)"),
    click.option("--limit-bytes", help="Maximum size of the Cluster Volume in bytes"),
    click.option("--required-bytes", help="Minimum size of the Cluster Volume in bytes"),
    click.option("--scope", help='Cluster Volume access scope ("single", "multi")'),
    repeated("--secret", help="Cluster Volume secrets"),
    click.option("--sharing", help='Cluster Volume access sharing ("none", "readonly", "onewriter", "all")'),
    repeated("--topology-preferred", help="A topology that the Cluster Volume would be preferred in"),
    repeated("--topology-required", help="A topology that the Cluster Volume must be accessible from"),
    click.option("--type", help='Cluster Volume access type ("mount", "block")'),
)


def cluster_volume_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def cluster_volume_spec(options: dict[str, Any]) -> dict[str, Any] | None:
    """None when no flag of a cluster volume was given."""
    if not any(options.values()):
        return None
    kind = options["type"] or "block"
    if kind not in ("mount", "block"):
        raise UsageError(f'invalid type "{kind}"', hint="mount or block")
    spec: dict[str, Any] = {
        "Group": options["group"] or "",
        "AccessMode": {
            "Scope": options["scope"] or "single",
            "Sharing": options["sharing"] or "none",
            "MountVolume" if kind == "mount" else "BlockVolume": {},
        },
        "Availability": options["availability"] or "active",
        "Secrets": [
            {"Key": key, "Secret": name}
            for key, name in parse.key_values(options["secret"], "secret").items()
        ],
        "AccessibilityRequirements": {
            "Requisite": [_topology(text) for text in options["topology_required"]],
            "Preferred": [_topology(text) for text in options["topology_preferred"]],
        },
    }
    sizes = {"RequiredBytes": options["required_bytes"], "LimitBytes": options["limit_bytes"]}
    if given := {field: parse.size_bytes(text) for field, text in sizes.items() if text}:
        spec["CapacityRange"] = given
    return spec


def _topology(text: str) -> dict[str, Any]:
    return {"Segments": parse.key_values(text.split(","), "topology")}
