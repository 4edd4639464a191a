"""What the hostile programs share: it stands before each of them. A program returns the names of what it managed."""
# ruff: noqa

import ctypes, errno, fcntl, gc, mmap, os, platform, resource, select, signal, socket, struct, sys, threading, time

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EACCES)


def tried(name, act):
    """[name] where act() does not fail."""
    try:
        act()
    except (OSError, ImportError, ValueError, AttributeError, MemoryError, RuntimeError):
        return []
    return [name]


def call(number, *arguments):
    """A system call by number; OSError where it fails."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    found = LIBC.syscall(ctypes.c_long(number), *words)
    if found < 0:
        raise OSError(ctypes.get_errno(), "call")
    return found


def blocked(name, numbers, *arguments):
    """[name] where a system call is let through, even if it then fails for its arguments. numbers: x86_64, aarch64."""
    number = numbers[0 if X86 else 1]
    if number is None:
        return []
    try:
        call(number, *arguments)
    except OSError as error:
        return [] if error.errno in REFUSALS else [f"{name} ({errno.errorcode.get(error.errno)})"]
    return [name]


def machine_code(code, *arguments):
    """Run bytes as a function."""
    LIBC.mmap.restype = ctypes.c_void_p
    place = LIBC.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
    ctypes.memmove(place, code, len(code))
    return ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * len(arguments))(place)(*arguments)
