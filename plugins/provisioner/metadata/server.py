"""The metadata server of the primary: its address on the loopback link, its socket, and its limits."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from math import ceil

from aiohttp import web

from pvcd import Context, Failed, programs
from pvcd_plugins.provisioner.metadata import ADDRESS, PORT, Arrival, Describe
from pvcd_plugins.provisioner.metadata.answers import Answers

MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS = 512, 16
"""A new connection beyond these replaces the oldest."""
CONNECTION_SECONDS = 60.0
"""How long a connection lasts, however slow its client is."""
REQUEST_SECONDS = 10.0
"""How long a complete request may take to arrive."""
MAX_LINE_BYTES, MAX_HEADERS = 2048, 64
IP_SECONDS = 10.0
SHUTDOWN_SECONDS = 1.0

# From <linux/in.h>, <linux/sockios.h> and <net/if_arp.h>
_IP_PKTINFO, _IP_PKTOPTIONS, _SIOCGARP, _ATF_COM = 8, 9, 0x8954, 0x02
_ARPREQ = struct.Struct("=H2x4s8x2x14si16s16s")


@dataclass(frozen=True)
class _Connection:
    client: str
    transport: asyncio.Transport
    end: asyncio.TimerHandle


class Connections(web.Server):
    """Connections of limited number: a new one replaces the oldest, so that idle clients cannot keep others out."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(
            answers.answer,
            keepalive_timeout=REQUEST_SECONDS,
            lingering_time=0,  # no body of a request matters
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            access_log=None,
        )
        self._held: dict[web.RequestHandler, _Connection] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Accept a connection for a limited time."""
        super().connection_made(handler, transport)
        client = str((transport.get_extra_info("peername") or [""])[0])
        same = [each for each, held in self._held.items() if held.client == client]
        if len(same) >= MAX_CONNECTIONS_PER_ADDRESS:
            self._end(same[0])
        elif len(self._held) >= MAX_CONNECTIONS:
            self._end(next(iter(self._held)))
        timer = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, self._end, handler)
        self._held[handler] = _Connection(client, transport, timer)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        held = self._held.pop(handler, None)
        if held:
            held.end.cancel()

    def _end(self, handler: web.RequestHandler) -> None:
        held = self._held.pop(handler)
        held.end.cancel()
        held.transport.abort()


class MetadataServer:
    """The metadata address and a socket on it, in the network namespace of this process."""

    def __init__(self, context: Context, describe: Describe) -> None:
        self._answers = Answers(context, describe, arrival_of)
        self._runner: web.ServerRunner | None = None
        self._changing = asyncio.Lock()

    async def hold(self, seconds: float) -> None:
        """Hold the address for some seconds, and answer there."""
        async with self._changing:
            limit = str(max(1, ceil(seconds)))
            # Of scope host: the node must not use it as a source address.
            words = ("dev", "lo", "scope", "host", "valid_lft", limit, "preferred_lft", limit)
            await programs.run(("ip", "address", "replace", f"{ADDRESS}/32", *words), timeout=IP_SECONDS)
            if self._runner is None:
                self._runner = await self._serve()

    async def close(self) -> None:
        """Stop answering, and give up the address."""
        async with self._changing:
            runner, self._runner = self._runner, None
            if runner:
                await runner.cleanup()
            await self._answers.close()
            await programs.run(
                ("ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo"), timeout=IP_SECONDS, check=False
            )

    async def _serve(self) -> web.ServerRunner:
        listener = _listener()
        runner = web.ServerRunner(Connections(self._answers), shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        return runner


def _listener() -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)  # its connections inherit it
        listener.bind((ADDRESS, PORT))
    except OSError as error:
        listener.close()
        raise Failed(f"Cannot listen at {ADDRESS}:{PORT}: {error.strerror}.") from error
    return listener


def arrival_of(request: web.BaseRequest) -> Arrival | None:
    """Return where a request comes from, or None if the kernel knows no neighbor there."""
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("socket")
    if transport is None or connection is None:
        return None
    address = IPv4Address(transport.get_extra_info("peername")[0])
    try:
        # IP_PKTOPTIONS of the first packet: a cmsghdr, then an in_pktinfo, which begins with the index of the link.
        info = connection.getsockopt(socket.IPPROTO_IP, _IP_PKTOPTIONS, 256)
        (index,) = struct.unpack_from("@i", info, socket.CMSG_LEN(0))
        interface = socket.if_indextoname(index)
        question = _ARPREQ.pack(socket.AF_INET, address.packed, b"", 0, b"", interface.encode())
        answer = _ARPREQ.unpack(fcntl.ioctl(connection.fileno(), _SIOCGARP, question))
    except (OSError, struct.error):
        return None
    mac, flags = answer[2][:6], answer[3]
    return Arrival(interface, address, mac.hex(":")) if flags & _ATF_COM else None
