"""The daemon that is asked, and the objects that stand there while it is."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from tests.commands import PATIENCE
from tests.conftest import HostDaemon, processes
from tests.fuzz import wire

BOUND_S = 20.0 * PATIENCE
_TASKS = re.compile(r"(\d+) tasks:")
_LOOP = ["sh", "-c", "trap exit TERM; while :; do sleep 0.2; done"]


class World:
    """`ensure` makes what is missing; what a request made besides that, `tidy` takes away."""

    def __init__(self, daemon: HostDaemon, archive: Path) -> None:
        self.daemon = daemon
        self._archive = archive  # of the image
        self.socket = daemon.socket
        self.folder = str(daemon.folder / "mounted")
        Path(self.folder).mkdir(exist_ok=True)
        (self.pid,) = processes(f"swarmd|--root|{daemon.root}")
        self.names: dict[str, str] = {}

    def call(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        answer = wire.send(self.socket, wire.written(method, target, headers, data), method, BOUND_S)
        assert answer.status, f"no answer to {method} {target}: {self.state()}"
        return answer.status, answer.json() if answer.is_json and answer.body else None

    def ok(self, method: str, target: str, body: Any = None) -> Any:
        status, answer = self.call(method, target, body)
        assert status < 400, f"{method} {target}: {status} {answer}"
        return answer

    def ensure(self) -> None:
        """Containers, an exec, a network, a volume, a tag; in a swarm also one of each kind of its objects."""
        if self.call("GET", "/images/hello/json")[0] == 404:
            self.daemon.ok("load", "-i", str(self._archive))
        for name in ("fuzz-run", "fuzz-idle"):
            if self.call("GET", f"/containers/{name}/json")[0] == 404:
                self.ok("POST", f"/containers/create?name={name}", {"Image": "hello", "Cmd": _LOOP})
        shown = self.ok("GET", "/containers/fuzz-run/json")["State"]
        if shown["Paused"]:
            self.call("POST", "/containers/fuzz-run/unpause")
        if not shown["Running"]:
            self.ok("POST", "/containers/fuzz-run/start")
        made = self.ok("POST", "/containers/fuzz-run/exec", {"Cmd": ["true"], "AttachStdout": True})
        self.names = {"EXEC": made["Id"]}
        if self.call("GET", "/networks/fuzz-net")[0] == 404:
            self.ok("POST", "/networks/create", {"Name": "fuzz-net"})
        self.ok("POST", "/volumes/create", {"Name": "fuzz-vol"})
        self.ok("POST", "/images/hello/tag?repo=fuzz-tag")

    def ensure_swarm(self) -> None:
        """One node that is all of a swarm, with a service, a secret and a config."""
        if self.ok("GET", "/info")["Swarm"]["LocalNodeState"] != "active":
            self.call("POST", "/swarm/leave?force=1")
            self.ok("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
        for kind in ("secrets", "configs"):
            name = f"fuzz-{kind[:-1]}"
            if self.call("GET", f"/{kind}/{name}")[0] == 404:
                self.ok("POST", f"/{kind}/create", {"Name": name, "Data": "YQ=="})
        if self.call("GET", "/services/fuzz-service")[0] == 404:
            template = {"ContainerSpec": {"Image": "hello", "Command": _LOOP}}
            self.ok("POST", "/services/create", {"Name": "fuzz-service", "TaskTemplate": template})
        version = self.ok("GET", "/services/fuzz-service")["Version"]["Index"]
        tasks = self.ok("GET", "/tasks")
        self.names |= {"VERSION": str(version), "TASK": tasks[0]["ID"] if tasks else "nosuch"}

    def tidy(self) -> None:
        """What nobody needs any more; objects of the swarm by its own verbs, since it would make them again."""
        if self.ok("GET", "/info")["Swarm"]["LocalNodeState"] == "active":
            for service in self.call("GET", "/services")[1] or ():
                if isinstance(service, dict) and service["Spec"]["Name"] != "fuzz-service":
                    self.call("DELETE", f"/services/{service['ID']}")
        for row in self.ok("GET", "/containers/json?all=1"):
            ours = {"/fuzz-run", "/fuzz-idle"} & set(row["Names"])
            if not ours and "com.docker.swarm.task.id" not in row["Labels"]:
                self.call("DELETE", f"/containers/{row['Id']}?force=1&v=1")
        for row in self.ok("GET", "/networks"):
            if row["Name"] not in ("bridge", "host", "none", "ingress", "docker_gwbridge", "fuzz-net"):
                self.call("DELETE", f"/networks/{row['Id']}")
        self.call("POST", "/volumes/prune", None)

    def state(self) -> str:
        """Of the daemon's process; with the log's end when it has gone."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return f"the daemon has ended:\n{self.daemon.log.read_text(errors='replace')[-3000:]}"
        return "the daemon lives"

    def answers(self) -> bool:
        ping = wire.send(self.socket, b"GET /_ping HTTP/1.0\r\n\r\n", "GET", BOUND_S)
        return ping.status == 200

    def held(self) -> dict[str, int]:
        """What must not grow: descriptors, threads' and tasks' count of the daemon, descriptors of its supervisor."""
        dump = self.daemon.run_dir / "stacks.log"
        before = len(_TASKS.findall(dump.read_text(errors="replace")))
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + BOUND_S
        while len(found := _TASKS.findall(dump.read_text(errors="replace"))) == before:
            assert time.monotonic() < deadline, "SIGUSR1 is not answered"
            time.sleep(0.05)
        (supervisor,) = processes(f"engine.runtime.supervisor|{self.daemon.run_dir}")
        return {
            "descriptors": len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            "tasks": int(found[-1]),
            "descriptors of the supervisor": len(list(Path(f"/proc/{supervisor}/fd").iterdir())),
        }
