"""Small guests for the sandbox and the tests: a tiny Linux made of Debian packages, and a boot sector."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from itertools import starmap
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from lxml import etree

from pvcd import Failed, programs
from pvcd_plugins.sandbox import network

GREETING = "pvcd guest is ready"
"""The line that the tiny guest prints on its serial console when it is up and reacts to the power button."""

ADDRESS = "address "
"""The prefix of the line with an address that it has leased."""

INSTANCE = "instance "
"""The prefix of the line with its instance id, as the metadata API returns it."""

COMMAND_LINE = "console=ttyS0 quiet panic=1 mitigations=off nokaslr"
EMULATOR = "/usr/bin/qemu-system-x86_64"

_LOCK_PAUSE = 0.1
_PACKAGE = "linux-image-cloud-amd64"
_BUSYBOX = Path("/bin/busybox")
_MODULES = (
    *("evdev", "button"),  # the power button, and the file it is read from
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net", "af_packet"),
)

_INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {" ".join(_MODULES)}; do [ ! -f /lib/$module.ko ] || /bin/busybox insmod /lib/$module.ko; done
for link in /sys/class/net/eth*; do
  [ -d $link ] || continue
  /bin/busybox ip link set ${{link##*/}} up
  /bin/busybox udhcpc -i ${{link##*/}} -s /lib/udhcpc -t 20 -T 1 -A 1 -b -S >/dev/null 2>&1 &
done
for event in /sys/class/input/event*; do
  if /bin/busybox grep -q 'Power Button' $event/device/name; then
    exec 3</dev/input/${{event##*/}}
    (/bin/busybox head -c 24 <&3 >/dev/null; echo 'power button'; /bin/busybox poweroff -f) &
  fi
done
echo '{GREETING}'
n=0
while :; do n=$((n+1)); echo "tick $n"; /bin/busybox sleep 5; done
"""

_UDHCPC = f"""\
#!/bin/busybox sh
[ $1 = bound ] || [ $1 = renew ] || exit 0
/bin/busybox ip address replace $ip/$mask dev $interface
[ -z "$router" ] || /bin/busybox ip route replace default via $router
[ $1 = renew ] && exit 0
echo "{ADDRESS}$ip" >/dev/console
asked='GET /latest/meta-data/instance-id HTTP/1.0\\r\\n\\r\\n'
for attempt in 1 2 3 4 5; do
  # Keep the connection open: a server may take an end of input for a client that has gone.
  id=$( (printf "$asked"; /bin/busybox sleep 2) | /bin/busybox timeout 10 /bin/busybox nc 169.254.169.254 80)
  case "$id" in *200*OK*) break ;; esac
done
echo "$id" | /bin/busybox tail -n 1 | /bin/busybox sed "s/^/{INSTANCE}/" >/dev/console
"""
"""The guest's script for a DHCP lease."""

_BOOT_CODE = (
    b"\xfa\x31\xc0\x8e\xd8\x8e\xd0"  # cli; ds = ss = 0
    b"\xbc\x00\x7c\xfc\xfb"  # sp = 0x7c00; cld; sti
    b"\xbe\x40\x7c\xe8\x0e\x00"  # print the string at 0x7c40
    b"\xb9\x5b\x00"  # again: cx = 91 timer interrupts, that is 5 seconds
    b"\xf4\xe2\xfd"  # wait: hlt; loop wait
    b"\xbe\x60\x7c\xe8\x02\x00"  # print the string at 0x7c60
    b"\xeb\xf2"  # jmp again
    b"\xac\x84\xc0\x74\x12\x88\xc4"  # print: ah = the next byte, a zero returns
    b"\xba\xfd\x03\xec\xa8\x20\x74\xfb"  # until COM1 can take a byte
    b"\xba\xf8\x03\x88\xe0\xee\xeb\xe9"  # write it; jmp print
    b"\xc3"  # ret
)


class Tiny(NamedTuple):
    """The files from which the tiny guest boots."""

    kernel: Path
    initrd: Path


async def tiny(directory: Path) -> Tiny:
    """Return the tiny guest's kernel and initial file system in `directory`; build them if they are missing.

    Processes that share the directory build them once.
    """
    recipe = hashlib.sha256("\n".join((_INIT, _UDHCPC, *_MODULES)).encode()).hexdigest()[:8]
    files = Tiny(directory / "vmlinuz", directory / f"initrd-{recipe}.gz")
    if not all(file.exists() for file in files):
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        async with _locked(directory):
            if not all(file.exists() for file in files):
                with tempfile.TemporaryDirectory(dir=directory) as scratch:
                    await _unpack_kernel(Path(scratch))
                    await asyncio.to_thread(_build, Path(scratch), files)
    return files


@contextlib.asynccontextmanager
async def _locked(directory: Path) -> AsyncIterator[None]:
    """Hold a directory's lock, waiting for it; the kernel releases it when the process ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        while not _lock(descriptor):  # noqa: ASYNC110 - a lock of other processes
            await asyncio.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take a lock if no other process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def boot_sector(path: Path) -> Path:
    """Make a disk of 1 MiB whose boot sector writes a line to COM1 every 5 seconds and ignores the power button."""
    if not path.exists():
        sector = b"".join(
            (
                _BOOT_CODE.ljust(0x40, b"\0"),
                b"pvcd boot sector\r\n".ljust(0x20, b"\0"),
                b"tick\r\n".ljust(510 - 0x60, b"\0"),
                b"\x55\xaa",
            )
        )
        _write(path, sector.ljust(1024 * 1024, b"\0"))
    return path


def tiny_domain(
    name: str,
    uuid: UUID,
    kernel: Path,
    initrd: Path,
    domain_type: str,
    *,
    memory: int = 128,
    interfaces: Mapping[str, str] | None = None,
) -> str:
    """Return the XML of a VM that runs the tiny guest; `interfaces` maps MAC addresses to bridges."""
    domain = _domain(name, uuid, domain_type, memory)
    for mac, bridge in (interfaces or {}).items():
        interface = _add(_devices(domain), "interface", type="bridge")
        _add(interface, "mac", address=mac)
        _add(interface, "source", bridge=bridge)
        _add(interface, "model", type="virtio")
    system = domain.find("os")
    assert system is not None  # noqa: S101
    _add(system, "kernel", str(kernel))
    _add(system, "initrd", str(initrd))
    _add(system, "cmdline", COMMAND_LINE)
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def boot_sector_domain(name: str, uuid: UUID, image: Path, domain_type: str) -> str:
    """Return the XML of a VM that boots from the disk that `boot_sector` makes."""
    domain = _domain(name, uuid, domain_type, memory=16)
    disk = _add(_devices(domain), "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="raw")
    _add(disk, "source", file=str(image))
    _add(disk, "target", dev="vda", bus="virtio")
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def _domain(name: str, uuid: UUID, domain_type: str, memory: int) -> etree._Element:
    """Return the part that both guests share: one CPU, ACPI, a serial console and little else."""
    domain = etree.Element("domain", type=domain_type)
    _add(domain, "name", name)
    _add(domain, "uuid", str(uuid))
    _add(domain, "memory", str(memory), unit="MiB")
    _add(domain, "vcpu", "1")
    _add(_add(domain, "os"), "type", "hvm", arch="x86_64", machine="pc")
    features = _add(domain, "features")
    _add(features, "acpi")
    if domain_type == "qemu":  # without a limit, the emulator's translation cache takes up to 1 GiB
        _add(_add(features, "tcg"), "tb-cache", "64", unit="MiB")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _add(domain, f"on_{event}", action)
    devices = _add(domain, "devices")
    _add(devices, "emulator", EMULATOR)
    _add(devices, "controller", type="usb", model="none")
    _add(devices, "serial", type="pty")
    _add(devices, "console", type="pty")
    _add(devices, "memballoon", model="none")
    return domain


def _devices(domain: etree._Element) -> etree._Element:
    devices = domain.find("devices")
    assert devices is not None  # noqa: S101
    return devices


def _add(parent: etree._Element, tag: str, text: str | None = None, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
    return element


async def _unpack_kernel(scratch: Path) -> None:
    """Download and unpack Debian's small cloud kernel, without installing it."""
    try:
        await _download_kernel(scratch)
    except Failed:  # apt's package lists may be missing or out of date
        await programs.run([*network.outside(), "apt-get", "update", "-q"], timeout=300)
        await _download_kernel(scratch)
    package = await asyncio.to_thread(lambda: next(scratch.glob("*.deb")))
    await programs.run(["dpkg-deb", "-x", str(package), str(scratch)], timeout=120)


async def _download_kernel(scratch: Path) -> None:
    depends = await programs.run(["apt-cache", "depends", _PACKAGE], timeout=30)
    match = re.search(r"Depends: (linux-image-\S+)", depends.stdout.decode())
    if match is None:
        raise Failed(f"Cannot download the guest's kernel: apt knows no package {_PACKAGE!r}.", code="package-missing")
    download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", match[1]]
    await programs.run([*network.outside(), "env", "-C", str(scratch), *download], timeout=300)


def _build(scratch: Path, files: Tiny) -> None:
    kernel = next(scratch.glob("boot/vmlinuz-*"))
    _write(files.initrd, gzip.compress(_initramfs(scratch / "lib/modules"), 6))
    _write(files.kernel, kernel.read_bytes())


def _initramfs(modules: Path) -> bytes:
    """Return the guest's whole file system as a cpio archive, which the kernel unpacks into memory."""
    entries = [("bin", 0o40755, b""), ("lib", 0o40755, b"")]
    entries.append(("bin/busybox", 0o100755, _BUSYBOX.read_bytes()))
    entries.append(("init", 0o100755, _INIT.encode()))
    entries.append(("lib/udhcpc", 0o100755, _UDHCPC.encode()))
    for name in _MODULES:
        for module in modules.rglob(f"{name}.ko*"):
            data = module.read_bytes()
            entries.append((f"lib/{name}.ko", 0o100644, lzma.decompress(data) if module.suffix == ".xz" else data))
    return b"".join(starmap(_cpio, entries)) + _cpio("TRAILER!!!", 0, b"")


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    """Return a member of a cpio archive in the "newc" format (kernel documentation: initramfs-buffer-format)."""
    path = name.encode() + b"\0"
    #         ino mode  uid gid links time size      major, minor (of the file and of a device)  length    sum
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, 0o644)
        os.replace(scratch, path)
    except BaseException:  # also Ctrl-C: leave no scratch file behind
        os.unlink(scratch)
        raise
