"""The programs and files that the sandbox's servers need, and the Debian packages that contain them."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Collection
from typing import NamedTuple

from pvcd import Failed
from pvcd_plugins.sandbox.zookeeper import JAR, LOG_JAR

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of all servers, on which their programs are looked up."""

ALL = "all"


class Need(NamedTuple):
    """A program (on `PATH`) or a file (a glob pattern that begins with /) that a server needs."""

    what: str
    package: str
    server: str


NEEDS = (
    Need("setpriv", "util-linux", ALL),
    Need("java", "default-jre-headless", "zookeeper"),
    Need(JAR, "libzookeeper-java", "zookeeper"),
    Need(LOG_JAR, "libslf4j-java", "zookeeper"),
    Need("redis-server", "redis-server", "redis"),
    Need("virtlogd", "libvirt-daemon", "virtlogd"),
    Need("libvirtd", "libvirt-daemon", "libvirtd"),
    Need("/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so", "libvirt-daemon-driver-qemu", "libvirtd"),
    Need("virsh", "libvirt-clients", "libvirtd"),
    Need("qemu-system-x86_64", "qemu-system-x86", "libvirtd"),
    Need("qemu-img", "qemu-utils", "libvirtd"),
    Need("/usr/share/seabios/bios-256k.bin", "seabios", "libvirtd"),
    Need("/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu", "libvirtd"),
    Need("ceph-mon", "ceph-mon", "ceph-mon"),
    Need("ceph", "ceph-common", "ceph-mon"),
    Need("rbd", "ceph-common", "ceph-mon"),
    Need("ceph-mgr", "ceph-mgr", "ceph-mgr"),
    Need("ceph-osd", "ceph-osd", "ceph-osd"),
    Need("/usr/lib/*/qemu/block-rbd.so", "qemu-block-extra", "ceph-osd"),
    Need("qemu-storage-daemon", "qemu-system-common", "ceph-osd"),
    Need("losetup", "mount", "ceph-osd"),
    Need("ip", "iproute2", "node"),
    Need("dnsmasq", "dnsmasq-base", "node"),
    Need("nft", "nftables", "node"),
    Need("extlinux", "extlinux", "worker"),
    Need("mkfs.ext4", "e2fsprogs", "worker"),
    Need("busybox", "busybox-static", "node"),
    Need("cpio", "cpio", "node"),
    Need("xz", "xz-utils", "node"),
)


def exists(what: str) -> bool:
    """Return whether a program or file is there."""
    return bool(glob.glob(what)) if what.startswith("/") else shutil.which(what, path=PATH) is not None


def missing(servers: Collection[str], there: Callable[[str], bool] = exists) -> list[Need]:
    """Return what these servers need and this machine lacks."""
    return [need for need in NEEDS if need.server in (ALL, *servers) and not there(need.what)]


def check(servers: Collection[str], there: Callable[[str], bool] = exists) -> None:
    """Raise an error that names everything that is missing, and how to install it."""
    absent = missing(servers, there)
    if absent:
        names = ", ".join(need.what for need in absent)
        packages = " ".join(dict.fromkeys(need.package for need in absent))
        raise Failed(
            f"Cannot start the sandbox: not installed: {names}.\nInstall with: apt-get install {packages}",
            code="package-missing",
        )
