"""The same commands with `docker` and with `swarmctl`, on the same daemon: the same output, errors and exit codes.

What has to differ is made equal first: ids, times, the program's name, our hints. A line begins with `!` when it only
prepares (docker runs it). Lines that change something are not here twice: {} is another name for each client.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import SWARMCTL, Result, run
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

CONTAINERS = """
!run -d --name aa --label x=1 -p 8080:80 hello sleep 1000
!run --name cc hello true
!volume create v1 --label k=v
!network create n1 --label z=1
ps
ps -a
ps -aq --no-trunc
ps -a --no-trunc --size
ps -a --format json
ps -a --format "table {{.Names}}\\t{{.Ports}}\\t{{.RunningFor}}\\t{{.Label \\"x\\"}}\\t{{.State}}\\t{{.Size}}"
ps -n 1
images
images --no-trunc
images --digests
images --format json
history hello
history --no-trunc --format json hello
history -H=false hello
inspect aa
inspect --size aa
inspect aa nothere
inspect -f "{{json .Config.Cmd}} {{.State.Status}} {{len .Config.Cmd}} {{index .Config.Labels \\"x\\"}}" aa
inspect --type volume v1
inspect --type foo aa
image inspect hello
volume ls
volume ls --format json
volume ls --cluster
volume inspect v1
network ls
network ls --format json
network inspect n1
logs cc
port aa
port aa 80
port aa 81
top aa
diff cc
container foo
system df
system df --format json
exec aa sh -c "exit 3"
exec aa sh -c "echo out; echo err >&2"
run --rm hello sh -c "echo out; echo err >&2; exit 5"
create --name {} hello
rename {} {}x
start {}x
stop -t 0 {}x
rm -f {}x
tag hello {}:1
rmi {}:1
volume create {}
volume rm {}
network create {}net
network rm {}net
"""

ERRORS = """
ps -f foo
ps x
ps --foo
ps -n
inspect nothere
logs nothere
logs a b
port nothere
rename nothere x
rename aa
start nothere
stop nothere
kill nothere
pause nothere
restart nothere
rm nothere
rm -f nothere
rm
rmi nothere
rmi -f nothere
tag hello UPPER
tag hello
wait nothere
update nothere
update --memory 10m nothere
attach nothere
exec nothere true
exec aa nothere
commit nothere
cp aa:/nothere /tmp
cp aa cc
export nothere
import /nothere
load -i /nothere
volume inspect nothere
volume create -d foo x
network inspect nothere
network create --driver foo x
network connect nothere aa
run
run --foo x
run -e
run --rm nothere.invalid/x:1 true
run --name aa hello true
run --memory abc hello
run --memory 1k hello true
run --env-file /nothere hello true
run --rm --restart always hello true
run --restart=foo hello true
run --cpus abc hello
run --ulimit foo hello
run --device foo hello true
run --add-host foo hello true
run --health-interval 1 hello true
run --log-driver foo hello true
run --pull foo hello true
run -a foo hello true
run --cap-add FOO hello true
run -w relative --rm hello true
run --security-opt foo hello true
run --pid foo hello true
run --ipc foo hello true
run -e =x hello true
pull UPPER
pull
push nothere
events --since foo
foo
-l foo ps
-H unix:///nothere ps
-H unix:///nothere run x
logout
"""

SWARM = """
!swarm init
!service create -d --name web --replicas 0 -p 9000:80 --label k=v hello sleep 1000
!secret create s1 /etc/hostname
!config create c1 /etc/hostname
service ls
service ls --format json
service ls -f name=web
service ps nothere
service inspect -f "{{.Spec.Name}}" web
service inspect nothere
service logs nothere
service scale nothere=1
service update -d nothere
service rm nothere
service create
service create --limit-memory much hello
service create -d --name web hello
service create -d --secret nothere hello
service create -d --network nothere hello
service create -d --constraint foo hello
node ls
node inspect nothere
secret ls
secret ls --format json
secret inspect s1
secret inspect --pretty s1
secret create s1 /etc/hostname
secret create s2 /nothere
config ls
config ls --format json
config inspect --pretty c1
stack ls
stack deploy st
stack ps nothere
stack services nothere
stack rm nothere
stack config
swarm join-token worker
swarm join-token -q manager
swarm join-token foo
swarm join
swarm ca
swarm init
"""


@pytest.fixture(scope="module")
def daemon(host: HostDaemon, hello_archive: Path) -> Iterator[HostDaemon]:
    assert host.run("load", "-i", str(hello_archive)).code == 0
    yield host


class Clients:
    """Both, with settings of their own, so that nothing of the machine's is used."""

    def __init__(self, host: HostDaemon, folder: Path) -> None:
        found = shutil.which("docker")
        assert found, "no docker client: install docker-cli"
        self.programs = {"docker": found, "swarmctl": SWARMCTL}
        address = f"unix://{host.socket}"
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DOCKER")
        }
        self._environment |= {
            "DOCKER_HOST": address,
            "DOCKER_CONFIG": str(folder),
            "SWARMCTL_CONFIG": str(folder),
        }
        self._environment.pop("SWARMCTL_HOST", None)

    def ask(self, client: str, line: str) -> Result:
        words = [
            word.replace("{}", f"of-{client}") if "{{" not in word else word for word in shlex.split(line)
        ]
        return run([self.programs[client], *words], environment=self._environment)

    def differences(self, lines: str) -> list[str]:
        found = []
        for line in lines.strip().splitlines():
            if line.startswith("!"):
                done = self.ask("docker", line[1:])
                assert done.code == 0, f"{line}: {done.err}"
                continue
            theirs, ours = (plain(self.ask(client, line)) for client in ("docker", "swarmctl"))
            if theirs != ours:
                found.append(
                    "\n".join([line, *difflib.unified_diff(theirs, ours, "docker", "swarmctl", lineterm="")])
                )
        return found


# What differs between two runs, or is said in other words on purpose.
_SAME = (
    (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b|\b[0-9a-z]{25}\b", "ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"(\d+ seconds?|Less than a second|About a minute|\d+ minutes?)( ago)?", "AGO"),
    (r"of-(docker|swarmctl)", "NAME"),
    (r"\b\d{2,7}( +)\d{2,7}( +)\d+( +)\d\d:\d\d.*", "PROCESS"),
    ("swarmctl", "docker"),
    (" +", " "),
)


def plain(result: Result) -> list[str]:
    text = f"status {result.code}\n{result.out}\n--\n{result.err}"
    lines = (line for line in text.splitlines() if not line.startswith(("hint:", "time=")))
    joined = "\n".join(lines)
    for pattern, word in _SAME:
        joined = re.sub(pattern, word, joined)
    return joined.splitlines()


@pytest.fixture(scope="module")
def clients(daemon: HostDaemon, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(daemon, tmp_path_factory.mktemp("settings"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lines", [CONTAINERS, ERRORS, SWARM], ids=["containers", "errors", "swarm"])
def test_both_clients_say_the_same(clients: Clients, lines: str) -> None:
    found = clients.differences(lines)
    assert not found, "\n\n".join(found)
