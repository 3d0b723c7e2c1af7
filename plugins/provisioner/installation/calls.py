"""The system calls that a script may not make, compiled into a filter that it and whatever it starts cannot remove.

User 0 of a user namespace reaches code of the kernel that no other user does, and faults of the kernel lie there. A
script keeps what debootstrap, mkfs, chroot and boot loaders call, mounts included.
"""

from __future__ import annotations

import errno
import functools
import socket
import tempfile

REFUSED = (
    *("acct", "kexec_file_load", "kexec_load", "quotactl", "quotactl_fd", "reboot", "swapoff", "swapon", "syslog"),
    *("adjtimex", "clock_adjtime", "clock_settime", "settimeofday"),
    *("create_module", "delete_module", "finit_module", "init_module"),
    *("ioperm", "iopl", "modify_ldt", "nfsservctl", "uselib", "userfaultfd", "vhangup"),
    *("bpf", "fanotify_init", "kcmp", "lookup_dcookie", "open_by_handle_at", "perf_event_open", "pidfd_getfd"),
    *("process_vm_readv", "process_vm_writev", "ptrace", "setns"),
    *("add_key", "keyctl", "request_key"),  # keyrings know no namespace of users
)
"""Refused with EPERM: the machine, its clock, modules and hardware, other processes, and programs in the kernel."""
ABSENT = ("clone3", "io_uring_enter", "io_uring_register", "io_uring_setup")
"""Refused with ENOSYS, whereupon programs make older calls, whose arguments a filter can see."""
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""The address families of sockets that a script may make; others reach past its network namespace, or the hardware."""
_NEW_USER = 0x10000000


@functools.cache
def program() -> bytes:
    """Return the filter as the kernel takes it: instructions of eight bytes. A program of another architecture ends."""
    import pyseccomp as seccomp  # which runs a program to find its library

    calls = seccomp.SyscallFilter(seccomp.ALLOW)
    refused = seccomp.ERRNO(errno.EPERM)
    for name in REFUSED:
        calls.add_rule(refused, name)
    for name in ABSENT:
        calls.add_rule(seccomp.ERRNO(errno.ENOSYS), name)
    for name in ("clone", "unshare"):
        calls.add_rule(refused, name, seccomp.Arg(0, seccomp.MASKED_EQ, _NEW_USER, _NEW_USER))
    for name in ("socket", "socketpair"):
        for family in set(range(max(FAMILIES))).difference(FAMILIES):
            calls.add_rule(refused, name, seccomp.Arg(0, seccomp.EQ, family))
        calls.add_rule(refused, name, seccomp.Arg(0, seccomp.GT, max(FAMILIES)))
    with tempfile.TemporaryFile() as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()
