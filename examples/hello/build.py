#!/usr/bin/env python3
"""Builds the image `hello:latest` from Debian's busybox-static as an archive that `image load` reads.

Usage: python3 examples/hello/build.py OUT.tar

The container answers every request on port 80 with one line: which task, on which node, to which client.
Needs nothing but Python; the same busybox gives the same image, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox")

SERVER = """#!/bin/sh
# The first process of a container must take SIGTERM itself.
trap 'kill $server; exit 0' TERM INT
httpd -f -p 80 -h /www &
server=$!
echo "hello listens on port 80 as ${TASK_NAME:-$(hostname)}"
while wait $server; [ $? -gt 128 ]; do :; done
"""

PAGE = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\nConnection: close\\r\\n\\r\\n'
client=${REMOTE_ADDR#[}
client=${client%]}
client=${client#::ffff:}
echo "hello from ${TASK_NAME:-$(hostname)} on ${NODE_NAME:-this node} to $client"
echo "$(date '+%H:%M:%S') $REQUEST_METHOD from $client" >/proc/1/fd/1
"""


def busybox() -> bytes:
    for path in BUSYBOX_PATHS:
        if os.path.exists(path):
            with open(path, "rb") as file:
                return file.read()
    sys.exit("busybox is missing: install the package busybox-static")


def applets(path: str) -> list[str]:
    output = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout
    return [name for name in output.split() if name != "busybox"]


class Archive:
    """A tar archive without anything that differs from one build to the next."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(
        self, name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
    ) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.type, info.linkname = len(data), mode, kind, link
        self._tar.addfile(info, io.BytesIO(data))

    def finish(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def layer() -> bytes:
    archive = Archive()
    for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "www", "www/cgi-bin"):
        archive.add(folder, mode=0o755, kind=tarfile.DIRTYPE)
    archive.add("bin/busybox", busybox(), 0o755)
    for name in applets(next(path for path in BUSYBOX_PATHS if os.path.exists(path))):
        archive.add(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox")
    archive.add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    archive.add("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    archive.add("bin/serve", SERVER.encode(), 0o755)
    archive.add("www/cgi-bin/index.cgi", PAGE.encode(), 0o755)
    return archive.finish()


def image(tag: str) -> bytes:
    content = layer()
    diff_id = hashlib.sha256(content).hexdigest()
    config = json.dumps(
        {
            "architecture": {"aarch64": "arm64"}.get(os.uname().machine, "amd64"),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "Cmd": ["/bin/serve"],
                "Env": ["PATH=/bin"],
                "ExposedPorts": {"80/tcp": {}},
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "examples/hello/build.py"}],
        },
        sort_keys=True,
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [f"{diff_id}/layer.tar"]}]
    archive = Archive()
    archive.add(config_name, config)
    archive.add(f"{diff_id}/layer.tar", content)
    archive.add("manifest.json", json.dumps(manifest).encode())
    return archive.finish()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "wb") as file:
        file.write(image("hello:latest"))
