"""Keeps this node's certificate fresh, and changes it when the node's role changes.

Invariant: a failed renewal leaves the present certificate in use, and is tried again long before it ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from node.ca import client
from node.ca.files import CredentialFiles
from node.ca.service import CERTIFICATE_ROLE
from node.ca.tls import NodeTls, renewal_time
from node.loop import Backoff, Clock
from node.rpc import Identity, RpcError
from raft.objects.node import NodeRole

log = logging.getLogger(__name__)


class Renew(Protocol):
    """Asks the manager at an address for a new certificate and saves it (node.ca.client.renew)."""

    async def __call__(self, files: CredentialFiles, tls: NodeTls, address: str) -> object:
        """Raises RpcError."""


class CertificateKeeper:
    """`run` until cancelled. manager: the address to ask. renewed: called when a new one is in use."""

    def __init__(
        self,
        files: CredentialFiles,
        tls: NodeTls,
        *,
        manager: Callable[[], str],
        renewed: Callable[[Identity], Awaitable[None]],
        clock: Clock,
        renew: Renew = client.renew,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._files = files
        self._tls = tls
        self._manager = manager
        self._renewed = renewed
        self._clock = clock
        self._renew = renew
        self._fraction = fraction
        self._role = tls.identity.role
        self._wake = asyncio.Event()

    def role_wanted(self, role: str) -> None:
        """The role that the manager says this node should have: worker or manager."""
        self._role = CERTIFICATE_ROLE[NodeRole(role)]
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(first=0.5, most=60.0)
        while True:
            due = renewal_time(self._tls.credentials.certificate_pem, self._fraction())
            while self._role == self._tls.identity.role and self._clock.now() < due:
                await self._clock.wait(self._wake, due - self._clock.now())
                self._wake.clear()
            try:
                await self._renew(self._files, self._tls, self._manager())
                self._tls.reload()
            except (RpcError, OSError, ValueError) as error:
                pause = backoff.next()
                log.warning("certificate not renewed, next try in %.1f s: %s", pause, error)
                await self._clock.sleep(pause)
                continue
            log.info("new certificate: %s, node %s", self._tls.identity.role, self._tls.identity.node_id)
            if self._role == self._tls.identity.role:
                backoff.reset()
            else:
                await self._clock.sleep(backoff.next())  # the signer does not know the new role yet
            await self._renewed(self._tls.identity)
