"""The OpenAPI document of the API, and a page that shows it without any other host."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic_core import to_json

from pvcd.declare.context import Component, ComponentKey, Context, Role
from pvcd.declare.hook_schema import schemas
from pvcd.declare.operations import OperationKind
from pvcd.http.openapi import document
from pvcd.http.replies import JSON, Encoded, Produces
from pvcd.http.routes import Route, Routes

HTML, CSS, SCRIPT = "text/html", "text/css", "text/javascript"

PAGE = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>PVC API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><main id="api"></main></body>
</html>
"""
START = b"""\
SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});
"""
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
ALWAYS_ASKED = {"Cache-Control": "no-cache"}
FOR_A_DAY = {"Cache-Control": "public, max-age=86400"}


@dataclass(frozen=True)
class Documents:
    """The document and the files of its page, encoded."""

    document: Encoded[dict[str, Any]]
    page: Encoded[str]
    start: Encoded[str]
    script: Encoded[str]
    style: Encoded[str]


DOCUMENTS = ComponentKey[Documents]("documents")
routes = Routes("/api/v1", tag="API document")


@routes.get("/openapi.json", public=True)
async def get_document(context: Context) -> Encoded[dict[str, Any]]:
    """Return this document: every endpoint, including those of third-party plugins, as OpenAPI 3.1."""
    return context[DOCUMENTS].document


@routes.get("/docs", public=True)
async def get_page(context: Context) -> Encoded[Annotated[str, Produces(HTML)]]:
    """Show this document as a page on which each endpoint can be tried."""
    return context[DOCUMENTS].page


@routes.get("/docs/start.js", public=True)
async def get_start(context: Context) -> Encoded[Annotated[str, Produces(SCRIPT)]]:
    """Return the script that starts the page."""
    return context[DOCUMENTS].start


@routes.get("/docs/swagger-ui.js", public=True)
async def get_script(context: Context) -> Encoded[Annotated[str, Produces(SCRIPT)]]:
    """Return Swagger UI, which draws the page."""
    return context[DOCUMENTS].script


@routes.get("/docs/swagger-ui.css", public=True)
async def get_style(context: Context) -> Encoded[Annotated[str, Produces(CSS)]]:
    """Return the style sheet of Swagger UI."""
    return context[DOCUMENTS].style


def _read(declared: Iterable[Route], operations: Iterable[OperationKind]) -> Documents:
    return Documents(
        document=Encoded(to_json(document(declared, schemas(operations))), JSON, ALWAYS_ASKED),
        page=Encoded(PAGE, HTML, ALWAYS_ASKED | POLICY),
        start=Encoded(START, SCRIPT, ALWAYS_ASKED),
        script=_asset("swagger_bundle.js", SCRIPT),
        style=_asset("swagger_style.css", CSS),
    )


@cache
def _asset(name: str, content_type: str) -> Encoded[str]:
    """Read a file of Swagger UI. Its package is not imported, as it would read and keep all its files."""
    path = Path(str(importlib.metadata.distribution("offapi").locate_file(f"offapi/{name}")))
    return Encoded(path.read_bytes(), content_type, FOR_A_DAY)


@contextlib.asynccontextmanager
async def _open(context: Context) -> AsyncIterator[Documents]:
    yield await asyncio.to_thread(_read, context.declared(Route), context.declared(OperationKind))


COMPONENT = Component(DOCUMENTS, _open, roles=(Role.API,), in_memory=True)
