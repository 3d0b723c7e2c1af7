"""Cookies of login sessions: each holds the encrypted secret of a `Login` record."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import aiohttp_session
from aiohttp import web
from aiohttp_session import AbstractStorage, Session, SessionData
from cryptography.fernet import Fernet, InvalidToken

from pvcd.declare.context import Context
from pvcd.http import logins
from pvcd.http.auth import Tokens, derive_key

COOKIE = "PVC_SESSION"
FINGERPRINT = "fingerprint"
"""The key in aiohttp's session of the fingerprint of the token with which it began."""

# The library still uses text keys, of which aiohttp warns.
aiohttp_session.SESSION_KEY = web.RequestKey("session", Session)  # type: ignore[assignment]
aiohttp_session.STORAGE_KEY = web.RequestKey("storage", AbstractStorage)  # type: ignore[assignment]

_FRESH_SECONDS = 10
"""A younger login session may not have reached this server's memory yet."""


class CookieStorage(AbstractStorage):
    """Finds the login session of a request, and begins or ends one with the reply."""

    def __init__(self, context: Context, tokens: Tokens) -> None:
        api = context.settings.api
        self._context = context
        self._tokens = tokens
        self._seconds = api.authentication.session_seconds
        self._fernet = Fernet(urlsafe_b64encode(derive_key(api.authentication.secret_key, "session")))
        super().__init__(
            cookie_name=COOKIE, max_age=self._seconds, secure=api.ssl.enabled, httponly=True, samesite="Strict"
        )

    async def load_session(self, request: web.Request) -> Session:
        """Return the login session of a request; a new, empty one unless cookie, record and token are all valid."""
        secret = self._secret(request)
        login = logins.find(self._context, secret) if secret else None
        if login is None and secret and self._is_fresh(request):
            login = await logins.look_up(self._context, secret)
        if login is None or not self._tokens.include(login.fingerprint):
            return await self.new_session()
        data = SessionData(created=int(login.created), session={FINGERPRINT: login.fingerprint})
        return Session(login.id, data=data, new=False)

    async def save_session(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """End the login session of the request; begin another one, unless it was a logout."""
        secret = self._secret(request)
        if not session.empty:
            secret = await logins.begin(self._context, session[FINGERPRINT], instead_of=secret)
            cookie = self._fernet.encrypt_at_time(secret.encode(), self._now())
            self.save_cookie(response, cookie.decode())
        elif self.load_cookie(request) is not None:
            if secret:
                await logins.end(self._context, secret)
            self.save_cookie(response, "")

    def _secret(self, request: web.Request) -> str | None:
        """Return the secret in the cookie, or None if the cookie is forged or expired."""
        try:
            return self._fernet.decrypt_at_time(self._cookie(request), self._seconds, self._now()).decode()
        except InvalidToken:
            return None

    def _is_fresh(self, request: web.Request) -> bool:
        return self._fernet.extract_timestamp(self._cookie(request)) > self._now() - _FRESH_SECONDS

    def _cookie(self, request: web.Request) -> bytes:
        return (self.load_cookie(request) or "").encode(errors="surrogatepass")

    def _now(self) -> int:
        return int(self._context.clock.time())
