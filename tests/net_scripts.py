"""Scripts on the data plane that run in a network namespace of their own, with what they share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.commands import PATIENCE

_COMMON = """
import asyncio, ipaddress, os, pathlib, socket, subprocess, sys
import dnslib
from overlay_net import bridges
from overlay_net.driver import NetworkDriver
from overlay_net.errors import AddressInUse, InvalidNetwork, KernelRefused, NetworkInUse, SubnetOverlap
from overlay_net.records import (
    BridgeDefaults, EndpointRequest, IpamBlock, NetworkSpec, Publish, SandboxRequest
)

root = pathlib.Path(sys.argv[1])
SERVER = (
    "import socket, sys; s = socket.create_server((sys.argv[1], int(sys.argv[2])), "
    "family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, dualstack_ipv6=':' in sys.argv[1]); "
    "print('up', flush=True)\\n"
    "while True:\\n c, _ = s.accept(); c.sendall(b'ok'); c.close()"
)
CLIENT = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(9).decode())"
ASK = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); " \\
    "s.sendto(bytes.fromhex(sys.argv[1]), ('127.0.0.11', 53)); print(s.recv(4096).hex())"

def output(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout

def ip(*words):
    return output("ip", *words)

def nft(*words):
    return output("nft", *words)

def within(made, *words):
    return output("nsenter", "--net=" + made.netns_path, *words)

def serve(made, host, port):
    server = subprocess.Popen(
        ["nsenter", "--net=" + made.netns_path, sys.executable, "-c", SERVER, host, str(port)], stdout=subprocess.PIPE)
    server.stdout.readline()
    return server

def ask(host, port):
    with socket.create_connection((host, port), 3) as connected:
        return connected.recv(9)

def inside_ask(made, host, port):
    assert within(made, sys.executable, "-c", CLIENT, host, str(port)) == "ok\\n"

def can_ask(made, host, port):
    done = subprocess.run(
        ["nsenter", "--net=" + made.netns_path, sys.executable, "-c", CLIENT, host, str(port)], capture_output=True)
    return done.returncode == 0

async def answers(made, name, kind):
    query = dnslib.DNSRecord.question(name, dnslib.QTYPE[kind]).pack().hex()
    reply = await asyncio.to_thread(within, made, sys.executable, "-c", ASK, query)
    return [str(record.rdata) for record in dnslib.DNSRecord.parse(bytes.fromhex(reply)).rr]

async def refused(making, error, words):
    try:
        await making
    except error as caught:
        assert words in str(caught), caught
    else:
        raise AssertionError(words)

async def started(live=frozenset(), defaults=BridgeDefaults()):
    driver = NetworkDriver(state_dir=root, run_dir=root, bridge_defaults=defaults)
    await driver.start(set(live))
    return driver
"""


def run_script(script: str, folder: Path) -> None:
    """`main()` of the script, in a network namespace whose loopback is up."""
    inside = 'mount --make-rprivate / && ip link set lo up && exec "$@"'
    command = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", sys.executable, "-c"]
    whole = f"{_COMMON}\n{script}\nasyncio.run(main())\n"
    done = subprocess.run(
        [*command, whole, str(folder)], capture_output=True, text=True, timeout=30 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
