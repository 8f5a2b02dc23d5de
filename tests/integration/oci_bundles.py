"""Bundles for OCI runtimes, and the command `swarmctl-runtime` of this tree as an executable file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.commands import ROOT, Result, run

APPLETS = (
    "cat",
    "echo",
    "env",
    "false",
    "id",
    "ls",
    "mkdir",
    "sh",
    "sleep",
    "stty",
    "test",
    "touch",
    "true",
    "kill",
)


def runtime_command(folder: Path) -> Path:
    """What installing makes of the entry point."""
    path = folder / "swarmctl-runtime"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -m engine.oci.main "$@"\n')
    path.chmod(0o755)
    return path


def root_file_system(folder: Path) -> Path:
    """busybox, and its commands as links."""
    (folder / "bin").mkdir(parents=True)
    (folder / "etc").mkdir()
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for applet in APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    return folder


def configuration(*args: str, **process: Any) -> dict[str, Any]:
    flags = ["nosuid", "noexec", "nodev"]
    capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "bundled",
        "root": {"path": "rootfs"},
        "process": {
            "args": list(args),
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": dict.fromkeys(
                ("bounding", "effective", "permitted", "inheritable", "ambient"), capabilities
            ),
            "noNewPrivileges": True,
            **process,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*flags, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 64}},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
        "annotations": {"who": "a test"},
    }


class Runtime:
    """One runtime's command with a root of its own; `close` removes what is left of its containers."""

    def __init__(self, command: Path | str, folder: Path, group: str) -> None:
        self.words = [str(command), "--root", str(folder / "state")]
        self.folder, self.group = folder, group
        self._bundles = 0

    def bundle(self, *args: str, **process: Any) -> Path:
        return self.bundle_of(configuration(*args, **process))

    def bundle_of(self, made: dict[str, Any]) -> Path:
        self._bundles += 1
        folder = self.folder / f"bundle{self._bundles}"
        root_file_system(folder / "rootfs")
        made["linux"]["cgroupsPath"] = f"/{self.group}/c{self._bundles}"
        (folder / "config.json").write_text(json.dumps(made))
        return folder

    def run(self, *words: str) -> Result:
        return run([*self.words, *words])

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.code == 0, f"{' '.join(words)}: {result.err}"
        return result.out

    def create(self, name: str, bundle: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
        """The container's output goes to `<bundle>/output`: it outlives the command."""
        with (bundle / "output").open("wb") as output:
            return subprocess.run(
                [*self.words, "create", "--bundle", str(bundle), *options, name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def status(self, name: str) -> str:
        return str(json.loads(self.ok("state", name))["status"])

    def close(self, *names: str) -> None:
        for name in names:
            self.run("delete", "--force", name)
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            for folder, _, _ in os.walk(hierarchy / self.group, topdown=False):
                Path(folder).rmdir()


@contextlib.contextmanager
def runtime_at(command: Path | str, folder: Path, group: str, *names: str) -> Iterator[Runtime]:
    """`names`: of the containers that a test may leave."""
    made = Runtime(command, folder, group)
    try:
        yield made
    finally:
        made.close(*names)
