"""The first thing that runs in an isolated child: it builds the walls, then becomes the program.

Run as a script, by path, in fresh user, mount, network, process and IPC namespaces. It knows
nothing of Mull and imports the standard library alone. What the program sees afterwards: an empty
file system in memory with the interpreter's folders read-only in it, no network, no other process,
no environment, no capability, no way to start a process, and limits on time, memory and files.
Any wall that cannot be built ends the child before the program starts.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from pathlib import Path

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 1 << 14, 1 << 18
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
READ_ONLY = struct.pack("QQQQ", 1 | MS_NOSUID | MS_NODEV, 0, 0, 0)
"""struct mount_attr: read-only, no set-user-ID, no devices; nothing is taken away."""
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 24, 38, 22
PROGRAM = "/job/main.py"
LAST_CAPABILITY = 63
THREAD = 0x10000
# name: (audit architecture, pivot_root, capset, clone, what may not be called, clone3)
MACHINES = {
    "x86_64": (0xC000003E, 155, 126, 56, (57, 58, 62, 101, 272, 308), 435),
    "aarch64": (0xC00000B7, 41, 91, 220, (129, 117, 97, 268), 435),
}
"""Forbidden: fork, vfork, kill, ptrace, unshare, setns; a clone that is no thread; clone3.

kill, because a group is wider than a namespace: ``kill(0)`` would reach the parent outside.
"""

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """End the child where a call of the system failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    texts = [value.encode() for value in (source, target, kind)]
    checked(libc.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def show(path: str, root: Path) -> None:
    """Make a folder of the host visible below ``root``, read-only, and what is mounted in it too.

    A link stays a link. Needs Linux 5.12.
    """
    target = root / path.lstrip("/")
    if Path(path).is_symlink():
        target.symlink_to(Path(path).readlink())
        return
    target.mkdir(parents=True, exist_ok=True)
    # With the mounts in it: without them the bind of another namespace's folder is refused.
    mount(path, str(target), "", MS_BIND | MS_REC)
    where, size = str(target).encode(), len(READ_ONLY)
    result = libc.syscall(MOUNT_SETATTR, AT_FDCWD, where, AT_RECURSIVE, READ_ONLY, size)
    checked(result, f"mount_setattr {path}")


def enclose(root: Path, visible: list[str], pivot_root: int) -> None:
    """Make a file system in memory the only one there is."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", str(root), "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,mode=755")
    for path in visible:
        show(path, root)
    for name in ("job", "tmp"):
        (root / name).mkdir(exist_ok=True)
    os.chdir(root)
    checked(libc.syscall(pivot_root, b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/job")


def limit(seconds: float, memory: int) -> None:
    """Limits that no child of the program can lift."""
    for what, value in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 8 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def disarm(capset: int) -> None:
    """No capability, now or after an exec."""
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # the kernel has fewer than we try
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = struct.pack("Ii", 0x20080522, 0)
    checked(libc.syscall(capset, header, bytes(24)), "capset")


def forbid(machine: tuple[int, int, int, int, tuple[int, ...], int]) -> None:
    """A seccomp filter: the program stays one process."""
    architecture, _, _, clone, never, clone3 = machine
    allow, kill = 0x7FFF0000, 0x80000000
    denied, absent = 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS, so that libc falls back
    load, equal, bits, at_least, give = 0x20, 0x15, 0x45, 0x35, 0x06

    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, denied)]  # the 32-bit names of x86_64
    code += [(equal, 0, 1, clone3), (give, 0, 0, absent)]
    for number in never:
        code += [(equal, 0, 1, number), (give, 0, 0, denied)]
    code += [(equal, 0, 3, clone), (load, 0, 0, 16), (bits, 1, 0, THREAD), (give, 0, 0, denied)]
    code += [(give, 0, 0, allow)]
    packed = b"".join(struct.pack("HBBI", *line) for line in code)
    rules = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(rules))
    checked(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0), "seccomp")


def main() -> None:
    """Build the walls and become the program.

    The config is one JSON object, in argv; the program is ``main.py`` in the folder that the new
    file system covers.
    """
    config = json.loads(sys.argv[1])
    machine = MACHINES.get(platform.machine())
    if machine is None or struct.calcsize("P") != 8:
        raise OSError(f"no walls are known for {platform.machine()}")
    root = Path(config["root"])
    program = (root / "main.py").read_bytes()
    enclose(root, config["visible"], machine[1])
    Path(PROGRAM).write_bytes(program)
    limit(config["seconds"], config["memory"])
    checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    disarm(machine[2])
    forbid(machine)
    arguments = [config["python"], "-I", "-S", "-B", PROGRAM]
    os.write(2, config["mark"].encode())
    environment = {"LD_LIBRARY_PATH": config["libraries"]}
    os.execve(arguments[0], arguments, environment)  # noqa: S606 (our own interpreter)


if __name__ == "__main__":
    main()
