"""The kernel's interface for the runtime: numbers, constants and the one place that uses ctypes.

Everything raises OSError with the kernel's errno. Sources: the manual pages of section 2 and
include/uapi of Linux 6.x. Must not know containers or plans.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Keeps the GIL during the call: the only safe way to come back from clone3 in a child without CLONE_VM.
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)
_libc_with_gil.syscall.restype = ctypes.c_long

# Numbers that all architectures share are from the common table (424 and up).
_NUMBERS_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_NUMBERS_X86_64 = {
    "read": 0,
    "write": 1,
    "close": 3,
    "rt_sigaction": 13,
    "ioctl": 16,
    "socket": 41,
    "execve": 59,
    "fchdir": 81,
    "chroot": 161,
    "chdir": 80,
    "umask": 95,
    "setsid": 112,
    "capset": 126,
    "pivot_root": 155,
    "prctl": 157,
    "mount": 165,
    "umount2": 166,
    "sethostname": 170,
    "setdomainname": 171,
    "openat": 257,
    "mkdirat": 258,
    "mknodat": 259,
    "fchownat": 260,
    "symlinkat": 266,
    "fchmodat": 268,
    "unshare": 272,
    "dup3": 292,
    "setgroups": 116,
    "setresuid": 117,
    "setresgid": 119,
    "setfsuid": 122,
    "setfsgid": 123,
    "prlimit64": 302,
    "setns": 308,
    "seccomp": 317,
    "bpf": 321,
}
_NUMBERS_AARCH64 = {
    "read": 63,
    "write": 64,
    "close": 57,
    "rt_sigaction": 134,
    "ioctl": 29,
    "socket": 198,
    "execve": 221,
    "fchdir": 50,
    "chroot": 51,
    "chdir": 49,
    "umask": 166,
    "setsid": 157,
    "capset": 91,
    "pivot_root": 41,
    "prctl": 167,
    "mount": 40,
    "umount2": 39,
    "sethostname": 161,
    "setdomainname": 162,
    "openat": 56,
    "mkdirat": 34,
    "mknodat": 33,
    "fchownat": 54,
    "symlinkat": 36,
    "fchmodat": 53,
    "unshare": 97,
    "dup3": 24,
    "setgroups": 159,
    "setresuid": 147,
    "setresgid": 149,
    "setfsuid": 151,
    "setfsgid": 152,
    "prlimit64": 261,
    "setns": 268,
    "seccomp": 277,
    "bpf": 280,
}
MACHINE = platform.machine()
NUMBERS = _NUMBERS_COMMON | (_NUMBERS_AARCH64 if MACHINE == "aarch64" else _NUMBERS_X86_64)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_REC = 0x4000
MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 1 << 18, 1 << 19, 1 << 20, 1 << 17
MNT_DETACH = 2

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_ATIME_MASK, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME = 0x70, 0x10, 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 2, 4, 0x10

CLONE_VM, CLONE_FS, CLONE_VFORK, CLONE_PIDFD = 0x100, 0x200, 0x4000, 0x1000
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
CLONE_NEWUSER = 0x10000000
CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP = 0x100000000, 0x200000000

PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP = 8, 23, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
_PIDFD_GET_INFO, _PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3

SECCOMP_SET_MODE_FILTER = 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
TIOCSCTTY, TIOCGPTPEER, TIOCSPTLCK, TIOCSWINSZ = 0x540E, 0x5441, 0x40045431, 0x5414
DEVPTS_SUPER_MAGIC, CGROUP2_SUPER_MAGIC = 0x1CD1, 0x63677270

_OPEN_HOW = struct.Struct("QQQ")


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Raw system call. Integers are passed as 64 bits, bytes as pointers, None as a null pointer."""
    converted = [
        ctypes.c_char_p(value) if value is None or isinstance(value, bytes) else ctypes.c_long(value)
        for value in arguments
    ]
    result = int(_libc.syscall(ctypes.c_long(number), *converted))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def raw_syscall(number: int, arguments: list[int]) -> int:
    """The result, or minus errno; the GIL is kept. For the interpreter between clone3 and execve."""
    result = int(
        _libc_with_gil.syscall(ctypes.c_long(number), *[ctypes.c_ulong(a & (2**64 - 1)) for a in arguments])
    )
    return -ctypes.get_errno() if result == -1 else result


def memory(data: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """A writable copy of `data` and its address; valid as long as the first item lives."""
    buffer = ctypes.create_string_buffer(data, max(len(data), 1))
    return buffer, ctypes.addressof(buffer)


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def string_at(address: int) -> bytes:
    return ctypes.string_at(address)


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    return syscall(NUMBERS["openat2"], directory, os.fsencode(path), how, len(how))


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), os.fsencode(kind), flags, os.fsencode(data))
    syscall(NUMBERS["mount"], *arguments)


def umount(target: str, flags: int = 0) -> None:
    syscall(NUMBERS["umount2"], os.fsencode(target), flags)


def new_mount(kind: str, options: dict[str, str | None], attributes: int) -> int:
    """A detached mount of a new file system; the descriptor keeps it. Option None is a flag."""
    context = syscall(NUMBERS["fsopen"], os.fsencode(kind), FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            encoded = None if value is None else os.fsencode(value)
            syscall(NUMBERS["fsconfig"], context, command, os.fsencode(key), encoded, 0)
        syscall(NUMBERS["fsconfig"], context, FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall(NUMBERS["fsmount"], context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def setns(descriptor: int, kinds: int) -> None:
    syscall(NUMBERS["setns"], descriptor, kinds)


def prctl(option: int, *arguments: int) -> int:
    return syscall(NUMBERS["prctl"], option, *arguments, *([0] * (4 - len(arguments))))


def allow_many_files() -> None:
    """The soft limit of open files becomes the hard one: a running container takes a handful of descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def syncfs(descriptor: int) -> None:
    """Write the file system of an open file out to its disk (syncfs(2))."""
    if _libc.syncfs(descriptor) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); a descriptor for the commands that make something."""
    return syscall(NUMBERS["bpf"], command, attributes, len(attributes))


def filesystem_magic(descriptor: int) -> int:
    """f_type of fstatfs(2)."""
    buffer = ctypes.create_string_buffer(120)
    if _libc.fstatfs(descriptor, buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(struct.unpack_from("l", buffer)[0])


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status of a process that somebody else has reaped; None before that, or before Linux 6.15.

    PIDFD_GET_INFO of linux/pidfd.h: struct pidfd_info {mask, cgroupid, 11 ids, exit_code}, 64 bytes.
    """
    information = bytearray(struct.pack("QQ12I", _PIDFD_INFO_EXIT, 0, *[0] * 12))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, information)
    except OSError:
        return None
    mask, *_, status = struct.unpack("QQ11Ii", information)
    return int(status) if mask & _PIDFD_INFO_EXIT else None
