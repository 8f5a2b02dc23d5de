"""`./dev bench [PART...]`: measures (nodes, images, builds, raft; no name: all), prints, writes docs/bench.json and .md.

A part that is not measured keeps the figures of its last run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from bench import builds, images, nodes, page
from bench.page import Part, made_now
from bench.raft import result

PARTS: dict[str, Callable[[], Any]] = {
    "nodes": nodes.measure,
    "images": images.measure,
    "builds": builds.measure,
    "raft": result.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=" or ".join(PARTS))
    wanted = parser.parse_args().parts or list(PARTS)
    parts = page.stored()
    for name in wanted:
        figures = msgspec.to_builtins(PARTS[name]())
        parts[name] = Part(made=made_now(), figures=figures)
        print(json.dumps(figures, indent=1))
        page.store({part: parts[part] for part in PARTS if part in parts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
