"""A plugin for tests, as a program of its own: SOCKET FOLDER. With GREETING set, what it mounts holds that.

A volume is a folder below FOLDER; with TMPFS=1 a tmpfs is mounted there while somebody uses it. A network is a bridge,
an endpoint a veth pair. Standard library only: it also runs inside of a managed plugin's bare root.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
from pathlib import Path
from typing import Any

VOLUMES: dict[str, set[str]] = {}
OPTIONS: dict[str, dict[str, str]] = {}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Network:
    """What is asked about one network and one endpoint of it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.bridge = f"tp{asked.get('NetworkID', '')[:8]}"
        self.outside, self.inside = (f"t{side}{asked.get('EndpointID', '')[:8]}" for side in "oi")

    def answer(self, method: str) -> dict[str, Any]:
        if method == "GetCapabilities":
            return {"Scope": "local"}
        if method == "CreateNetwork":
            self.gateway = self.asked["IPv4Data"][0]["Gateway"]
            ip("link", "add", self.bridge, "type", "bridge")
            ip("address", "add", self.gateway, "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
        elif method == "DeleteNetwork":
            ip("link", "delete", self.bridge)
        elif method == "CreateEndpoint":
            ip("link", "add", self.outside, "type", "veth", "peer", "name", self.inside)
            ip("link", "set", self.outside, "master", self.bridge, "up")
        elif method == "DeleteEndpoint":
            ip("link", "delete", self.outside)
        elif method == "Join":
            if not Path(self.asked["SandboxKey"]).exists():
                raise ValueError("there is no sandbox")
            route = {"Destination": "198.51.100.0/24", "RouteType": 1, "NextHop": ""}
            return {"InterfaceName": {"SrcName": self.inside, "DstPrefix": "plug"}, "StaticRoutes": [route]}
        return {}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Handler(http.server.BaseHTTPRequestHandler):
    folder: Path

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(size) or b"{}")
        try:
            answer, status = self.answer(self.path.strip("/"), asked), 200
        except (KeyError, ValueError, OSError, subprocess.CalledProcessError) as error:
            answer, status = {"Err": f"{error}"}, 500
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        sys.stderr.write(f"{method} {json.dumps(asked)}\n")
        sys.stderr.flush()
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver", "NetworkDriver"]}
        if method.startswith("NetworkDriver."):
            return Network(asked).answer(method.partition(".")[2])
        if method == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "VolumeDriver.List":
            return {"Volumes": [{"Name": name} for name in VOLUMES]}
        name = asked["Name"]
        if method == "VolumeDriver.Create":
            if "fail" in asked["Opts"]:
                raise ValueError(f"told to fail: {asked['Opts']['fail']}")
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            VOLUMES.setdefault(name, set())
            OPTIONS[name] = asked["Opts"]
            return {}
        if name not in VOLUMES:
            raise ValueError("no such volume")
        return getattr(self, method.partition(".")[2].lower())(name, str(self.folder / name), asked)

    def get(self, name: str, path: str, _asked: dict[str, Any]) -> dict[str, Any]:
        status = {"users": len(VOLUMES[name]), "options": OPTIONS[name]}
        return {"Volume": {"Name": name, "Mountpoint": path if VOLUMES[name] else "", "Status": status}}

    def mount(self, name: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        if not VOLUMES[name] and os.environ.get("TMPFS"):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        VOLUMES[name].add(asked["ID"])
        if greeting := os.environ.get("GREETING"):
            Path(path, "greeting").write_text(greeting)
        return {"Mountpoint": path}

    def unmount(self, name: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        VOLUMES[name].remove(asked["ID"])
        if not VOLUMES[name] and os.environ.get("TMPFS"):
            subprocess.run(["umount", path], check=True)
        return {}

    def remove(self, name: str, _path: str, _asked: dict[str, Any]) -> dict[str, Any]:
        del VOLUMES[name], OPTIONS[name]
        return {}

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are printed in their own words."""


if __name__ == "__main__":
    socket_path, Handler.folder = sys.argv[1], Path(sys.argv[2])
    Path(socket_path).unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # also as the first process of its namespace
    Server(socket_path, Handler).serve_forever()
