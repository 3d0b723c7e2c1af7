"""The real servers: one dnsmasq for each network, which keeps its leases in the lease store.

<directory>/leases              the socket that answers the lease scripts
           /<vni>/dnsmasq.conf  a network's configuration
                 /lease-script  reports the leases of its dnsmasq
                 /reservations  a file for each static lease; a new one takes effect at once
                 /names         a file for the host name of each static lease
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pvcd import Failed, PvcdError
from pvcd_plugins.network.bridge import bridge_name
from pvcd_plugins.network.dhcp import Leases, Served, lines, script
from pvcd_plugins.network.dhcp.configuration import Place, configuration, names, reservations
from pvcd_plugins.network.dhcp.memory import Memory
from pvcd_plugins.network.dnsmasq import Account, Server, account, prepare, write

MAX_PARALLEL_STARTS = 8
PYTHON = Path(sys.executable).resolve()
"""The interpreter of the script, which needs only the standard library."""
SCRIPT = "script.py"
LAUNCHER = """#!/bin/sh
# dnsmasq repeats every lease when it starts and when it rereads its files; Python would take 30 ms for each.
same() {{
    grep -qxF -e "$DNSMASQ_LEASE_EXPIRES $2 $3 ${{4:-*}} ${{DNSMASQ_CLIENT_ID:-*}}" \\
        -e "$DNSMASQ_LEASE_EXPIRES $DNSMASQ_IAID $3 ${{4:-*}} $2" {known}
}}
[ "$1" = init ] && exec cat {known}
[ "$1" = old ] && same "$@" && exit 0
exec {python} -SEI {script} {vni} "$@"
"""


@dataclass
class _Network:
    """A network as it is currently served."""

    served: Served
    configuration: str
    bridge: int
    """The interface index of the bridge, which tells a new bridge of the same name from the old one."""
    server: Server


class DnsmasqDhcp:
    """Serves each network with its own dnsmasq, between `open` and `close`."""

    def __init__(self, directory: Path, leases: Leases) -> None:
        self._directory = directory
        self._memory = Memory(leases)
        self._account: Account | None = None
        self._networks: dict[int, _Network] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Prepare the directory, without the leftovers of a killed process."""
        self._directory, self._account = await asyncio.to_thread(_prepare, self._directory)
        await self._memory.open(self._directory, self._account)

    async def close(self) -> None:
        """Stop all servers, after they have reported all leases."""
        try:
            await self.apply(())
        finally:
            await self._memory.close()

    async def apply(self, wanted: Collection[Served]) -> dict[int, str]:
        """Serve exactly these networks. Returns one sentence by VNI for each that is not served."""
        async with self._lock:
            await self._memory.retry()
            places = asyncio.Semaphore(MAX_PARALLEL_STARTS)
            tasks: dict[int, asyncio.Task[str | None]] = {}
            async with asyncio.TaskGroup() as group:
                for vni in self._networks.keys() - {each.vni for each in wanted}:
                    group.create_task(self._end(vni))
                for each in wanted:
                    if not self._is_same(each):
                        tasks[each.vni] = group.create_task(self._change(each, places))
            troubles = {vni: network.server.trouble for vni, network in self._networks.items()}
            troubles |= {vni: task.result() for vni, task in tasks.items() if task.result()}
        return {vni: trouble for vni, trouble in troubles.items() if trouble is not None}

    def _is_same(self, served: Served) -> bool:
        now = self._networks.get(served.vni)
        return now is not None and now.served == served and now.bridge == _index(served)

    async def _change(self, served: Served, places: asyncio.Semaphore) -> str | None:
        """Serve a network as it should be now. Returns a sentence if that is not possible."""
        place = Place(self._directory / f"{served.vni:d}")
        try:
            text = configuration(served, place)
            files = {place.names: names(served), place.reservations: reservations(served)}
            now, bridge = self._networks.get(served.vni), _index(served)
            if now is not None and (now.configuration, now.bridge) == (text, bridge):
                # dnsmasq reads new files at once, but changed and removed ones only when told to.
                if await asyncio.to_thread(_sync, files):
                    now.server.reload()
                now.served = served
                return None
            await self._stop(served.vni)
            if served.ip4 is None and served.ip6 is None:
                return None
            if bridge is None:
                return f"Cannot serve network {served.vni}: there is no bridge {bridge_name(served.vni)!r} yet."
            async with places:
                await asyncio.to_thread(_fill, place, text, files)
                before = partial(self._remind, served.vni, place.known)
                server = Server(f"The dnsmasq of network {served.vni}", place.configuration, self._account, before)
                self._networks[served.vni] = _Network(served, text, bridge, server)
                await server.start()
        except OSError as error:
            await self._stop(served.vni)
            return f"Cannot write the DHCP files of network {served.vni}: {error.strerror}."
        except PvcdError as error:
            return error.sentence
        return None

    async def _remind(self, vni: int, path: Path) -> None:
        """Write the leases that a server starts with."""
        text = lines.known(vni, await self._memory.known(vni))
        await asyncio.to_thread(write, path, text, 0o600, self._account)

    async def _stop(self, vni: int) -> None:
        """Stop the server of a network, and remove its files."""
        network = self._networks.pop(vni, None)
        if network is not None:
            await network.server.stop()
        await asyncio.to_thread(shutil.rmtree, self._directory / f"{vni:d}", ignore_errors=True)

    async def _end(self, vni: int) -> None:
        """Stop serving a network."""
        await self._stop(vni)
        self._memory.forget(vni)


def _index(served: Served) -> int | None:
    """Return the interface index of a network's bridge, if any. Without a bridge dnsmasq would serve every link."""
    try:
        return socket.if_nametoindex(bridge_name(served.vni))
    except OSError:
        return None


def _prepare(directory: Path) -> tuple[Path, Account | None]:
    directory = prepare(directory)
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        raise Failed(f"Cannot use directory {str(directory)!r} for dnsmasq: it is mounted noexec.")
    for leftover in directory.iterdir():
        if leftover.name.isdecimal():
            shutil.rmtree(leftover)
    write(directory / SCRIPT, Path(script.__file__).read_text())
    return directory, account(directory, PYTHON)


def _fill(place: Place, text: str, files: dict[Path, dict[str, str]]) -> None:
    """Write all files of a network."""
    for directory in (place.directory, *files):
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)
    words = {"known": place.known, "python": PYTHON, "script": place.directory.parent / SCRIPT}
    quoted = {name: shlex.quote(str(path)) for name, path in words.items()}
    write(place.script, LAUNCHER.format(**quoted, vni=place.directory.name), 0o755)
    write(place.configuration, text)
    _sync(files)


def _sync(files: dict[Path, dict[str, str]]) -> bool:
    """Have exactly these files in their directories. Returns whether an existing one was changed or removed."""
    altered = False
    for directory, wanted in files.items():
        there = {file.name: file.read_text() for file in directory.iterdir() if not file.name.startswith(".")}
        for name in there.keys() - wanted.keys():
            (directory / name).unlink()
        for name, text in wanted.items():
            if there.get(name) != text:
                write(directory / name, text)
        altered = altered or any(wanted.get(name) != text for name, text in there.items())
    return altered
