"""A machine is restarted: its daemon and its containers come back by themselves, and nothing of the former life is left."""

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = False


def play(swarm: Swarm) -> None:
    first, _, restarted = swarm.names
    swarm.step("A service of three, and four containers on one machine that differ in their restart policies")
    swarm.create_web()
    for name, policy in (
        ("always", "always"),
        ("stopped", "unless-stopped"),
        ("unless", "unless-stopped"),
        ("no", "no"),
    ):
        swarm.on(restarted, f"swarmctl run -d --name {name} --restart {policy} hello")
    swarm.on(restarted, "swarmctl stop stopped")
    with swarm.traffic(first, *swarm.web_urls(first)) as clients:
        swarm.step(f"{restarted} is restarted in order")
        swarm.reboot(restarted)
        swarm.wait(
            "systemd has started the daemon",
            180,
            lambda: swarm.look(restarted, "systemctl is-active swarmd"),
            "active",
        )
        swarm.wait(f"{restarted} is ready", 120, lambda: swarm.ready(first), swarm.names)
        swarm.wait("three copies of the service run", 60, lambda: len(swarm.running_on(first, "web")), 3)
    for client in clients:
        swarm.expect_at_most(f"failures of {client.url} lasted", client.bad_window_s(), 10)

    swarm.step("Containers are back as their restart policy says")
    swarm.wait(
        "always and unless-stopped run, what was stopped or has no policy does not",
        60,
        lambda: [name for name in swarm.containers(restarted) if not name.startswith("web.")],
        ["always", "unless"],
    )
    swarm.expect_containers("web")

    swarm.step("Nothing is left of the former life")
    running = len(swarm.containers(restarted))
    known = {task.id for task in swarm.tasks(first, "web", ended=True) if task.node == restarted}
    records = swarm.containers(restarted, ended=True)
    of_tasks = {name.rpartition(".")[2] for name in records if name.startswith("web.")}
    swarm.expect("containers of tasks that the swarm does not know", sorted(of_tasks - known), [])
    folders = swarm.look(restarted, "ls /var/lib/swarmctl/containers").split()
    swarm.expect(
        "each container has a folder, and no other is there", sorted(folders), sorted(records.values())
    )
    # Those that run have theirs mounted in their own namespaces only.
    mounts = "findmnt -rn -o TARGET | grep -c /var/lib/swarmctl/overlay"
    swarm.expect("root file systems mounted on the host", int(swarm.look(restarted, mounts) or 0), 0)
    groups = "find /sys/fs/cgroup/swarmctl -mindepth 1 -maxdepth 1 -type d | wc -l"
    swarm.expect("control groups", int(swarm.look(restarted, groups)), running)
    swarm.on(restarted, "ls /run/swarmctl/netns; ip -br link")
