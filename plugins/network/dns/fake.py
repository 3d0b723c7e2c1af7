"""The name server of all networks in memory, for tests and simulations."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

from pvcd import Failed
from pvcd_plugins.network.dhcp.configuration import checked_domain, text_of
from pvcd_plugins.network.dns import Address, Zone


class FakeDns:
    """Knows which server it would ask."""

    def __init__(self) -> None:
        self.zones: tuple[Zone, ...] = ()
        self.broken: str | None = None
        """Why the server does not run."""

    async def open(self) -> None:
        """Start without zones."""

    async def close(self) -> None:
        """Stop answering."""
        self.zones = ()

    async def apply(self, zones: Collection[Zone]) -> None:
        """Answer for exactly these domains."""
        for zone in zones:
            checked_domain(zone.domain)
            text_of(zone.server)
        if self.broken is not None:
            raise Failed(self.broken)
        self.zones = tuple(zones)

    def asked(self, question: str) -> Address | None:
        """Return the server that is asked for a name or for the name of an address; None means upstream."""

        try:
            address = ip_address(question)
        except ValueError:
            found = [zone for zone in self.zones if f".{question}".lower().endswith(f".{zone.domain}".lower())]
        else:
            found = [zone for zone in self.zones if any(address in network for network in zone.networks)]
        return max(found, key=lambda zone: len(zone.domain)).server if found else None
