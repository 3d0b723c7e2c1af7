"""A process with the real doors to DHCP and DNS, which runs in a network namespace and reads commands line by line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

from leases import KeptLeases

from pvcd.errors import PvcdError
from pvcd_plugins.network.dhcp import Address
from pvcd_plugins.network.dhcp.dnsmasq import DnsmasqDhcp
from pvcd_plugins.network.dns.dnsmasq import DnsmasqDns


class Doors:
    """The commands of the process."""

    def __init__(self, leases: KeptLeases) -> None:
        self._leases = leases
        self._dhcp: DnsmasqDhcp | None = None
        self._dns: DnsmasqDns | None = None
        self._stack = contextlib.AsyncExitStack()

    async def open_dhcp(self, directory: Path) -> None:
        self._dhcp = DnsmasqDhcp(directory, self._leases)
        await self._dhcp.open()
        self._stack.push_async_callback(self._dhcp.close)

    async def open_dns(self, directory: Path, addresses: list[Address], upstream: list[Address]) -> None:
        self._dns = DnsmasqDns(directory, addresses, upstream=upstream)
        await self._dns.open()
        self._stack.push_async_callback(self._dns.close)

    async def apply_dhcp(self, *wanted: Any) -> Any:
        assert self._dhcp
        return await self._dhcp.apply(wanted)

    async def apply_dns(self, *zones: Any) -> None:
        assert self._dns
        await self._dns.apply(zones)

    async def pids(self) -> dict[int, int | None]:
        """The processes that serve, by VNI; that of all networks is 0."""
        assert self._dhcp
        servers = {vni: network.server for vni, network in self._dhcp._networks.items()}
        if self._dns and self._dns._server:
            servers[0] = self._dns._server
        return {vni: each._process.pid if each._process and not each.trouble else None for vni, each in servers.items()}

    async def close(self) -> None:
        await self._stack.aclose()


async def main() -> None:
    doors = Doors(KeptLeases(Path(sys.argv[1])))
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        verb, arguments = pickle.loads(base64.b64decode(line))
        try:
            answer = await getattr(doors, verb)(*arguments)
        except PvcdError as error:
            answer = error
        print(base64.b64encode(pickle.dumps(answer)).decode(), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    asyncio.run(main())
