"""Waiting until a service is as its spec says, showing how far it is and why each waiting task waits.

The picture is made from plain API answers by `picture` (pure); `follow` asks, draws and decides when to stop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from cli.client import Client
from cli.errors import ApiError, CliError, SilentExit
from cli.urls import quote

_STEPS = (
    "new",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
)
_BAR_WIDTH = 50
_LINES_MAX = 20
_DEFAULT_MONITOR_NS = 5_000_000_000
_POLL_FIRST_SECONDS, _POLL_MAX_SECONDS = 0.03, 0.25
_UNAVAILABLE = 503
# For so long the swarm may be without a leader before the wait is given up.
_LEADERLESS_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class SlotView:
    """One slot: `state` of its newest task, and the reason why it is not running (or empty)."""

    label: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Picture:
    desired: int
    slots: tuple[SlotView, ...]
    update_state: str = ""
    update_message: str = ""
    failures: tuple[str, ...] = field(default=())

    @property
    def running(self) -> int:
        return sum(slot.state == "running" for slot in self.slots)

    @property
    def complete(self) -> bool:
        return self.running >= self.desired and self.update_state in ("", "completed", "rollback_completed")


def picture(service: dict[str, Any], tasks: list[dict[str, Any]], nodes: dict[str, str]) -> Picture:
    """`tasks` are the service's tasks made from its current spec; `nodes` maps node ids to host names."""
    mode = service["Spec"].get("Mode") or {}
    replicas = (mode.get("Replicated") or {}).get("Replicas")
    newest: dict[Any, dict[str, Any]] = {}
    for task in sorted(tasks, key=lambda task: task.get("CreatedAt", "")):
        if task.get("DesiredState") in ("running", "ready"):
            newest[task.get("Slot") or task.get("NodeID")] = task
    desired = len(newest) if replicas is None else replicas
    slots = tuple(
        _slot_view(key, task, desired, nodes)
        for key, task in sorted(newest.items(), key=lambda item: str(item[0]).zfill(9))
    )
    status = service.get("UpdateStatus") or {}
    return Picture(desired, slots, status.get("State", ""), status.get("Message", ""), _failures(tasks))


def _slot_view(key: Any, task: dict[str, Any], desired: int, nodes: dict[str, str]) -> SlotView:
    status = task["Status"]
    state = status["State"]
    label = f"{key}/{desired}" if isinstance(key, int) else nodes.get(key, str(key)[:12])
    reason = ""
    if state != "running":
        reason = status.get("Err") or (status.get("Message", "") if state in ("new", "pending") else "")
    return SlotView(label, state, reason)


def _failures(tasks: list[dict[str, Any]]) -> tuple[str, ...]:
    """Errors of tasks that ended badly, newest last: what a restarting service suffers from."""
    ended = [task for task in tasks if task["Status"]["State"] in ("failed", "rejected")]
    ended.sort(key=lambda task: task["Status"].get("Timestamp", ""))
    return tuple(
        f"{task['Status']['State']}: {task['Status'].get('Err') or task['Status'].get('Message', '')}"
        for task in ended
    )


def bar(state: str) -> str:
    """[=====>    ] with the share of the way to running."""
    done = _STEPS.index(state) + 1 if state in _STEPS else 0
    filled = _BAR_WIDTH * done // len(_STEPS)
    return f"[{'=' * filled}>{' ' * (_BAR_WIDTH - filled)}]"


class Display:
    """On a terminal the lines are redrawn in place; elsewhere a line is printed whenever it changes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._drawn = 0
        self._said: dict[str, str] = {}

    def draw(self, view: Picture) -> None:
        lines = {"overall progress": f"{view.running} out of {view.desired} tasks"}
        shown = (
            view.slots
            if len(view.slots) <= _LINES_MAX
            else tuple(s for s in view.slots if s.reason)[:_LINES_MAX]
        )
        for slot in shown:
            detail = slot.reason or (bar(slot.state) if self._live else "")
            lines[slot.label] = f"{slot.state:<9} {detail}".rstrip()
        if view.failures and not view.complete:
            lines["last failure"] = view.failures[-1]
        self._show(lines)

    def note(self, text: str) -> None:
        self._show({**({} if not self._live else self._said), "verify": text})

    def _show(self, lines: dict[str, str]) -> None:
        if self._live:
            self._out.write(f"\x1b[{self._drawn}A" if self._drawn else "")
            self._out.write("".join(f"\x1b[2K\r{label}: {text}\n" for label, text in lines.items()))
            self._out.write("\x1b[J")
            self._drawn = len(lines)
            self._said = lines
        else:
            for label, text in lines.items():
                if self._said.get(label) != text:
                    self._out.write(f"{label}: {text}\n")
            self._said |= lines
        self._out.flush()


def follow(client: Client, service_id: str, *, quiet: bool = False) -> None:
    """Returns when all tasks run and have stayed so for the monitor time; CliError when an update paused."""
    display = Display(sys.stdout)
    try:
        _follow(client, service_id, None if quiet else display)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nOperation continuing in background.\nUse `swarmctl service ps {service_id}` to check progress.\n"
        )
        raise SilentExit(0) from None


def _follow(client: Client, service_id: str, display: Display | None) -> None:
    listed = _patiently(lambda: client.get("/nodes"))
    nodes = {node["ID"]: (node.get("Description") or {}).get("Hostname", "") for node in listed}
    stable_since: float | None = None
    pause = _POLL_FIRST_SECONDS
    last: Picture | None = None
    while True:
        service = _patiently(lambda: client.get(f"/services/{quote(service_id)}"))
        view = picture(service, _patiently(lambda: _tasks(client, service_id)), nodes)
        if view != last:
            pause = _POLL_FIRST_SECONDS
            if display is not None:
                display.draw(view)
        last = view
        _raise_if_stopped(view, service["Spec"]["Name"])
        if view.complete:
            now = time.monotonic()
            monitor = _monitor_seconds(service)
            if stable_since is None:
                stable_since = now
                if display is not None and monitor >= 1:
                    display.note(f"Waiting {monitor:.0f} seconds to verify that tasks are stable...")
            if now - stable_since >= monitor:
                if display is not None:
                    display.note(f"Service {service['Spec']['Name']} converged")
                return
        else:
            stable_since = None
        time.sleep(pause)
        pause = min(pause * 1.3, _POLL_MAX_SECONDS)


def _patiently(ask: Callable[[], Any]) -> Any:
    """The answer; while the managers choose a leader there is none, which says nothing of the service."""
    deadline = time.monotonic() + _LEADERLESS_SECONDS_MAX
    while True:
        try:
            return ask()
        except ApiError as error:
            if error.status != _UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_MAX_SECONDS)


def _tasks(client: Client, service_id: str) -> list[dict[str, Any]]:
    filters = {"service": [service_id], "_up-to-date": ["true"]}
    return list(client.get("/tasks", {"filters": filters}))


def _monitor_seconds(service: dict[str, Any]) -> float:
    """How long tasks must stay up; an update has watched them itself already."""
    if (service.get("UpdateStatus") or {}).get("State") in ("completed", "rollback_completed"):
        return 0.0
    monitor = (service["Spec"].get("UpdateConfig") or {}).get("Monitor")
    return float(_DEFAULT_MONITOR_NS if monitor is None else monitor) / 1e9


def _raise_if_stopped(view: Picture, name: str) -> None:
    if view.update_state in ("paused", "rollback_paused"):
        what = "rollback" if view.update_state.startswith("rollback") else "update"
        raise CliError(
            f"service {what} paused: {view.update_message}",
            hint=f"swarmctl service ps {name} shows why; swarmctl service rollback {name} goes back",
        )
