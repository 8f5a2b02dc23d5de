from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.runtime.users import ResolvedUser, read_inside, resolve, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# comment:x:9:9::/:\nbad line\n"
PASSWD += "web:x:33:34:web:/var/www:/bin/sh\n7:x:77:78::/seven:\n"
GROUP = "root:x:0:\nweb:x:34:\nlog:x:50:web,other\nadm:x:4:web\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvedUser(0, 0, (), "/root")),
        ("root", ResolvedUser(0, 0, (), "/root")),
        ("web", ResolvedUser(33, 34, (50, 4), "/var/www")),
        ("33", ResolvedUser(33, 34, (50, 4), "/var/www")),
        ("web:log", ResolvedUser(33, 50, (), "/var/www")),
        ("web:123", ResolvedUser(33, 123, (), "/var/www")),
        ("1234", ResolvedUser(1234, 0, (), "")),
        ("1234:log", ResolvedUser(1234, 50, (), "")),
        (":log", ResolvedUser(0, 50, (), "/root")),
        ("7", ResolvedUser(77, 78, (), "/seven")),
    ],
)
def test_resolve(text: str, expected: ResolvedUser) -> None:
    assert resolve(text, PASSWD, GROUP) == expected


def test_extra_groups_are_added_once() -> None:
    assert resolve("web", PASSWD, GROUP, extra_groups=["log", "4", "99"]).groups == (50, 4, 99)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("-1", "unable to find user -1: no matching entries in passwd file"),
        ("4294967296", "unable to find user 4294967296: no matching entries in passwd file"),
        ("web:none", "unable to find group none: no matching entries in group file"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(LookupError) as failure:
        resolve(text, PASSWD, GROUP)
    assert failure.value.args == (message,)


def layer(folder: Path, content: str | None) -> str:
    (folder / "etc").mkdir(parents=True)
    if content is not None:
        (folder / "etc/passwd").write_text(content)
    return str(folder)


def test_topmost_layer_wins(tmp_path: Path) -> None:
    lower = (layer(tmp_path / "b", "u:x:2:2::/b:\n"), layer(tmp_path / "a", "u:x:1:1::/a:\n"))
    upper = layer(tmp_path / "upper", None)
    rootfs = SimpleNamespace(lower=lower, upper=upper, work="")
    assert resolve_user("u", rootfs).uid == 2
    (tmp_path / "upper/etc/passwd").write_text("u:x:3:3::/c:\n")
    assert resolve_user("u", rootfs).uid == 3


def test_links_stay_inside_and_only_files_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host")
    folder = tmp_path / "layer"
    (folder / "etc").mkdir(parents=True)
    rootfs = SimpleNamespace(lower=(), upper=str(folder), work="")
    (folder / "etc/passwd").symlink_to(secret)
    assert read_inside(rootfs, "etc/passwd") == ""
    (folder / "real").write_text("inside")
    (folder / "etc/passwd").unlink()
    (folder / "etc/passwd").symlink_to("/real")
    assert read_inside(rootfs, "etc/passwd") == "inside"
    os.mkfifo(folder / "etc/group")
    assert read_inside(rootfs, "etc/group") == ""
    (folder / "etc/loop").symlink_to("loop")
    assert read_inside(rootfs, "etc/loop") == ""
