"""Going on as other code in the same process: the new program is tried in a process of its own, then executed.

The pid stays, so containers stay children; who ends meanwhile is a zombie until the new code reaps it. A program that
does not come up, or cannot take the state over, is found out by the trial, while the present code still runs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from engine.runtime import handover
from engine.runtime.connections import Refused, log
from engine.runtime.supervised import Poller
from engine.runtime.wire import Release

TRIAL_S_MAX = 20.0
QUIET_S_MAX = 15.0
_OUTPUT_BYTES = 64 * 1024


class Host(Protocol):
    """What a change needs of the supervisor."""

    @property
    def is_quiet(self) -> bool: ...

    @property
    def is_ending(self) -> bool: ...

    def snapshot(self) -> handover.Handover:
        """What it holds stays as it is until `let_go`."""

    def let_go(self) -> None: ...


class Change:
    """One request to go on as another program: wait for quiet, try it, become it. `failed`: all is as it was."""

    def __init__(
        self,
        release: Release,
        run_dir: Path,
        poller: Poller,
        host: Host,
        failed: Callable[[Refused], None],
    ) -> None:
        self._release = release
        self._run_dir = run_dir
        self._poller = poller
        self._host = host
        self._failed = failed
        self._quiet_until = time.monotonic() + QUIET_S_MAX
        self._trial: Trial | None = None
        self._passed = False

    def advance(self, now: float) -> None:
        """Called now and then, from the loop."""
        try:
            if self._passed:
                self._become()
            elif self._trial is not None:
                self._trial.tick(now)
            elif self._host.is_quiet:
                self._trial = self._begin_trial()
            elif now > self._quiet_until:
                raise Refused(f"processes are being started since {QUIET_S_MAX:.0f} s: ask again")
        except Refused as reason:
            self._failed(reason)

    def _begin_trial(self) -> Trial:
        try:
            return Trial(self._release, self._run_dir, self._host.snapshot(), self._poller, self._tried)
        finally:
            self._host.let_go()  # the trial has a copy

    def _tried(self, reason: Refused | None) -> None:
        if reason is None:
            self._passed = True
        else:
            self._failed(reason)

    def _become(self) -> None:
        # The new code has no handler for a moment, and the default would end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        try:
            if not self._host.is_ending:
                log(f"goes on as build {self._release.build}")
                execute(self._release, self._run_dir, self._host.snapshot())
        except OSError as error:
            raise Refused(f"{self._release.command[0]} cannot be executed: {error.strerror}") from error
        finally:
            self._host.let_go()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


class Trial:
    """The program takes over a copy of the state, serves nothing and ends. `done` gets None, or why it cannot."""

    def __init__(
        self,
        release: Release,
        run_dir: Path,
        state: handover.Handover,
        poller: Poller,
        done: Callable[[Refused | None], None],
    ) -> None:
        """Refused when the program cannot even be started."""
        self._release = release
        self._poller = poller
        self._done = done
        self._deadline = time.monotonic() + TRIAL_S_MAX
        memory = handover.store(handover.encode(state), inheritable=False)
        self._output, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._output, False)
            # Onto itself: then the new process has it, and nobody else.
            kept = [(os.POSIX_SPAWN_DUP2, number, number) for number in (memory, *state.descriptors())]
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_DUP2, writing, 2),
                *kept,
            ]
            arguments = release.arguments(str(run_dir), "--check-state", str(memory))
            self._pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=actions)
        except OSError as error:
            os.close(self._output)
            raise Refused(f"{release.command[0]} cannot be executed: {error.strerror}") from error
        finally:
            os.close(writing)
            os.close(memory)
        self._pidfd = os.pidfd_open(self._pid)
        poller.watch(self._pidfd, self._ended)

    def tick(self, now: float) -> None:
        """End it when it takes too long."""
        if now > self._deadline:
            os.kill(self._pid, signal.SIGKILL)

    def _ended(self) -> None:
        info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if info is None:
            return
        self._poller.forget(self._pidfd)
        os.close(self._pidfd)
        said = self._said()
        os.close(self._output)
        if info.si_code == os.CLD_EXITED and info.si_status == 0:
            self._done(None)
            return
        log(f"build {self._release.build} does not take over:\n{said}")
        reason = said.strip().rpartition("\n")[2]
        if info.si_code != os.CLD_EXITED:
            reason = f"its trial was ended by signal {info.si_status} (it may take {TRIAL_S_MAX:.0f} s)"
        self._done(Refused(reason or f"its trial ended with code {info.si_status}"))

    def _said(self) -> str:
        try:
            return os.read(self._output, _OUTPUT_BYTES).decode(errors="replace")
        except BlockingIOError:
            return ""


def execute(release: Release, run_dir: Path, state: handover.Handover) -> NoReturn:
    """Become the release. OSError when the kernel refuses: then everything is as before."""
    memory = handover.store(handover.encode(state), inheritable=True)
    kept = state.descriptors()
    arguments = release.arguments(str(run_dir), "--resume", str(memory))
    _inherit(kept, inheritable=True)
    try:
        os.execv(arguments[0], arguments)
    except OSError:
        _inherit(kept, inheritable=False)
        os.close(memory)
        raise


def resumed(descriptor: int, build: str) -> handover.Handover:
    """The state behind `--resume` or `--check-state`, with its descriptors closed on execution again."""
    state = handover.decode(handover.fetch(descriptor), build)
    os.close(descriptor)
    _inherit(state.descriptors(), inheritable=False)
    return state


def _inherit(descriptors: Sequence[int], *, inheritable: bool) -> None:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, inheritable)
