"""The daemon is upgraded under running containers: they keep their processes, and clients see nothing of it."""

import subprocess
import tempfile
from pathlib import Path

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True
VERSION = "0.1.1"
PROJECT_TREE = Path(__file__).resolve().parents[1] / "project-tree"


def play(swarm: Swarm) -> None:
    first, _, upgraded = swarm.names
    swarm.step("A service of three, and a container of its own on the machine that gets the new version")
    swarm.create_web()
    swarm.on(upgraded, "swarmctl run -d --name alone --publish 9090:80 hello")
    tasks = swarm.tasks(first, "web")
    processes = swarm.processes(upgraded)
    swarm.expect("two containers run there", len(processes), 2)
    (before,) = swarm.api(upgraded, "/info")

    with swarm.traffic(
        first, *swarm.web_urls(first, upgraded), f"http://{swarm.address(upgraded)}:9090/", per_second=2
    ) as clients:
        swarm.step(f"Version {VERSION} is installed over the old one, and the daemon restarted")
        with tempfile.TemporaryDirectory() as folder:
            # The same sources under another version.
            subprocess.run([PROJECT_TREE, folder, VERSION], check=True, timeout=300)
            swarm.install(upgraded, Path(folder))
        swarm.on(upgraded, "systemctl restart swarmd")
        swarm.wait("the daemon answers with its new version", 120, lambda: swarm.version(upgraded), VERSION)
        swarm.wait(f"{upgraded} is ready", 60, lambda: swarm.ready(first), swarm.names)
        swarm.on(upgraded, "swarmctl version")
        swarm.quiet_s(5, "traffic after it")
    swarm.expect_no_failure(clients)

    swarm.step(
        "Nothing was restarted, nothing was moved; the supervisor is the same process with the new code"
    )
    (after,) = swarm.api(upgraded, "/info")
    swarm.expect("its pid", after["Supervisor"]["Pid"], before["Supervisor"]["Pid"])
    swarm.expect(
        "its build is a new one", after["Supervisor"]["Build"] != before["Supervisor"]["Build"], True
    )
    swarm.note(f"{before['Supervisor']['Build']} -> {after['Supervisor']['Build']}")
    swarm.expect("warnings", after["Warnings"], before["Warnings"])
    swarm.expect("containers have their processes and start times", swarm.processes(upgraded), processes)
    swarm.expect("tasks are the same", swarm.tasks(first, "web"), tasks)
    swarm.expect_containers("web")

    swarm.step("The new daemon commands the old containers, and starts new ones")
    swarm.on(upgraded, "swarmctl exec alone hostname")
    swarm.on(upgraded, "swarmctl stop alone && swarmctl start alone")
    swarm.on(first, "swarmctl service update --quiet --force web", timeout_s=300)
    swarm.expect_containers("web")
