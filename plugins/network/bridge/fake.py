"""Bridges in memory, for tests and simulations. What is public beyond the protocol scripts them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from pvcd import Clock, Failed, SystemClock
from pvcd_plugins.network.bridge import (
    Address,
    Bridge,
    Gateway,
    Kind,
    absent,
    apart,
    bridge_name,
    taken,
    unreachable,
    uplink_name,
    with_router,
    wrong,
)

HERE = IPv4Address("10.0.0.1")


class FakeBridges:
    """Bridges that exist in name only."""

    def __init__(self, address: Address | None = HERE, *, mtu: int = 1450, clock: Clock | None = None) -> None:
        self.here = address
        """None where the node has no address for tunnels."""
        self.width = mtu
        self.bridges: dict[int, Bridge] = {}
        """The existing ones, by VNI."""
        self.peers: dict[int, frozenset[Address]] = {}
        """The far ends of the tunnels, by VNI."""
        self.foreign: set[str] = set()
        """Names of links that pvcd did not create."""
        self.broken: dict[int, str] = {}
        """Sentences by VNI for bridges that cannot be created."""
        self.announced: list[tuple[int, Gateway]] = []
        """The announcements, in order."""
        self._clock = clock or SystemClock()
        self._ends: dict[tuple[int, Gateway], float] = {}

    def addresses(self, vni: int) -> frozenset[Gateway]:
        """Return the current addresses of a bridge."""
        now = self._clock.monotonic()
        return frozenset(one for (of, one), end in self._ends.items() if of == vni and now < end)

    async def address(self) -> Address:
        """Return where other nodes reach this one."""
        if self.here is None:
            raise Failed(unreachable("up0"))
        return self.here

    async def mtu(self) -> int:
        """Return the MTU of managed networks."""
        await self.address()
        return self.width

    async def apply(self, wanted: Collection[Bridge], peers: Collection[Address]) -> dict[int, str]:
        """Have exactly these bridges."""
        failures: dict[int, str] = {}
        for vni in self.bridges.keys() - {bridge.vni for bridge in wanted}:
            self._forget(vni)
        for bridge in wanted:
            if sentence := await self._obstacle(bridge):
                failures[bridge.vni] = sentence
                continue
            self.bridges[bridge.vni] = bridge
            self.peers[bridge.vni] = frozenset()
            if bridge.kind is Kind.MANAGED:
                here = await self.address()
                self.peers[bridge.vni] = frozenset(each for each in peers if each.version == here.version) - {here}
                for peer in (each for each in peers if each.version != here.version):
                    failures[bridge.vni] = apart(peer, here)
        return failures

    async def _obstacle(self, bridge: Bridge) -> str | None:
        names = (bridge_name(bridge.vni), uplink_name(bridge))
        if foreign := [name for name in names if name in self.foreign]:
            return taken(foreign[0])
        if bridge.kind is Kind.MANAGED:
            try:
                await self.address()
            except Failed as error:
                return error.sentence
        return wrong(bridge.vni, bridge.kind) or self.broken.get(bridge.vni)

    def _forget(self, vni: int) -> None:
        del self.bridges[vni], self.peers[vni]
        self._ends = {key: end for key, end in self._ends.items() if key[0] != vni}

    async def hold(self, gateways: Mapping[int, Collection[Gateway]], seconds: float) -> dict[int, str]:
        """Have exactly these addresses for this time."""
        wanted = {(vni, one) for vni, some in gateways.items() for one in with_router(some)}
        there = {(vni, one) for vni, one in wanted if vni in self.bridges}
        self.announced += sorted(
            ((vni, one) for vni, one in there if one not in self.addresses(vni)), key=lambda key: (key[0], str(key[1]))
        )
        self._ends = dict.fromkeys(there, self._clock.monotonic() + seconds)
        return {vni: absent(vni) for vni, _ in wanted - there}

    async def aclose(self) -> None:
        """Do nothing: the fake has no background work."""
