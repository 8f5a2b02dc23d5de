"""The leader's machine loses power: another manager leads, and writes go on."""

import time

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True
# An election takes a second; the rest is the time that a command needs on an emulated processor.
WRITE_S_MAX = 25


def play(swarm: Swarm) -> None:
    lost = swarm.leader(swarm.names[0])
    second, third = (name for name in swarm.names if name != lost)
    swarm.step(f"{lost} leads; something is written through {second}")
    swarm.on(second, "echo before | swarmctl config create before -")

    swarm.step(f"{lost} loses power")
    off = swarm.power_off(lost)
    swarm.on(second, "echo after | swarmctl config create after -")
    swarm.expect_at_most("the next write was answered after", time.monotonic() - off, WRITE_S_MAX)
    swarm.wait(
        "another manager leads",
        30,
        lambda: swarm.leader(second),
        lambda seen: seen in (second, third),
        since_s=off,
    )

    swarm.step("What was answered is there, through both managers, and a service starts")
    for name in (second, third):
        swarm.expect(f"{name} lists both", swarm.configs(name), ["after", "before"])
    swarm.on(third, "swarmctl service create --detach --name web --replicas 2 hello")
    swarm.wait(
        "one copy runs on each machine left",
        60,
        lambda: swarm.running_on(third, "web"),
        sorted((second, third)),
    )

    swarm.step(f"{lost} gets power again, follows, and knows all of it")
    swarm.power_on(lost)
    swarm.wait("every machine is ready", 180, lambda: swarm.ready(second), swarm.names)
    swarm.wait(f"{lost} lists both", 60, lambda: swarm.configs(lost), ["after", "before"])
    swarm.on(lost, "swarmctl cluster check")
