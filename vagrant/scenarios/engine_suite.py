"""The engine's whole integration suite, and that of its life beside systemd, where there is nothing but cgroup v2."""

from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from scenarios import suite
from scenarios.swarm import Swarm

MACHINES = 2
NEEDS_SWARM = False
QUICK = False
MEMORY_MB = 1536
SYSTEMD = "tests/machine/test_systemd.py"
# What belongs to Raft, to the managers and to labs of several nodes does not touch control groups of its own.
OTHERS = ("test_chaos", "test_cluster", "test_lab", "test_raft", "test_request", "test_rpc", "test_swarm")


def files() -> list[str]:
    """The longest first, as far as size tells."""
    found = (suite.ROOT / "tests/integration").glob("test_*.py")
    chosen = [path for path in found if not path.name.startswith(OTHERS)]
    chosen.sort(key=lambda path: path.stat().st_size, reverse=True)
    return [str(path.relative_to(suite.ROOT)) for path in chosen]


def play(swarm: Swarm) -> None:
    first = swarm.names[0]
    swarm.step("The sources are copied there, compiled")
    for machine in swarm.names:
        suite.bring(swarm, machine)
    waiting: SimpleQueue[str] = SimpleQueue()
    for file in files():
        waiting.put(file)

    def work(machine: str) -> list[str]:
        failed = []
        if machine == first and not suite.passes(swarm, machine, SYSTEMD):
            failed.append(SYSTEMD)
        while True:
            try:
                file = waiting.get_nowait()
            except Empty:
                return failed
            if not suite.passes(swarm, machine, file):
                failed.append(file)

    swarm.step(f"{waiting.qsize() + 1} files of tests pass, each machine takes the next one")
    with ThreadPoolExecutor(len(swarm.names)) as pool:
        failed = [file for files in pool.map(work, swarm.names) for file in files]
    swarm.expect("files with failures", failed, [])
