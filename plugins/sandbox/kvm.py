"""Find out whether KVM works here by booting a kernel: the device file alone does not prove it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from pvcd import programs
from pvcd_plugins.sandbox.guest import COMMAND_LINE, GREETING

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_SECONDS = 6.0
"""Time in which the tiny guest must print its greeting; with a working KVM it needs less than two seconds."""


async def domain_type(kernel: Path, initrd: Path, directory: Path) -> str:
    """Return the type for libvirt domains here: "kvm", or "qemu" if KVM does not work. Tried once per boot."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "qemu"
    answer = directory / "domain-type"
    kind = await asyncio.to_thread(_remembered, answer)
    if kind is None:
        kind = "kvm" if await _boots(kernel, initrd) else "qemu"
        await asyncio.to_thread(_remember, answer, kind)
    return kind


def _remembered(answer: Path) -> str | None:
    """Return the answer that was found since the machine was booted, if any."""
    with contextlib.suppress(FileNotFoundError):
        boot, _, kind = answer.read_text().partition(" ")
        if boot == BOOT_ID.read_text().strip() and kind in ("kvm", "qemu"):
            return kind
    return None


def _remember(answer: Path, kind: str) -> None:
    answer.parent.mkdir(parents=True, exist_ok=True)
    scratch = answer.with_suffix(f".{os.getpid()}")
    scratch.write_text(f"{BOOT_ID.read_text().strip()} {kind}")
    scratch.replace(answer)


async def _boots(kernel: Path, initrd: Path) -> bool:
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-m", "128", "-nodefaults", "-no-user-config"]
    argv += ["-display", "none", "-serial", "stdio", "-no-reboot"]
    argv += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", COMMAND_LINE]
    try:
        qemu = await programs.start(programs.supervise.bound(argv), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    except programs.ProgramFailed:
        return False
    assert qemu.stdout is not None  # noqa: S101
    console = b""
    try:
        async with asyncio.timeout(BOOT_SECONDS):
            while GREETING.encode() not in console and (chunk := await qemu.stdout.read(4096)):
                console = console[-4096:] + chunk
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            qemu.kill()
        await qemu.wait()
    return GREETING.encode() in console
