"""Gratuitous ARP and unsolicited neighbor advertisements: an address has moved to this node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from pvcd import Clock
from pvcd_plugins.network.bridge import Address

PAUSE_SECONDS = (0.0, 1.0, 1.0)
"""Pauses before each of the announcements: a host may miss one, or ignore it while its own entry is fresh."""

_ARP, _IPV6 = 0x0806, 0x86DD
_ALL = b"\xff" * 6
_ALL_NODES, _ALL_NODES_MAC = IPv6Address("ff02::1"), bytes.fromhex("333300000001")
_ROUTER_OVERRIDE = 0xA0000000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Announced:
    """An address on a bridge."""

    bridge: str
    mac: str
    address: Address

    def frame(self) -> bytes:
        """Return the Ethernet frame that announces it."""
        mac = bytes.fromhex(self.mac.replace(":", ""))
        if isinstance(self.address, IPv4Address):
            return gratuitous_arp(mac, self.address)
        return advertisement(mac, self.address)


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP request to all for the sender's own address (RFC 5227)."""
    question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address.packed + bytes(6) + address.packed
    return _ALL + mac + struct.pack("!H", _ARP) + question


def advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """An unsolicited neighbor advertisement by a router to all nodes (RFC 4861, 7.2.6)."""
    body = struct.pack("!I", _ROUTER_OVERRIDE) + address.packed + b"\x02\x01" + mac
    length = 4 + len(body)
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", length, socket.IPPROTO_ICMPV6)
    message = struct.pack("!BBH", 136, 0, _checksum(pseudo + struct.pack("!BBH", 136, 0, 0) + body)) + body
    header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + mac + struct.pack("!H", _IPV6) + header + message


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Announcer:
    """Announces addresses several times, in the background, while they are held."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: frozenset[Announced] = frozenset()
        self._until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, held: Collection[Announced], until: float) -> None:
        """Limit announcements to these, until then: a late one would take an address from the node that now has it."""
        self._held, self._until = frozenset(held), until

    def announce(self, new: Collection[Announced]) -> None:
        """Start to announce these."""
        if new:
            task = asyncio.create_task(self._announce(new))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop announcing."""
        self._held = frozenset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _announce(self, new: Collection[Announced]) -> None:
        for pause in PAUSE_SECONDS:
            await self._clock.sleep(pause)
            if self._clock.monotonic() < self._until:
                send([each for each in new if each in self._held])


def send(announced: Collection[Announced]) -> None:
    """Send the frames without waiting. A lost one does not matter: each address is announced several times."""
    try:
        with contextlib.closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as packets:
            packets.setblocking(False)
            for each in announced:
                _send(packets, each)
    except OSError as error:
        _log.warning("cannot announce addresses: %s", error.strerror)


def _send(packets: socket.socket, announced: Announced) -> None:
    try:
        packets.sendto(announced.frame(), (announced.bridge, 0))
    except OSError as error:
        _log.info("cannot announce %s on %s: %s", announced.address, announced.bridge, error.strerror)
