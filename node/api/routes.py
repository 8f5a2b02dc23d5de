"""THE route table: every path that is served, area by area."""

from __future__ import annotations

from node.api import (
    configs,
    containers,
    execs,
    images,
    networks,
    nodes,
    secrets,
    services,
    swarm,
    system,
    tasks,
    volumes,
)
from node.api.context import Route

ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *containers.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *swarm.ROUTES,
    *nodes.ROUTES,
    *services.ROUTES,
    *tasks.ROUTES,
    *secrets.ROUTES,
    *configs.ROUTES,
)
