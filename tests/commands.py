"""Running commands from tests, with a bound."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SWARMCTL = str(BIN / "swarmctl")
SECONDS_MAX = 90.0


@dataclasses.dataclass
class Result:
    code: int
    out: str
    err: str


def run(words: Sequence[str], text: str = "", environment: Mapping[str, str] | None = None) -> Result:
    """`text` is its input; without `environment` it has ours."""
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, env=environment, timeout=SECONDS_MAX, cwd=ROOT
    )
    return Result(done.returncode, done.stdout, done.stderr)
