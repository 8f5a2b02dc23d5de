"""A client that asks again and again: one curl inside a machine, its answers read and timed here."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass, field

from machines.machine import Machine

_MARK = "@answer "
_TIMEOUT_S = 4
_STOP_S = 15.0


@dataclass(frozen=True)
class Answer:
    """`at_s`: when it came, by time.monotonic of the host. `said`: the body, or curl's reason."""

    at_s: float
    ok: bool
    took_s: float
    said: str


def parse(line: str, body: list[str], at_s: float) -> Answer | None:
    """A request is over with a marked line (exit code, HTTP status, seconds, reason); what came before is its body."""
    if not line.startswith(_MARK):
        return None
    code, status, took_s, *reason = line.removeprefix(_MARK).split(" ", 3)
    ok = code == "0" and status == "200"
    text = " ".join(part for part in body if part)
    why = " ".join(reason) or f"status {status}: {text}"
    return Answer(
        at_s, ok, float(took_s), text if ok else f"{why} (curl {code}, after {float(took_s):.1f} s)"
    )


@dataclass
class Traffic:
    """Requests at a steady rate from `machine` to `url`, each on a new connection, from `start` to `stop`."""

    machine: Machine
    url: str
    per_second: int = 4
    answers: list[Answer] = field(default_factory=list)

    def start(self) -> Traffic:
        # A shell that tells its id becomes curl; the counter behind `?` makes one curl ask many times.
        curl = (
            f"echo $$; exec stdbuf -oL curl -s -m {_TIMEOUT_S} --rate {self.per_second}/s -H 'Connection: close'"
            f" -w '\\n{_MARK}%{{exitcode}} %{{http_code}} %{{time_total}} %{{errormsg}}\\n' '{self.url}?[1-1000000]'"
        )
        self._process = subprocess.Popen(
            self.machine.ssh_command([curl]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._id = self._process.stdout.readline().strip()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        body: list[str] = []
        for line in self._process.stdout:
            answer = parse(line.rstrip("\n"), body, time.monotonic())
            if answer is None:
                body.append(line.strip())
            else:
                body.clear()
                self.answers.append(answer)

    def stop(self) -> None:
        """Harmless when it has ended already."""
        self.machine.ssh(["kill", self._id], check=False, timeout_s=_STOP_S)
        self._process.terminate()
        self._process.wait()
        self._reader.join(_STOP_S)

    def failures(self, since_s: float = 0.0) -> list[Answer]:
        return [answer for answer in self.answers if not answer.ok and answer.at_s >= since_s]

    def bad_window_s(self) -> float:
        """From the beginning of the first failed request to the end of the last one; 0 when none failed."""
        failed = self.failures()
        return failed[-1].at_s - (failed[0].at_s - failed[0].took_s) if failed else 0.0

    def answered_since(self, since_s: float) -> int:
        return sum(answer.ok and answer.at_s >= since_s for answer in self.answers)

    def summary(self) -> str:
        failed = self.failures()
        text = f"{self.machine.name} -> {self.url}: {len(self.answers)} requests, {len(failed)} failed"
        if failed:
            text += f" within {self.bad_window_s():.1f} s; the first: {failed[0].said}"
        return text
