"""Which requests are refused before anything else of them is looked at."""

from __future__ import annotations

from unittest import mock

import pytest
from aiohttp import HttpVersion10, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from pvcd.errors import CrossSite
from pvcd.http.origin import refuse_other_sites, screening
from pvcd.plugin.registry import collect
from pvcd.testing import minimal_settings

LINK = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"))


def sent(*headers: tuple[str, str], host: str = "a") -> web.Request:
    return make_mocked_request("GET", "/", CIMultiDict([("Host", host), *headers]))


@pytest.mark.parametrize(
    "headers",
    [
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "none")],
        [("Origin", "http://a"), ("Origin", "http://evil.example")],
        [("Referer", "http://a/"), ("Referer", "http://evil.example/")],
        [*LINK, ("Sec-Fetch-Mode", "no-cors")],
        [*LINK, ("Sec-Fetch-Dest", "image")],
    ],
)
def test_each_of_several_headers_of_one_name_counts(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(CrossSite):
        refuse_other_sites(sent(*headers))


def test_the_same_header_twice_is_no_reason_to_refuse() -> None:
    refuse_other_sites(sent(("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "same-origin")))
    refuse_other_sites(sent(*LINK))


async def test_a_chunked_request_of_http_1_0_is_refused_and_ends_the_connection() -> None:
    protocol = mock.Mock()
    headers = {"Host": "127.0.0.1", "Transfer-Encoding": "chunked", "Connection": "keep-alive"}
    request = make_mocked_request("POST", "/", headers, version=HttpVersion10, protocol=protocol)
    screen = screening(minimal_settings(collect([])).api, ())
    with pytest.raises(web.HTTPBadRequest) as caught:
        await screen(request, mock.AsyncMock())
    assert caught.value.text == "Transfer-Encoding requires HTTP 1.1; got 1.0."
    assert caught.value.headers["Connection"] == "close"
    protocol.close.assert_called_once_with()
