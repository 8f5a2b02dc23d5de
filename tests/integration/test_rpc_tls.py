"""Calls, streams and raft connections between nodes over real TLS on the loopback, and who is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.ca import authority, client
from node.ca.files import CredentialFiles, Credentials
from node.ca.service import CaService, CaState
from node.ca.tls import JoinerTls, NodeTls
from node.ca.wrapping import is_wrapped, new_unlock_key
from node.rpc import (
    ALPN_CALLS,
    ALPN_RAFT,
    BODY_BYTES_MAX,
    MANAGER,
    MANAGERS,
    NODES,
    RAFT_UNACKNOWLEDGED_MS_MAX,
    WORKER,
    Identity,
    RpcClient,
    RpcError,
    RpcServer,
    Stream,
)
from raft.objects.assignment import ManagerAddress
from raft.objects.cluster import ManagerLock, RootCA
from raft.objects.node import Availability, NodeRole

ROOT = authority.new_root(time.time())
OTHER_ROOT = authority.new_root(time.time())
LOCK = ManagerLock(unlock_key=new_unlock_key(), generation=1)


def node_tls(
    folder: Path,
    node_id: str,
    role: str = WORKER,
    *,
    root: RootCA = ROOT,
    signer: RootCA | None = None,
    cluster_id: str = "c1",
    now: float | None = None,
) -> NodeTls:
    """A node's contexts; `signer` signs the certificate, `root` is what the node itself trusts."""
    key = authority.new_key()
    certificate = authority.sign(
        signer or root,
        authority.new_request(key),
        node_id=node_id,
        role=role,
        cluster_id=cluster_id,
        now=time.time() if now is None else now,
    )
    files = CredentialFiles(folder / node_id)
    files.save(
        Credentials(
            root_pem=root.cert_pem, certificate_pem=certificate, key_pem=authority.key_to_pem(key).decode()
        )
    )
    return NodeTls(files)


async def echo(caller: Identity | None, payload: bytes) -> bytes:
    return (caller.node_id if caller else "nobody").encode() + b":" + payload


@contextlib.asynccontextmanager
async def serving(tls: NodeTls) -> AsyncIterator[tuple[RpcServer, str]]:
    server = RpcServer(tls)
    server.handle("test.echo", echo, roles=NODES)
    server.handle("test.control", echo, roles=MANAGERS)
    server.handle("test.open", echo, roles=None)
    await server.start("127.0.0.1", 0)
    try:
        yield server, f"127.0.0.1:{server.port}"
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def calling(tls: NodeTls | JoinerTls) -> AsyncIterator[RpcClient]:
    caller = RpcClient(tls)
    try:
        yield caller
    finally:
        await caller.close()


async def refusal(tls: NodeTls | JoinerTls, address: str, method: str, payload: bytes = b"x") -> RpcError:
    async with calling(tls) as caller:
        with pytest.raises(RpcError) as caught:
            await caller.call(address, method, payload, timeout=5)
    return caught.value


async def test_call_carries_identity_and_payload(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (_, address):
        async with calling(node_tls(tmp_path, "w1")) as caller:
            assert await caller.call(address, "test.echo", b"hello", timeout=5) == b"w1:hello"
            big = bytes(3 * 1024 * 1024)
            assert await caller.call(address, "test.echo", big, timeout=5) == b"w1:" + big


async def test_role_decides(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (_, address):
        error = await refusal(node_tls(tmp_path, "w1"), address, "test.control")
        assert error.code == "permission_denied"
        assert "not allowed for node w1" in str(error)
        async with calling(node_tls(tmp_path, "m2", MANAGER)) as caller:
            assert await caller.call(address, "test.control", b"", timeout=5) == b"m2:"


async def test_without_certificate_only_open_methods_and_small_bodies(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (_, address):
        joiner = JoinerTls(ROOT.cert_pem)
        async with calling(joiner) as caller:
            assert await caller.call(address, "test.open", b"hi", timeout=5) == b"nobody:hi"
        assert (await refusal(joiner, address, "test.echo")).code == "permission_denied"
        assert (await refusal(joiner, address, "test.unknown")).code == "permission_denied"
        assert (await refusal(joiner, address, "test.open", bytes(65 * 1024))).code == "invalid_argument"


async def test_unknown_method(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (_, address):
        error = await refusal(node_tls(tmp_path, "w1"), address, "test.nothing")
        assert (error.code, str(error)) == ("not_found", "this node does not serve test.nothing")


async def test_oversize_body_is_refused_by_caller_and_server(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (server, address):
        worker = node_tls(tmp_path, "w1")
        error = await refusal(worker, address, "test.echo", bytes(BODY_BYTES_MAX + 1))
        assert error.code == "invalid_argument"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=worker.client(), server_hostname=""
        )
        head = f"POST /call/test.echo HTTP/1.1\r\nHost: m1\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n"
        writer.write(head.encode())
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 2)
        writer.close()


async def test_handler_errors_reach_the_caller(tmp_path):
    async def not_leader(caller: Identity | None, payload: bytes) -> bytes:
        raise RpcError("not_leader", "ask the leader", "10.0.0.1:2377")

    async def broken(caller: Identity | None, payload: bytes) -> bytes:
        raise KeyError("surprise")

    server = RpcServer(node_tls(tmp_path, "m1", MANAGER))
    server.handle("test.lead", not_leader, roles=NODES)
    server.handle("test.broken", broken, roles=NODES)
    await server.start("127.0.0.1", 0)
    try:
        worker = node_tls(tmp_path, "w1")
        error = await refusal(worker, f"127.0.0.1:{server.port}", "test.lead")
        assert (error.code, error.detail) == ("not_leader", "10.0.0.1:2377")
        assert (await refusal(worker, f"127.0.0.1:{server.port}", "test.broken")).code == "internal"
    finally:
        await server.stop()


@pytest.mark.parametrize("wrong", ["other root", "other cluster", "expired"])
async def test_bad_client_certificates_are_refused(tmp_path, wrong):
    called: list[bytes] = []

    async def record(caller: Identity | None, payload: bytes) -> bytes:
        called.append(payload)
        return b""

    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (server, address):
        server.handle("test.record", record, roles=None)
        if wrong == "other root":
            # It trusts the cluster's root, so the handshake fails on the server's side only.
            bad = node_tls(tmp_path, "w1", signer=OTHER_ROOT)
        elif wrong == "other cluster":
            bad = node_tls(tmp_path, "w1", cluster_id="c2")
            bad.identity = Identity("w1", WORKER, "c1")
            bad._calls = bad._dialing(ALPN_CALLS)
        else:
            bad = node_tls(tmp_path, "w1", now=time.time() - 91 * 24 * 3600)
        error = await refusal(bad, address, "test.record")
        # In TLS 1.3 the client is done before the server has looked: it only sees the connection end. But it
        # sends nothing before the server is ready, so there is no doubt about the outcome.
        assert error.code in ("permission_denied", "unavailable")
        assert "certificate" in str(error)
        assert called == []


@pytest.mark.parametrize("wrong", ["worker", "other root", "other cluster", "expired"])
async def test_dialled_node_must_be_a_manager_of_this_cluster(tmp_path, wrong):
    impostor = {
        "worker": lambda: node_tls(tmp_path, "x1", WORKER),
        "other root": lambda: node_tls(tmp_path, "x1", MANAGER, root=OTHER_ROOT),
        "other cluster": lambda: node_tls(tmp_path, "x1", MANAGER, cluster_id="c2"),
        "expired": lambda: node_tls(tmp_path, "x1", MANAGER, now=time.time() - 91 * 24 * 3600),
    }[wrong]()
    async with serving(impostor) as (_, address):
        error = await refusal(node_tls(tmp_path, "w1"), address, "test.echo")
        assert error.code == "unavailable"


async def test_garbage_plaintext_and_old_tls_do_not_disturb_the_listener(tmp_path):
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (server, address):
        for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 8, b""):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            await writer.drain()
            writer.close()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
        async with calling(node_tls(tmp_path, "w1")) as caller:
            assert await caller.call(address, "test.echo", b"", timeout=5) == b"w1:"


async def test_nobody_listens_and_time_out(tmp_path):
    async def slow(caller: Identity | None, payload: bytes) -> bytes:
        await asyncio.sleep(30)
        return b""

    worker = node_tls(tmp_path, "w1")
    server = RpcServer(node_tls(tmp_path, "m1", MANAGER))
    server.handle("test.slow", slow, roles=NODES)
    await server.start("127.0.0.1", 0)
    address = f"127.0.0.1:{server.port}"
    try:
        async with calling(worker) as caller:
            with pytest.raises(RpcError) as caught:
                await caller.call(address, "test.slow", b"", timeout=0.1)
        assert caught.value.code == "maybe_committed"
    finally:
        await server.stop()
    assert (await refusal(worker, address, "test.slow")).code == "unavailable"


async def test_streams_carry_messages_both_ways_and_refusals(tmp_path):
    async def double(caller: Identity, stream: Stream) -> None:
        while (data := await stream.receive()) is not None:
            await stream.send(data * 2)

    async def refuse(caller: Identity, stream: Stream) -> None:
        raise RpcError("not_leader", "ask the leader", "10.0.0.9:2377")

    server = RpcServer(node_tls(tmp_path, "m1", MANAGER))
    server.handle_stream("test.double", double, roles=NODES)
    server.handle_stream("test.refuse", refuse, roles=NODES)
    server.handle_stream("test.managers", double, roles=MANAGERS)
    await server.start("127.0.0.1", 0)
    address = f"127.0.0.1:{server.port}"
    try:
        async with calling(node_tls(tmp_path, "w1")) as caller:
            stream = await caller.stream(address, "test.double")
            await stream.send(b"ab")
            await stream.send(bytes(2 * 1024 * 1024))
            assert await stream.receive() == b"abab"
            assert len(await stream.receive() or b"") == 4 * 1024 * 1024
            await stream.close()
            for method, code in (("test.refuse", "not_leader"), ("test.managers", "permission_denied")):
                stream = await caller.stream(address, method)
                with pytest.raises(RpcError) as caught:
                    await stream.receive()
                assert caught.value.code == code
    finally:
        await server.stop()


async def test_stop_ends_open_streams(tmp_path):
    ended = asyncio.Event()

    async def wait(caller: Identity, stream: Stream) -> None:
        try:
            await stream.receive()
        finally:
            ended.set()

    server = RpcServer(node_tls(tmp_path, "m1", MANAGER))
    server.handle_stream("test.wait", wait, roles=NODES)
    await server.start("127.0.0.1", 0)
    async with calling(node_tls(tmp_path, "w1")) as caller:
        stream = await caller.stream(f"127.0.0.1:{server.port}", "test.wait")
        await server.stop()
        assert await asyncio.wait_for(stream.receive(), 2) is None
        await asyncio.wait_for(ended.wait(), 2)
        await stream.close()


async def test_raft_connections_are_for_managers_and_verify_the_dialled_node(tmp_path):
    accepted: asyncio.Queue[tuple[str, asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (server, address):
        server.on_raft(lambda node_id, reader, writer: accepted.put_nowait((node_id, reader, writer)))
        manager = RpcClient(node_tls(tmp_path, "m2", MANAGER))
        reader, writer = await manager.dial("m1", address)
        option = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert writer.get_extra_info("socket").getsockopt(*option) == RAFT_UNACKNOWLEDGED_MS_MAX
        writer.write(b"vote")
        node_id, peer_reader, peer_writer = await asyncio.wait_for(accepted.get(), 2)
        assert (node_id, await peer_reader.readexactly(4)) == ("m2", b"vote")
        peer_writer.write(b"ok")
        assert await reader.readexactly(2) == b"ok"
        writer.close()
        assert await asyncio.wait_for(peer_reader.read(), 2) == b""
        peer_writer.close()

        with pytest.raises(ConnectionError, match="is node m1, not node m3"):
            await manager.dial("m3", address)

        worker = RpcClient(node_tls(tmp_path, "w1"))
        reader, writer = await worker.dial("m1", address)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        while not accepted.empty():  # the connection dropped for its wrong id was accepted before that
            assert accepted.get_nowait()[0] == "m2"


async def test_renewed_certificate_is_used_without_restarting_the_listener(tmp_path):
    manager = node_tls(tmp_path, "m1", MANAGER)
    async with serving(manager) as (server, _):

        async def serial() -> bytes:
            context = node_tls(tmp_path, "w9")._dialing(ALPN_RAFT)
            _, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context, server_hostname=""
            )
            certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return certificate

        before = await serial()
        node_tls(tmp_path, "m1", MANAGER)  # writes the same folder
        assert await serial() == before
        manager.reload()
        assert await serial() != before


# ---- joining ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def authority_at(tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, NodeRole]]]:
    """A manager with the CA service; the dict is the cluster's nodes."""
    nodes: dict[str, NodeRole] = {}

    async def admit(role: NodeRole, availability: Availability) -> str:
        node_id = f"node{len(nodes)}"
        nodes[node_id] = role
        return node_id

    async def confirm() -> None:
        if "unconfirmed" in nodes:
            raise RpcError("not_leader", "this manager is not the leader")

    service = CaService(
        confirm=confirm,
        state=lambda: CaState(ROOT, "c1", 7200.0, LOCK),
        admit=admit,
        role_of=nodes.get,
        managers=lambda: [ManagerAddress(node_id="m1", address="10.0.0.1:2377")],
        now=time.time,
        wrong_token_delay_s=0.0,
    )
    async with serving(node_tls(tmp_path, "m1", MANAGER)) as (server, address):
        service.register(server)
        yield address, nodes


async def test_join_and_renewal_with_a_new_role(tmp_path):
    files = CredentialFiles(tmp_path / "joiner")
    async with authority_at(tmp_path) as (address, nodes):
        answer = await client.join(files, address, ROOT.worker_token)
        assert answer.managers[0].node_id == "m1"
        tls = NodeTls(files)
        assert tls.identity == Identity("node0", WORKER, "c1")
        assert files.key.stat().st_mode & 0o777 == 0o600
        assert answer.lock is None and not is_wrapped(files.key.read_bytes()), "a worker is never locked"
        nodes["node0"] = NodeRole.MANAGER
        await client.renew(files, tls, address)
        tls.reload()
        assert tls.identity == Identity("node0", MANAGER, "c1")
        assert is_wrapped(files.key.read_bytes())
        locked = CredentialFiles(files.folder)
        locked.keys.unlock(LOCK.unlock_key)
        assert locked.load() == files.load()
        del nodes["node0"]
        with pytest.raises(RpcError, match="removed from this swarm"):
            await client.renew(files, tls, address)


async def test_who_may_not_know_the_newest_state_signs_and_refuses_nothing(tmp_path):
    files = CredentialFiles(tmp_path / "joiner")
    wrong_secret = ROOT.worker_token[:-3] + ("aaa" if ROOT.worker_token[-3:] != "aaa" else "bbb")
    async with authority_at(tmp_path) as (address, nodes):
        await client.join(files, address, ROOT.worker_token)
        tls = NodeTls(files)
        nodes["unconfirmed"] = NodeRole.WORKER
        asked = (
            client.renew(files, tls, address),
            client.join(files, address, ROOT.worker_token),
            client.join(files, address, wrong_secret),
        )
        for call in asked:
            with pytest.raises(RpcError) as caught:
                await call
            assert caught.value.code == "not_leader"
        assert set(nodes) == {"node0", "unconfirmed"}


async def test_refused_joins(tmp_path):
    files = CredentialFiles(tmp_path / "joiner")
    wrong_secret = ROOT.worker_token[:-3] + ("aaa" if ROOT.worker_token[-3:] != "aaa" else "bbb")
    async with authority_at(tmp_path) as (address, nodes):
        for token, text in (
            ("SWMTKN-1-abc-def", "invalid join token"),
            (wrong_secret, "A valid join token is necessary to join this cluster"),
            (OTHER_ROOT.worker_token, f"remote CA does not match fingerprint. Expected: {OTHER_ROOT.digest}"),
        ):
            with pytest.raises(RpcError, match=text):
                await client.join(files, address, token)
        assert nodes == {}
        assert files.load() is None
