"""The unlock key in the cluster's state: when there is one, when it changes, and who sees it."""

from __future__ import annotations

import json

import msgspec
import pytest
from control_world import ControlWorld

from node.api.convert import cluster_to_api
from node.ca import authority
from node.ca.wrapping import parse_unlock_key
from raft import codec
from raft.objects.base import Kind
from raft.objects.cluster import CLUSTER_ID, Cluster, ManagerLock


@pytest.fixture
async def world() -> ControlWorld:
    world = ControlWorld()
    await world.bootstrap()
    return world


async def update(world: ControlWorld, *, autolock: bool, rotate: bool = False) -> ManagerLock:
    cluster = await world.api.get_cluster()
    spec = msgspec.structs.replace(cluster.spec, autolock=autolock)
    after = await world.api.update_cluster(cluster.meta.version, spec, rotate_unlock_key=rotate)
    assert after.spec.autolock == autolock
    return after.lock


async def test_the_key_comes_goes_and_changes_with_the_setting(world: ControlWorld) -> None:
    assert (await world.api.get_cluster()).lock == ManagerLock()
    on = await update(world, autolock=True)
    assert parse_unlock_key(on.unlock_key)
    assert await update(world, autolock=True) == on, "another change of settings keeps the key"
    rotated = await update(world, autolock=True, rotate=True)
    assert rotated.unlock_key not in ("", on.unlock_key)
    off = await update(world, autolock=False, rotate=True)
    assert off.unlock_key == ""
    assert await update(world, autolock=False, rotate=True) == off, "there is nothing to rotate"
    again = await update(world, autolock=True)
    assert again.unlock_key not in ("", on.unlock_key, rotated.unlock_key)
    assert [lock.generation for lock in (on, rotated, off, again)] == [1, 2, 3, 4]


def test_it_is_not_shown() -> None:
    lock = ManagerLock(unlock_key="SWMKEY-1-secret", generation=1)
    cluster = Cluster(id=CLUSTER_ID, cluster_id="c", root_ca=authority.new_root(1_800_000_000.0), lock=lock)
    assert "secret" not in json.dumps(cluster_to_api(cluster))
    assert "secret" not in repr(cluster) and "secret" not in f"{lock}"


def test_it_survives_the_log_and_is_missing_in_older_ones() -> None:
    cluster = Cluster(id=CLUSTER_ID, lock=ManagerLock(unlock_key="SWMKEY-1-x", generation=2))
    assert codec.decode_record(Kind.CLUSTER, codec.encode_record(cluster)) == cluster
    older = msgspec.msgpack.encode({"id": CLUSTER_ID, "cluster_id": "c"})
    decoded = codec.decode_record(Kind.CLUSTER, older)
    assert isinstance(decoded, Cluster) and decoded.lock == ManagerLock()
