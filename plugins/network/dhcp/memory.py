"""Where the script is answered: the leases that it tells of are remembered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from pvcd import PvcdError, TimedOut
from pvcd_plugins.network.dhcp import Address, Leased, Leases, lines
from pvcd_plugins.network.dhcp.script import OK, SOCKET
from pvcd_plugins.network.dnsmasq import Account

log = logging.getLogger(__name__)
LIMIT = 5.0
"""Seconds until it is said that leases cannot be asked for, or not be remembered yet."""


class Memory:
    """Stands between the scripts and `Leases`. What could not be remembered at once is kept, and `retry` does it."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._server: asyncio.Server | None = None
        self._seen: dict[tuple[int, Address], Leased] = {}
        """What `Leases` knows, so that what dnsmasq repeats costs nothing."""
        self._unsaved: dict[tuple[int, Address], Leased | None] = {}
        self._talks: set[asyncio.Task[None]] = set()

    async def open(self, directory: Path, account: Account | None) -> None:
        """Answer at a socket in the directory, which only the account that runs the scripts may use."""
        # By way of a descriptor, since the path of a socket may not be long.
        descriptor = os.open(directory, os.O_PATH)
        try:
            path = f"/proc/self/fd/{descriptor}/{SOCKET}"
            self._server = await asyncio.start_unix_server(self._accept, path)
            os.chmod(path, 0o600)
            if account is not None:
                os.chown(path, account.uid, account.gid)
        finally:
            os.close(descriptor)

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._talks:
            await asyncio.wait(self._talks)

    async def known(self, vni: int) -> list[Leased]:
        """All leases of a network, of which the newest may not be remembered yet."""
        async with _in_time():
            known = {(vni, lease.address): lease for lease in await self._leases.known(vni)}
        self._seen = {key: lease for key, lease in self._seen.items() if key[0] != vni} | known
        newest = {**known, **{key: lease for key, lease in self._unsaved.items() if key[0] == vni}}
        return [lease for lease in newest.values() if lease is not None]

    async def retry(self) -> None:
        """Remember what could not be remembered when it happened."""
        for (vni, address), lease in list(self._unsaved.items()):
            try:
                async with _in_time():
                    await self._remember(vni, address, lease)
            except PvcdError as error:
                log.warning("leases are not remembered yet: %s", error)
                return

    def forget(self, vni: int) -> None:
        """A network is not served any more: what is not remembered of it by now never will be."""
        for key in [key for key in (*self._seen, *self._unsaved) if key[0] == vni]:
            self._seen.pop(key, None)
            self._unsaved.pop(key, None)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None  # noqa: S101
        self._talks.add(talk)
        try:
            with contextlib.suppress(ConnectionError, ValueError, TimeoutError):
                async with asyncio.timeout(LIMIT):
                    line = (await reader.readline()).decode(errors="replace").rstrip("\n")
                writer.write((await self._answer(line)).encode())
                async with asyncio.timeout(LIMIT):
                    await writer.drain()
        finally:
            writer.close()
            self._talks.discard(talk)

    async def _answer(self, line: str) -> str:
        try:
            told = lines.read(line)
            if told.address is not None:
                async with _in_time():
                    await self._remember(told.vni, told.address, told.lease)
        except PvcdError as error:
            return error.sentence
        return OK

    async def _remember(self, vni: int, address: Address, lease: Leased | None) -> None:
        key = vni, address
        if lease is not None and self._seen.get(key) == lease and key not in self._unsaved:
            return
        self._unsaved[key] = lease
        if lease is None:
            await self._leases.ended(vni, address)
            self._seen.pop(key, None)
        else:
            await self._leases.taken(vni, lease)
            self._seen[key] = lease
        if self._unsaved.get(key) == lease:  # and not a newer one by now
            self._unsaved.pop(key, None)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except TimeoutError:
        raise TimedOut(f"What keeps the leases did not answer within {LIMIT:g} s.") from None
