"""Real images on the real storage: busybox runs from its layers, the hello image serves, logs and stops."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.images.store import ImageStore
from engine.storage.driver import StorageDriver, open_driver
from tests.images import BUSYBOX_PATHS, busybox_image

pytestmark = pytest.mark.root
BUILD = Path(__file__).parent.parent.parent / "examples/hello/build.py"
READY_S = 10.0


@pytest.fixture(params=["overlay", "vfs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> StorageDriver:
    return open_driver(request.param, tmp_path / "storage")


@pytest.fixture
def store(tmp_path: Path, driver: StorageDriver) -> ImageStore:
    return ImageStore(tmp_path / "images", driver)


@contextlib.contextmanager
def unpacked(store: ImageStore, driver: StorageDriver, archive: bytes) -> Iterator[Path]:
    """The root of a container of the archive's image."""
    (name,) = store.load(io.BytesIO(archive), lambda message: None)
    driver.create_rootfs("c1", store.resolve(name).chain_ids[-1])
    with driver.mounted("c1") as root:
        yield root


def test_busybox_runs_from_its_layer(store: ImageStore, driver: StorageDriver) -> None:
    archive = busybox_image(
        "bb:1", cmd=["/hi"], extra_files={"hi": "#!/bin/sh\necho $0 $(id -un)\n"}, User="nobody"
    )
    with unpacked(store, driver, archive) as root:
        done = subprocess.run(["chroot", root, "/hi"], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "/hi root\n", "")
    image = store.resolve("bb:1")
    assert (image.config.cmd, image.config.user, image.config.env) == (("/hi",), "nobody", ("PATH=/bin",))


def test_a_daemon_killed_in_the_middle_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    """kill -9 at several moments; the next start removes what is half made and the image loads as if new."""
    archive = tmp_path / "bb.tar"
    archive.write_bytes(busybox_image(extra_files={f"big{n}": os.urandom(1 << 20) for n in range(8)}))
    program = (
        "import sys; from pathlib import Path; from engine.images.store import ImageStore\n"
        "from engine.storage.driver import open_driver\n"
        "root = Path(sys.argv[1]); store = ImageStore(root / 'images', open_driver('overlay', root / 'overlay'))\n"
        "print('loading', flush=True); store.load(open(sys.argv[2], 'rb'), lambda message: None)\n"
    )
    interrupted = 0
    for number in range(6):
        root = tmp_path / f"root{number}"
        process = subprocess.Popen(
            [sys.executable, "-c", program, root, archive],
            stdout=subprocess.PIPE,
            cwd=BUILD.parent.parent.parent,
        )
        assert process.stdout is not None and process.stdout.readline() == b"loading\n"
        time.sleep(0.02 * number)
        process.kill()
        process.communicate()
        driver = open_driver("overlay", root / "overlay")
        store = ImageStore(root / "images", driver)
        images = store.all()
        interrupted += not images
        driver.recover({chain for image in images for chain in image.chain_ids}, set())
        whole = len(images[0].chain_ids) if images else 0
        assert len(list((root / "overlay/layers").iterdir())) == whole
        assert list((root / "overlay/tmp").iterdir()) == []
        assert len(list((root / "images/sha256").iterdir())) == (2 if images else 0)
        with archive.open("rb") as file:
            assert store.load(file, lambda message: None) == ["busybox:latest"]
    assert interrupted, "no kill came in time: the test shows nothing"


# ---- the hello image --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hello(hello_archive: Path) -> bytes:
    return hello_archive.read_bytes()


def test_hello_is_built_the_same_every_time(hello: bytes, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-I", BUILD, tmp_path / "again.tar"], check=True)
    assert (tmp_path / "again.tar").read_bytes() == hello


class Server:
    """/bin/serve of an image as the first process of a pid namespace, in a network of its own."""

    def __init__(self, root: Path, **environment: str) -> None:
        self._root = root
        self._process = subprocess.Popen(
            [
                *("unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--kill-child"),
                *(
                    "sh",
                    "-c",
                    f"ip link set lo up; hostname host1; mount -t proc proc {root}/proc; mount --bind /dev {root}/dev;"
                    f" exec chroot {root} /bin/serve",
                ),
            ],
            env={"PATH": f"{os.environ['PATH']}:/bin", **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        self.first_line = self.output.readline()
        deadline = time.monotonic() + READY_S
        while not self.get("/"):
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    def get(self, path: str) -> str:
        """The answer's body; "" when there is none."""
        program = next(name for name in BUSYBOX_PATHS if Path(name).exists())
        words = ["nsenter", f"--target={self._first_pid()}", "--net", program, "wget", "-q", "-O-"]
        return subprocess.run(
            [*words, f"http://127.0.0.1{path}"], capture_output=True, text=True, timeout=10
        ).stdout

    def stop(self) -> float:
        """SIGTERM to the first process; seconds until it was gone."""
        start = time.monotonic()
        os.kill(self._first_pid(), signal.SIGTERM)
        self._process.wait(10)
        return time.monotonic() - start

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.output.close()

    def _first_pid(self) -> int:
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.fixture
def server(tmp_path: Path, hello: bytes) -> Iterator[Server]:
    driver = open_driver("overlay", tmp_path / "storage")
    with unpacked(ImageStore(tmp_path / "images", driver), driver, hello) as root:
        server = Server(root, TASK_NAME="web.1", NODE_NAME="n1")
        try:
            yield server
        finally:
            server.close()


def test_hello_names_task_node_and_client_to_many_at_once(server: Server) -> None:
    assert server.first_line == "hello listens on port 80 as web.1\n"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(server.get, ["/"] * 48))
    assert answers == ["hello from web.1 on n1 to 127.0.0.1\n"] * 48


def test_hello_logs_a_line_for_each_request(server: Server) -> None:
    for _ in range(3):
        assert server.get("/")
    server.stop()
    lines = server.output.read().splitlines()
    assert len(lines) == 4, "the fixture asked once, this test three times"
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d GET from 127\.0\.0\.1", line) for line in lines)


def test_hello_stops_at_once(server: Server) -> None:
    assert server.stop() < 0.5
