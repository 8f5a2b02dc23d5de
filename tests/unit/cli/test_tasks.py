"""Tables of tasks and containers, log lines of services, and the picture of a converging service."""

from __future__ import annotations

import io
from typing import Any

import pytest

from cli.commands.container import container_row, ports_text
from cli.commands.stats import cpu_percent, stats_row
from cli.converge import Display, bar, picture
from cli.errors import ApiError
from cli.service_logs import copy_lines, split_line
from cli.tasks import Names, task_rows


class Api:
    """Answers GETs from a table; anything else is 404."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def get(self, path: str, query: Any = None) -> Any:
        self.asked.append(path)
        if path not in self.answers:
            raise ApiError(404, f"{path} not found")
        return self.answers[path]


API = {
    "/nodes/n1id": {"Spec": {}, "Description": {"Hostname": "n1"}},
    "/services/s": {"Spec": {"Name": "web"}},
}


def task(
    slot: int, state: str, *, created: str = "1", desired: str = "running", **status: str
) -> dict[str, Any]:
    return {
        "ID": f"task{slot}{created}".ljust(25, "x"),
        "ServiceID": "s",
        "Slot": slot,
        "NodeID": "n1id" if state != "pending" else "",
        "CreatedAt": f"2026-01-01T00:00:0{created}Z",
        "DesiredState": desired,
        "Status": {"State": state, "Timestamp": "2026-01-01T00:00:00Z", **status},
        "Spec": {"ContainerSpec": {"Image": "hello:1@sha256:00"}},
    }


def test_tasks_are_shown_newest_first_below_each_other() -> None:
    api = Api(API)
    tasks = [
        task(2, "running"),
        task(1, "failed", created="1", desired="shutdown", Err="task: non-zero exit (1) and a long tail"),
        task(1, "running", created="2"),
        task(3, "pending", Message="no suitable node (insufficient resources on 3 nodes)"),
    ]
    rows = task_rows(tasks, Names(api))  # type: ignore[arg-type]
    assert [row["Name"] for row in rows] == ["web.1", " \\_ web.1", "web.2", "web.3"]
    assert [row["Node"] for row in rows] == ["n1", "n1", "n1", ""]
    assert rows[1]["Error"] == '"task: non-zero exit (1) and a…"'
    assert rows[3]["Error"].startswith('"no suitable node')
    assert rows[0]["Image"] == "hello:1"
    assert rows[0]["DesiredState"] == "Running"
    assert rows[0]["CurrentState"].startswith("Running ")
    assert len(api.asked) == 2, "each name is asked for once"


def test_ids_of_things_that_are_gone_stay_ids() -> None:
    names = Names(Api({}))  # type: ignore[arg-type]
    assert (names.node("gone"), names.service("")) == ("gone", "")
    unresolved = Api(API)
    assert Names(unresolved, resolve=False).node("n1id") == "n1id"  # type: ignore[arg-type]
    assert unresolved.asked == []


def service(replicas: int | None, **fields: Any) -> dict[str, Any]:
    mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    return {"ID": "s", "Spec": {"Name": "web", "Mode": mode}, **fields}


def test_picture_shows_the_newest_task_of_each_slot_and_why_it_waits() -> None:
    tasks = [
        task(1, "running"),
        task(2, "failed", created="1", desired="shutdown", Err="exit 1"),
        task(2, "starting", created="2"),
        task(3, "pending", Message="no suitable node"),
    ]
    view = picture(service(3), tasks, {})
    assert [(slot.label, slot.state, slot.reason) for slot in view.slots] == [
        ("1/3", "running", ""),
        ("2/3", "starting", ""),
        ("3/3", "pending", "no suitable node"),
    ]
    assert (view.running, view.complete, view.failures) == (1, False, ("failed: exit 1",))


@pytest.mark.parametrize(
    ("state", "complete"),
    [("", True), ("completed", True), ("rollback_completed", True), ("updating", False), ("paused", False)],
)
def test_an_update_has_to_be_over(state: str, complete: bool) -> None:
    status = {"UpdateStatus": {"State": state}} if state else {}
    assert picture(service(1, **status), [task(1, "running")], {}).complete is complete


def test_global_services_are_shown_by_node() -> None:
    tasks = [task(0, "running") | {"NodeID": "n1id"}, task(0, "ready") | {"NodeID": "n2id"}]
    view = picture(service(None), tasks, {"n1id": "n1"})
    assert {slot.label for slot in view.slots} == {"n1", "n2id"}
    assert (view.desired, view.running) == (2, 1)


def test_lines_are_printed_when_they_change() -> None:
    out = io.StringIO()
    display = Display(out)
    display.draw(picture(service(1), [task(1, "pending", Message="no suitable node")], {}))
    display.draw(picture(service(1), [task(1, "pending", Message="no suitable node")], {}))
    display.draw(picture(service(1), [task(1, "running")], {}))
    display.note("Service web converged")
    assert out.getvalue() == (
        "overall progress: 0 out of 1 tasks\n1/1: pending   no suitable node\n"
        "overall progress: 1 out of 1 tasks\n1/1: running\nverify: Service web converged\n"
    )


def test_a_terminal_is_redrawn_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    display = Display(out)
    display.draw(picture(service(1), [task(1, "starting")], {}))
    display.draw(picture(service(1), [task(1, "running")], {}))
    assert "\x1b[2A" in out.getvalue()
    assert f"running   {bar('running')}" in out.getvalue()
    assert bar("running") == f"[{'=' * 50}>]"
    assert bar("new").count("=") == 6


DETAILS = (
    "com.docker.swarm.node.id=n1id,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t1,extra=a%20b"
)


def test_log_lines_with_details() -> None:
    stamp, details, message = split_line(
        f"2026-01-01T00:00:00Z {DETAILS} hello=1 x\n".encode(), timestamps=True
    )
    assert (stamp, message) == (b"2026-01-01T00:00:00Z ", b"hello=1 x\n")
    assert details["extra"] == "a b"
    assert split_line(b"no details here\n", timestamps=False) == (b"", {}, b"no details here\n")


def test_log_lines_are_labelled_per_stream(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def frame(stream: int, text: str) -> bytes:
        return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text.encode()

    blocks = [frame(1, f"{DETAILS} one\n{DETAILS} t"), frame(2, f"{DETAILS} bad\n"), frame(1, "wo\n")]
    copy_lines(
        blocks, lambda details: f"{details['com.docker.swarm.task.id']} | ", timestamps=False, details=False
    )
    captured = capfdbinary.readouterr()
    assert (captured.out, captured.err) == (b"t1 | one\nt1 | two\n", b"t1 | bad\n")


def test_ports_are_joined_to_ranges() -> None:
    def port(private: int, public: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
        return {
            "PrivatePort": private,
            "Type": kind,
            **({"PublicPort": public, "IP": address} if public else {}),
        }

    assert ports_text(
        [port(81, 8081, "0.0.0.0"), port(80, 8080, "0.0.0.0"), port(443), port(53, 53, "::1", "udp")]
    ) == ("443/tcp, 0.0.0.0:8080-8081->80-81/tcp, [::1]:53->53/udp")


def test_container_rows() -> None:
    row = container_row(
        {
            "Id": "0123456789abcdef",
            "Names": ["/web", "/other/link"],
            "Image": "sha256:fedcba98765432100000",
            "Command": "sh -c 'a rather long command'",
            "Created": 0,
            "Status": "Up 2 hours",
            "State": "running",
            "Labels": {"a": "1"},
        }
    )
    assert (row["ID"], row["Names"], row["Image"]) == ("0123456789ab", "web", "fedcba987654")
    assert row["Command"] == '"sh -c \'a rather lon…"'
    assert row["Ports"] == ""


def test_stats() -> None:
    sample = {
        "id": "0123456789abcdef",
        "name": "/web",
        "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        "memory_stats": {"usage": 3 << 20, "limit": 4 << 20, "stats": {"total_inactive_file": 1 << 20}},
        "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2500}},
        "blkio_stats": {
            "io_service_bytes_recursive": [{"op": "Read", "value": 7}, {"op": "write", "value": 9}]
        },
        "pids_stats": {"current": 3},
    }
    row = stats_row(sample)
    assert cpu_percent(sample) == 40.0
    assert (row["CPUPerc"], row["MemUsage"], row["MemPerc"]) == ("40.00%", "2MiB / 4MiB", "50.00%")
    assert (row["NetIO"], row["BlockIO"], row["PIDs"], row["Name"]) == ("1kB / 2.5kB", "7B / 9B", "3", "web")
