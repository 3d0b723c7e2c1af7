"""Compares existing links with wanted ones. Pure functions, which return the steps to take."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Any

from pvcd_plugins.network.bridge import Address, Bridge, Gateway, Kind, bridge_name, uplink_name
from pvcd_plugins.network.bridge.links import ALIAS, FLOOD, GROUP, Link, Step

OVERHEAD = {4: 50, 6: 70}
"""Bytes that a tunnel adds to each frame, by the version of IP beneath."""
LOOPBACK_MTU = 1500
"""For tunnels over the loopback device, whose own MTU of 64 KiB no guest expects."""


@dataclass(frozen=True)
class Underlay:
    """The link that carries this node's tunnels."""

    device: str
    address: Address
    port: int
    mtu: int
    """Of the networks, not of the device."""


@dataclass(frozen=True)
class Uplink:
    """The link that connects a bridge with those of other nodes, as it should be."""

    name: str
    device: str
    mtu: int
    kind: str
    add: tuple[str, ...]
    """The arguments of `ip` that create it."""
    needs: str
    details: Mapping[str, Any]
    """Its properties as `ip` must show them."""
    mac: str
    """Of the bridge. It differs by node, since a node would take frames to the gateway of another one for its own."""
    local: Address | None = None
    """The near end of a tunnel."""

    def fits(self, link: Link) -> bool:
        """Return whether a link is this one, apart from its MTU, which can be changed."""
        same = link.kind == self.kind and link.device == self.device
        return same and self.details.items() <= link.details.items()


def tunnel_mtu(device: Link, address: Address, mtu: int | None) -> int:
    """Return the MTU of networks whose tunnels run over a device; `mtu` overrides that of the device."""
    own = min(device.mtu, LOOPBACK_MTU) if device.name == "lo" else device.mtu
    return (mtu or own) - OVERHEAD[address.version]


def underlay_address(device: Link) -> Address | None:
    """Choose the address of a device that other nodes can reach, IPv4 preferred."""
    scopes = ("global", "host") if device.name == "lo" else ("global",)
    usable = [each.interface.ip for each in device.addresses if each.usable and each.scope in scopes]
    return min(usable, key=lambda address: address.version, default=None)


def tunnel(vni: int, under: Underlay) -> Uplink:
    """Plan the uplink of a managed network."""
    name, local = uplink_name(Bridge(vni, Kind.MANAGED)), str(under.address)
    link = ("link", "add", "name", name, "group", GROUP, "type", "vxlan", "id", str(vni))
    add = (*link, "local", local, "dstport", str(under.port), "dev", under.device)
    details = {"id": vni, "local" if under.address.version == 4 else "local6": local, "port": under.port}
    return Uplink(name, under.device, under.mtu, "vxlan", add, "vxlan", details, bridge_mac(local, vni), under.address)


def vlan(vni: int, device: Link) -> Uplink:
    """Plan the uplink of a bridged network."""
    name = uplink_name(Bridge(vni, Kind.BRIDGED))
    add = ("link", "add", "link", device.name, "name", name, "group", GROUP, "type", "vlan", "id", str(vni))
    return Uplink(name, device.name, device.mtu, "vlan", add, "8021q", {"id": vni}, bridge_mac(device.mac, vni))


def bridge_mac(node: str, vni: int) -> str:
    """Derive the MAC address of a bridge: independent of its ports, different on each node."""
    octets = bytearray(sha256(f"{node} {vni}".encode()).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02  # locally administered, unicast
    return octets.hex(":")


def making(vni: int, uplink: Uplink, links: Mapping[str, Link]) -> Iterator[Step]:
    """Create or repair the bridge and its uplink, without setting them up."""
    bridge = bridge_name(vni)
    seen, seen_bridge = links.get(uplink.name), links.get(bridge)
    if seen and not uplink.fits(seen):
        yield Step(vni, ("link", "del", uplink.name))
        seen = None
    if not seen:
        yield Step(vni, uplink.add, uplink.name, uplink.needs)
    if not seen_bridge:
        add = ("link", "add", "name", bridge, "address", uplink.mac, "group", GROUP)
        yield Step(vni, (*add, "type", "bridge", "stp_state", "0", "forward_delay", "0"), bridge, "bridge")
    for name, link, master in ((bridge, seen_bridge, None), (uplink.name, seen, bridge)):
        changes: tuple[str, ...] = () if link else ("alias", ALIAS)
        if not link or link.mtu != uplink.mtu:
            # A bridge whose MTU was set does not adopt that of its narrowest port.
            changes += ("mtu", str(uplink.mtu))
        if master and (not link or link.master != master):
            changes += ("master", master)
        if changes:
            yield Step(vni, ("link", "set", "dev", name, *changes))


def raising(vni: int, uplink: Uplink, links: Mapping[str, Link]) -> Iterator[Step]:
    """Set up the uplink and the bridge that are down."""
    for name in (uplink.name, bridge_name(vni)):
        link = links.get(name)
        if not link or not link.up or (name == uplink.name and not uplink.fits(link)):
            yield Step(vni, ("link", "set", "dev", name, "up"))


def flooding(vni: int, name: str, peers: Collection[Address], seen: Collection[Address]) -> Iterator[Step]:
    """Send broadcast frames to exactly these peers."""
    for word, changed in (("append", set(peers) - set(seen)), ("del", set(seen) - set(peers))):
        for peer in sorted(changed, key=str):
            yield Step(vni, ("fdb", word, FLOOD, "dev", name, "dst", str(peer)))


def holding(vni: int, link: Link, wanted: Collection[Gateway], seconds: float) -> Iterator[Step]:
    """Have exactly these addresses for this time, beside permanent ones."""
    for each in link.addresses:
        if not each.forever and each.interface not in wanted:
            yield Step(vni, ("address", "del", str(each.interface), "dev", link.name))
    limit = str(max(1, ceil(seconds)))
    for gateway in sorted(wanted, key=str):
        words = ("address", "replace", str(gateway), "dev", link.name, "valid_lft", limit, "preferred_lft", limit)
        # The node that had the address before may not have given it up yet.
        yield Step(vni, (*words, "nodad") if gateway.version == 6 else words)
