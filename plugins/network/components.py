"""The components of networks: the doors of each node, and those of the primary."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from pvcd import Component, ComponentKey, Context, PvcdError, Role
from pvcd_plugins.network.bridge import Bridges
from pvcd_plugins.network.dhcp import Dhcp
from pvcd_plugins.network.dns import Dns
from pvcd_plugins.network.firewall import Firewall
from pvcd_plugins.network.rules.leases import StoredLeases
from pvcd_plugins.network.settings import NetworkSettings

log = logging.getLogger(__name__)
FIREWALL: ComponentKey[Firewall] = ComponentKey("firewall")
BRIDGES: ComponentKey[Bridges] = ComponentKey("bridges")
GATEWAYS: ComponentKey[Bridges] = ComponentKey("gateways")
DHCP: ComponentKey[Dhcp] = ComponentKey("dhcp")
DNS: ComponentKey[Dns] = ComponentKey("dns")


@contextlib.asynccontextmanager
async def open_firewall(context: Context) -> AsyncIterator[Firewall]:
    """Open the packet filter of this machine; the API uses it to check rules."""
    from pvcd_plugins.network.firewall.nft import NftFirewall

    yield NftFirewall()


@contextlib.asynccontextmanager
async def fake_firewall(context: Context) -> AsyncIterator[Firewall]:
    """Open one in memory."""
    from pvcd_plugins.network.firewall.fake import FakeFirewall

    yield FakeFirewall()


@contextlib.asynccontextmanager
async def open_bridges(context: Context) -> AsyncIterator[Bridges]:
    """Open the links of this node."""
    from pvcd_plugins.network.bridge.linux import LinuxBridges

    settings = context.settings.of(NetworkSettings)
    async with LinuxBridges(settings.device, settings.vlan_device, settings.port, settings.mtu) as bridges:
        yield bridges


@contextlib.asynccontextmanager
async def fake_bridges(context: Context) -> AsyncIterator[Bridges]:
    """Open bridges in memory."""
    from pvcd_plugins.network.bridge.fake import FakeBridges

    yield FakeBridges(clock=context.clock)


@contextlib.asynccontextmanager
async def open_gateways(context: Context) -> AsyncIterator[Bridges]:
    """Open the bridges for the primary, which gives up the gateways at the end."""
    bridges = context[BRIDGES]
    try:
        yield bridges
    finally:
        try:
            await bridges.hold({}, 0)
        except PvcdError as error:
            log.warning("cannot give up the gateways now, so they expire later: %s", error)


@contextlib.asynccontextmanager
async def open_dhcp(context: Context) -> AsyncIterator[Dhcp]:
    """Open the DHCP servers of all managed networks."""
    from pvcd_plugins.network.dhcp.dnsmasq import DnsmasqDhcp

    dhcp = DnsmasqDhcp(context.settings.of(NetworkSettings).directory / "dhcp", StoredLeases(context))
    await dhcp.open()
    try:
        yield dhcp
    finally:
        await dhcp.close()


@contextlib.asynccontextmanager
async def fake_dhcp(context: Context) -> AsyncIterator[Dhcp]:
    """Open DHCP servers in memory."""
    from pvcd_plugins.network.dhcp.fake import FakeDhcp

    yield FakeDhcp(StoredLeases(context), context.clock)


@contextlib.asynccontextmanager
async def open_dns(context: Context) -> AsyncIterator[Dns]:
    """Open the name server for all networks, at the address of the tunnels unless the settings name others."""
    from pvcd_plugins.network.dns.dnsmasq import DnsmasqDns

    settings = context.settings.of(NetworkSettings)
    addresses = settings.dns_addresses or (await context[BRIDGES].address(),)
    dns = DnsmasqDns(settings.directory / "dns", addresses, settings.dns_port, settings.name_servers)
    await dns.open()
    try:
        yield dns
    finally:
        await dns.close()


@contextlib.asynccontextmanager
async def fake_dns(context: Context) -> AsyncIterator[Dns]:
    """Open a name server in memory."""
    from pvcd_plugins.network.dns.fake import FakeDns

    yield FakeDns()


COMPONENTS: list[Component[Any]] = [
    Component(FIREWALL, open_firewall, roles=(Role.API, Role.NODE), fake=fake_firewall),
    Component(BRIDGES, open_bridges, roles=(Role.NODE,), fake=fake_bridges),
    # Opened first of the primary's, so that servers end before their addresses go.
    Component(GATEWAYS, open_gateways, roles=(Role.PRIMARY,), in_memory=True),
    Component(DHCP, open_dhcp, roles=(Role.PRIMARY,), needs=(GATEWAYS,), fake=fake_dhcp),
    Component(DNS, open_dns, roles=(Role.PRIMARY,), needs=(GATEWAYS,), fake=fake_dns),
]
