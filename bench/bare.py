"""The baseline for GETs: a bare aiohttp handler that returns prepared bytes. Arguments: a port, a folder of bodies."""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web


def main(port: int, folder: Path) -> None:
    """Serve each file of the folder under its name."""
    app = web.Application()
    for file in folder.iterdir():
        app.router.add_get(f"/{file.name}", _handler(file.read_bytes()))
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def _handler(body: bytes) -> web.RequestHandler:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handle


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
