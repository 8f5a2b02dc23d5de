"""Making and removing whole labs, and what they look like in between."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from node.lab import api, leftovers, power, processes, underlay
from node.lab.model import RUN_ROOT, STATE_ROOT, Lab, LabError, LabNode, check_name, find, locked, new_lab
from node.lab.power import Say


def up(name: str, *, nodes: int, managers: int, joined: bool, keep: bool, say: Say) -> Lab:
    """A lab whose nodes all answer. When that fails everything is removed again, except with `keep`."""
    check_name(name)
    with locked(name):
        with locked(""):
            if find(name) is not None:
                raise LabError(
                    f'lab "{name}" exists already',
                    hint=f"remove it (swarmctl lab down --name {name}) or choose --name",
                )
            _remove_rest(name)
            lab = new_lab(name, nodes, managers)
            lab.save()
        try:
            _boot_all(lab, joined, say)
        except BaseException:
            if not keep:
                _remove(name, lab, say)
            raise
    return lab


def _boot_all(lab: Lab, joined: bool, say: Say) -> None:
    underlay.create_underlay(lab)
    for node in lab.nodes:
        underlay.create_node_network(lab, node)
    power.wait_until_up({node.name: power.start_daemon(node) for node in lab.nodes}, lab, say)
    if joined:
        api.join_all(lab)
        lab.save()
        say(f"one swarm: {lab.managers} of {len(lab.nodes)} nodes are managers")


def down(name: str, say: Say) -> bool:
    """Removes a lab, or what is left of one; False when there was nothing."""
    check_name(name)
    with locked(name):
        lab = find(name)
        if lab is None and not _traces(name):
            return False
        _remove(name, lab, say)
    (RUN_ROOT / f".{name}.lock").unlink(missing_ok=True)
    return True


def _remove(name: str, lab: Lab | None, say: Say) -> None:
    nodes = lab.nodes if lab is not None else _nodes_from_traces(name)
    for node in nodes:
        processes.kill_everything(node)
    _remove_rest(name)
    for node in nodes:
        processes.remove_cgroups(node)
    say(f'lab "{name}" is gone ({len(nodes)} nodes)')


def _remove_rest(name: str) -> None:
    """Whatever of a lab can be found by its name; used when its file is lost, and before a new one is made."""
    for node in _nodes_from_traces(name):
        processes.kill_everything(node)
        processes.remove_cgroups(node)
    for namespace in underlay.namespaces_of(name):
        underlay.delete_namespace(namespace)
    for root in (RUN_ROOT, STATE_ROOT):
        leftovers.remove_folder(root / name)


def _traces(name: str) -> bool:
    return bool(_nodes_from_traces(name) or underlay.namespaces_of(name)) or any(
        (root / name).exists() for root in (RUN_ROOT, STATE_ROOT)
    )


def _nodes_from_traces(name: str) -> list[LabNode]:
    """Nodes of which a namespace, folder or cgroup exists (their address no longer matters)."""
    found = {namespace.split(".")[2] for namespace in underlay.namespaces_of(name)} - {"underlay"}
    for root in (RUN_ROOT, STATE_ROOT):
        found |= {path.name for path in _folders(root / name)}
    pattern = re.compile(rf"{re.escape(name)}-(n\d+)")
    for mount in processes.cgroup_mounts():
        found |= {
            match.group(1) for path in _folders(mount / "swarmctl") if (match := pattern.fullmatch(path.name))
        }
    return [LabNode(name, node, "") for node in sorted(found) if re.fullmatch(r"n\d+", node)]


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except OSError:
        return []


@dataclass(frozen=True)
class NodeReport:
    """One element of `lab status --format json`; `pids` has the supervisor first."""

    name: str
    address: str
    netns: str
    socket: str
    state_dir: str
    pids: list[int]
    role: str
    state: str


def status(lab: Lab) -> list[NodeReport]:
    """The role of a node that does not answer is the last one seen."""
    reports = []
    for node in lab.nodes:
        node.role = api.role(node) or node.role
        reports.append(
            NodeReport(
                name=node.name,
                address=node.address,
                netns=node.netns,
                socket=str(node.socket),
                state_dir=str(node.state_dir),
                pids=processes.daemon_pids(node),
                role=node.role,
                state=power.state(node),
            )
        )
    return reports


def cut(lab: Lab, first: str, second: str, *, one_way: bool) -> None:
    """Drops what `first` sends to `second`, and the other direction unless `one_way`."""
    if first == second:
        raise LabError(f"{first} cannot be cut from itself")
    pairs = [(lab.node(first).name, lab.node(second).name)]
    pairs += [] if one_way else [(pairs[0][1], pairs[0][0])]
    lab.cuts += [pair for pair in pairs if pair not in lab.cuts]
    underlay.apply_cuts(lab)
    lab.save()


def heal(lab: Lab, names: list[str]) -> int:
    """Restores all cuts, or those between the named nodes (one name: all of that node's); returns how many."""
    for name in names:
        lab.node(name)
    kept = [pair for pair in lab.cuts if names and not (set(names) <= set(pair))]
    healed = len(lab.cuts) - len(kept)
    lab.cuts = kept
    underlay.apply_cuts(lab)
    lab.save()
    return healed
