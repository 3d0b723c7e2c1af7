"""The real name server: a dnsmasq that forwards each domain to the server of its network."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pvcd import Failed
from pvcd_plugins.network.dhcp.configuration import checked_domain, text_of
from pvcd_plugins.network.dns import Address, Zone
from pvcd_plugins.network.dnsmasq import BASE, Account, Server, account, prepare, write

PORT = 53
RESOLV = Path("/etc/resolv.conf")


class DnsmasqDns:
    """One dnsmasq between the first `apply` and `close`, at `addresses`, also those that the node gets later.

    Other names are looked up at the `upstream` servers, by default those of this host.
    """

    def __init__(
        self, directory: Path, addresses: Collection[Address], port: int = PORT, upstream: Sequence[Address] = ()
    ) -> None:
        self._directory = directory
        self._addresses = addresses
        self._port = port
        self._upstream = upstream
        self._account: Account | None = None
        self._server: Server | None = None
        self._zones: str | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Prepare the directory."""
        self._directory = await asyncio.to_thread(prepare, self._directory)
        self._account = await asyncio.to_thread(account, self._directory)

    async def close(self) -> None:
        """Stop the server."""
        async with self._lock:
            server, self._server = self._server, None
            if server is not None:
                await server.stop()

    async def apply(self, zones: Collection[Zone]) -> None:
        """Answer for exactly these domains; raises `Failed` if the server does not run."""
        text = "".join(f"{line}\n" for zone in sorted(zones, key=lambda each: each.domain) for line in _forward(zone))
        async with self._lock:
            if self._addresses:
                await self._serve(text)

    async def _serve(self, zones: str) -> None:
        if zones != self._zones:
            await asyncio.to_thread(write, self._directory / "servers", zones)
            self._zones = zones
            if self._server is not None:
                self._server.reload()
        if self._server is None:
            path = self._directory / "dnsmasq.conf"
            await asyncio.to_thread(write, path, "".join(f"{line}\n" for line in self._configuration()))
            self._server = Server("The dnsmasq of all networks", path, self._account)
            await self._server.start()
        if self._server.trouble is not None:
            raise Failed(self._server.trouble)

    def _configuration(self) -> Iterator[str]:
        yield from (*BASE, f"port={self._port:d}", f"servers-file={self._directory / 'servers'}")
        yield from (f"listen-address={text_of(each)}" for each in self._addresses)
        if self._upstream:
            yield "no-resolv"
            yield from (f"server={text_of(each)}" for each in self._upstream)
        else:
            yield f"resolv-file={RESOLV}"


def _forward(zone: Zone) -> Iterator[str]:
    server = text_of(zone.server)
    yield f"server=/{checked_domain(zone.domain)}/{server}"
    for network in zone.networks:
        yield f"rev-server={text_of(network.network_address)}/{network.prefixlen:d},{server}"
