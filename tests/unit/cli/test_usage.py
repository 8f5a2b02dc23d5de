"""`system df`: what can be had back, and the tables of -v."""

from __future__ import annotations

import pytest

from cli.commands.usage import _details, summary

ANSWER = {
    "LayersSize": 1000,
    "Images": [
        {"Id": "sha256:" + "a" * 64, "RepoTags": ["x:1", "y:2"], "Created": 0, "Size": 600, "SharedSize": 200,
         "Containers": 1},
        {"Id": "sha256:" + "b" * 64, "RepoTags": None, "Created": 0, "Size": 600, "SharedSize": 200, "Containers": 0},
    ],
    "Containers": [
        {"Id": "c" * 64, "Image": "x", "Command": "sleep 1", "SizeRw": 30, "Created": 0, "State": "running",
         "Status": "Up", "Names": ["/one"], "Mounts": [{"Type": "volume"}, {"Type": "bind"}]},
        {"Id": "d" * 64, "Image": "x", "Command": "sleep 1", "SizeRw": 70, "Created": 0, "State": "exited",
         "Status": "Exited", "Names": ["/two"]},
    ],
    "Volumes": [
        {"Name": "used", "UsageData": {"Size": 10, "RefCount": 1}},
        {"Name": "free", "UsageData": {"Size": 40, "RefCount": 0}},
        {"Name": "far", "UsageData": {"Size": -1, "RefCount": 0}},
    ],
    "BuildCache": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        # The used image alone has 400 bytes; everything else of the 1000 goes with the other one.
        ("Images", ("2", "1", "1kB", "600B (60%)")),
        ("Containers", ("2", "1", "100B", "70B (70%)")),
        ("Local Volumes", ("3", "1", "50B", "40B (80%)")),
        ("Build Cache", ("0", "0", "0B", "0B")),
    ],
)
def test_what_can_be_had_back(kind: str, row: tuple[str, ...]) -> None:
    shown = next(r for r in summary(ANSWER) if r["Type"] == kind)
    assert (shown["TotalCount"], shown["Active"], shown["Size"], shown["Reclaimable"]) == row


def test_details() -> None:
    shown = _details(ANSWER)
    assert [(r["Repository"], r["Tag"], r["SharedSize"], r["UniqueSize"]) for r in shown["Images"]] == [
        ("x", "1", "200B", "400B"),
        ("y", "2", "200B", "400B"),
        ("<none>", "<none>", "200B", "400B"),
    ]
    assert [(r["Names"], r["LocalVolumes"]) for r in shown["Containers"]] == [("one", "1"), ("two", "0")]
    assert [(r["Name"], r["Size"]) for r in shown["Volumes"]] == [
        ("used", "10B"),
        ("free", "40B"),
        ("far", "N/A"),
    ]
