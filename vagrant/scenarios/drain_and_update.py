"""Under traffic a machine is drained and the service updated, and not one request fails."""

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True


def play(swarm: Swarm) -> None:
    first, _, drained = swarm.names
    swarm.step(
        "A service of three, one copy on each machine, with a client that asks every machine all the time"
    )
    swarm.create_web("--update-order start-first --update-parallelism 1 --update-monitor 1s")
    with swarm.traffic(first, *swarm.web_urls(*swarm.names), per_second=2) as clients:
        swarm.step(f"{drained} is drained: its copy moves")
        swarm.on(first, f"swarmctl node update --availability drain {drained}")
        swarm.wait(
            f"nothing runs on {drained}",
            60,
            lambda: swarm.running_on(first, "web"),
            lambda seen: len(seen) == 3 and drained not in seen,
        )
        swarm.quiet_s(3, "traffic after it")
        swarm.expect_no_failure(clients)

        swarm.step("The service is updated, one copy after the other")
        before = {task.id for task in swarm.tasks(first, "web")}
        swarm.on(
            first,
            "swarmctl service update --quiet --env-add TASK_NAME=second-{{.Task.Slot}} web",
            timeout_s=300,
        )
        after = {task.id for task in swarm.tasks(first, "web") if task.state == "running"}
        swarm.expect("three copies run", len(after), 3)
        swarm.expect("none of them is an old one", sorted(before & after), [])

        swarm.step(f"{drained} is taken in again, and used by the next update")
        swarm.on(first, f"swarmctl node update --availability active {drained}")
        swarm.on(first, "swarmctl service update --quiet --force web", timeout_s=300)
        swarm.wait(
            f"{drained} runs a copy", 60, lambda: swarm.running_on(first, "web"), lambda seen: drained in seen
        )
        swarm.quiet_s(3, "traffic after it")
    swarm.expect_no_failure(clients)
    answers = {answer.said.split()[2] for client in clients for answer in client.answers[-6:]}
    swarm.expect("the last answers are the new version's", {name[:7] for name in answers}, {"second-"})
