"""pvc.network: how nodes connect the networks of VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyAddress, StringConstraints

from pvcd import Port, Section, SettingsSection

Link = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}$")]


class NetworkSettings(Section):
    """pvc.network: how nodes connect the networks of VMs"""

    device: Link | None = None
    """The link that carries the tunnels of managed networks; by default that of the default route, or loopback on a
    machine without one."""
    vlan_device: Link | None = None
    """The link that carries the VLANs of bridged networks; a node without it has no bridged networks."""
    port: Port = 4789
    """The UDP port of the tunnels."""
    mtu: Annotated[int, Field(ge=1350, le=65535)] | None = None
    """The MTU of the link that carries the tunnels, which take 50 bytes of it, or 70 between IPv6 addresses; by default
    that of `device`."""
    dns_addresses: tuple[IPvAnyAddress, ...] = ()
    """Addresses of the primary's name server for the domains of all networks; by default that of its tunnels."""
    dns_port: Port = 53
    """The port of that name server."""
    name_servers: tuple[IPvAnyAddress, ...] = ()
    """The name servers for all other names; by default those of /etc/resolv.conf."""
    directory: Path = Path("/var/lib/pvcd/network")
    """Working files of the DHCP and name servers on nodes; must not be mounted noexec."""


SECTION = SettingsSection("network", NetworkSettings)
