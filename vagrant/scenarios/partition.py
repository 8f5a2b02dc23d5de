"""A machine is cut off and comes back: afterwards exactly one copy of every task runs."""

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True
BAD_S_MAX = 10  # as when a machine is lost


def play(swarm: Swarm) -> None:
    first, second, cut = swarm.names
    swarm.step("A service of three, one copy on each machine")
    swarm.create_web()

    swarm.step(f"The cables of {cut} are cut: the others run its copy, its own runs on behind the cut")
    with swarm.traffic(first, *swarm.web_urls(first, second)) as clients:
        since = swarm.cut(cut)
        swarm.wait(
            "three copies run on the two machines left",
            60,
            lambda: swarm.running_on(first, "web"),
            lambda seen: len(seen) == 3 and cut not in seen,
            since_s=since,
        )
        swarm.quiet_s(5, "traffic on the majority's side")
        for client in clients:
            swarm.expect_at_most(f"failures of {client.url} lasted", client.bad_window_s(), BAD_S_MAX)
    swarm.expect(f"the copy on {cut} still runs", len(swarm.containers(cut, "web")), 1)

    swarm.step("The minority decides nothing")
    swarm.refused(cut, "echo x | timeout 60 swarmctl config create minority -", because="")

    swarm.step("The cables are mended: one copy of every task")
    since = swarm.heal()
    swarm.wait(f"{cut} is ready", 60, lambda: swarm.ready(first), swarm.names, since_s=since)
    swarm.expect_containers("web")
    swarm.expect("the minority's write is nowhere", swarm.configs(first), [])
    swarm.on(cut, "swarmctl cluster check")
