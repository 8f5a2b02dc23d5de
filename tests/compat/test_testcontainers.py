"""Testcontainers for Python, as the tests of its users run it: programs of their own beside the daemon.

Its reaper is off: that is an image of its own, which no registry here has.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from tests.clients import Target
from tests.commands import run
from tests.compose_projects import compose_2

pytestmark = pytest.mark.root

BEGINNING = """
from pathlib import Path
from urllib.request import urlopen
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import *
from testcontainers.compose import DockerCompose
"""


def program(target: Target, folder: Path, text: str) -> None:
    """Must succeed and leave no container; its working directory is `folder`."""
    file = folder / "program.py"
    file.write_text(
        f"import os\nos.chdir({str(folder)!r})\n{textwrap.dedent(BEGINNING)}{textwrap.dedent(text)}"
    )
    plugins = folder / "config/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(compose_2())
    environment = os.environ | {
        "DOCKER_HOST": target.url,
        "DOCKER_CONFIG": str(folder / "config"),
        "PATH": f"{target.docker.client.parent}:{os.environ['PATH']}",
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TC_POOLING_INTERVAL": "0.1",
    }
    done = run([*target.namespaces, sys.executable, "-W", "ignore", str(file)], environment=environment)
    assert done.code == 0, done.err[-3000:] + done.out[-1000:]
    left = target.docker.ok("ps", "-aq", "--filter", "label=org.testcontainers=true")
    assert left == ""


def test_a_service_with_a_port_is_waited_for_by_its_log_and_by_http(target: Target, tmp_path: Path) -> None:
    program(target, tmp_path, """
        container = DockerContainer("hello").with_exposed_ports(80).with_env("TASK_NAME", "tc")
        container.waiting_for(LogMessageWaitStrategy("hello listens on port 80"))
        with container as web:
            url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
            HttpWaitStrategy(80).for_status_code(200).wait_until_ready(web)
            assert urlopen(url).read().startswith(b"hello from tc "), url
            PortWaitStrategy(80).wait_until_ready(web)
            assert web.exec("sh -c 'echo in; exit 3'") == (3, b"in\\n")
            out, err = web.get_logs()
            assert b"listens" in out and err == b"", (out, err)
            assert web.get_container_info().State.Running
            assert web.status == "running"
    """)  # fmt: skip


def test_containers_on_a_network_know_their_aliases(target: Target, tmp_path: Path) -> None:
    program(target, tmp_path, """
        with Network() as network:
            web = DockerContainer("hello").with_network(network).with_network_aliases("web", "page")
            with web, DockerContainer("hello").with_network(network).with_command("sleep 1000") as other:
                other.waiting_for(ContainerStatusWaitStrategy())
                for name in ("web", "page"):
                    code, out = other.exec(f"sh -c 'until wget -q -O - http://{name}/; do sleep 0.1; done'")
                    assert code == 0 and out.startswith(b"hello from "), out
                other.get_wrapped_container().kill()
                web.get_wrapped_container().kill()
    """)  # fmt: skip


def test_files_go_in_and_out(target: Target, tmp_path: Path) -> None:
    program(target, tmp_path, """
        Path("data").mkdir()
        Path("data/given").write_text("from the host")
        box = DockerContainer("hello").with_command("sleep 1000").with_volume_mapping(Path("data").absolute(), "/data", "rw")
        box.with_copy_into_container(b"early", "/early", 0o600).with_tmpfs_mount("/scratch", "size=1m")
        box.with_kwargs(stop_signal="SIGKILL")
        with box:
            assert box.exec(["cat", "/data/given", "/early"]) == (0, b"from the hostearly")
            assert box.exec("stat -c %a /early")[1] == b"600\\n"
            box.exec(["sh", "-c", "echo written > /data/back; echo made > /made; touch /scratch/x"])
            assert Path("data/back").read_text() == "written\\n"
            box.copy_into_container(Path("data/given"), "/late")
            assert box.exec("cat /late")[1] == b"from the host"
            box.copy_from_container("/made", Path("made"))
            assert Path("made").read_text() == "made\\n"
            FileExistsWaitStrategy("data/back").wait_until_ready(box)
    """)  # fmt: skip


def test_health_and_end_are_waited_for(target: Target, tmp_path: Path) -> None:
    program(target, tmp_path, """
        check = {"test": ["CMD", "true"], "interval": 200_000_000}
        well = DockerContainer("hello").with_kwargs(healthcheck=check).waiting_for(HealthcheckWaitStrategy())
        with well:
            assert well.get_wrapped_container().attrs
        over = DockerContainer("hello").with_command("sh -c 'echo work; exit 4'")
        with over:
            assert over.wait() == 4
    """)  # fmt: skip


def test_an_image_is_built_for_the_test(target: Target, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM hello\nRUN echo built > /said\nCMD cat /said\n")
    program(target, tmp_path, """
        with DockerImage(path=".", tag="of-a-test:1") as image:
            with DockerContainer(str(image)).waiting_for(LogMessageWaitStrategy("built")) as made:
                assert made.get_logs()[0] == b"built\\n"
    """)  # fmt: skip


def test_a_compose_project_is_the_environment_of_a_test(target: Target, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: hello, ports: ['8093:80']}}\n")
    program(target, tmp_path, """
        with DockerCompose(".", compose_file_name="compose.yaml", wait=True) as compose:
            host, port = compose.get_service_host_and_port("web", 80)
            compose.wait_for(f"http://{host}:{port}/")
            assert "listens" in compose.get_logs()[0]
            assert compose.exec_in_container(["echo", "in"], "web")[0] == "in\\n"
    """)  # fmt: skip
