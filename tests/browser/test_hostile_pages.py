"""Pages of other sites in a real browser, against an API that requires no token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from .conftest import Api, Browser

PAGE = """\
<!doctype html>
<link rel="icon" href="data:,">
<body>
<script>
const api = ("%s" || location.origin) + "/api/v1";
const userdata = (name) => api + "/provisioner/template/userdata?name=" + name;
const post = (address, options) => fetch(address, {method: "POST", ...options}).catch(() => null);

function submit(name, enctype) {
    const frame = document.createElement("iframe");
    frame.name = name;
    document.body.append(frame);
    const form = document.body.appendChild(document.createElement("form"));
    Object.assign(form, {method: "post", action: userdata(name), target: name, enctype});
    const field = form.appendChild(document.createElement("input"));
    Object.assign(field, enctype == "text/plain" ? {name: "#cloud-config"} : {name: "data", value: "#cloud-config"});
    form.submit();
}

const data = new URLSearchParams({data: "#cloud-config"});
const json = {headers: {"Content-Type": "application/json"}, body: JSON.stringify({data: "#cloud-config"})};
post(userdata("fetch"), {mode: "no-cors", body: data});
post(userdata("fetch-text"), {mode: "no-cors", body: "#cloud-config"});
post(userdata("fetch-cors"), {mode: "cors", body: data});
post(userdata("fetch-json"), {mode: "cors", ...json});
post(userdata("beacon"), {mode: "no-cors", keepalive: true, credentials: "include", body: data});
submit("form", "application/x-www-form-urlencoded");
submit("form-text", "text/plain");
submit("form-files", "multipart/form-data");
new Image().src = api + "/node?limit=image";
new WebSocket(api.replace("http", "ws") + "/node?limit=socket");
fetch(api + "/node?limit=fetched").then((reply) => reply.text()).then((text) => document.body.append("read " + text));
</script>
"""
ATTEMPTS = {
    "fetch",
    "fetch-text",
    "fetch-cors",
    "beacon",
    "form",
    "form-text",
    "form-files",
    "image",
    "socket",
    "fetched",
}


class Attacker:
    """A site with a hostile page, whose name gets the address of the API as soon as the page is loaded."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.port = 0

    async def page(self, request: web.Request) -> web.Response:
        """Attack the API at its own address."""
        return web.Response(text=PAGE % self._api.url, content_type="text/html")

    async def link(self, request: web.Request) -> web.Response:
        """Lead to the API, as a click on a link does."""
        text = f"<script>location.href = '{self._api.url}/api/v1/docs'</script>"
        return web.Response(text=text, content_type="text/html")

    async def frame(self, request: web.Request) -> web.Response:
        """Show a page of the API inside of this one."""
        return web.Response(text=f"<iframe src='{self._api.url}/api/v1/docs'></iframe>", content_type="text/html")

    async def rebound_page(self, request: web.Request) -> web.Response:
        """Attack what this site's own name stands for from now on."""
        return web.Response(text=PAGE % "", content_type="text/html")

    async def rebound(self, request: web.Request) -> web.Response:
        """Pass a request to the API as the browser sent it, as a name with another address does."""
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.request(
                request.method, self._api.url + request.path_qs, headers=request.headers, data=await request.read()
            ) as reply,
        ):
            return web.Response(status=reply.status, body=await reply.read(), content_type=reply.content_type)


@pytest.fixture
async def attacker(api: Api) -> AsyncIterator[Attacker]:
    attacker = Attacker(api)
    app = web.Application()
    app.router.add_get("/page", attacker.page)
    app.router.add_get("/rebound", attacker.rebound_page)
    app.router.add_get("/link", attacker.link)
    app.router.add_get("/frame", attacker.frame)
    app.router.add_route("*", "/api/{path:.*}", attacker.rebound)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    attacker.port = runner.addresses[0][1]
    yield attacker
    await runner.cleanup()


async def userdata(api: Api) -> Any:
    """The userdata that the API has, and what it says of its nodes, as a program sees it."""
    async with aiohttp.ClientSession() as client:
        replies = [await client.get(f"{api.url}/api/v1/{path}") for path in ("provisioner/template/userdata", "node")]
        return [await reply.json() for reply in replies]


@pytest.mark.parametrize("site", ["evil.example", "127.0.0.1"])
async def test_a_page_of_another_site_changes_and_reads_nothing(
    api: Api, browser: Browser, attacker: Attacker, site: str
) -> None:
    before = await userdata(api)
    api.answered.clear()
    page = await browser.open(f"http://{site}:{attacker.port}/page")
    came = list(api.answered)
    assert {name for name in ATTEMPTS if any(line.endswith(f"={name}") for line in came)} == ATTEMPTS, came
    assert {line.partition(" ")[0] for line in came} == {"510"}, came
    assert "read " not in page.dom.rpartition("</script>")[2]
    assert await userdata(api) == before


async def test_a_page_whose_name_gets_the_address_of_the_api_changes_and_reads_nothing(
    api: Api, browser: Browser, attacker: Attacker
) -> None:
    before = await userdata(api)
    api.answered.clear()
    page = await browser.open(f"http://evil.example:{attacker.port}/rebound")
    came = list(api.answered)
    assert {name for name in ATTEMPTS if any(line.endswith(f"={name}") for line in came)} == ATTEMPTS, came
    assert any(line.endswith("=fetch-json") for line in came), "as it asks its own site, there is no preflight"
    assert {line.partition(" ")[0] for line in came} == {"510"}, came
    assert "host-not-allowed" in page.dom.rpartition("</script>")[2]
    assert await userdata(api) == before


async def test_a_link_on_a_page_of_another_site_leads_to_the_api(
    api: Api, browser: Browser, attacker: Attacker
) -> None:
    page = await browser.open(f"http://evil.example:{attacker.port}/link")
    assert "operations-" in page.dom


async def test_a_page_of_another_site_cannot_show_the_api_in_a_frame(
    api: Api, browser: Browser, attacker: Attacker
) -> None:
    page = await browser.open(f"http://evil.example:{attacker.port}/frame")
    assert "operations-" not in page.dom
    assert any(line.startswith("510 /api/v1/docs") for line in api.answered)
