"""Logins: the sessions of users, as records, so that every API server knows of each login and logout, also later on."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import Annotated

from pydantic import StringConstraints

from pvcd.declare.context import Context
from pvcd.declare.handlers import Handlers, Requeue
from pvcd.errors import Changed
from pvcd.records import Record
from pvcd.store import Create, Delete, retried

MOST_PER_TOKEN = 1000
"""Of more sessions of one token the oldest end, since a program may log in anew for each request."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
handlers = Handlers(scope="primary")


class Login(Record, path="/logins/{id}"):
    """A session. Neither the secret that its user shows nor the token can be told from it."""

    id: Digest
    """The SHA-256 of the secret."""
    fingerprint: Digest
    """That of the token which it began with."""
    created: float
    expires: float


@retried
async def begin(context: Context, fingerprint: str, instead_of: str | None = None) -> str:
    """Begin a session with the token of a fingerprint, end the one that it replaces, and return its secret."""
    secret = secrets.token_urlsafe(32)
    now = context.clock.time()
    seconds = context.settings.api.authentication.session_seconds
    login = Login(id=_id(secret), fingerprint=fingerprint, created=now, expires=now + seconds)
    replaced = await context.store.read(Login, _id(instead_of)) if instead_of else None
    if replaced is None:
        replaced = _surplus(context, fingerprint)
    await context.store.write(Create(login), *([Delete(replaced)] if replaced else []))
    return secret


def _surplus(context: Context, fingerprint: str) -> Login | None:
    """The oldest session of a token that has as many as it may have."""
    logins = [login for login in context.store.all(Login) if login.fingerprint == fingerprint]
    return min(logins, key=lambda login: login.created) if len(logins) >= MOST_PER_TOKEN else None


def find(context: Context, secret: str) -> Login | None:
    """The session of a secret, from memory."""
    return _live(context, context.store.get(Login, _id(secret)))


async def look_up(context: Context, secret: str) -> Login | None:
    """The session of a secret, from ZooKeeper itself: for one that may have begun elsewhere just now."""
    return _live(context, await context.store.read(Login, _id(secret)))


def _live(context: Context, login: Login | None) -> Login | None:
    return login if login and login.expires > context.clock.time() else None


@retried
async def end(context: Context, secret: str) -> None:
    """End the session of a secret, if there is one."""
    login = await context.store.read(Login, _id(secret))
    if login:
        await context.store.write(Delete(login))


@handlers.on(Login)
async def sweep(context: Context, login: Login) -> Requeue | None:
    """Remove a session that has expired."""
    left = login.expires - context.clock.time()
    if left > 0:
        return Requeue(left)
    with contextlib.suppress(Changed):  # its user was first
        await context.store.write(Delete(login))
    return None


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
