"""Bridge networks and published ports on the real kernel, in a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, pathlib, socket, subprocess, sys, threading
from overlay_net import firewall
from overlay_net.driver import NetworkDriver
from overlay_net.errors import PortInUse
from overlay_net.records import EndpointRequest, Publish, SandboxRequest

SERVER = (
    "import socket; s = socket.create_server(('', 80)); print('up', flush=True)\\n"
    "while True:\\n c, _ = s.accept(); c.sendall(b'ok'); c.close()"
)
root = pathlib.Path(sys.argv[1])

def ask(host):
    with socket.create_connection((host, 8080), 3) as c:
        return c.recv(9)

async def asking_all_the_time(work):
    over, asked, failed = threading.Event(), [], []
    def client():
        while not over.is_set():
            try:
                asked.append(ask("172.17.0.1"))
            except OSError as error:
                failed.append(error)
    thread = threading.Thread(target=client)
    thread.start()
    try:
        await work()
    finally:
        over.set()
        thread.join()
    return len(asked), failed

async def main():
    make = lambda: NetworkDriver(state_dir=root, run_dir=root)
    driver = make()
    await driver.start(set())
    request = lambda name: SandboxRequest(id=name * 64, endpoints=(EndpointRequest(network=driver.find("bridge").id),),
                                          publishes=(Publish(container_port=80, host_port=8080),))
    made = await driver.create_sandbox(request("a"))
    server = subprocess.Popen(["nsenter", "--net=" + made.netns_path, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)

    async def restarts():
        nonlocal driver
        for _ in range(5):
            await driver.close()
            driver = make()
            await driver.start({"a" * 64})

    try:
        server.stdout.readline()
        assert ask("127.0.0.1") == ask("172.17.0.1") == b"ok"
        try:
            await driver.create_sandbox(request("b"))
        except PortInUse as error:
            assert str(error) == "Bind for 0.0.0.0:8080 failed: port is already allocated"
        else:
            raise AssertionError("the port was given twice")
        asked, failed = await asking_all_the_time(restarts)
        assert asked > 100 and not failed, (asked, failed[:3])
        subprocess.run(["nft", "delete", "table", "ip", firewall.TABLE], check=True)
        assert [found.repaired for found in await driver.audit()] == [True]
        assert ask("127.0.0.1") == b"ok", "after the audit"
    finally:
        server.kill()
        server.wait()
        await driver.remove_sandbox("a" * 64)
        await driver.close()
    assert not list((root / "netns").iterdir())

asyncio.run(main())
"""


@pytest.mark.root
def test_published_port_answers_during_restarts_and_after_a_lost_table(tmp_path: Path) -> None:
    inside = 'mount --make-rprivate / && ip link set lo up && exec "$@"'
    command = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
