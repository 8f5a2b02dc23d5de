"""Which supervisor the daemon lives with: the one of its own build, or an older or newer one that cannot change.

Pure decisions and what is shown of them; the conversation is the client's. A supervisor is asked once to go on as our
build; what it answers instead is kept, logged, and shown by `info`.
"""

from __future__ import annotations

import logging

import msgspec

from engine.errors import Unavailable
from engine.runtime import wire
from engine.runtime.launch import Installation
from engine.runtime.wire import Hello, Message, Release

logger = logging.getLogger(__name__)

_UNTOLD = "unknown (from before builds were told)"


class SupervisorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`problem`: why it does not run the daemon's build; "" when it does."""

    pid: int = 0
    build: str = ""
    protocol: int = 0
    problem: str = ""


class Renewal:
    """The supervisor's build against ours."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._asked: dict[tuple[int, str], str] = {}  # (pid, build) -> why it has not changed
        self.facts = SupervisorFacts()

    def release(self) -> Release:
        """Ours, as it is on the disk now."""
        return self._installation.release()

    def is_due(self, hello: Hello) -> bool:
        """Whether to ask for a change: its build is another one, and it was not asked before."""
        return hello.build != self.release().build and (hello.pid, hello.build) not in self._asked

    def answered(self, before: Hello, now: Hello, reply: Message | None) -> None:
        """`reply`: why it goes on as it was; None when the connection ended instead."""
        wanted = self.release().build
        self._asked[before.pid, before.build] = (
            "it changed once and came back: another daemon has asked it to"
        )
        if now.pid != before.pid:
            logger.error("the supervisor (pid %d) ended when it was to go on as build %s", before.pid, wanted)
            return
        if reply is None:
            logger.warning("the supervisor (pid %d) goes on as build %s", now.pid, now.build)
            if now.build == wanted:
                return
        if not now.build:
            said = "it cannot go on as other code: end its containers and restart the daemon"
        elif reply is None:
            said = "it went on as another build than it was asked to"
        else:
            said = (reply.body or {}).get("message", reply.name)
        self._asked[now.pid, now.build] = said
        logger.error(
            "the supervisor (pid %d) stays build %s, not %s: %s", now.pid, now.build or _UNTOLD, wanted, said
        )

    def met(self, hello: Hello) -> None:
        """The supervisor that stays. Unavailable when no protocol is common."""
        problem = self._asked.get((hello.pid, hello.build), "")
        oldest = hello.oldest or hello.protocol
        if oldest > wire.PROTOCOL or hello.protocol < wire.PROTOCOL_MIN:
            theirs, ours = _range(oldest, hello.protocol), _range(wire.PROTOCOL_MIN, wire.PROTOCOL)
            raise Unavailable(
                f"the supervisor (pid {hello.pid}, build {hello.build or _UNTOLD}) speaks protocol {theirs}, this "
                f"daemon {ours}, and it does not change ({problem}): install the version of swarmctl that the "
                f"supervisor has, or end it with its containers (kill {hello.pid}) and start the daemon again"
            )
        self.facts = SupervisorFacts(
            pid=hello.pid, build=hello.build, protocol=hello.protocol, problem=problem
        )


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
