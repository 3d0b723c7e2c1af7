"""The socket that answers the lease scripts, and passes leases on to the lease store."""

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
ANSWER_SECONDS = 5.0
"""For the lease store, and for a script to send and receive."""


class Memory:
    """Passes leases from the scripts to the store. Those that could not be stored are kept for `retry`."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._server: asyncio.Server | None = None
        self._seen: dict[tuple[int, Address], Leased] = {}
        """The content of the store, so that repetitions by dnsmasq cost nothing."""
        self._unsaved: dict[tuple[int, Address], Leased | None] = {}
        self._talks: set[asyncio.Task[None]] = set()

    async def open(self, directory: Path, account: Account | None) -> None:
        """Listen on a socket in the directory that only the account of the scripts may use."""
        # By way of a descriptor, because the path of a socket must be short.
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
        """Stop answering."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._talks:
            await asyncio.wait(self._talks)

    async def known(self, vni: int) -> list[Leased]:
        """Return all leases of a network, including those not stored yet."""
        async with _in_time():
            known = {(vni, lease.address): lease for lease in await self._leases.known(vni)}
        self._seen = {key: lease for key, lease in self._seen.items() if key[0] != vni} | known
        newest = {**known, **{key: lease for key, lease in self._unsaved.items() if key[0] == vni}}
        return [lease for lease in newest.values() if lease is not None]

    async def retry(self) -> None:
        """Store the leases that could not be stored before."""
        for (vni, address), lease in list(self._unsaved.items()):
            try:
                async with _in_time():
                    await self._remember(vni, address, lease)
            except PvcdError as error:
                log.warning("cannot store leases yet: %s", error)
                return

    def forget(self, vni: int) -> None:
        """Drop all leases of a network that is no longer served, stored or not."""
        for key in [key for key in (*self._seen, *self._unsaved) if key[0] == vni]:
            self._seen.pop(key, None)
            self._unsaved.pop(key, None)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None  # noqa: S101
        self._talks.add(talk)
        try:
            with contextlib.suppress(ConnectionError, ValueError, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    line = (await reader.readline()).decode(errors="replace").rstrip("\n")
                writer.write((await self._answer(line)).encode())
                async with asyncio.timeout(ANSWER_SECONDS):
                    await writer.drain()
        finally:
            writer.close()
            self._talks.discard(talk)

    async def _answer(self, line: str) -> str:
        try:
            event = lines.read(line)
            if event.address is not None:
                async with _in_time():
                    await self._remember(event.vni, event.address, event.lease)
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
        if self._unsaved.get(key) == lease:  # unless a newer one arrived meanwhile
            self._unsaved.pop(key, None)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise TimedOut(f"The lease store did not answer within {ANSWER_SECONDS:g} s.") from None
