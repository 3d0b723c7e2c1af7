"""What is answered to a request: a text, for a caller that is known, and one sentence in all other cases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from aiohttp import hdrs, web

from pvcd import Context, PvcdError, TimedOut
from pvcd_plugins.provisioner.metadata import Arrival, Describe, Told
from pvcd_plugins.provisioner.metadata.callers import Caller, identify
from pvcd_plugins.provisioner.metadata.contents import VERSIONS, find, tree_of
from pvcd_plugins.provisioner.metadata.settings import MetadataSettings
from pvcd_plugins.provisioner.metadata.tokens import LONGEST, Tokens
from pvcd_plugins.vm.service import VM

TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 (a header)
TTL = f"{TOKEN}-ttl-seconds"
TOKEN_PATH = "/latest/api/token"  # noqa: S105
FRESH = 5.0
"""Seconds for which a guest is told the same without its userdata being rendered again."""
DEADLINE = 10.0
"""Seconds for rendering it."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Remembered:
    serial: int
    until: float
    told: asyncio.Task[Told]


class Answers:
    """Answers the requests of guests."""

    def __init__(
        self, context: Context, describe: Describe, arrival: Callable[[web.BaseRequest], Arrival | None]
    ) -> None:
        """`arrival` says where a request comes from."""
        self._context = context
        self._describe = describe
        self._arrival = arrival
        self._settings = context.settings.of(MetadataSettings)
        self._tokens = Tokens(context.clock)
        self._remembered: dict[UUID, _Remembered] = {}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request, whatever happens."""
        try:
            reply = await self._answer(request)
        except PvcdError as error:
            log.warning("a guest could not be told who it is: %s", error)
            reply = _text("This cannot be told just now: ask again.\n", 503)
        except Exception:
            log.exception("a guest could not be told who it is")
            reply = _text("This cannot be told.\n", 500)
        reply.headers[hdrs.SERVER] = "pvcd"
        return reply

    async def close(self) -> None:
        """End what is being rendered."""
        tasks = [each.told for each in self._remembered.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        arrival = self._arrival(request)
        caller = identify(self._context, arrival) if arrival else None
        if caller is None:
            return _text("Nothing is known of who asks.\n", 404)
        if request.method == hdrs.METH_PUT and request.path == TOKEN_PATH:
            return self._give_token(request, caller)
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return _text("Only GET is possible here.\n", 405, {hdrs.ALLOW: "GET, HEAD"})
        token = request.headers.get(TOKEN)
        if self._settings.require_token if token is None else not self._tokens.good(token, caller.identity):
            return _text(f"A token is needed: PUT {TOKEN_PATH} gives one.\n", 401)
        return await self._tell(request.path, caller)

    def _give_token(self, request: web.BaseRequest, caller: Caller) -> web.Response:
        asked = request.headers.get(TTL, "")
        seconds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
        if not 1 <= seconds <= LONGEST:
            return _text(f"{TTL} must be from 1 to {LONGEST}.\n", 400)
        return _text(self._tokens.give(caller.identity, seconds), headers={TTL: str(seconds)})

    async def _tell(self, path: str, caller: Caller) -> web.Response:
        first, *parts = [part for part in path.split("/") if part] or [""]
        if not first:
            return web.json_response({"message": "PVC metadata API", "versions": VERSIONS}, status=209)
        tree = tree_of(first, caller, await self._told(caller.vm), self._settings.availability_zone)
        text = None if tree is None else find(tree, parts)
        return _text("There is nothing at this path.\n", 404) if text is None else _text(text)

    async def _told(self, vm: VM) -> Told:
        """What a VM is told; for all who ask at once it is rendered once."""
        now = self._context.clock.monotonic()
        for uuid in [uuid for uuid, each in self._remembered.items() if each.until <= now and each.told.done()]:
            del self._remembered[uuid]
        found = self._remembered.get(vm.uuid)
        if found is None or (found.serial != vm.serial and found.told.done()):
            found = _Remembered(vm.serial, now + FRESH, asyncio.ensure_future(self._render(vm)))
            self._remembered[vm.uuid] = found
        return await asyncio.shield(found.told)

    async def _render(self, vm: VM) -> Told:
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._describe(self._context, vm)
        except TimeoutError:
            raise TimedOut(f"What VM {vm.name} is told was not known within {DEADLINE:g} s.") from None


def _text(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers=headers, content_type="text/plain")
