"""`features`: what the runtime understands of a configuration. Source: OCI runtime specification 1.1, features.md."""

from __future__ import annotations

from typing import Any

from engine.oci.configuration import HOOKS
from engine.runtime import capabilities, plan_mounts, seccomp


def features(specification: str, version: str) -> dict[str, Any]:
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": specification,
        "hooks": list(HOOKS),
        "mountOptions": sorted(plan_mounts.OPTION_NAMES),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": list(capabilities.NUMBERS),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTION_NAMES),
                "operators": sorted(seccomp.OPERATOR_NAMES),
                "archs": sorted(seccomp.ARCHITECTURE_NAMES),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
        },
        "annotations": {"io.github.swarmctl.runtime.version": version},
    }
