"""The tour: build and start a small VM through the API, and print the curl commands that do the same."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp

from pvcd import Failed
from pvcd_plugins.sandbox import guest
from pvcd_plugins.sandbox.cluster import FILES, NODE, Sandbox

NAME = "hello"
BOOT_SECONDS = 120.0
REPLY_SECONDS = 30.0
POLL_SECONDS = 0.3
SCRIPT = Path(str(resources.files("pvcd_plugins.provisioner") / "examples" / "tiny.py"))
Say = Callable[[str], None]
Value = str | list[str] | Path
"""A value of a request; several ones; or a file that holds one."""
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
TEMPLATES = {
    "/template/system": {"name": "small", "vcpus": "1", "vram": "128", "serial": "true"},
    "/template/network": {"name": "app"},
    "/template/network/app/net": {"vni": "200"},
    "/template/storage": {"name": "root"},
    "/template/storage/root/disk": {
        "disk_id": "sda",
        "pool": "vms",
        "disk_size": "1",
        "filesystem": "ext4",
        "filesystem_arg": "-O=^64bit,^metadata_csum",
        "mountpoint": "/",
    },
}
PROFILE = {
    "name": "tiny",
    "system_template": "small",
    "network_template": "app",
    "storage_template": "root",
    "userdata_template": "empty",
    "script": "tiny",
}


async def show(sandbox: Sandbox, say: Say) -> None:
    """Build a small guest from a profile and show its console, with each request and its reply."""
    api = sandbox.api
    files = await guest.tiny(sandbox.cache / "guest")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPLY_SECONDS)) as session:
        curl = _Curl(session, api, say)
        await curl.show("GET", "/node")
        await curl.show("POST", "/network", **NETWORK)
        for path, values in TEMPLATES.items():
            await curl.show("POST", f"/provisioner{path}", **values)
        folder = sandbox.directory / FILES
        await asyncio.to_thread(folder.mkdir, exist_ok=True)
        for file in files:
            await asyncio.to_thread(shutil.copy, file, folder)
        await _build(curl, say, [f"kernel={folder}/{files.kernel.name}", f"initrd={folder}/{files.initrd.name}"])
        say("\nThe VM boots. Its console:\n")
        await _show_console(curl, say)
        await curl.show("GET", f"/vm/{NAME}/state")
        await curl.show("GET", "/network/app/lease")
    exec_command = shlex.join([sys.executable, "-m", "pvcd", "sandbox", "exec", "--directory", str(sandbox.directory)])
    say(
        f"\nThe cluster stays up. Try in another terminal:\n"
        f"  curl {api}/vm\n"
        f"  curl '{api}/vm/{NAME}/console?lines=5'\n"
        f"  curl {api}/vm/{NAME}/dump\n"
        f"  sudo {exec_command} ping -c 3 10.20.0.1\n"
        f"  sudo {exec_command} rbd ls vms\n"
        f"  curl -X POST {api}/vm/{NAME}/state -d state=restart\n"
        f"  curl -X POST {api}/vm/{NAME}/state -d state=shutdown\n"
        f"  curl -X POST {api}/node/{NODE}/domain-state -d domain-state=flush\n"
        f"  curl -X DELETE '{api}/vm/{NAME}?delete_disks'\n"
        f"Ctrl-C stops the cluster.\n"
    )


async def _build(curl: _Curl, say: Say, arguments: list[str]) -> None:
    """Let the provisioner build the guest, and show each step when it is done."""
    await curl.show("POST", "/provisioner/script", name="tiny", data=SCRIPT)
    await curl.show("POST", "/provisioner/profile", **PROFILE, arg=arguments)
    task = await curl.show("POST", "/provisioner/create", name=NAME, profile=PROFILE["name"])
    shown = 0
    while True:
        status = await curl.ask("GET", f"/provisioner/status/{task['task_id']}")
        done = [step for step in status["steps"] if step["state"] not in ("waiting", "running")]
        for step in done[shown:]:
            say(step_line(step))
        shown = len(done)
        if status["state"] not in ("PENDING", "RUNNING"):
            break
        await asyncio.sleep(POLL_SECONDS)
    if status["state"] != "SUCCESS":
        raise Failed(f"Cannot build VM {NAME!r}: {status['status']}", code="tour-failed")


class _Curl:
    """Sends requests and prints them as curl commands."""

    def __init__(self, session: aiohttp.ClientSession, api: str, say: Say) -> None:
        self._session = session
        self.api = api
        self._say = say

    async def ask(self, method: str, path: str, **values: Value) -> Any:
        """Send a request and return the decoded reply; raise `Failed` with the API's sentence if it was refused."""
        pairs = [(name, await _text(value)) for name, value in _pairs(values)]
        async with self._session.request(method, self.api + path, data=pairs or None) as reply:
            body = await reply.json()
            if not reply.ok:
                raise Failed(f"Cannot {method} {path}: {body.get('message')}", code="tour-failed")
            return body

    async def show(self, method: str, path: str, **values: Value) -> Any:
        """Send a request and print it with its reply."""
        words = [word for name, value in _pairs(values) for word in ("--data-urlencode", _written(name, value))]
        self._say(f"\n$ {shlex.join(['curl', '-X', method, self.api + path, *words])}")
        body = await self.ask(method, path, **values)
        self._say(json.dumps(body, indent=2))
        return body


def step_line(step: Mapping[str, Any]) -> str:
    """Return the line that shows a step, with its message if it has one."""
    message = f": {step['message']}" if step["message"] else ""
    return f"  {step['state']:<8} {step['title']}{message}"


def _pairs(values: Mapping[str, Value]) -> list[tuple[str, str | Path]]:
    return [(name, each) for name, value in values.items() for each in (value if isinstance(value, list) else [value])]


async def _text(value: str | Path) -> str:
    return await asyncio.to_thread(value.read_text) if isinstance(value, Path) else value


def _written(name: str, value: str | Path) -> str:
    """Return a value as the argument of curl's --data-urlencode."""
    return f"{name}@{value}" if isinstance(value, Path) else f"{name}={value}"


async def _show_console(curl: _Curl, say: Say) -> None:
    """Show the guest's console until the guest is up and has an address."""
    shown = 0
    async with asyncio.timeout(BOOT_SECONDS):
        while True:
            lines = (await curl.ask("GET", f"/vm/{NAME}/console?lines=1000"))["data"].splitlines()
            for line in lines[shown:]:
                say(f"  | {line}")
            shown = len(lines)
            if all(any(text in line for line in lines) for text in (guest.GREETING, guest.ADDRESS)):
                return
            await asyncio.sleep(POLL_SECONDS)
