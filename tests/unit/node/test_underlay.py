"""Which address a node goes on with when its daemon is started again."""

from __future__ import annotations

import pytest

from node.config import NodeConfig
from node.identity import NodeIdentity
from node.underlay import followed
from raft.errors import InvalidArgument


def identity(
    address: str = "10.0.0.1", port: int = 2377, configured: str = "", listen: int = 2377
) -> NodeIdentity:
    return NodeIdentity(
        node_id="a",
        cluster_id="c",
        address=address,
        port=port,
        configured_address=configured,
        configured_port=listen,
    )


@pytest.mark.parametrize(
    ("before", "advertise", "listen", "wanted"),
    [
        (identity(configured="10.0.0.1"), "10.0.0.1", 2377, "10.0.0.1:2377"),
        (identity(configured="10.0.0.1"), "10.0.0.2", 2377, "10.0.0.2:2377"),
        (identity(configured="10.0.0.1"), "10.0.0.2:99", 2377, "10.0.0.2:99"),
        (identity(configured="10.0.0.1"), "", 2377, "10.0.0.1:2377"),
        # Given to `swarm init`: the daemon's setting, which has not changed, does not matter.
        (identity("10.0.0.7", 3000, configured="10.0.0.1"), "10.0.0.1", 2377, "10.0.0.7:3000"),
        (identity("10.0.0.7", 3000, configured="10.0.0.1"), "10.0.0.2", 2377, "10.0.0.2:3000"),
        (identity("10.0.0.7", 3000), "", 4000, "10.0.0.7:4000"),
        (identity("10.0.0.7", 3000, listen=0), "10.0.0.2", 4000, "10.0.0.7:3000"),
        (identity("fd00::1", 2377, configured="fd00::1"), "fd00::2", 2377, "[fd00::2]:2377"),
    ],
)
def test_address_follows_the_settings_only_when_they_change(
    before: NodeIdentity, advertise: str, listen: int, wanted: str
):
    config = NodeConfig(advertise_address=advertise, listen_port=listen)
    found = followed(before, config)
    assert found.rpc_address == wanted
    assert followed(found, config) == found


def test_bad_setting_is_named():
    with pytest.raises(InvalidArgument, match="invalid address nonsense"):
        followed(identity(), NodeConfig(advertise_address="nonsense"))
