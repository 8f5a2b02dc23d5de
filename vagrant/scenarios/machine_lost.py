"""A machine loses power: its tasks run elsewhere, and clients notice for a few seconds at most."""

import time

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True
# From the plug to the last failed request: detection takes 2 to 3 s, requests that were under way then wait for up
# to 4 s, and the emulated machines need their time to hear of it.
BAD_S_MAX = 10
ELSEWHERE_S_MAX = 30


def play(swarm: Swarm) -> None:
    first, second, lost = swarm.names
    swarm.step(
        "A service of three, one copy on each machine, with a client that asks two machines all the time"
    )
    swarm.create_web()
    with swarm.traffic(first, *swarm.web_urls(first, second)) as clients:
        swarm.quiet_s(5, "traffic before the fault")
        swarm.expect_no_failure(clients)

        swarm.step(f"{lost} loses power")
        off = swarm.power_off(lost)
        swarm.wait(
            "three copies run on the two machines left",
            ELSEWHERE_S_MAX,
            lambda: swarm.running_on(first, "web"),
            lambda seen: len(seen) == 3 and lost not in seen,
            since_s=off,
        )
        swarm.wait(
            f"{lost} is down for the swarm", 10, lambda: swarm.nodes(first).get(lost), "down active manager"
        )
        settled = time.monotonic()
        swarm.quiet_s(8, "traffic after it")
        for client in clients:
            swarm.expect_at_most(f"failures of {client.url} lasted", client.bad_window_s(), BAD_S_MAX)
            swarm.expect(
                "no request failed after that", len(client.failures(max(settled, off + BAD_S_MAX))), 0
            )

    swarm.step(f"{lost} gets power again: it is ready, and what it ran before is not run twice")
    swarm.power_on(lost)
    swarm.wait(f"{lost} is ready", 180, lambda: swarm.ready(first), swarm.names)
    swarm.wait("three copies, not more", 30, lambda: len(swarm.running_on(first, "web")), 3)
    swarm.expect_containers("web")
