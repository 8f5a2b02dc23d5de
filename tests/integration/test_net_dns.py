"""Name resolution through the redirected port of real sandboxes, in a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Answers 192.0.2.7 by UDP and TCP on port 53 of all addresses of its namespace.
NAME_SERVER = """
import socket, struct, threading, dnslib
def answer(data):
    reply = dnslib.DNSRecord.parse(data).reply()
    reply.add_answer(dnslib.RR(reply.q.qname, rdata=dnslib.A("192.0.2.7")))
    return reply.pack()
def streams():
    while True:
        connection, _ = tcp.accept()
        (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
        reply = answer(connection.recv(length, socket.MSG_WAITALL))
        connection.sendall(struct.pack("!H", len(reply)) + reply)
        connection.close()
tcp = socket.create_server(("", 53))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 53))
threading.Thread(target=streams, daemon=True).start()
print("up", flush=True)
while True:
    data, peer = udp.recvfrom(4096)
    udp.sendto(answer(data), peer)
"""

# Prints the result code, TC or -, and the answers' data.
ASK = """
import sys, dnslib
name, kind, tcp = sys.argv[1], sys.argv[2], sys.argv[3] == "tcp"
reply = dnslib.DNSRecord.parse(dnslib.DNSRecord.question(name, kind).send("127.0.0.11", 53, tcp=tcp, timeout=10))
print(dnslib.RCODE[reply.header.rcode], "TC" if reply.header.tc else "-", *[str(rr.rdata) for rr in reply.rr])
"""

SCRIPT = """
import asyncio, contextlib, pathlib, subprocess, sys
from overlay_net.driver import NetworkDriver
from overlay_net.records import EndpointRequest, IpamBlock, NetworkSpec, SandboxRequest

root, NAME_SERVER, ASK = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def within(path, *command):
    return [*(["nsenter", "--net=" + path] if path else []), sys.executable, "-c", *command]

async def ask(sandbox, name, kind="A", protocol="udp"):
    # In a thread: the resolver that answers runs in this loop.
    done = await asyncio.to_thread(
        subprocess.run, within(sandbox.netns_path, ASK, name, kind, protocol), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()

@contextlib.contextmanager
def name_server(path):
    process = subprocess.Popen(within(path, NAME_SERVER), stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

async def main():
    driver = NetworkDriver(state_dir=root, run_dir=root)
    await driver.start(set())
    spec = lambda name, subnet, **more: NetworkSpec(name=name, ipam=(IpamBlock(subnet=subnet),), **more)
    apps = await driver.create_network(spec("apps", "10.50.0.0/24"))
    more = await driver.create_network(spec("more", "10.51.0.0/24"))
    closed = await driver.create_network(spec("closed", "10.52.0.0/24", internal=True))
    made = lambda letter, network, **how: driver.create_sandbox(
        SandboxRequest(id=letter * 64, endpoints=(EndpointRequest(network=network.id),), **how))
    server = await made("a", apps, name="resolver")
    address = server.endpoints[0].cidr.partition("/")[0]
    forwarded = ["NOERROR", "-", "192.0.2.7"]
    with name_server(server.netns_path):
        own = await made("b", apps, name="own", dns_servers=(address,), ndots_set=True)
        assert await ask(own, "example.com") == forwarded
        assert await ask(own, "example.com", protocol="tcp") == forwarded
        for name in ("resolver", "RESOLVER.Apps", "a" * 12):
            assert await ask(own, name) == ["NOERROR", "-", address], name
        assert await ask(own, "resolver", "AAAA") == ["NOERROR", "-"]
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        assert await ask(own, reverse, "PTR") == ["NOERROR", "-", "resolver.apps."]
        driver._resolver.set_names(apps.id, {"many": tuple(f"10.9.0.{n}" for n in range(200))})
        assert (await ask(own, "many"))[1] == "TC"
        assert len(await ask(own, "many", protocol="tcp")) == 202
        joined = await driver.connect(own.id, EndpointRequest(network=more.id))
        assert await ask(own, "example.com") == forwarded, "after joining a network"
        assert await ask(own, "own.more") == ["NOERROR", "-", joined.cidr.partition("/")[0]], "its name there"
        assert await ask(own, "bare") == ["NOERROR", "-"], "ndots is remembered"
        inner = await made("c", closed, dns_servers=(address,))
        assert await ask(inner, "example.com") == ["SERVFAIL", "-"]

        await driver.close()
        driver = NetworkDriver(state_dir=root, run_dir=root)
        await driver.start({"a" * 64, "b" * 64, "c" * 64})
        assert await ask(own, "example.com") == forwarded, "after a restart"
        assert await ask(own, "bare") == ["NOERROR", "-"], "ndots is remembered"
        assert await ask(inner, "example.com") == ["SERVFAIL", "-"]
    plain = await made("d", apps)
    assert (await ask(plain, "example.com"))[0] == "SERVFAIL", "no name server listens on the host"
    with name_server(""):
        assert await ask(plain, "example.com") == forwarded

    async def fails(made):
        raise RuntimeError("on purpose")

    driver._bridges.published.publish = fails
    with contextlib.suppress(RuntimeError):
        await made("e", apps)
        raise AssertionError("it was made")
    assert sorted(driver._resolver._listeners) == [letter * 64 for letter in "abcd"], "a failed one is closed"
    for letter in "abcd":
        await driver.remove_sandbox(letter * 64)
    await driver.close()

asyncio.run(main())
"""


@pytest.mark.root
def test_names_through_real_sandboxes(tmp_path: Path) -> None:
    """The host's resolv.conf is damaged but for one server on loopback."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver nonsense\nnameserver fe80::1%nosuch\nnameserver 127.0.0.1\n")
    inside = (
        "mount --make-rprivate / && mount --bind $0 $(readlink -f /etc/resolv.conf) && "
        'ip link set lo up && exec "$@"'
    )
    command = [
        "unshare",
        "--net",
        "--mount",
        "sh",
        "-c",
        inside,
        str(resolv_conf),
        sys.executable,
        "-c",
        SCRIPT,
    ]
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [*command, str(root), NAME_SERVER, ASK], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
