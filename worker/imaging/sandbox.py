"""Confines the processes of decoder.py by the means of the kernel: setrlimit(2), prctl(2), seccomp(2)."""

import ctypes
import errno
import mmap
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any

PR_SET_PDEATHSIG = 1
"""Option of prctl(2) that sets the signal which this process gets when its parent dies."""
MAX_CPU_SECONDS = 60
"""Seconds of computing after which the kernel ends a decoder; its worker kills it much earlier (DECODE_SECONDS)."""

DECODER_CALLS = (
    *("read", "write"),  # only what is open already: the connection to the worker
    *("munmap", "mremap", "brk", "madvise", "futex"),
    *("rt_sigreturn", "clock_gettime", "gettimeofday", "getrandom", "sched_yield"),
    *("fstat", "lseek", "restart_syscall", "exit", "exit_group"),
)
"""System calls that decoding needs, on x86-64 and ARM. mmap and mprotect are allowed as well, without PROT_EXEC."""
THREAD_CALLS = ("rseq", "set_robust_list", "rt_sigprocmask", "gettid")
"""System calls of a new thread in the C library. As well: clone for a thread only."""
SERVER_CALLS = (
    *DECODER_CALLS,
    *THREAD_CALLS,  # a child that may have threads inherits this filter too
    *("recvmsg", "sendto", "wait4", "close"),  # the fork server: requests, answers, children that have ended
    "getpid",  # fork(2) in the C library
    *("getppid", "dup2", "dup3", "prctl", "seccomp"),  # a child, until it has confined itself
)
"""System calls of the fork server, and of its children before they confine themselves. As well: clone for a
fork only, and prlimit64 for the process itself only."""
FORK_FLAGS = 0xFF | 0x00100000 | 0x00200000 | 0x01000000
"""Flags of clone(2) that fork(3) may set: the signal, and three that store the thread's id. No other flag is allowed,
such as those for shared memory, shared files and namespaces."""
THREAD_FLAGS, DETACHED = 0x3D0F00, 0x400000
"""Flags of clone(2) that pthread_create(3) sets: always, and in some C libraries too. A thread shares all with its
process, and has the same filter."""

libc = ctypes.CDLL(None, use_errno=True)


def limit_memory(memory: int) -> None:
    """Limit this process and its children to `memory` bytes of address space each, and write no core dumps."""
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))


def limit_time() -> None:
    """Let the kernel end this process after MAX_CPU_SECONDS."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent, which has this process id, ends in whatever way. Linux only.

    Raises OSError, also when the parent has ended already.
    """
    if sys.platform != "linux":
        return
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, "the parent has ended")


def make_filter(calls: Sequence[str], may_fork: bool = False, may_thread: bool = False) -> Any:
    """Make a filter that lets all system calls fail with EPERM, except these and allocations of memory.

    Its method `load` applies it to the process; that cannot be undone, and children inherit it. None outside of Linux.
    Raises an error when this machine lacks libseccomp.
    """
    if sys.platform != "linux":
        return None
    import pyseccomp as seccomp

    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in calls:
        made.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        made.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    if may_fork:
        made.add_rule(seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0))
        made.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, ~FORK_FLAGS & (2**64 - 1), 0))
    if may_thread:
        made.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, ~DETACHED & (2**64 - 1), THREAD_FLAGS))
        made.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are in memory; then the C library uses clone
    made.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # also for threads that run already
    return made
