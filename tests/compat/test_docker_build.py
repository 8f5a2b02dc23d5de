"""Builds and commits as clients ask for them: the docker CLI without BuildKit, the docker SDK, and swarmctl."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest

from tests.clients import Cli
from tests.commands import PATIENCE, SWARMCTL
from tests.conftest import HostDaemon
from tests.images import tar_of

pytestmark = pytest.mark.root

APP = """\
ARG BASE=hello
FROM ${BASE} AS made
ARG WHO=world
ENV GREETING="hello ${WHO:-nobody}"
WORKDIR /srv/app
RUN echo "$GREETING" > said
COPY part*.txt sub/ ./
FROM hello
COPY --from=made --chown=7:8 /srv/app /app/
LABEL of=$NOTHING
CMD ["cat", "/app/said"]
"""


class DockerBuild(Cli):
    def __init__(self, host: HostDaemon) -> None:
        super().__init__(host.socket, DOCKER_BUILDKIT="0")


@pytest.fixture
def client(host: HostDaemon) -> DockerBuild:
    return DockerBuild(host)


@pytest.fixture
def api(host: HostDaemon) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(base_url=f"unix://{host.socket}", version="auto")) as api:
        yield api


def context(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def cached_steps(out: str) -> list[bool]:
    """Of each step that could come from the cache, whether it did."""
    steps = [part for part in out.split("Step ")[1:] if " : FROM" not in part and "ARG BASE" not in part]
    return ["Using cache" in part for part in steps]


def test_two_stages_and_their_cache(client: DockerBuild, tmp_path: Path) -> None:
    where = context(tmp_path, {"Dockerfile": APP, "part1.txt": "1", "part2.txt": "2", "sub/in": "3"})
    arguments = ("--build-arg", "WHO=you", "--build-arg", "ODD=1", "-t", "app:1", "-t", "app:2", where)
    out = client.ok("build", *arguments)
    assert out.index("Step 1/11 : ARG BASE=hello\n") < out.index("Step 11/11 : CMD")
    assert " ---> Running in " in out and " ---> Removed intermediate container " in out
    assert "[Warning] One or more build-args [ODD] were not consumed\n" in out
    assert "Successfully built " in out and "Successfully tagged app:1\nSuccessfully tagged app:2\n" in out
    assert not any(cached_steps(out))
    assert client.ok("run", "--rm", "app:1") == "hello you\n"
    listed = client.ok("run", "--rm", "app:1", "ls", "-ln", "/app").split("\n")[1:]
    assert [(line.split()[2], line.split()[3], line.split()[-1]) for line in listed if line] == [
        ("7", "8", name) for name in ("in", "part1.txt", "part2.txt", "said")
    ]
    os.utime(tmp_path / "part1.txt", (1, 1))
    assert all(cached_steps(client.ok("build", *arguments)))
    (tmp_path / "part1.txt").write_text("changed")
    assert cached_steps(client.ok("build", *arguments)) == [True] * 4 + [False] * 4
    other = ("build", "--build-arg", "WHO=else", where)
    assert cached_steps(client.ok(*other))[:3] == [True, False, False]
    assert not any(cached_steps(client.ok("build", "--no-cache", *arguments)))
    assert "<none>" in client.ok("images", "-a")
    client.ok("rmi", "-f", "app:1", "app:2")


def test_cache_from_an_image_that_came_from_elsewhere(client: DockerBuild, tmp_path: Path) -> None:
    dockerfile = "FROM hello\nARG A\nRUN echo $A > /a\nENV B=1\nCOPY f /\nCMD cat /a /f\n"
    where = context(tmp_path / "context", {"Dockerfile": dockerfile, "f": "f"})
    client.ok("build", "-t", "far:1", "--build-arg", "A=a", where)
    client.ok("save", "-o", str(tmp_path / "far.tar"), "far:1")
    client.ok("rmi", "far:1")
    client.ok("load", "-i", str(tmp_path / "far.tar"))
    assert not any(cached_steps(client.ok("build", "--build-arg", "A=b", "--cache-from", "nosuch", where)))
    again = ("build", "-t", "far:2", "--build-arg", "A=a", "--cache-from", "far:1", where)
    assert cached_steps(client.ok(*again)) == [True] * 5
    assert client.ok("run", "--rm", "far:2") == "a\nf"
    (tmp_path / "context/f").write_text("F")
    assert cached_steps(client.ok(*again)) == [True, True, True, False, False]
    client.ok("rmi", "far:1", "far:2")


def test_steps_go_with_the_image_that_needs_them(client: DockerBuild) -> None:
    client.ok("build", "-t", "steps", "-", text="FROM hello\nENV A=1\nENV B=2\nRUN touch /made\n")
    steps = client.ok("history", "-q", "--no-trunc", "steps").split()[:3]
    assert set(steps) <= set(client.ok("images", "-aq", "--no-trunc").split())
    assert set(steps) & set(client.ok("images", "-q", "--no-trunc").split()) == {steps[0]}
    parent = json.loads(client.ok("inspect", "steps"))[0]["Parent"]
    refused = client.run("rmi", parent)
    assert refused.code == 1 and "image has dependent child images" in refused.err
    assert client.ok("rmi", "steps").count("Deleted: ") == 4  # three steps, and the layer of RUN
    assert client.run("inspect", parent).code == 1
    assert "hello" in client.ok("images")


def test_a_failed_command(client: DockerBuild, api: docker.APIClient) -> None:
    text = "FROM hello\nRUN echo before; exit 7\n"
    failed = client.run("build", "--force-rm", "-", text=text)
    assert failed.code == 7
    assert failed.err.endswith("The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7\n")
    assert "before\n" in failed.out
    *_, last = api.build(fileobj=io.BytesIO(text.encode()), decode=True, forcerm=True)
    words = "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7"
    assert last == {"errorDetail": {"code": 7, "message": words}, "error": words}
    assert client.ok("ps", "-aq") == ""
    assert client.run("build", "-", text=text).code == 7
    assert "Exited (7)" in client.ok("ps", "-a")  # kept, for somebody to look into
    client.ok("rm", client.ok("ps", "-aq").strip())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM hello\nFOO x", "dockerfile parse error line 2: unknown instruction: FOO"),
        ("FROM hello\nRUN --mount=type=cache,target=/x y", "the --mount option requires BuildKit"),
        ("FROM hello\nRUN <<EOF\ntrue\nEOF", "requires BuildKit"),
        (
            "FROM hello\nCOPY nosuch /",
            "COPY failed: file not found in build context or excluded by .dockerignore",
        ),
        ("FROM hello\nCOPY ../x /", "forbidden path outside the build context"),
        ("FROM hello\nCOPY --from=5 a b", "invalid from flag value 5"),
        ("FROM 127.0.0.1:1/nosuch:1", "pull access denied|refused"),
        ("FROM ${NOTHING}", "should not be blank"),
        ("FROM --platform=windows/amd64 hello", "operating system is not supported"),
        ("FROM hello\nEXPOSE http", "invalid containerPort"),
    ],
)
def test_what_cannot_be_built(client: DockerBuild, text: str, words: str) -> None:
    result = client.run("build", "-", text=text)
    assert result.code == 1 and re.search(words, result.err), result.err
    assert client.ok("ps", "-aq") == ""


def test_limits_network_and_hosts_of_run(client: DockerBuild) -> None:
    text = (
        "FROM hello\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; "
        "ulimit -n; cat /etc/hosts; ls /sys/class/net | wc -l; df -k /dev/shm; echo $http_proxy\n"
    )
    flags = ("-m", "64m", "--ulimit", "nofile=99:99", "--network", "none", "--add-host", "db:10.9.8.7")
    more = ("--shm-size", "1m", "--build-arg", "http_proxy=http://proxy:1")
    out = client.ok("build", "--no-cache", *flags, *more, "-", text=text)
    assert "67108864\n" in out and "\n99\n" in out and "10.9.8.7\tdb" in out and "\n1\n" in out
    assert "1024" in out and "http://proxy:1" in out
    assert "proxy:1" not in client.ok("history", "--no-trunc", out.split()[-1])


def test_triggers_labels_and_configuration(client: DockerBuild, tmp_path: Path) -> None:
    client.ok("build", "-t", "trigger", "-", text="FROM hello\nONBUILD ENV T=1\nONBUILD COPY f /f\nUSER 5\n")
    dockerfile = (
        'FROM trigger\nUSER 0\nSHELL ["/bin/sh", "-ec"]\nHEALTHCHECK --retries=2 CMD true\n'
        "ENTRYPOINT x\nVOLUME /v\nSTOPSIGNAL 9\n"
    )
    where = context(tmp_path / "context", {"f": "f"})
    (tmp_path / "Elsewhere").write_text(dockerfile)
    out = client.ok("build", "-t", "on", "-f", str(tmp_path / "Elsewhere"), "--label", "l=it's $X", where)
    assert "# Executing 2 build triggers\n" in out and "Step 8/8 : LABEL l=it's $X\n" in out
    config = json.loads(client.ok("inspect", "on"))[0]["Config"]
    assert "T=1" in config["Env"] and config["Labels"] == {"l": "it's $X"} and "OnBuild" not in config
    assert (config["Entrypoint"], config.get("Cmd")) == (["/bin/sh", "-ec", "x"], None)
    assert config["Volumes"] == {"/v": {}} and config["StopSignal"] == "9"
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Retries": 2}
    assert client.ok("run", "--rm", "--entrypoint", "ls", "on", "/f").strip() == "/f"
    client.ok("rmi", "on", "trigger")


def test_archives_links_and_urls(client: DockerBuild, host: HostDaemon, tmp_path: Path) -> None:
    where = context(tmp_path, {"plain.tar": "no archive", "file": "content\n", "Dockerfile": ""})
    for name, mode in (("a.tgz", "w:gz"), ("b.txz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(tmp_path / "file", f"from-{name}")
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "Dockerfile").write_text(
        "FROM hello\nRUN mkdir /real && ln -s /real /link\nADD a.tgz b.txz plain.tar /link/\nCOPY --chmod=705 file /link\n"
        "ADD http://127.0.0.1:8099/file /got/\nRUN ls -l /real /got; rm -r /real; mkdir /real; ls /real | wc -l\n"
    )
    (tmp_path / ".dockerignore").write_text("out\n")
    (tmp_path / "Only").write_text("FROM hello\nENV A=1\n")
    serve = ["-m", "http.server", "8099", "--bind", "127.0.0.1", "--directory", where]
    python = str(Path(SWARMCTL).parent / "python")
    server = subprocess.Popen([*host.namespaces, python, *serve], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10 * PATIENCE
        while host.inside(python, "-c", "import socket; socket.create_connection(('127.0.0.1', 8099))").code:
            assert time.monotonic() < deadline, "the web server does not come up"
        out = client.ok("build", "-t", "adds", where)
        assert all(name in out for name in ("from-a.tgz", "from-b.txz", "plain.tar", "-rwx---r-x", "\n0\n"))
        assert "-rw-------" in out.split("/got:")[1].split("\n")[2]
        assert client.ok("run", "--rm", "adds", "ls", "/real") == ""  # emptied, in the layer above as well
        bare = host.run("build", "http://127.0.0.1:8099/Only")
        assert bare.code == 0 and "Successfully built" in bare.out, bare.err
        packed = host.run("build", "-f", "from-a.tgz", "http://127.0.0.1:8099/a.tgz")
        assert "dockerfile parse error line 1: unknown instruction: CONTENT" in packed.err
        missing = client.run("build", "-", text="FROM hello\nADD http://127.0.0.1:8099/nosuch /x\n")
        assert missing.code == 1 and "ADD failed: failed to GET" in missing.err and "404" in missing.err
    finally:
        server.terminate()
        server.wait(10)
    (tmp_path / "Dockerfile").write_text("FROM hello\nCOPY out /x\n")
    (tmp_path / ".dockerignore").unlink()
    assert "file does not exist" in client.run("build", where).err  # not the host's /etc/passwd
    client.ok("rmi", "adds")


def test_contexts_from_git(api: docker.APIClient, host: HostDaemon, tmp_path: Path) -> None:
    git = shutil.which("git")
    assert git, "git is missing: install the package git"
    where = context(
        tmp_path / "r.git",
        {"d/Dockerfile": "FROM hello\nCOPY . /c\nRUN ls -a /c\n", "d/x": "", "d/.dockerignore": "x"},
    )
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (
        ("init", "-q", "-b", "trunk"),
        ("add", "."),
        (*author, "commit", "-qm", "x"),
        ("update-server-info",),
    ):
        subprocess.run([git, *words], cwd=where, env=environment, check=True)
    serve = [
        git,
        "daemon",
        "--reuseaddr",
        "--listen=127.0.0.1",
        "--port=9419",
        "--export-all",
        f"--base-path={tmp_path}",
    ]
    server = subprocess.Popen([*host.namespaces, *serve], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 10 * PATIENCE
        while host.inside(git, "ls-remote", "git://127.0.0.1:9419/r.git").code:
            assert time.monotonic() < deadline, "git daemon does not come up"
        query = "remote=git://127.0.0.1:9419/r.git%23trunk:d&forcerm=1"
        answer = api.post(f"{api.base_url}/v1.45/build?{query}").text
        assert "Successfully built" in answer and "Dockerfile" in answer and '"x\\n"' not in answer, answer
        query = "remote=git://127.0.0.1:9419/r.git%23nosuch"
        answer = api.post(f"{api.base_url}/v1.45/build?{query}")
        assert answer.status_code == 400 and "git fetch failed" in answer.json()["message"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)


def test_the_sdk_builds(host: HostDaemon, tmp_path: Path) -> None:
    sdk = docker.DockerClient(base_url=f"unix://{host.socket}", version="auto")
    try:
        where = context(
            tmp_path,
            {
                "Dockerfile": "FROM hello\nARG A\nRUN echo $A > /a\nCOPY f /\n",
                "f": "f",
                "g": "g",
                ".dockerignore": "g",
            },
        )
        image, log = sdk.images.build(
            path=where, tag="sdk:1", buildargs={"A": "b"}, rm=True, labels={"x": "y"}
        )
        assert image.labels == {"x": "y"} and any("Step 1/5 : FROM hello" in m.get("stream", "") for m in log)
        assert any(
            m.get("aux") == {"ID": image.id}
            for m in sdk.api.build(path=where, decode=True, buildargs={"A": "b"}, rm=True, labels={"x": "y"})
        )
        assert sdk.containers.run("sdk:1", ["cat", "/a"], remove=True) == b"b\n"
        with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 3"):
            sdk.images.build(fileobj=io.BytesIO(b"FROM hello\nRUN exit 3"), forcerm=True)
        container = sdk.containers.create("sdk:1", ["sh", "-c", "rm /a; echo new > /new"])
        container.start()
        container.wait()
        made = container.commit(
            "committed", "1", message="m", author="me", changes="ENV X=1", conf={"Cmd": ["cat", "/new"]}
        )
        container.remove()
        assert (made.attrs["Author"], made.attrs["Comment"]) == ("me", "m") and "X=1" in made.attrs["Config"][
            "Env"
        ]
        assert sdk.containers.run("committed:1", remove=True) == b"new\n"
        assert b"a\n" not in sdk.containers.run("committed:1", ["ls", "/"], remove=True).splitlines(
            keepends=True
        )
        sdk.images.remove("committed:1")
        sdk.images.remove("sdk:1")
    finally:
        sdk.close()


def test_a_running_container_is_committed_at_rest(client: DockerBuild, host: HostDaemon) -> None:
    client.ok("run", "-d", "--name", "runs", "hello", "sh", "-c", "echo x > /x; sleep 1000")
    try:
        deadline = time.monotonic() + 10 * PATIENCE
        while client.run("exec", "runs", "cat", "/x").out != "x\n":
            assert time.monotonic() < deadline
        host.ok("commit", "-m", "words", "-c", 'CMD ["cat", "/x"]', "runs", "rest:1")
        assert client.ok("inspect", "-f", "{{.State.Status}}", "runs") == "running\n"
        assert client.ok("run", "--rm", "rest:1") == "x\n"
        assert "words" in client.ok("history", "rest:1")
        client.ok("pause", "runs")
        client.ok("commit", "runs", "rest:2")
        assert client.ok("inspect", "-f", "{{.State.Status}}", "runs") == "paused\n"
        client.ok("rmi", "rest:1", "rest:2")
        assert "invalid reference" in client.run("commit", "runs", "rest:a:b").err
    finally:
        client.run("rm", "-f", "runs")


def test_swarmctl_builds(host: HostDaemon, tmp_path: Path) -> None:
    where = context(
        tmp_path,
        {
            "Dockerfile": "FROM hello\nCOPY . /c\nRUN ls -a /c\n",
            "in": "",
            "out/x": "",
            ".dockerignore": "out\nDockerfile\n",
        },
    )
    shown = host.ok("build", "--no-cache", "-t", "ours:1", "--iidfile", str(tmp_path / "id"), where)
    assert "in\n" in shown and "Successfully tagged ours:1" in shown
    assert "out\n" not in shown.split("Running in")[1] and "Dockerfile\n" not in shown.split("Running in")[1]
    assert (tmp_path / "id").read_text() == json.loads(host.ok("image", "inspect", "ours:1"))[0]["Id"]
    assert host.ok("image", "build", "-q", where).startswith("sha256:")
    failed = host.run("build", "--force-rm", "-", text="FROM hello\nRUN exit 4")
    assert (failed.code, "returned a non-zero code: 4" in failed.err) == (4, True)
    assert "Total:" in host.ok("builder", "prune", "-f")
    host.ok("rmi", "ours:1")


def test_buildkit_is_shown_the_way_out(api: docker.APIClient) -> None:
    for path in ("/build?version=2", "/session"):
        answer = api.post(f"{api.base_url}/v1.45{path}")
        assert answer.status_code == 501 and "DOCKER_BUILDKIT=0" in answer.json()["message"]
    for query, words in (
        ("squash=1", "squash is only supported"),
        ("outputs=[{}]", "require BuildKit"),
        ("t=A", "lowercase"),
    ):
        answer = api.post(f"{api.base_url}/v1.45/build?{query}", data=tar_of({"Dockerfile": b"FROM hello"}))
        assert answer.status_code == 400 and words in answer.json()["message"]
    assert api.df()["BuildCache"] == []


def leftovers(host: HostDaemon) -> list[str]:
    folders = ("builds", "tmp", "overlay/containers", "overlay/tmp", "volumes")
    found = [
        str(path) for name in folders if (host.root / name).is_dir() for path in (host.root / name).iterdir()
    ]
    return [path for path in found if not path.endswith(("metadata.db", ".json"))]


def test_nothing_is_left_of_a_build_that_was_cut_off(
    host: HostDaemon, client: DockerBuild, tmp_path: Path
) -> None:
    where = context(tmp_path, {"Dockerfile": "FROM hello\nVOLUME /v\nRUN echo begun; sleep 1000\n"})
    before = leftovers(host)

    def begun() -> subprocess.Popen[bytes]:
        command = [str(client.client), "build", where]
        building = subprocess.Popen(
            command, env=client.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert building.stdout is not None
        while b"begun" not in (line := building.stdout.readline()) or b"Step" in line:
            assert line, "the build ended"
        return building

    building = begun()
    assert len(client.ok("ps", "-q").split()) == 1
    building.terminate()
    building.wait(10 * PATIENCE)
    deadline = time.monotonic() + 10 * PATIENCE
    while client.ok("ps", "-aq") or leftovers(host) != before:
        assert time.monotonic() < deadline, f"left: {client.ok('ps', '-a')} {leftovers(host)}"
        time.sleep(0.1)
    building = begun()
    host.stop(signal.SIGKILL)  # the container runs on, without its build
    building.wait(10 * PATIENCE)
    host.start()
    assert client.ok("ps", "-aq") == ""
    assert leftovers(host) == before
