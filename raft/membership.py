"""Who the managers are: the configuration that is replicated as an entry of the log itself.

Every entry carries the whole configuration, so that the one in force is simply that of the latest entry,
committed or not, and a truncated entry gives way to the one before. Invariant: two configurations that
follow one another differ by one member, so their majorities overlap.
"""

from __future__ import annotations

import msgspec

from raft.errors import FailedPrecondition, InvalidArgument


class Configuration(msgspec.Struct, frozen=True):
    """`members`: node id -> host:port. `removed`: node ids that were members and never may be again."""

    members: dict[str, str] = {}
    removed: tuple[str, ...] = ()

    def with_member(self, node_id: str, address: str) -> Configuration:
        """Also the way to change a member's address. Raises FailedPrecondition for a removed node."""
        if node_id in self.removed:
            raise FailedPrecondition(f"node {node_id} was removed from the cluster: join it as a new node")
        return Configuration({**self.members, node_id: address}, self.removed)

    def without_member(self, node_id: str) -> Configuration:
        """Raises InvalidArgument for a stranger, FailedPrecondition for the last member."""
        if node_id not in self.members:
            raise InvalidArgument(f"node {node_id} is not a manager")
        if len(self.members) == 1:
            raise FailedPrecondition("cannot remove the last manager: the cluster's state would be lost")
        members = {other: address for other, address in self.members.items() if other != node_id}
        return Configuration(members, (*self.removed, node_id))

    def without_trace_of(self, node_id: str) -> Configuration:
        """For a node that has lost its log, or begins without one: no member now, and free to be added later.

        Raises FailedPrecondition for the last member.
        """
        if set(self.members) == {node_id}:
            raise FailedPrecondition(
                f"node {node_id} is the last manager: nobody else has the cluster's state"
            )
        members = {other: address for other, address in self.members.items() if other != node_id}
        return Configuration(members, tuple(other for other in self.removed if other != node_id))

    @property
    def quorum(self) -> int:
        return len(self.members) // 2 + 1

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def decode(data: bytes) -> Configuration:
    return msgspec.msgpack.decode(data, type=Configuration)


class History:
    """The configurations that the log can still fall back to, by the index of their entry."""

    def __init__(self, index: int, configuration: Configuration) -> None:
        self._entries = [(index, configuration)]

    @property
    def current(self) -> Configuration:
        return self._entries[-1][1]

    @property
    def index(self) -> int:
        """Of the entry that made the current configuration."""
        return self._entries[-1][0]

    def push(self, index: int, configuration: Configuration) -> None:
        assert index > self.index
        self._entries.append((index, configuration))

    def truncate(self, last: int) -> None:
        """Entries after `last` are gone. The first one is committed and always stays."""
        while len(self._entries) > 1 and self.index > last:
            self._entries.pop()

    def at(self, index: int) -> Configuration:
        """The configuration in force after the entry at `index`."""
        return self._entry_at(index)[1]

    def index_at(self, index: int) -> int:
        """Of the entry that made that configuration."""
        return self._entry_at(index)[0]

    def prune(self, index: int) -> None:
        """Nothing before `index` will be asked for again."""
        while len(self._entries) > 1 and self._entries[1][0] <= index:
            self._entries.pop(0)

    def _entry_at(self, index: int) -> tuple[int, Configuration]:
        return max((entry for entry in self._entries if entry[0] <= index), key=lambda entry: entry[0])
