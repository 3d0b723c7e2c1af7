"""The tour: shows the main job through the API, as a user would do it with curl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiohttp

from pvcd.errors import Failed
from pvcd.sandbox import guest
from pvcd.sandbox.cluster import NODE, Sandbox

NAME = "hello"
MAC = "52:54:00:68:65:6c"
BRIDGE = "vmbr200"
NETWORK = {
    "vni": "200",
    "description": "app",
    "nettype": "managed",
    "ip4_network": "10.20.0.0/24",
    "ip4_gateway": "10.20.0.1",
    "dhcp4": "true",
    "dhcp4_start": "10.20.0.100",
    "dhcp4_end": "10.20.0.199",
}
BOOT_SECONDS = 120.0
REPLY_SECONDS = 30.0
Say = Callable[[str], None]


async def show(sandbox: Sandbox, say: Say) -> None:
    """Make a network, start a small guest in it and show its console; says what was sent and what came back."""
    api = sandbox.api
    files = await guest.tiny(sandbox.cache / "guest")
    say(f"\nA small guest, made from Debian's kernel and busybox, lies in {files.kernel.parent}")
    definition = sandbox.directory / f"{NAME}.xml"
    xml = guest.tiny_domain(NAME, uuid4(), files.kernel, files.initrd, sandbox.domain_type, interfaces={MAC: BRIDGE})
    await asyncio.to_thread(definition.write_text, xml)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPLY_SECONDS)) as session:
        curl = _Curl(session, api, say)
        await curl.show("GET", "/node")
        await curl.show(
            "POST", "/network", " ".join(f"-d {name}={value}" for name, value in NETWORK.items()), **NETWORK
        )
        await curl.show("POST", "/vm", f"--data-urlencode xml@{definition}", xml=xml)
        await curl.show("POST", f"/vm/{NAME}/state", "-d state=start", state="start")
        say("\nIt boots; this is its console:\n")
        await _show_console(curl, say)
        await curl.show("GET", f"/vm/{NAME}/state")
        await curl.show("GET", "/network/app/lease")
    say(
        f"\nThe cluster stays up. Try in another terminal:\n"
        f"  curl {api}/vm\n"
        f"  curl '{api}/vm/{NAME}/console?lines=5'\n"
        f"  curl {api}/vm/{NAME}/dump\n"
        f"  sudo .venv/bin/pvcd sandbox exec --directory {sandbox.directory} ping -c 3 10.20.0.1\n"
        f"  curl -X POST {api}/vm/{NAME}/state -d state=restart\n"
        f"  curl -X POST {api}/vm/{NAME}/state -d state=shutdown\n"
        f"  curl -X POST {api}/node/{NODE}/domain-state -d domain-state=flush\n"
        f"  curl -X DELETE {api}/vm/{NAME}\n"
        f"Ctrl-C ends the cluster and removes it.\n"
    )


class _Curl:
    """Sends requests and shows them as the commands that would do the same."""

    def __init__(self, session: aiohttp.ClientSession, api: str, say: Say) -> None:
        self._session = session
        self._api = api
        self._say = say

    async def ask(self, method: str, path: str, **values: str) -> Any:
        """Send a request and return the decoded reply; raises `Failed` with the API's words if it was refused."""
        async with self._session.request(method, self._api + path, data=values or None) as reply:
            body = await reply.json()
            if not reply.ok:
                raise Failed(f"{method} {path}: {body.get('message')}", code="tour-failed")
            return body

    async def show(self, method: str, path: str, options: str = "", **values: str) -> None:
        """Send a request and show both sides."""
        self._say(f"\n$ curl -X {method} {self._api}{path} {options}".rstrip())
        self._say(json.dumps(await self.ask(method, path, **values), indent=2))


async def _show_console(curl: _Curl, say: Say) -> None:
    """Show the guest's console until it says that it is up and has an address."""
    shown = 0
    async with asyncio.timeout(BOOT_SECONDS):
        while True:
            lines = (await curl.ask("GET", f"/vm/{NAME}/console?lines=1000"))["data"].splitlines()
            for line in lines[shown:]:
                say(f"  | {line}")
            shown = len(lines)
            if all(any(text in line for line in lines) for text in (guest.GREETING, guest.ADDRESS)):
                return
            await asyncio.sleep(0.5)
