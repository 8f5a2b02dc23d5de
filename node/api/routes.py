"""THE route table: every path that is served, area by area. Docker's, and apart from them swarmctl's own."""

from __future__ import annotations

from node.api import (
    archives,
    build,
    cluster,
    configs,
    containers,
    distribution,
    execs,
    images,
    networks,
    nodes,
    plugins,
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
    *archives.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *build.ROUTES,
    *distribution.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *plugins.ROUTES,
    *swarm.ROUTES,
    *nodes.ROUTES,
    *services.ROUTES,
    *tasks.ROUTES,
    *secrets.ROUTES,
    *configs.ROUTES,
)

# Below a prefix of their own, so that no path that Docker may add one day is taken.
OWN_ROUTES: tuple[Route, ...] = (*cluster.ROUTES,)
