"""Origin: refuse requests that a page of another site sent, and those for a host name that is not this API's.

A browser sends what a page asks for to every address that its machine can reach: a page of any site could change a
cluster whose API requires no token. Browsers say which site a request comes from (Fetch Metadata, and the header Origin
of RFC 6454); programs say nothing. A page whose own name suddenly has the API's address (DNS rebinding) comes from the
same site, but its requests carry that name as their Host.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from pvcd.errors import CrossSite, HostRefused
from pvcd.http.complaints import shown
from pvcd.settings import Api

PROTECTION = {
    istr("Cross-Origin-Resource-Policy"): "same-origin",
    istr("X-Content-Type-Options"): "nosniff",
    istr("X-Frame-Options"): "DENY",
}
"""Headers of every reply: pages of other sites can neither embed it, nor frame it, nor take it for another type."""
LOOKUP_SECONDS = 2.0
CACHED_HOSTS = 256

_SITE, _MODE, _DEST = istr("Sec-Fetch-Site"), istr("Sec-Fetch-Mode"), istr("Sec-Fetch-Dest")
_HOST = re.compile(r"(?:\[(?P<ip>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")


def screening(api: Api, own_names: Iterable[str]) -> Middleware:
    """Return the middleware that decides on every request before its body is read and its sender is known."""
    is_ours = _hosts({*own_names, *api.allowed_hosts}) if _checks_hosts(api) else None

    @web.middleware
    async def screen(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.version not in (HttpVersion11, HttpVersion10):
            major, minor = request.version
            raise web.HTTPBadRequest(text=f"The version of HTTP must be 1.0 or 1.1; got {major}.{minor}.")
        if request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers:
            request.protocol.close()  # after the reply, as what follows may be part of the body (RFC 9112, section 6.1)
            raise web.HTTPBadRequest(
                text="Transfer-Encoding requires HTTP 1.1; got 1.0.", headers={hdrs.CONNECTION: "close"}
            )
        if is_ours is not None:
            for host in _hosts_of(request):
                if not is_ours(host):
                    raise HostRefused(
                        f"Cannot {request.method} {shown(request.path)}: {shown(host)} is not a name of this API. "
                        "Use its IP address, or add the name to pvc.api.allowed_hosts."
                    )
        refuse_other_sites(request)
        return await handler(request)

    return screen


def refuse_other_sites(request: web.Request, *, links: bool = True) -> None:
    """Raise `CrossSite` if any header says that a page of another site sent the request.

    With `links`, one may still be followed to the API: a page cannot read what the browser shows in its place.
    """
    if _is_foreign(request) and not (links and _is_link(request)):
        raise CrossSite(f"Cannot {request.method} {shown(request.path)}: a page of another site sent the request.")


def _is_foreign(request: web.Request) -> bool:
    headers = request.headers
    if not {"same-origin", "none"}.issuperset(headers.getall(_SITE, ())):
        return True
    if hdrs.ORIGIN not in headers and hdrs.REFERER not in headers:
        return False
    own = headers.get(hdrs.HOST, "").lower() or None  # which equals no source
    sources = [*headers.getall(hdrs.ORIGIN, ()), *headers.getall(hdrs.REFERER, ())]
    return any(_authority(source) != own for source in sources)


def _is_link(request: web.Request) -> bool:
    """Return whether the browser shows the reply as a page of its own."""
    headers = request.headers
    reads = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    return reads and (headers.getall(_MODE, []), headers.getall(_DEST, [])) == (["navigate"], ["document"])


def _authority(url: str) -> str:
    """Return the host and port of a URL; of `null`, which stands for a hidden origin, the empty text."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


# Hosts


def _checks_hosts(api: Api) -> bool:
    """Return whether other names are refused: always where no token is needed, or only this machine can ask."""
    return not api.authentication.enabled or api.listens_on_loopback or bool(api.allowed_hosts)


def _hosts(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a Host is this API's, with or without a port.

    An IP address always is: no other site can have it as its name.
    """
    known = frozenset(name.lower().removesuffix(".") for name in names)

    @lru_cache(maxsize=CACHED_HOSTS)
    def is_ours(host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["ip"] or match["name"]).lower().removesuffix(".")
        return _is_address(name) or name in known or name == "localhost" or name.endswith(".localhost")

    return is_ours


def _hosts_of(request: web.Request) -> list[str]:
    """Return the hosts that a request names: in its header, which HTTP/1.0 lacks, and in an absolute URL."""
    hosts = request.headers.getall(hdrs.HOST, [])
    if request.raw_path.startswith("/") or request.url.host is None:
        return hosts
    return [*hosts, request.url.host_subcomponent or ""]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


async def own_names() -> frozenset[str]:
    """Return the names of this machine: its host name, alone and with its domain, if that is found soon."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0]}
    with contextlib.suppress(OSError, UnicodeError):  # TimeoutError is an OSError
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, flags=socket.AI_CANONNAME)
        names |= {name for _, _, _, name, _ in found if name}
    return frozenset(names)
