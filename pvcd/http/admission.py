"""Admission: decide whether a request may use a route, while authentication is enabled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp_session import get_session, new_session, session_middleware

from pvcd.declare.context import Context
from pvcd.errors import Unauthorized
from pvcd.http.auth import VISITOR, Tokens, Visitor
from pvcd.http.cookies import FINGERPRINT, CookieStorage
from pvcd.http.origin import refuse_other_sites
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
        self._throttle = Throttle(context.clock, self._tokens)
        self._storage = CookieStorage(context, self._tokens)

    @property
    def middlewares(self) -> list[Middleware]:
        """The middlewares with which replies begin and end login sessions."""
        return [session_middleware(self._storage)] if self._enabled else []

    def replace_tokens(self, tokens: Iterable[str] | Mapping[str, str]) -> None:
        """Accept these tokens from now on; the login sessions of all others end."""
        self._tokens.replace(tokens)

    async def admit(self, request: web.Request, route: Route) -> None:
        """Return if the request has a login session or a token, or if its route is public. Raises `Unauthorized`.

        The description of the token, if it has one, is in `request[USER]` from then on.
        """
        if not self._enabled or route.public:
            return None
        session = await get_session(request)
        if not session.new:
            return self._known(request, session[FINGERPRINT])
        key = request.headers.get(API_KEY, "")
        if key and (fingerprint := await self._throttle.match(request.remote, key)):
            return self._known(request, fingerprint)
        raise Unauthorized("Authentication required")

    def _known(self, request: web.Request, fingerprint: str) -> None:
        if description := self._tokens.describe(fingerprint):
            request[USER] = description

    def introduce(self, context: Context, request: web.Request) -> Context:
        """Return the context of a public route, which may begin or end the login session of the visitor."""
        if not self._enabled:
            return context
        visitor: Visitor = _Visitor(request, self._throttle)
        return context.derive(components={**context.components, VISITOR: visitor})


@dataclass(frozen=True)
class _Visitor:
    """The sender of a request, as a `pvcd.http.auth.Visitor`; the session middleware completes the change."""

    request: web.Request
    throttle: Throttle

    async def log_in(self, token: str) -> None:
        """Begin a login session and redirect a browser to the root of the API."""
        fingerprint = await self.throttle.match(self.request.remote, token)
        if fingerprint is None:
            raise Unauthorized("Cannot log in: this is not a valid token.", code="token-not-valid")
        session = await new_session(self.request)
        session[FINGERPRINT] = fingerprint
        if _prefers_html(self.request):
            raise web.HTTPFound(AFTER_LOGIN)

    async def log_out(self) -> None:
        """End the login session."""
        refuse_other_sites(self.request, links=False)
        session = await get_session(self.request)
        session.invalidate()


def described(authentication: Authentication) -> dict[str, str]:
    """Return the configured tokens, each with its description."""
    return {each.token: each.description for each in authentication.tokens}


def _prefers_html(request: web.Request) -> bool:
    """Return whether the client prefers a page, as a browser does, to JSON."""
    accepted = {"text/html": 0.0, "application/json": 0.0}
    for each in ",".join(request.headers.getall(hdrs.ACCEPT, [])).lower().split(","):
        kind, _, parameters = each.partition(";")
        quality = _QUALITY.search(parameters)
        if kind.strip() in accepted:
            accepted[kind.strip()] = float(quality[1]) if quality else 1.0
    return accepted["text/html"] > accepted["application/json"]
