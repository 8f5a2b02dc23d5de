"""What may reach a container and the host's loopback, on the real kernel in namespaces of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Says its name to everybody who connects to port 80.
SERVER = """
import socket
server = socket.create_server(("", 80))
print("up", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"ok")
    connection.close()
"""

CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as connection:
        print(connection.recv(9).decode())
except OSError as error:
    print(type(error).__name__)
"""

# A frame for 127.0.0.1 out of the container, which no kernel would send by itself.
SMUGGLE = """
import socket, struct, sys
mac, source, port = bytes.fromhex(sys.argv[1].replace(":", "")), socket.inet_aton(sys.argv[2]), int(sys.argv[3])
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0x0800))
own = raw.getsockname()[4]
def ip(target):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 32, 1, 0, 64, 17, 0, source, socket.inet_aton(target))
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
for target in ("127.0.0.1", sys.argv[4]):
    raw.send(mac + own + b"\\x08\\x00" + ip(target) + struct.pack("!HHHH4s", 9, port, 12, 0, b"hey!"))
"""

SCRIPT = """
import asyncio, pathlib, socket, subprocess, sys
from overlay_net.driver import NetworkDriver
from overlay_net.records import EndpointRequest, IpamBlock, NetworkSpec, Publish, SandboxRequest

root, SERVER, CONNECT, SMUGGLE = pathlib.Path(sys.argv[1]), *sys.argv[2:5]

def within(namespace, *command):
    enter = ["nsenter", "--net=" + namespace] if namespace else []
    return subprocess.run([*enter, *command], check=True, capture_output=True, text=True).stdout.strip()

def connect(namespace, host, port):
    return within(namespace, sys.executable, "-c", CONNECT, host, str(port))

async def main():
    driver = NetworkDriver(state_dir=root, run_dir=root)
    await driver.start(set())
    spec = lambda name, subnet: NetworkSpec(name=name, ipam=(IpamBlock(subnet=subnet),))
    one = await driver.create_network(spec("one", "10.50.0.0/24"))
    two = await driver.create_network(spec("two", "10.51.0.0/24"))
    made = lambda letter, network, **how: driver.create_sandbox(
        SandboxRequest(id=letter * 64, endpoints=(EndpointRequest(network=network.id),), **how))
    server = await made("a", one, publishes=(Publish(container_port=80, host_port=8080),))
    address = server.endpoints[0].cidr.partition("/")[0]
    same, other = await made("b", one), await made("c", two)

    # A machine beside the host that routes through it.
    within("", "ip", "netns", "add", "lan")
    lan = "/run/netns/lan"
    within("", "ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", "lan")
    within("", "ip", "addr", "add", "198.51.100.1/24", "dev", "up0")
    within("", "ip", "link", "set", "up0", "up")
    within(lan, "ip", "addr", "add", "198.51.100.2/24", "dev", "eth0")
    within(lan, "ip", "link", "set", "eth0", "up")
    within(lan, "ip", "route", "add", "10.0.0.0/8", "via", "198.51.100.1")

    process = subprocess.Popen(["nsenter", "--net=" + server.netns_path, sys.executable, "-c", SERVER],
                               stdout=subprocess.PIPE)
    outside = subprocess.Popen(["nsenter", "--net=" + lan, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() and outside.stdout.readline()
        seen = {
            "from the host": connect("", address, 80),
            "same network": connect(same.netns_path, address, 80),
            "same network, published": connect(same.netns_path, "10.50.0.1", 8080),
            "other network": connect(other.netns_path, address, 80),
            "other network, published": connect(other.netns_path, "10.51.0.1", 8080),
            "other network, published, by the server's gateway": connect(other.netns_path, "10.50.0.1", 8080),
            "outside": connect(lan, address, 80),
            "outside, published": connect(lan, "198.51.100.1", 8080),
            "to the outside": connect(other.netns_path, "198.51.100.2", 80),
        }
        wanted = dict.fromkeys(seen, "ok") | dict.fromkeys(("other network", "outside"), "TimeoutError")
        assert seen == wanted, seen

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback, \\
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gateway:
            loopback.bind(("127.0.0.1", 0))
            port = loopback.getsockname()[1]
            gateway.bind(("10.50.0.1", port))
            gateway.settimeout(5)
            mac = pathlib.Path("/sys/class/net/sw-n" + one.id[:11] + "/address").read_text().strip()
            within(same.netns_path, sys.executable, "-c", SMUGGLE, mac,
                   same.endpoints[0].cidr.partition("/")[0], str(port), "10.50.0.1")
            assert gateway.recv(9) == b"hey!"
            loopback.setblocking(False)
            try:
                raise AssertionError("a container reached the host's loopback: %r" % loopback.recv(9))
            except BlockingIOError:
                pass
    finally:
        for each in (process, outside):
            each.kill()
            each.wait()
            each.stdout.close()
        within("", "ip", "netns", "del", "lan")
        for letter in "abc":
            await driver.remove_sandbox(letter * 64)
        await driver.close()

asyncio.run(main())
"""


@pytest.mark.root
def test_who_reaches_whom(tmp_path: Path) -> None:
    inside = (
        "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && "
        'ip link set lo up && exec "$@"'
    )
    command = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        [*command, str(tmp_path), SERVER, CONNECT, SMUGGLE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
