"""Answers to the requests of guests: a text for a caller that is identified, one sentence in all other cases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from aiohttp import hdrs, web

from pvcd import Context, PvcdError, TimedOut
from pvcd_plugins.provisioner.metadata import Arrival, Describe
from pvcd_plugins.provisioner.metadata.callers import Caller, identify
from pvcd_plugins.provisioner.metadata.contents import VERSIONS, find, tree_of
from pvcd_plugins.provisioner.metadata.tokens import MAX_SECONDS, Tokens
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.settings import MetadataSettings
from pvcd_plugins.vm.service import VM

TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 (a header)
TTL = f"{TOKEN}-ttl-seconds"
TOKEN_PATH = "/latest/api/token"  # noqa: S105
FRESH_SECONDS = 5.0
"""How long the metadata of a guest is kept before it is described again."""
DESCRIBE_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Cached:
    serial: int
    until: float
    metadata: asyncio.Task[GuestMetadata]


class Answers:
    """Answers the requests of guests."""

    def __init__(
        self, context: Context, describe: Describe, arrival: Callable[[web.BaseRequest], Arrival | None]
    ) -> None:
        """`arrival` returns where a request comes from."""
        self._context = context
        self._describe = describe
        self._arrival = arrival
        self._settings = context.settings.of(MetadataSettings)
        self._tokens = Tokens(context.clock)
        self._cache: dict[UUID, _Cached] = {}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request, whatever happens."""
        try:
            reply = await self._answer(request)
        except PvcdError as error:
            log.warning("cannot answer a guest: %s", error)
            reply = _text("Metadata is unavailable. Try again.\n", 503)
        except Exception:
            log.exception("cannot answer a guest")
            reply = _text("Internal error.\n", 500)
        reply.headers[hdrs.SERVER] = "pvcd"
        return reply

    async def close(self) -> None:
        """Cancel what is being described."""
        tasks = [each.metadata for each in self._cache.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        arrival = self._arrival(request)
        caller = identify(self._context, arrival) if arrival else None
        if caller is None:
            return _text("No VM is known at this address.\n", 404)
        if request.method == hdrs.METH_PUT and request.path == TOKEN_PATH:
            return self._give_token(request, caller)
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return _text("The method must be GET.\n", 405, {hdrs.ALLOW: "GET, HEAD"})
        token = request.headers.get(TOKEN)
        if self._settings.require_token if token is None else not self._tokens.is_valid(token, caller.identity):
            return _text(f"A valid token is required. Get one with PUT {TOKEN_PATH}.\n", 401)
        return await self._read(request.path, caller)

    def _give_token(self, request: web.BaseRequest, caller: Caller) -> web.Response:
        asked = request.headers.get(TTL, "")
        seconds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
        if not 1 <= seconds <= MAX_SECONDS:
            return _text(f"{TTL} must be from 1 to {MAX_SECONDS}.\n", 400)
        return _text(self._tokens.give(caller.identity, seconds), headers={TTL: str(seconds)})

    async def _read(self, path: str, caller: Caller) -> web.Response:
        first, *parts = [part for part in path.split("/") if part] or [""]
        if not first:
            return web.json_response({"message": "PVC metadata API", "versions": VERSIONS}, status=209)
        tree = tree_of(first, caller, await self._metadata(caller.vm), self._settings.availability_zone)
        text = None if tree is None else find(tree, parts)
        return _text("Not found.\n", 404) if text is None else _text(text)

    async def _metadata(self, vm: VM) -> GuestMetadata:
        """Return the metadata of a guest, which is described once for all concurrent requests."""
        now = self._context.clock.monotonic()
        for uuid in [uuid for uuid, each in self._cache.items() if each.until <= now and each.metadata.done()]:
            del self._cache[uuid]
        found = self._cache.get(vm.uuid)
        if found is None or (found.serial != vm.serial and found.metadata.done()):
            found = _Cached(vm.serial, now + FRESH_SECONDS, asyncio.ensure_future(self._described(vm)))
            self._cache[vm.uuid] = found
        return await asyncio.shield(found.metadata)

    async def _described(self, vm: VM) -> GuestMetadata:
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                return await self._describe(self._context, vm)
        except TimeoutError:
            raise TimedOut(f"Cannot describe VM {vm.name!r}: no answer within {DESCRIBE_SECONDS:g} s.") from None


def _text(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers=headers, content_type="text/plain")
