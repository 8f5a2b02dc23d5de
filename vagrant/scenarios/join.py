"""Three managers and two workers become a swarm with tokens; a wrong token is refused."""

from scenarios.swarm import Swarm

MACHINES = 5
NEEDS_SWARM = False
QUICK = False


def play(swarm: Swarm) -> None:
    first = swarm.names[0]
    swarm.step("The daemon is started on every machine")
    swarm.on_all("systemctl enable --now swarmd")

    swarm.step(f"{first} founds the swarm")
    swarm.on(first, f"swarmctl swarm init --advertise-addr {swarm.address(first)}")

    swarm.step(
        "A machine with a wrong token stays outside: the token's secret is wrong, then the swarm's fingerprint"
    )
    token = swarm.on(first, "swarmctl swarm join-token -q worker")
    secret_wrong = token[:-4] + ("0000" if token[-4:] != "0000" else "1111")
    join = f"swarmctl swarm join {swarm.address(first)}:2377 --token"
    last = swarm.names[-1]
    swarm.refused(last, f"{join} {secret_wrong}", because="token")
    head, fingerprint, secret = token.rsplit("-", 2)
    swarm.refused(last, f"{join} {head}-{fingerprint[::-1]}-{secret}", because="fingerprint")
    swarm.expect("no other machine is in the swarm", sorted(swarm.nodes(first)), [first])

    swarm.step("Two more managers join, all others as workers")
    manager_token = swarm.on(first, "swarmctl swarm join-token -q manager")
    for name in swarm.names[1:3]:
        swarm.on(name, f"{join} {manager_token}")
    for name in swarm.names[3:]:
        swarm.on(name, f"{join} {token}")
    swarm.wait("every machine is ready", 60, lambda: swarm.ready(first), swarm.names)
    swarm.on(first, "swarmctl node ls")

    swarm.step("Every manager knows the same, and a worker refuses to manage")
    for name in swarm.names[1:3]:
        swarm.expect(f"{name} sees every machine ready", swarm.ready(name), swarm.names)
    for name in swarm.names[3:]:
        swarm.refused(name, "swarmctl node ls", because="manager")
