"""On a kernel with nothing but cgroup v2, limits bite and devices are refused: the engine's tests of that, in a machine."""

from scenarios import suite
from scenarios.swarm import Swarm

MACHINES = 1
NEEDS_SWARM = False
QUICK = False
MEMORY_MB = 1024
TESTS = "beyond or no_more or throttles or fails_forks or writes_to or not_given or stops_every or born or end_takes"
TESTS += " or hosts_namespace or tells"


def play(swarm: Swarm) -> None:
    (machine,) = swarm.names
    swarm.step("The kernel has one control group tree, of version 2")
    swarm.expect("its type", swarm.on(machine, "stat -f -c %T /sys/fs/cgroup"), "cgroup2fs")
    swarm.step("The sources are copied there, compiled")
    suite.bring(swarm, machine)
    swarm.step("The tests pass")
    passed = suite.passes(swarm, machine, "tests/integration/test_limits_bite.py", TESTS)
    swarm.expect("all of them passed", passed, True)
