"""The table of what each grant of pvc.vm.host_access opens."""

from __future__ import annotations

from typing import NamedTuple

from pvcd_plugins.vm.free import WORD


class Grant(NamedTuple):
    """A permission for the XML of VMs to reach into the node."""

    meaning: str
    opens: tuple[str, ...] = ()
    """Regular expressions: `path` is all of an element, `path@attribute` one attribute, `path@attribute=value` some
    values of it, `path@#` the text."""


_CHARACTER_DEVICE = "devices/(serial|parallel|console|channel|smartcard|redirdev)"
_SOUND = "bufferCount|clientName|connectPorts|exactName|latency|name|serverName|streamName|tryPoll"
_QEMU = r"\{http://libvirt\.org/schemas/domain/qemu/1\.0\}.*"
GRANTS = {
    "block": Grant("disks on block devices of the node", ("devices/disk/source@dev",)),
    "bridges": Grant(
        "interfaces at bridges of the node that are no network of pvcd, with their VLANs and MTU",
        ("devices/interface/source@bridge", "devices/interface/(vlan|virtualport|mtu)"),
    ),
    "chardev": Grant(
        "character devices, their logs, random numbers and TPMs from files, devices, pipes and sockets of the node",
        (
            f"{_CHARACTER_DEVICE}@(type|tty)",
            f"{_CHARACTER_DEVICE}/(source|protocol|log)([/@].*)?",
            "devices/rng/backend@(type|#)",
            "devices/rng/backend@model=egd",
            "devices/rng/backend/(source|protocol|log)",
            "devices/tpm/backend@type=external",
            "devices/tpm/backend/source",
            "devices/graphics(/listen)?@socket",
        ),
    ),
    "commandline": Grant("arguments, environment and properties of QEMU", (_QEMU,)),
    "direct": Grant(
        "interfaces at network devices of the node (macvtap)",
        (
            "devices/interface@type=direct",
            "devices/interface@trustGuestRxFilters",
            "devices/interface/source@(dev|mode)",
            "devices/interface/virtualport",
        ),
    ),
    "display": Grant(
        "displays, graphics cards and sound of the node",
        (
            "devices/graphics@(type|fullscreen|p2p|multiUser|replaceUser)",
            f"devices/graphics@display={WORD}",
            "devices/graphics/gl@enable",
            "devices/video/model/acceleration@accel3d",
            "devices/(graphics/gl|video/model/acceleration)@rendernode=/dev/dri/renderD[0-9]+",
            "devices/video/driver@name",
            f"devices/audio@(type|timerPeriod|serverName|driver|tryMMap|exclusive|dspPolicy)={WORD}",
            f"devices/audio/(input|output)@({_SOUND})={WORD}",
            "devices/audio/(input|output)@dev=(default|(plug)?hw:[0-9,]+)",
        ),
    ),
    "ethernet": Grant(
        "interfaces made by the node's network programs: their scripts, names and device files",
        (
            "devices/interface@(type=ethernet|managed)",
            "devices/interface/(script|downscript|guest|ip|route)",
            "devices/interface/target@(dev|managed)",
            "devices/interface/backend@.*",
        ),
    ),
    "files": Grant(
        "disks, firmware, kernels, memory, recordings, logs and sockets of disks as files below the listed directories"
    ),
    "filesystem": Grant("directories of the node as filesystems of the guest", ("devices/filesystem",)),
    "formats": Grant(
        "disks in other formats than raw: the disk's own header names further files, also outside of `files`",
        ("devices/disk/driver@type", "devices/disk/backingStore.*", "devices/disk/transient"),
    ),
    "hostdev": Grant(
        "devices of the node: PCI, USB, SCSI, NVMe, mediated, input, TPM and smart card readers",
        (
            "devices/hostdev",
            "devices/interface@(type=(hostdev|vdpa)|managed)",
            "devices/interface/source@(dev|mode)",
            "devices/interface/source/(address|vendor|product)",
            "devices/interface/teaming",
            "devices/disk@(type=nvme|device=lun|rawio|sgio)",
            "devices/disk/source@(type|namespace|managed)",
            "devices/disk/source/(address|reservations)",
            "devices/input@type",
            "devices/input/source",
            "devices/tpm/backend@type=passthrough",
            "devices/tpm/backend/device",
            "devices/smartcard@mode",
            "devices/smartcard/(certificate|database)",
        ),
    ),
    "launch-security": Grant("encrypted guests (AMD SEV, IBM Secure Execution)", ("launchSecurity",)),
    "network": Grant(
        "interfaces at networks of libvirt, and its packet filters",
        (
            "devices/interface@type=(network|internal)",
            "devices/interface/source@(network|portgroup|portid|name)",
            "devices/interface/(vlan|virtualport|filterref@filter)",
        ),
    ),
    "network-disks": Grant(
        "disks over the network, other than volumes of this cluster's Ceph: any protocol, host, user and secret",
        (
            "devices/disk/source@(protocol|name|query|tls|tlsHostname)",
            "devices/disk/source/(auth|cookies|ssl|initiator|timeout|readahead|reconnect)",
            "devices/disk/source/host@(name=[^/]*|port|transport)",
            "devices/disk/source/identity@(user|username|group)",
            "devices/disk/auth",
        ),
    ),
    "secrets": Grant(
        "encrypted disks and TPMs, with secrets of the node's libvirt",
        ("devices/disk/(source/)?encryption", "devices/tpm/backend/encryption"),
    ),
    "seclabel": Grant("security labels", ("seclabel", "devices/.*/seclabel")),
    "shared-memory": Grant(
        "memory that other processes of the node share", ("devices/shmem", "memoryBacking/source@type=file")
    ),
    "sockets": Grant(
        "interfaces over TCP, UDP and multicast of the node",
        (
            "devices/interface@type=(client|server|mcast|udp)",
            "devices/interface/source@(address|port)",
            "devices/interface/source/local",
        ),
    ),
    "storage-pools": Grant("disks in storage pools of libvirt", ("devices/disk/source@(pool|volume|mode)",)),
    "tuning": Grant(
        "CPU pinning, scheduling, shares, NUMA placement, memory locking and limits, block I/O, resource groups",
        (
            "vcpu@(cpuset|placement)",
            "cputune/.*",
            "numatune|memtune|blkiotune|resource",
            "memoryBacking/locked",
            "devices/memory/source/nodemask",
        ),
    ),
    "user": Grant(
        "interfaces through the node's own network stack (SLIRP, passt)",
        (
            "devices/interface@type=user",
            f"devices/interface/source@dev={WORD}",
            f"devices/interface/backend@(type|hostname|fqdn)={WORD}",
            "devices/interface/(portForward|ip)",
        ),
    ),
    "vhostuser": Grant(
        "interfaces and disks at sockets of vhost-user programs",
        (
            "devices/(interface|disk)@type=vhostuser",
            "devices/(interface|disk)/source@(type|path|mode)",
            "devices/(interface|disk)/source/reconnect",
        ),
    ),
    "vnc-open": Grant(
        "VNC and SPICE at other addresses than loopback and at any port",
        ("devices/graphics@(listen|port|tlsPort|websocket)", "devices/graphics/listen@address"),
    ),
    "vsock": Grant("sockets between guest and node", ("devices/vsock",)),
    "everything": Grant("all of libvirt: such a VM can be as good as root on its node"),
}
"""pvc.vm.host_access: what each name opens. Where several open the same, the first is named in errors."""
