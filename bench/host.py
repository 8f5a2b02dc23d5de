"""One host: starts, execs, parallel runs, memory, logs and the API itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.api import Api
from bench.measure import median_ms, pss_mb

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
LOG_LINES = 400_000


def measure(lab: str, node: dict[str, Any]) -> dict[str, float]:
    """Figures of one node's daemon; the names are those of docs/bench.md."""
    api = Api(node["socket"])
    figures = {
        "create to exit, no network (ms)": median_ms(lambda: api.run("hello", ["true"], "none"), 30),
        "create to exit, bridge (ms)": median_ms(lambda: api.run("hello", ["true"], "bridge"), 30),
    }
    idle = api.create("hello", ["sleep", "100000"], "none")
    api.call("POST", f"/containers/{idle}/start")
    figures["exec (ms)"] = median_ms(lambda: api.execute(idle, ["true"]), 30)
    api.call("DELETE", f"/containers/{idle}?force=1")
    figures["runs per second, 8 at once, no network"] = _parallel(node["socket"], "none")
    figures["runs per second, 8 at once, bridge"] = _parallel(node["socket"], "bridge")
    figures |= _memory(api, node)
    figures |= _logs(api)
    figures["API: list of 0 containers (requests/s)"] = _requests(api, "/containers/json")
    figures["API: ping (requests/s)"] = _requests(api, "/_ping")
    return figures | _docker(node)


def _parallel(socket: str, network: str, each: int = 15) -> float:
    def work() -> None:
        api = Api(socket)
        for _ in range(each):
            api.run("hello", ["true"], network)

    threads = [threading.Thread(target=work) for _ in range(8)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 8 * each / (time.perf_counter() - start)


def _memory(api: Api, node: dict[str, Any], count: int = 20) -> dict[str, float]:
    """Of daemon and supervisor, idle and with containers that sleep (their own process not counted)."""
    before = sum(pss_mb(pid) for pid in node["pids"])
    made = [api.create("hello", ["sleep", "100000"], "none") for _ in range(count)]
    for container in made:
        api.call("POST", f"/containers/{container}/start")
    after = sum(pss_mb(pid) for pid in node["pids"])
    for container in made:
        api.call("DELETE", f"/containers/{container}?force=1")
    return {
        "memory of daemon and supervisor (MB PSS)": before,
        "memory per running container (MB PSS)": max(after - before, 0.0) / count,
    }


def _logs(api: Api) -> dict[str, float]:
    line = "x" * 99
    script = f"yes {line} | head -n {LOG_LINES}"
    megabytes = LOG_LINES * 100 / 1e6
    container = api.create("hello", ["sh", "-c", script], "none")
    start = time.perf_counter()
    api.call("POST", f"/containers/{container}/start")
    api.call("POST", f"/containers/{container}/wait")
    written = time.perf_counter() - start
    start = time.perf_counter()
    data = api.call("GET", f"/containers/{container}/logs?stdout=1")
    read = time.perf_counter() - start
    assert len(data) >= megabytes * 1e6, "every line is there"
    api.call("DELETE", f"/containers/{container}")
    return {"log written (MB/s)": megabytes / written, "log read (MB/s)": megabytes / read}


def _requests(api: Api, path: str, count: int = 1500) -> float:
    start = time.perf_counter()
    for _ in range(count):
        api.call("GET", path)
    return count / (time.perf_counter() - start)


def _docker(node: dict[str, Any]) -> dict[str, float]:
    if not shutil.which("docker"):
        return {}
    words = ("docker", "-H", f"unix://{node['socket']}", "ps")
    ps_ms = median_ms(lambda: subprocess.run(words, check=True, capture_output=True), 10)
    return {"docker ps against our socket (ms)": ps_ms}


def others() -> dict[str, float]:
    """The same start by other runtimes, when they are installed: a bundle with the hello image's files."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        rootfs = Path(folder) / "rootfs" / "bin"
        rootfs.mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "true")
        for runtime in ("crun", "runc"):
            program = shutil.which(runtime)
            if program is None:
                continue
            subprocess.run([program, "spec"], cwd=folder, check=True, capture_output=True)
            config = Path(folder) / "config.json"
            config.write_text(
                config.read_text()
                .replace('"sh"', '"/bin/true"')
                .replace('"terminal": true', '"terminal": false')
            )
            name = f"bench-{runtime}"
            try:
                figures[f"{runtime} run, start to exit (ms)"] = median_ms(
                    lambda program=program, name=name: subprocess.run(  # type: ignore[misc]
                        [program, "run", name],
                        cwd=folder,
                        check=True,
                        capture_output=True,
                        stdin=subprocess.DEVNULL,
                    ),
                    15,
                )
            except subprocess.CalledProcessError as error:
                print(f"{runtime} could not run the bundle: {error.stderr.decode().strip()}")
            config.unlink()
    return figures
