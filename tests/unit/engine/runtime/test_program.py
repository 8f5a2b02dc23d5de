from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from engine.runtime import interpreter, program, spawn, syscalls
from engine.runtime.program import FilterCode, Register, Vector, call, execute, pack, rlimit, target

ROOT, OUT = Register(5, "root"), Register(6, "out")


def test_printed_form() -> None:
    ops = [
        call("openat", -100, b"/x", 0x80000, 0, out=OUT, tolerated=(2,), skip=3),
        target(ROOT, "/etc/hosts", program.TARGET_LIKE, OUT, OUT),
        call("seccomp", 1, 0, FilterCode(bytes(16))),
        rlimit(7, 1, -1),
        execute(["/bin/x"], ["x", "\u00e4"], []),
    ]
    assert program.transcript(ops).splitlines() == [
        "openat(-100, '/x', 0x80000, 0) -> out unless 2 skip 3",
        "target(root, '/etc/hosts', 2, out) -> out",
        "seccomp(1, 0, <filter of 2 instructions>)",
        "rlimit(7, 1, -1)",
        "exec(['/bin/x'], ['x', '\u00e4'], [])",
    ]


def test_packed_form_is_what_the_interpreters_read() -> None:
    ops = [
        call("write", OUT, b"text", 4),
        execute(["/bin/x", "/x"], ["x"], ["A=1"]),
    ]
    loaded = interpreter._Loaded(pack(ops), [0, 0, 0, 0, 0, 0, 42])
    number, kinds, arguments, out, skip, tolerated = loaded.operations[0]
    assert (number, out, skip, tolerated) == (syscalls.NUMBERS["write"], -1, 0, (0, 0))
    values = loaded.resolved(kinds, arguments)
    assert values[0] == 42 and values[2] == 4
    assert syscalls.string_at(values[1]) == b"text"
    candidates, argv, env = (
        [text for _, text in loaded.strings(address)] for address in loaded.operations[1][2][:3]
    )
    assert (candidates, argv, env) == (["/bin/x", "/x"], ["x"], ["A=1"])


def test_equal_strings_are_stored_once() -> None:
    twice = pack([call("chdir", b"/a-long-path"), call("chdir", b"/a-long-path")])
    assert twice.count(b"/a-long-path") == 1


@pytest.mark.parametrize("run", [spawn.COMPILED, spawn.PORTABLE])
@pytest.mark.parametrize("damage", ["magic", "length", "empty"])
def test_a_damaged_program_is_refused(run: spawn.Interpreter, damage: str) -> None:
    packed = pack([execute(["/bin/true"], ["true"], [])])
    broken = {"magic": b"\0" + packed[1:], "length": packed + b"x", "empty": b"\0" * 16}[damage]
    with pytest.raises(ValueError, match="not a program"):
        run(broken, [], 0, (), -1, -1, -1)


def test_pointers_outside_the_data_are_refused() -> None:
    packed = bytearray(pack([call("chdir", b"/")]))
    struct.pack_into("<q", packed, program.HEADER.size + 16, 10_000)
    assert spawn.COMPILED is not None
    with pytest.raises(ValueError, match="not a program"):
        spawn.COMPILED(bytes(packed), [], 0, (), -1, -1, -1)


def test_numbers_agree_with_the_kernel_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if syscalls.MACHINE != "x86_64" or not header.exists():
        pytest.skip("needs the kernel headers of x86_64")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    wrong = {name: number for name, number in syscalls.NUMBERS.items() if known[name] != str(number)}
    assert wrong == {}


def test_vectors_are_null_terminated() -> None:
    data = program._Packer()
    offset = data._vector(Vector((b"a", b"b")))
    first, second, end = struct.unpack_from("<3Q", data.data, offset)
    assert bytes(data.data[first : first + 2]) == b"a\0" and bytes(data.data[second : second + 2]) == b"b\0"
    assert end == 0 and data.relocations == [offset, offset + 8]
