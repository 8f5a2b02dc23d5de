"""Whether a machine answers: by what its kernel does with a connection."""

from __future__ import annotations

import socket

from node.manager.absence import machine_answers


async def test_listening_and_closed_ports_are_answers():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        assert await machine_answers(host, port)
    assert await machine_answers(host, port)


async def test_silence_is_none():
    """The kernel drops connections to a full queue as a dead machine does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(3)]
        try:
            for client in waiting:
                client.connect_ex(address)
            assert not await machine_answers(*address)
        finally:
            for client in waiting:
                client.close()


async def test_what_is_no_address_does_not_answer():
    assert not await machine_answers("somewhere", 2377)
    assert not await machine_answers("127.0.0.1:2377", 2377)
