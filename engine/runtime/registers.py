"""The registers of a start program: which descriptor is where.

The first four are filled by whoever spawns; the others are set by the program itself.
"""

from __future__ import annotations

from engine.runtime.program import Register

STDIN = Register(0, "stdin")
STDOUT = Register(1, "stdout")
STDERR = Register(2, "stderr")
TERMINALS = Register(3, "terminals")  # a detached devpts mount
SOURCE = Register(4, "source")  # a mount about to be attached; for an exec the pidfd of the container
ROOT = Register(5, "root")
TARGET = Register(6, "target")
CONTEXT = Register(7, "context")  # of fsopen
DEVICES = Register(8, "devices")  # the tmpfs on /dev
FOLDER = Register(9, "folder")  # the tmpfs on /sys/fs/cgroup
SCRATCH = Register(10, "scratch")
USERS = Register(11, "users")  # the user namespace of a remapped container
SHARED_FIRST = 16  # sources of mounts with shared propagation, opened before the host's mounts are detached
