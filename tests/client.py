"""A client of the API for tests. It needs no event loop, so any test can use it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

LONGEST = 60.0


@dataclass(frozen=True)
class Reply:
    """A reply of the API."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """Return the content type."""
        return self.headers.get("Content-Type", "").partition(";")[0]

    @property
    def code(self) -> str:
        """Return the error code of a failure."""
        return str(self.json["code"])


class Client:
    """A client of the API at a base URL such as http://127.0.0.1:7370/api/v1."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.headers: dict[str, str] = {}
        """Of each request."""

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, with arguments in the places that are named, or with a body as it is."""
        address = self.api + path + ("?" + urlencode(query, doseq=True) if query else "")
        data = urlencode(form, doseq=True).encode() if form else body
        request = Request(address, data=data, headers={**self.headers, **(headers or {})}, method=method)
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=LONGEST) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def ask(self, method: str, path: str, /, **values: Any) -> tuple[int, Any]:
        """The status and the decoded body of the answer to a form."""
        reply = self.send(method, path, form=values)
        try:
            return reply.status, reply.json
        except ValueError:
            return reply.status, reply.body.decode()

    def get(self, path: str, /, **values: Any) -> Any:
        status, body = self.ask("GET", path, **values)
        assert status == 200, body
        return body

    def post(self, path: str, /, **values: Any) -> Any:
        status, body = self.ask("POST", path, **values)
        assert status == 200, body
        return body

    def delete(self, path: str, /, **values: Any) -> Any:
        status, body = self.ask("DELETE", path, **values)
        assert status == 200, body
        return body

    def refused(self, method: str, path: str, /, **values: Any) -> str:
        """The code of a failure."""
        status, body = self.ask(method, path, **values)
        assert status == 510, body
        return str(body["code"])

    def vm(self, name: str) -> Any:
        return self.get(f"/vm/{name}")[0]

    def node(self, name: str) -> Any:
        return self.get(f"/node/{name}")[0]

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Return when a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"it did not come true within {seconds} s"
            time.sleep(0.05)

    def until_state(self, name: str, state: str, running: bool, seconds: float = 60.0) -> None:
        def reached() -> bool:
            now = self.get(f"/vm/{name}/state")
            return bool(now["state"] == state and now["running"] is running)

        try:
            self.until(reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.vm(name)}") from None
