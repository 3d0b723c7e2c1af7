"""Admission: who may use which route, where authentication is enabled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp_session import get_session, new_session, session_middleware

from pvcd.declare.context import Context
from pvcd.errors import CrossSite, Unauthorized
from pvcd.http.auth import VISITOR, Tokens, Visitor
from pvcd.http.cookies import FINGERPRINT, CookieStorage
from pvcd.http.routes import Route
from pvcd.http.throttle import Throttle
from pvcd.settings import Authentication

API_KEY = "X-Api-Key"
AFTER_LOGIN = "/api/v1"
USER = web.RequestKey("user", str)

_QUALITY = re.compile(r"q\s*=\s*([01](?:\.\d*)?)")


class Admission:
    """Decides on every request of an app before its body is read."""

    def __init__(self, context: Context) -> None:
        authentication = context.settings.api.authentication
        self._enabled = authentication.enabled
        self._tokens = Tokens(authentication.secret_key, described(authentication))
        self._throttle = Throttle(context.clock)
        self._storage = CookieStorage(context, self._tokens)

    @property
    def middlewares(self) -> list[Middleware]:
        """What an app needs so that replies can begin and end sessions."""
        return [session_middleware(self._storage)] if self._enabled else []

    def replace_tokens(self, tokens: Iterable[str] | Mapping[str, str]) -> None:
        """From now on these count, and the sessions that began with others have ended."""
        self._tokens.replace(tokens)

    async def admit(self, request: web.Request, route: Route) -> None:
        """Return if the request comes from a session or shows a token, or if its route is for everybody.

        Whose token it is stands in `request[USER]` from then on, as far as that is known.
        """
        if not self._enabled or route.public:
            return None
        session = await get_session(request)
        if not session.new:
            if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                refuse_other_sites(request)
            return self._known(request, session[FINGERPRINT])
        key = request.headers.get(API_KEY, "")
        if fingerprint := self._tokens.match(key):
            return self._known(request, fingerprint)
        if key:
            await self._throttle.failed(request.remote)
        raise Unauthorized("Authentication required")

    def _known(self, request: web.Request, fingerprint: str) -> None:
        if description := self._tokens.describe(fingerprint):
            request[USER] = description

    def introduce(self, context: Context, request: web.Request) -> Context:
        """The context of a public route, which may begin or end the session of who asks."""
        if not self._enabled:
            return context
        visitor: Visitor = _Visitor(request, self._tokens, self._throttle)
        return context.derive(components={**context.components, VISITOR: visitor})


@dataclass(frozen=True)
class _Visitor:
    """Who sent a request; see `pvcd.http.auth.Visitor`. The session middleware does what is said here."""

    request: web.Request
    tokens: Tokens
    throttle: Throttle

    async def log_in(self, token: str) -> None:
        """Begin a session and let a browser go on to the API's root."""
        refuse_other_sites(self.request)
        fingerprint = self.tokens.match(token)
        if fingerprint is None:
            await self.throttle.failed(self.request.remote)
            raise Unauthorized("This is not a valid token.", code="token-not-valid")
        session = await new_session(self.request)
        session[FINGERPRINT] = fingerprint
        if _prefers_html(self.request):
            raise web.HTTPFound(AFTER_LOGIN)

    async def log_out(self) -> None:
        """End the session."""
        refuse_other_sites(self.request)
        session = await get_session(self.request)
        session.invalidate()


def described(authentication: Authentication) -> dict[str, str]:
    """The configured tokens, each with its description."""
    return {each.token: each.description for each in authentication.tokens}


def refuse_other_sites(request: web.Request) -> None:
    """Raise `CrossSite` for what a browser says it sends for a page that is not ours; programs say nothing of it."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:  # an older browser, or no TLS
        source = request.headers.get(hdrs.ORIGIN) or request.headers.get(hdrs.REFERER)
        ours = source is None or _host(source) == request.headers.get(hdrs.HOST, "").lower()
    if not ours:
        raise CrossSite("The request comes from another site, where a session of this one does not count.")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _prefers_html(request: web.Request) -> bool:
    """Whether a browser asks for a page, and no program for JSON."""
    accepted = {"text/html": 0.0, "application/json": 0.0}
    for each in ",".join(request.headers.getall(hdrs.ACCEPT, [])).lower().split(","):
        kind, _, parameters = each.partition(";")
        quality = _QUALITY.search(parameters)
        if kind.strip() in accepted:
            accepted[kind.strip()] = float(quality[1]) if quality else 1.0
    return accepted["text/html"] > accepted["application/json"]
