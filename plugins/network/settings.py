"""pvc.network: how nodes make the networks of VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyAddress, StringConstraints

from pvcd import Port, Section, SettingsSection

Link = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}$")]


class NetworkSettings(Section):
    """pvc.network: how nodes make the networks of VMs"""

    device: Link | None = None
    """The link that carries the tunnels of managed networks from node to node; by default that of the default route, or
    loopback on a machine that has none."""
    vlan_device: Link | None = None
    """The link that has the VLANs of bridged networks; by default that of the tunnels."""
    port: Port = 4789
    """The UDP port of the tunnels."""
    mtu: Annotated[int, Field(ge=1350, le=65535)] | None = None
    """The MTU of the link that carries the tunnels, of which they take 50 bytes, or 70 between IPv6 addresses; by
    default what the link says."""
    dns_addresses: tuple[IPvAnyAddress, ...] = ()
    """Where the primary answers for the domains of all networks; by default where other nodes reach it."""
    dns_port: Port = 53
    """The port that it answers at."""
    name_servers: tuple[IPvAnyAddress, ...] = ()
    """Who is asked for all other names; by default the name servers of /etc/resolv.conf."""
    directory: Path = Path("/var/lib/pvcd/network")
    """Where nodes keep what their DHCP and name servers need while they run; programs must be allowed there."""


SECTION = SettingsSection("network", NetworkSettings)
