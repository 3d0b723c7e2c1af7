"""A real API server over a store in memory, and a Chromium that can reach nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from pvcd.clock import SystemClock
from pvcd.daemon.api import create_app
from pvcd.daemon.components import make_context
from pvcd.declare.context import Context, Role
from pvcd.plugin.loading import load
from pvcd.plugin.registry import collect
from pvcd.programs.runner import run
from pvcd.settings import PluginsSection
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.testing import minimal_settings

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP evil.example 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--virtual-time-budget=20000",  # ms of the page's time, which stands still while it waits for the network
)

BAD_PAGE = """
<link rel="icon" href="data:,">
<script src="http://elsewhere.example/plain.js"></script>
<script src="https://elsewhere.example/secret.js"></script>
<script src="data:text/javascript,0"></script>
<script>nothing()</script>
"""


@dataclass
class Api:
    """A listening API server, and what it answered."""

    url: str
    context: Context
    app: web.Application
    answered: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A page as a browser shows it: its elements, the messages in the console, and the URLs that it requested."""

    dom: str
    console: list[str]
    asked: list[str]


class Browser:
    """A headless Chromium, anew for each page."""

    def __init__(self, program: str, folder: Path) -> None:
        self._argv = [program, *FLAGS]
        self._folder = folder

    async def open(self, url: str) -> Page:
        """Load a page and everything it asks for."""
        profile = self._folder / f"profile-{len(list(self._folder.iterdir()))}"
        notes = self._folder / f"{profile.name}.json"
        argv = [*self._argv, f"--user-data-dir={profile}", f"--log-net-log={notes}", "--dump-dom", url]
        result = await run(argv, timeout=60, environment={"HOME": str(self._folder)})
        log = result.stderr.decode(errors="replace")
        said = re.findall(r"^\[.*?CONSOLE.*?\] (.*)$", log, re.MULTILINE)
        console = [line for line in said if "source: chrome" not in line]  # which is the browser's own
        return Page(result.stdout.decode(), console, _asked_by_page(notes, URL(url).origin()))


def _asked_by_page(notes: Path, origin: URL) -> list[str]:
    """The URLs that a page of this origin asked for: Chromium itself also tries some that are none of its business."""
    events = [event.get("params", {}) for event in json.loads(notes.read_bytes())["events"]]
    return sorted({each["url"] for each in events if "url" in each and each.get("initiator") == str(origin)})


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Skips where Chromium is not installed, but fails where everything must be."""
    program = shutil.which("chromium")
    if program is None:
        missing = "Chromium is not installed: apt install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return Browser(program, tmp_path)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """An API server with the installed plugins."""
    registry = collect(load(PluginsSection()))
    tree = MemoryTree(MemoryServer())
    context = make_context(Role.API, minimal_settings(registry), registry, tree, SystemClock())
    api = Api("", context, create_app(context))

    async def note(request: web.Request, response: web.StreamResponse) -> None:
        api.answered.append(f"{response.status} {request.path_qs}")

    async def bad_page(request: web.Request) -> web.Response:
        """A page as ours must not be."""
        headers = {"Content-Security-Policy": "default-src 'unsafe-inline' http: https:; img-src data:"}
        return web.Response(text=BAD_PAGE, content_type="text/html", headers=headers)

    api.app.on_response_prepare.append(note)
    api.app.router.add_get("/bad", bad_page)
    runner = web.AppRunner(api.app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        yield api
    finally:
        await runner.cleanup()
