"""Labs of real nodes for tests, and `swarmctl` against one of their nodes."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from node.lab import model
from tests.commands import BIN, SWARMCTL, Result, run


class Lab:
    """A lab of real nodes. `on` runs a swarmctl command against one of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lab(self, *words: str) -> Result:
        verb, *rest = words
        return run([SWARMCTL, "lab", verb, "--name", self.name, *rest])

    @property
    def names(self) -> list[str]:
        return [node.name for node in model.load(self.name).nodes]

    def node(self, name: str) -> model.LabNode:
        """Its address, socket and folders."""
        return model.load(self.name).node(name)

    def status(self) -> dict[str, dict[str, object]]:
        """Node -> what `lab status` says of it: also its processes, state and role."""
        status = self.lab("status", "--format", "json")
        assert status.code == 0, status.err
        return {row["name"]: row for row in json.loads(status.out)}

    def on(self, node: str, *words: str, text: str = "") -> Result:
        return run([SWARMCTL, "-H", self.node(node).host, *words], text)

    def ok(self, node: str, *words: str, text: str = "") -> str:
        result = self.on(node, *words, text=text)
        assert result.code == 0, f"{node}: swarmctl {' '.join(words)}: {result.err or result.out}"
        return result.out.strip()

    def inside(self, node: str, *words: str) -> Result:
        """A command in the node's network namespace, as `lab exec` runs it."""
        at = self.node(node)
        environment = {**os.environ, "SWARMCTL_HOST": at.host, "PATH": f"{BIN}:{os.environ['PATH']}"}
        return run(["nsenter", f"--net={at.netns_path}", "--", *words], environment=environment)

    def wait(self, what: str, seconds: float, holds: Callable[[], object]) -> None:
        """Until `holds()` is true; fails the test after the bound."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(0.05)

    def running(self, node: str, service: str) -> list[str]:
        """Host names of the nodes on which its tasks run, one for each task."""
        shown = ("--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}")
        lines = self.on(node, "service", "ps", service, *shown).out.splitlines()
        return [line.split()[0] for line in lines if " Running " in line]


AnyLab = TypeVar("AnyLab", bound=Lab)


@contextlib.contextmanager
def lab_of(nodes: int, *words: str, image: Path | None = None, kind: type[AnyLab]) -> Iterator[AnyLab]:
    """A lab for as long as the context lasts; `words` go to `lab up`, the image is loaded on every node."""
    lab = kind(f"test{uuid.uuid4().hex[:8]}")
    try:
        up = lab.lab("up", "--nodes", str(nodes), *words)
        assert up.code == 0, up.err
        if image is not None:
            with ThreadPoolExecutor(nodes) as pool:
                list(pool.map(lambda node: lab.ok(node, "load", "-i", str(image)), lab.names))
        yield lab
    finally:
        lab.lab("down")
