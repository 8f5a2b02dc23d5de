from collections.abc import Sequence

def spawn(
    program: bytes,
    registers: Sequence[int],
    clone_flags: int,
    join: Sequence[int],
    cgroup: int,
    pidns: int,
    own_pidns: int,
    /,
) -> tuple[int, int, int, int]: ...
