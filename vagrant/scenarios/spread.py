"""Three copies of a service on three machines, reached by name over the overlay and by every machine's published port."""

from scenarios.swarm import Swarm

MACHINES = 3
NEEDS_SWARM = True
QUICK = True


def play(swarm: Swarm) -> None:
    first, *_ = swarm.names
    swarm.step("A service of three on a network across the machines")
    swarm.create_web()
    swarm.on(first, "swarmctl service ps web")

    swarm.step("The published port of every machine is answered by all copies in turn")
    for name in swarm.names:
        asked = swarm.on(
            name, f"for i in 1 2 3 4 5 6; do curl -sS -m 5 http://{swarm.address(name)}:8080/; done"
        )
        copies = {line.split()[2] for line in asked.splitlines()}
        swarm.expect(f"three copies answered on the port of {name}", len(copies), 3)

    swarm.step("Inside the network the service has a name: a container on each machine asks for it")
    swarm.on(
        first,
        "swarmctl service create --detach --name client --mode global --network front hello sleep 86400",
    )
    swarm.wait("a client runs on each machine", 60, lambda: swarm.running_on(first, "client"), swarm.names)
    for name in swarm.names:
        (container,) = swarm.containers(name, "client")
        # Not wget's own -T: Debian's static busybox crashes with it.
        ask = "for i in 1 2 3 4 5 6; do timeout 5 wget -q -O - http://web/; done"
        copies = {
            line.split()[4]
            for line in swarm.on(name, f"swarmctl exec {container} sh -c '{ask}'").splitlines()
        }
        swarm.expect(f"the client on {name} was answered from every machine", sorted(copies), swarm.names)

    swarm.step("Each copy is also reached alone, by the addresses behind tasks.web")
    (container,) = swarm.containers(first, "client")
    addresses = found(swarm.on(first, f"swarmctl exec {container} nslookup tasks.web"))
    swarm.expect("tasks.web has three addresses", len(addresses), 3)
    for address in sorted(addresses):
        swarm.on(first, f"swarmctl exec {container} timeout 5 wget -q -O - http://{address}/")

    swarm.step("Removed, the service leaves the port and the containers")
    swarm.on(first, "swarmctl service rm web client")
    swarm.wait(
        "no container is left on any machine",
        60,
        lambda: [swarm.api(name, "/containers/json?all=1") for name in swarm.names],
        [[[]]] * 3,
    )
    swarm.refused(first, f"curl -sS -m 5 http://{swarm.address(first)}:8080/", because="curl")


def found(said: str) -> set[str]:
    """The addresses of the overlay that nslookup tells."""
    return {word for word in said.split() if word.startswith("10.") and word.count(".") == 3}
