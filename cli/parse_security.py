"""`--security-opt` and `--gpus`: what the client itself makes of them before the daemon sees them."""

from __future__ import annotations

from typing import Any

from cli.errors import UsageError
from cli.parse import comma_fields


def security_options(values: tuple[str, ...]) -> dict[str, Any]:
    """Fields of HostConfig. A seccomp profile is read here; `systempaths=unconfined` shows all of /proc and /sys."""
    options: list[str] = []
    fields: dict[str, Any] = {}
    for value in values:
        name, separator, text = value.partition("=" if "=" in value else ":")
        if not separator and name not in ("no-new-privileges", "writable-cgroups"):
            raise UsageError(
                f'Invalid --security-opt: "{value}"', hint="such as no-new-privileges or seccomp=FILE"
            )
        if name == "systempaths":
            if text != "unconfined":
                raise UsageError(f'Invalid --security-opt: "{value}"', hint="systempaths=unconfined")
            fields |= {"MaskedPaths": [], "ReadonlyPaths": []}
        elif name == "seccomp" and text not in ("unconfined", "builtin"):
            options.append(f"seccomp={_profile(text)}")
        else:
            options.append(value)
    return fields | ({"SecurityOpt": options} if options else {})


def _profile(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as source:
            return json.dumps(json.load(source), separators=(",", ":"))
    except (OSError, ValueError) as error:
        raise UsageError(f"opening seccomp profile ({path}) failed: {error}") from error


def device_requests(values: tuple[str, ...]) -> list[dict[str, Any]]:
    """--gpus all, N, or device=ID,...: asked for as Docker's client does."""
    requests = []
    for value in values:
        request: dict[str, Any] = {"Driver": "", "Count": 0, "Capabilities": [["gpu"]], "Options": {}}
        for key, text in comma_fields(value, "gpus"):
            if text is None and (key == "all" or key.isdecimal()):
                request["Count"] = -1 if key == "all" else int(key)
            elif key in ("driver", "count", "device") and text:
                if key == "driver":
                    request["Driver"] = text
                elif key == "device":
                    request["DeviceIDs"] = text.split(",")
                else:
                    request["Count"] = -1 if text == "all" else int(text) if text.isdecimal() else 0
            else:
                raise UsageError(f'invalid --gpus "{value}"', hint="all, a number, or device=ID")
        requests.append(request)
    return requests
