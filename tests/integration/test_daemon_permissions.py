"""Who reaches the daemon's files, and what containers may do with theirs, whatever umask the daemon was started with."""

from __future__ import annotations

import grp
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

GROUP = "daemon"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, hello_archive: Path) -> Iterator[HostDaemon]:
    daemon = HostDaemon(tmp_path_factory.mktemp("guarded"))
    try:
        daemon.start("--group", GROUP, umask=0o077)
        daemon.ok("load", "-i", str(hello_archive))
        yield daemon
    finally:
        daemon.close()


def test_the_group_reaches_the_socket_and_others_reach_nothing(guarded: HostDaemon) -> None:
    group = grp.getgrnam(GROUP).gr_gid
    shown = {
        path: (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode))
        for path in (guarded.run_dir, guarded.socket, guarded.root)
    }
    assert shown == {
        guarded.run_dir: (group, 0o710),
        guarded.socket: (group, 0o660),
        guarded.root: (0, 0o710),
    }


def test_a_user_in_a_container_reads_its_names_and_the_volume(guarded: HostDaemon) -> None:
    script = "cat /etc/hosts /etc/hostname /etc/resolv.conf >/dev/null && ls /data && stat -c %a /data"
    words = ("run", "--rm", "-u", "1000:1000", "-v", "things:/data", "hello", "sh", "-c", script)
    assert guarded.ok(*words) == "755"


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    daemon = HostDaemon(tmp_path)
    try:
        with pytest.raises(AssertionError, match="--group no-such-group: there is no such group here"):
            daemon.start("--group", "no-such-group")
    finally:
        daemon.close()
