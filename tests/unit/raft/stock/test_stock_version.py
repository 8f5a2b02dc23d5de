"""Only the PySyncObj whose inside is known may carry the consensus, whatever the interpreter's flags."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raft import stock
from raft.stock import STOCK_VERSION, check

INSTALLED = {*vars(stock.library.SyncObj), *stock.library.SyncObj.__init__.__code__.co_names}


def test_the_installed_one_is_accepted():
    check(STOCK_VERSION, INSTALLED)


def test_another_version_is_refused_with_both_versions_and_the_command():
    with pytest.raises(ImportError) as caught:
        check("0.3.18", INSTALLED)
    assert str(caught.value) == (
        "found PySyncObj 0.3.18, but the managers' consensus is built on the inside of 0.3.17: "
        "run `pip install pysyncobj==0.3.17`"
    )


@pytest.mark.parametrize(
    "name",
    [
        "_SyncObj__raftMatchIndex",
        "_SyncObj__sendAppendEntries",
        "_checkCommandsToApply",
        "transferLeadership",
    ],
)
def test_a_missing_name_is_refused_and_named(name: str):
    """A field, an overridden method, an overridden public one, a called one."""
    with pytest.raises(ImportError, match=rf"lacks {name}: .*--force-reinstall .*pysyncobj==0\.3\.17"):
        check(STOCK_VERSION, INSTALLED - {name})


def test_all_missing_names_are_listed():
    with pytest.raises(ImportError, match="lacks _onTick, doTick: "):
        check(STOCK_VERSION, INSTALLED - {"doTick", "_onTick"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("import pysyncobj.version as v; v.VERSION = '9.9.9'", "found PySyncObj 9.9.9, but"),
        ("from pysyncobj import SyncObj; del SyncObj._SyncObj__setState", "lacks _SyncObj__setState"),
    ],
)
@pytest.mark.parametrize("flag", ["-O", "-B"])
def test_the_import_itself_fails_even_without_assertions(change: str, message: str, flag: str):
    ended = subprocess.run(
        [sys.executable, flag, "-c", f"{change}; import raft.stock"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "ImportError: found PySyncObj" in ended.stderr
    assert message in ended.stderr
