"""DHCP and host names in memory, for tests and simulations. What is public beyond the protocol scripts them."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address
from pathlib import Path

from pvcd import Clock, PvcdError, SystemClock
from pvcd_plugins.network.dhcp import Address, Leased, Leases, Served
from pvcd_plugins.network.dhcp.configuration import Place, configuration, names, reservations

LEASE_SECONDS = 48 * 3600.0


class FakeDhcp:
    """Serves networks without any server; hosts take leases with `request`."""

    def __init__(self, leases: Leases, clock: Clock | None = None) -> None:
        self.served: dict[int, Served] = {}
        self.broken: dict[int, str] = {}
        """Sentences by VNI for networks whose server does not work."""
        self.leased: dict[int, dict[Address, Leased]] = {}
        self._leases = leases
        self._clock = clock or SystemClock()

    async def open(self) -> None:
        """Start without any network."""

    async def close(self) -> None:
        """Stop serving."""
        await self.apply(())

    async def apply(self, wanted: Collection[Served]) -> dict[int, str]:
        """Serve exactly these networks."""
        sentences = dict[int, str]()
        for vni in self.served.keys() - {each.vni for each in wanted}:
            del self.served[vni], self.leased[vni]
        for each in wanted:
            try:
                _check(each)
                if each.vni in self.broken:
                    sentences[each.vni] = self.broken[each.vni]
                elif each.vni not in self.served:
                    self.leased[each.vni] = {one.address: one for one in await self._leases.known(each.vni)}
            except PvcdError as error:
                sentences[each.vni] = error.sentence
            if each.vni not in sentences:
                self.served[each.vni] = each
        return sentences

    async def request(self, vni: int, mac: str, hostname: str | None = None) -> Leased | None:
        """Take or renew the lease of a host. Returns None if there is no server or no free address."""
        served = self.served.get(vni)
        if served is None or served.dhcp4 is None or vni in self.broken:
            return None
        held = {one.address: one for one in self.leased[vni].values() if one.expires > self._clock.time()}
        reserved = {one.mac: one for one in served.reservations}
        if mac in reserved:
            address, hostname = reserved[mac].address, reserved[mac].hostname or hostname
        else:
            free = _free(served, {each for each, one in held.items() if one.mac != mac})
            if not free:
                return None
            own = [each for each in free if each in held]
            address = min(own or free)
            hostname = hostname or (held[address].hostname if own else None)
        lease = Leased(address, mac, "*", hostname, self._clock.time() + LEASE_SECONDS)
        self.leased[vni][address] = lease
        await self._leases.taken(vni, lease)
        return lease

    async def release(self, vni: int, address: Address) -> None:
        """Give back the lease of a host."""
        if vni in self.served and self.leased[vni].pop(address, None) is not None:
            await self._leases.ended(vni, address)

    def names(self, vni: int) -> dict[str, Address]:
        """Return the addresses that the network's name server knows, by full host name."""
        served = self.served.get(vni)
        if served is None or vni in self.broken:
            return {}
        found = {one.hostname: one.address for one in self.leased[vni].values() if one.hostname}
        found |= {one.hostname: one.address for one in served.reservations if one.hostname}
        return {f"{name}.{served.domain}".lower(): address for name, address in found.items()}


def _check(served: Served) -> None:
    """Refuse the networks that the real door refuses."""
    configuration(served, Place(Path("/")))
    reservations(served)
    names(served)


def _free(served: Served, held: Collection[Address]) -> set[IPv4Address]:
    """Return the addresses of the pool that a new host may get."""
    assert served.dhcp4 is not None and served.ip4 is not None  # noqa: S101
    first, last = served.dhcp4
    reserved = {one.address for one in served.reservations}
    pool = {IPv4Address(number) for number in range(int(first), int(last) + 1)}
    return pool - reserved - {served.ip4.ip} - {each for each in held if isinstance(each, IPv4Address)}
