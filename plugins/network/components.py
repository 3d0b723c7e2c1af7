"""What is opened for networks: the doors of each node, and those of the primary, which gives up what it held."""

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
from pvcd_plugins.network.leases import StoredLeases
from pvcd_plugins.network.settings import NetworkSettings

log = logging.getLogger(__name__)
FIREWALL: ComponentKey[Firewall] = ComponentKey("firewall")
BRIDGES: ComponentKey[Bridges] = ComponentKey("bridges")
GATEWAYS: ComponentKey[Bridges] = ComponentKey("gateways")
DHCP: ComponentKey[Dhcp] = ComponentKey("dhcp")
DNS: ComponentKey[Dns] = ComponentKey("dns")


@contextlib.asynccontextmanager
async def open_firewall(context: Context) -> AsyncIterator[Firewall]:
    """The packet filter of this machine; in the API, what knows which rules are sound."""
    from pvcd_plugins.network.firewall.nft import NftFirewall

    yield NftFirewall()


@contextlib.asynccontextmanager
async def fake_firewall(context: Context) -> AsyncIterator[Firewall]:
    """One that filters nothing."""
    from pvcd_plugins.network.firewall.fake import FakeFirewall

    yield FakeFirewall()


@contextlib.asynccontextmanager
async def open_bridges(context: Context) -> AsyncIterator[Bridges]:
    """The links of this node."""
    from pvcd_plugins.network.bridge.linux import LinuxBridges

    settings = context.settings.of(NetworkSettings)
    async with LinuxBridges(settings.device, settings.vlan_device, settings.port, settings.mtu) as bridges:
        yield bridges


@contextlib.asynccontextmanager
async def fake_bridges(context: Context) -> AsyncIterator[Bridges]:
    """Bridges of no node."""
    from pvcd_plugins.network.bridge.fake import FakeBridges

    yield FakeBridges(clock=context.clock)


@contextlib.asynccontextmanager
async def open_gateways(context: Context) -> AsyncIterator[Bridges]:
    """The bridges of the primary, on which no gateway stays when it is one no more."""
    bridges = context[BRIDGES]
    try:
        yield bridges
    finally:
        try:
            await bridges.hold({}, 0)
        except PvcdError as error:
            log.warning("the gateways vanish by themselves only: %s", error)


@contextlib.asynccontextmanager
async def open_dhcp(context: Context) -> AsyncIterator[Dhcp]:
    """The DHCP servers of all managed networks."""
    from pvcd_plugins.network.dhcp.dnsmasq import DnsmasqDhcp

    dhcp = DnsmasqDhcp(context.settings.of(NetworkSettings).directory / "dhcp", StoredLeases(context))
    await dhcp.open()
    try:
        yield dhcp
    finally:
        await dhcp.close()


@contextlib.asynccontextmanager
async def fake_dhcp(context: Context) -> AsyncIterator[Dhcp]:
    """Servers that are asked by tests."""
    from pvcd_plugins.network.dhcp.fake import FakeDhcp

    yield FakeDhcp(StoredLeases(context), context.clock)


@contextlib.asynccontextmanager
async def open_dns(context: Context) -> AsyncIterator[Dns]:
    """The name server for all networks, where the settings want it or else where other nodes reach this one."""
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
    """A server that answers nobody."""
    from pvcd_plugins.network.dns.fake import FakeDns

    yield FakeDns()


COMPONENTS: list[Component[Any]] = [
    Component(FIREWALL, open_firewall, roles=(Role.API, Role.NODE), fake=fake_firewall),
    Component(BRIDGES, open_bridges, roles=(Role.NODE,), fake=fake_bridges),
    # Opened first of the primary's: servers end before the addresses go at which they answer.
    Component(GATEWAYS, open_gateways, roles=(Role.PRIMARY,)),
    Component(DHCP, open_dhcp, roles=(Role.PRIMARY,), needs=(GATEWAYS,), fake=fake_dhcp),
    Component(DNS, open_dns, roles=(Role.PRIMARY,), needs=(GATEWAYS,), fake=fake_dns),
]
