"""The page that shows the API document."""

from __future__ import annotations

import re

from pvcd.http.openapi import document
from pvcd.http.routes import Route

from .conftest import Api, Browser


async def test_the_page_shows_every_operation_and_asks_nobody_else(api: Api, browser: Browser) -> None:
    page = await browser.open(f"{api.url}/api/v1/docs")
    shown = re.findall(r'id="operations-(?!tag-)[^"]*?-([a-z0-9_]+)"', page.dom)
    described = document(api.context.declared(Route))
    expected = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert sorted(shown) == sorted(expected)
    assert page.console == []
    files = ["docs/start.js", "docs/swagger-ui.css", "docs/swagger-ui.js", "openapi.json"]
    assert page.asked == [f"{api.url}/api/v1/{file}" for file in files]
    assert sorted(api.answered) == sorted(f"200 /api/v1/{file}" for file in ["docs", *files])


async def test_an_operation_can_be_pointed_at(api: Api, browser: Browser) -> None:
    page = await browser.open(f"{api.url}/api/v1/docs#/Nodes/post_node_by_node_domain_state")
    assert "`flush` clears" not in page.dom  # it is Markdown
    assert "<code>flush</code> clears the node of VMs" in page.dom


async def test_the_browser_would_tell_of_mistakes_and_of_other_hosts(api: Api, browser: Browser) -> None:
    page = await browser.open(f"{api.url}/bad")
    assert any("nothing is not defined" in line for line in page.console)
    assert any("Content Security Policy" in line for line in page.console)
    assert page.asked == ["http://elsewhere.example/plain.js", "https://elsewhere.example/secret.js"]
