"""From what was sent to typed arguments."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from pvcd.errors import Invalid
from pvcd.http import values
from pvcd.http.parameters import Document, Flag, Path, Value
from pvcd.http.replies import Message
from pvcd.http.routes import Routes
from pvcd.http.values import read_arguments
from pvcd.records import Name

Read = Callable[..., Awaitable[dict[str, Any]]]
Multipart = Callable[..., tuple[bytes, str]]

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


class State(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"


def even(number: int) -> int:
    if number % 2:
        raise ValueError("it is odd")
    return number


def size(text: str) -> str:
    if not text.endswith("G"):
        raise Invalid(f"size {text!r} has no unit.")
    return text


routes = Routes("/x", tag="X")


@routes.post("/define/{vm}")
async def define(
    context: Any,
    *,
    vm: Annotated[str, Path("Name")],
    xml: Annotated[str, Document("Domain XML")],
    limit: Annotated[list[str] | None, Value("Nodes", separator=",", names=True)],
    restart: Annotated[bool, Flag("Restart")],
    no_auto: Annotated[bool, Flag("Do not start", name="no-autostart")],
) -> Message:
    """Define."""
    return Message(message="")


@routes.post("/change")
async def change(
    context: Any,
    *,
    state: Annotated[State | None, Value("State", choices=("start", "stop"))],
    states: Annotated[list[State] | None, Value("States", separator=",")],
    vcpus: Annotated[int | None, Value("vCPUs"), Field(ge=1)],
    weight: Annotated[float | None, Value("Weight")],
    uuid: Annotated[UUID | None, Value("UUID")],
    net: Annotated[IPv4Network | IPv6Network | None, Value("Network")],
    name: Annotated[Name | None, Value("Name", names=True)],
    note: Annotated[str, Value("Note")] = "none",
    short: Annotated[str | None, Value("Short"), Field(min_length=1, max_length=3)] = None,
    pair: Annotated[int | None, Value("Even"), AfterValidator(lambda n: n if n is None else even(n))] = None,
    size: Annotated[str, Value("Size"), AfterValidator(size)] = "1G",
    on: Annotated[bool | None, Value("Mandatory truth")] = None,
    name_server: Annotated[list[str] | None, Value("Servers", repeated=True)] = None,
    ports: Annotated[list[int] | None, Value("Ports", separator=","), Field(min_length=1)] = None,
    force: Annotated[bool, Flag("Force")] = False,
) -> Message:
    """Change."""
    return Message(message="")


@routes.post("/need")
async def need(
    context: Any,
    vni: Annotated[int, Value("VNI")],
    description: Annotated[str, Value("Description")],
    nettype: Annotated[str, Value("Type", choices=("bridged", "managed"))],
) -> Message:
    """Need."""
    return Message(message="")


@routes.get("/acl/{acl}")
async def acl(context: Any, acl: Annotated[str, Path("Description", names=False)]) -> Message:
    """Show."""
    return Message(message="")


DEFINE, CHANGE, NEED, ACL = routes
VM = {"vm": "web1"}


async def refused(read: Read, *arguments: Any, **more: Any) -> str:
    with pytest.raises(Invalid) as caught:
        await read(*arguments, **more)
    return caught.value.sentence


async def changed(read: Read, *arguments: Any, **more: Any) -> dict[str, Any]:
    """Only the arguments that differ from their defaults."""
    defaults = await read(CHANGE)
    return {key: value for key, value in (await read(CHANGE, *arguments, **more)).items() if value != defaults[key]}


# Where values come from


async def test_nothing_given_means_the_defaults(read: Read) -> None:
    arguments = await read(CHANGE)
    assert arguments.pop("note") == "none"
    assert arguments.pop("size") == "1G"
    assert arguments.pop("force") is False
    assert set(arguments.values()) == {None}
    assert len(arguments) == len(CHANGE.parameters) - 3


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_query_and_form_with_any_method(read: Read, method: str) -> None:
    assert await changed(read, "state=start", b"vcpus=2&note=a%20b+c%C3%A4\r\n", FORM, method=method) == {
        "state": State.START,
        "vcpus": 2,
        "note": "a b c\u00e4",
    }


async def test_json_values_keep_their_meaning(read: Read) -> None:
    body = {
        "vcpus": 2,
        "weight": 1.5,
        "note": "200",
        "force": True,
        "states": ["start", "stop"],
        "name_server": ["a", "b"],
        "on": False,
        "state": None,
    }
    assert await changed(read, "", json.dumps(body).encode(), JSON) == {
        "vcpus": 2,
        "weight": 1.5,
        "note": "200",
        "force": True,
        "states": [State.START, State.STOP],
        "name_server": ["a", "b"],
        "on": False,
    }


async def test_json_true_is_not_a_number(read: Read) -> None:
    said = await refused(read, CHANGE, "", b'{"vcpus": true}', JSON)
    assert said == "vcpus must be a whole number of at least 1; got 'true'."


async def test_a_charset_is_respected(read: Read) -> None:
    assert await changed(read, "", "note=ä".encode("latin-1"), FORM + "; charset=iso-8859-1") == {"note": "ä"}
    assert await changed(read, "", b"note=%E4", FORM + "; charset=latin1") == {"note": "ä"}


@pytest.mark.parametrize("kind", [None, FORM, JSON, "multipart/form-data; boundary=XX", "image/png"])
async def test_an_empty_body_of_any_type_has_no_arguments(read: Read, kind: str | None) -> None:
    assert await changed(read, "note=x", None, kind) == {"note": "x"}


@pytest.mark.parametrize("kind", [None, FORM, JSON, "image/png"])
async def test_an_empty_chunked_body_has_no_arguments(read: Read, kind: str | None) -> None:
    assert await changed(read, "note=x", b"", kind) == {"note": "x"}


async def test_multipart_fields_and_a_file(read: Read, multipart: Multipart) -> None:
    xml = "<name>\u00e4</name>\r\n\r\n--X\r\n".encode()
    body, kind = multipart(
        ('Content-Disposition: form-data; name="xml"; filename="a.xml"\r\nContent-Type: application/xml', xml),
        ('Content-Disposition: form-data; name="limit"', b"hv1,hv2"),
        ('Content-Disposition: form-data; name="restart"', b""),
    )
    assert await read(DEFINE, "", body, kind, match=VM) == {
        "vm": "web1",
        "xml": xml.decode(),
        "limit": ["hv1", "hv2"],
        "restart": True,
        "no_auto": False,
    }


async def test_multipart_text_may_have_its_own_charset_and_encoding(read: Read, multipart: Multipart) -> None:
    body, kind = multipart(
        ('Content-Disposition: form-data; name="note"\r\nContent-Type: text/plain; charset=latin-1', b"\xe4"),
        ('Content-Disposition: form-data; name="vcpus"\r\nContent-Transfer-Encoding: base64', b"Mg=="),
    )
    assert await changed(read, "", body, kind) == {"note": "\u00e4", "vcpus": 2}


async def test_only_the_document_can_be_a_file(read: Read, multipart: Multipart) -> None:
    part = ('Content-Disposition: form-data; name="note"; filename="a"', b"x")
    assert "'note' cannot be a file" in await refused(read, CHANGE, "", *multipart(part))
    part = ('Content-Disposition: form-data; name="limit"; filename="a"', b"x")
    assert "'limit' cannot be a file" in await refused(read, DEFINE, "xml=a", *multipart(part), match=VM)


XML = "<domain>\n\t<name>a&amp;b=c+d%20</name>\n</domain>\n"


@pytest.mark.parametrize(
    "kind", ["application/xml", "text/xml; charset=utf-8", "text/plain", "application/octet-stream", None, FORM]
)
async def test_the_raw_body_is_the_document_unchanged(read: Read, kind: str | None) -> None:
    arguments = await read(DEFINE, "restart", XML.encode(), kind, match=VM)
    assert arguments["xml"] == XML
    assert arguments["restart"] is True


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        (urlencode({"xml": XML}), None, None),
        ("", urlencode({"xml": XML}).encode(), FORM),
        ("", urlencode({"limit": "a", "xml": XML}).encode(), FORM),
        ("", b"restart&" + urlencode({"xml": XML}).encode(), FORM),
        (urlencode({"xml": XML}), b"restart\n", FORM),
        ("", json.dumps({"xml": XML}).encode(), JSON),
        (urlencode({"xml": XML}), XML.encode(), "application/xml"),
    ],
)
async def test_the_document_may_be_an_argument_as_well(
    read: Read, query: str, body: bytes | None, kind: str | None
) -> None:
    assert (await read(DEFINE, query, body, kind, match=VM))["xml"] == XML


async def test_a_body_that_only_looks_like_a_form_is_the_document(read: Read) -> None:
    script = "limits=3\nprint('&xml=')\n"
    assert (await read(DEFINE, "", script.encode(), FORM, match=VM))["xml"] == script


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", None, "image/png", "multipart/mixed; boundary=XX"])
async def test_a_raw_body_without_a_document_is_refused(read: Read, kind: str | None) -> None:
    assert "The body must be a form or JSON" in await refused(read, CHANGE, "", b"<a/>", kind)


async def test_a_body_of_another_type_is_not_a_document(read: Read) -> None:
    assert "got the type 'image/png'" in await refused(read, DEFINE, "", b"x", "image/png", match=VM)


# Merging


async def test_the_same_value_in_two_places_is_fine(read: Read) -> None:
    assert await changed(read, "vcpus=2&vcpus=2&force", b'{"vcpus": 2, "force": true}', JSON) == {
        "vcpus": 2,
        "force": True,
    }
    assert await changed(read, "states=start,stop", b'{"states": ["start", "stop"]}', JSON) == {
        "states": [State.START, State.STOP]
    }


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("note=a", b"note=b", FORM),
        ("note=a", b'{"note": "b"}', JSON),
        ("note=a&note=b", None, None),
        ("", b"note=a&note=b", FORM),
        ("", b'{"note": "a", "note": "b"}', JSON),
    ],
)
async def test_different_values_are_a_conflict(read: Read, query: str, body: bytes | None, kind: str | None) -> None:
    assert (
        await refused(read, CHANGE, query, body, kind) == "note must be given once, or with the same value each time."
    )


@pytest.mark.parametrize("query", ["force&force=no", "states=start&states=stop"])
async def test_flags_and_lists_in_one_value_conflict_as_well(read: Read, query: str) -> None:
    assert "must be given once" in await refused(read, CHANGE, query)


async def test_a_document_in_two_places_must_be_the_same(read: Read) -> None:
    said = await refused(read, DEFINE, "xml=a", b"<b/>", "text/xml", match=VM)
    assert said == "xml must be given once, or with the same value each time."


async def test_repeats_are_collected_in_order(read: Read) -> None:
    assert await changed(read, "name_server=b&name_server=a&name_server=b") == {"name_server": ["b", "a", "b"]}
    assert await changed(read, "name_server=b", b'{"name_server": "b"}', JSON) == {"name_server": ["b"]}
    assert "given once" in await refused(read, CHANGE, "name_server=b", b"name_server=a", FORM)


async def test_a_list_is_split_at_its_separator(read: Read) -> None:
    assert await changed(read, "states=start,+stop,") == {"states": [State.START, State.STOP]}
    assert await changed(read, "states=") == {"states": []}
    assert await changed(read, "", b'{"states": []}', JSON) == {"states": []}


async def test_a_single_value_is_not_a_list(read: Read) -> None:
    for member in (b'{"note": ["a"]}', b'{"force": []}', b'{"vcpus": [1]}'):
        assert "must be one value; got a list" in await refused(read, CHANGE, "", member, JSON)


async def test_an_unknown_argument_is_refused_with_a_suggestion(read: Read) -> None:
    assert await refused(read, CHANGE, "stat=start") == "There is no argument 'stat' here: did you mean 'state'?"
    assert "valid are: limit, no-autostart, restart, xml." in await refused(read, DEFINE, "xml=a&q", match=VM)
    assert "There is no argument 'acl' here: none is valid here." in await refused(
        read, ACL, "acl=x", match={"acl": "x"}
    )
    assert "'no_auto'" in await refused(read, DEFINE, "xml=a&no_auto", match=VM)
    assert "'X'" in await refused(read, CHANGE, "", b'{"X": null}', JSON)


async def test_missing_arguments_are_named_in_one_sentence(read: Read) -> None:
    assert await refused(read, NEED) == "The arguments 'vni', 'description' and 'nettype' are missing."
    assert await refused(read, NEED, "vni=1") == "The arguments 'description' and 'nettype' are missing."
    assert await refused(read, DEFINE, match=VM) == "The argument 'xml' is missing."
    assert await refused(read, NEED, "vni=1&nettype=managed", b'{"description": null}', JSON) == (
        "The argument 'description' is missing."
    )


async def test_all_mistakes_are_reported_at_once(read: Read) -> None:
    said = await refused(read, NEED, "vni=x&nettype=mangled&foo")
    assert said == (
        "There is no argument 'foo' here: valid are: description, nettype, vni. "
        "vni must be a whole number; got 'x'. "
        "nettype must be one of bridged, managed; got 'mangled'. "
        "The argument 'description' is missing."
    )


# Flags and names


@pytest.mark.parametrize(
    "text", ["force", "force=", "force=true", "force=Yes", "force=ON", "force=1", "force=y", "force=T"]
)
async def test_a_flag_is_on_by_its_presence_or_a_word(read: Read, text: str) -> None:
    assert (await read(CHANGE, text))["force"] is True


@pytest.mark.parametrize("word", ["false", "No", "OFF", "0", "n", "F"])
async def test_a_flag_may_be_off(read: Read, word: str) -> None:
    assert (await read(CHANGE, f"force={word}"))["force"] is False
    assert (await read(CHANGE, "", json.dumps({"force": False}).encode(), JSON))["force"] is False


@pytest.mark.parametrize("word", ["maybe", "2", "none", "null", "+", "truee"])
async def test_any_other_word_for_a_flag_is_refused(read: Read, word: str) -> None:
    assert "force must be given alone, or as true or false" in await refused(read, CHANGE, f"force={word}")


async def test_a_flag_with_a_dash_reaches_its_parameter(read: Read) -> None:
    assert (await read(DEFINE, "xml=a&no-autostart", match=VM))["no_auto"] is True


async def test_a_blank_in_a_name_is_a_plus(read: Read) -> None:
    assert await changed(read, "name=net200+net300") == {"name": "net200+net300"}
    assert await changed(read, "name=net200%2Bnet300") == {"name": "net200+net300"}
    assert (await read(DEFINE, "xml=a&limit=hv+1,+hv2,hv3+", match={"vm": "a b"})) == {
        "vm": "a+b",
        "xml": "a",
        "limit": ["hv+1", "hv2", "hv3+"],
        "restart": False,
        "no_auto": False,
    }
    assert await changed(read, "note=a+b") == {"note": "a b"}
    assert await read(ACL, match={"acl": "a b"}) == {"acl": "a b"}


async def test_a_path_value_is_only_checked_for_characters_and_length(read: Read) -> None:
    assert await read(ACL, match={"acl": "../<&'\"" + "x" * 249}) == {"acl": "../<&'\"" + "x" * 249}
    assert "at most 256 characters" in await refused(read, ACL, match={"acl": "x" * 257})
    assert "control character" in await refused(read, ACL, match={"acl": "a\x00"})
    assert "must be valid UTF-8" in await refused(read, ACL, match={"acl": "a\udcff"})


# Sentences


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("state=strat", "state must be one of start, stop; got 'strat'."),
        ("state=restart", "state must be one of start, stop; got 'restart'."),
        ("state=START", "state must be one of start, stop; got 'START'."),
        ("state=", "state must be one of start, stop; got ''."),
        ("states=start,foo,", "states must be one of start, stop, restart; got 'foo'."),
        ("vcpus=x", "vcpus must be a whole number of at least 1; got 'x'."),
        ("vcpus=0", "vcpus must be a whole number of at least 1; got '0'."),
        ("vcpus=", "vcpus must be a whole number of at least 1; got ''."),
        ("vcpus=1.5", "vcpus must be a whole number of at least 1; got '1.5'."),
        ("vcpus=" + "9" * 5000, f"vcpus must be a whole number of at least 1; got '{'9' * 57}...'."),
        ("weight=heavy", "weight must be a number; got 'heavy'."),
        ("weight=nan", "weight must be a number; got 'nan'."),
        ("weight=inf", "weight must be a number; got 'inf'."),
        ("uuid=1", "uuid must be a UUID; got '1'."),
        ("net=10.0.0.1/8", "net must be an IPv4 network or an IPv6 network; got '10.0.0.1/8'."),
        (
            "name=a/b",
            "name must be a letter or digit, then letters, digits, '.', '_', '+' and '-', "
            "at most 128 characters; got 'a/b'.",
        ),
        ("short=abcd", "short must be text of at least 1 and at most 3 characters; got 'abcd'."),
        ("short=", "short must be text of at least 1 and at most 3 characters; got ''."),
        ("pair=3", "pair cannot be '3': it is odd."),
        ("size=3", "size '3' has no unit."),
        ("on=perhaps", "on must be true or false; got 'perhaps'."),
        ("on=", "on must be true or false; got ''."),
        ("ports=1,x,y", "ports must be a whole number; got 'x'. ports must be a whole number; got 'y'."),
        ("ports=", "ports cannot be this list: List should have at least 1 item after validation, not 0."),
        ("note=a%00", r"note must not contain a control character; got 'a\x00'."),
        ("note=a%0Ab", r"note must not contain a control character; got 'a\nb'."),
        ("note=%C2%85", r"note must not contain a control character; got '\x85'."),
        ("states=start,%0Astop", r"states must not contain a control character; got 'start,\nstop'."),
        ("force=on%00", r"force must not contain a control character; got 'on\x00'."),
        ("note=\udcff", r"note must be valid UTF-8; got '\udcff'."),
        ("note=%ff", "The query must be valid utf-8."),
        (
            "%1b[31m",
            r"There is no argument '\x1b[31m' here: valid are: force, name, name_server, net, note, on, pair, "
            "ports, short, size, state, states, uuid, vcpus, weight.",
        ),
    ],
)
async def test_a_bad_value_is_refused_in_one_clear_sentence(read: Read, query: str, sentence: str) -> None:
    assert await refused(read, CHANGE, query) == sentence


async def test_an_empty_text_is_a_text(read: Read) -> None:
    assert await changed(read, "note=") == {"note": ""}


async def test_a_percent_sign_that_encodes_nothing_is_kept(read: Read) -> None:
    assert await changed(read, "note=100%&short=%zz") == {"note": "100%", "short": "%zz"}


async def test_a_surrogate_in_a_document_is_refused(read: Read) -> None:
    assert "must be valid UTF-8" in await refused(read, DEFINE, "", rb'{"xml": "\ud800"}', JSON, match=VM)


async def test_the_complaints_are_bounded(read: Read) -> None:
    query = "&".join(f"u{number}" for number in range(900)) + "&states=" + "x," * 900
    said = await refused(read, CHANGE, query)
    assert said.count("There is no argument") == values.MAX_COMPLAINTS
    assert said.count("valid are:") + said.count("did you mean") == values.MAX_SUGGESTIONS
    assert said.count("must be one of") == values.MAX_COMPLAINTS
    said = await refused(read, CHANGE, "ports=" + "x," * 900)
    assert said.count("must be a whole number") == values.MAX_COMPLAINTS


# Broken bodies


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (b"{", JSON, "The body must be valid JSON"),
        (b"\xff", JSON, "The body must be valid utf-8"),
        (b"[1]", JSON, "must be an object"),
        (b"3", JSON, "must be an object"),
        (b'{"vcpus": NaN}', JSON, "NaN is not a number"),
        (b'{"vcpus": {"a": 1}}', JSON, "'vcpus' in the JSON body must be text, a number"),
        (b'{"vcpus": [[1]]}', JSON, "'vcpus' in the JSON body must be text, a number"),
        (b'{"note": false}', JSON, "note must be text; got the bare 'false'"),
        (b'{"note": 200}', JSON, "note must be text; got the bare '200'"),
        (b'{"states": [null]}', JSON, "'states' in the JSON body must be text, a number"),
        (b'{"a":' * 100_000, JSON, "The body must be valid JSON"),
        (b"note=\xff", FORM, "The body must be valid utf-8"),
        (b"note=%ff", FORM, "The form must be valid utf-8"),
        (b"note=x", FORM + "; charset=klingon", "The charset must be utf-8; got 'klingon'"),
        (b"note=x", FORM + "; charset=utf-7", "The charset must be utf-8; got 'utf-7'"),
        (b"note=x", FORM + "; charset=hex", "The charset must be utf-8; got 'hex'"),
        (b"note=x", FORM + '; charset="\0"', "The charset"),
        (b"a&" * 2000, FORM, "at most 1000 fields"),
        (b"x", "multipart/form-data", "malformed multipart form"),
        (b"x", "multipart/form-data; boundary=" + "x" * 80, "malformed multipart form"),
        (b"x", "multipart/form-data; boundary=XX", "malformed multipart form"),
        (b"--XX\r\n", "multipart/form-data; boundary=XX", "must be a field with a name"),
        (b"--XX\r\nbroken\r\n\r\n", "multipart/form-data; boundary=XX", "malformed multipart form"),
        (b"--XX\r\n" + b"a: b\r\n" * 200, "multipart/form-data; boundary=XX", "malformed multipart form"),
        (b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\nx', "multipart/form-data; boundary=XX", "malformed"),
    ],
)
async def test_a_broken_body_is_refused(read: Read, body: bytes, kind: str, sentence: str) -> None:
    assert sentence in await refused(read, CHANGE, "", body, kind)


@pytest.mark.parametrize(
    ("head", "content", "sentence"),
    [
        ("Content-Disposition: form-data", b"x", "must be a field with a name"),
        ('Content-Disposition: form-data; name="a"\r\nContent-Type: multipart/mixed; boundary=Y', b"--Y--", "name"),
        ('Content-Disposition: form-data; name="note"', b"\xff", "must be valid utf-8"),
        ('Content-Disposition: form-data; name="note"\r\nContent-Type: text/plain; charset=?', b"x", "charset"),
        ('Content-Disposition: form-data; name="note"\r\nContent-Transfer-Encoding: x', b"x", "malformed"),
        ('Content-Disposition: form-data; name="note"\r\nContent-Transfer-Encoding: base64', b"x", "malformed"),
    ],
)
async def test_a_broken_part_is_refused(
    read: Read, multipart: Multipart, head: str, content: bytes, sentence: str
) -> None:
    assert sentence in await refused(read, CHANGE, "", *multipart((head, content)))


async def test_many_parts_are_refused(read: Read, multipart: Multipart) -> None:
    body, kind = multipart(*[('Content-Disposition: form-data; name="note"', b"")] * 1001)
    assert "at most 1000 fields" in await refused(read, CHANGE, "", body, kind)


def many(count: int) -> list[bytes]:
    """JSON bodies with a number of fields."""
    return [
        b'{"note": "a", %s}' % b", ".join(b'"n%d": "x,\\"y"' % number for number in range(count - 1)),
        b'{"note": "a", "states": [%s]}' % b",".join([b'"a"'] * (count - 1)),
        b'{"note": "a", "%s": 1}' % (b'\\",' * count) if count == 1000 else b'{"note": [%s]}' % (b"1," * count),
    ]


@pytest.mark.parametrize("shape", range(3))
async def test_json_has_as_many_fields_as_a_form(read: Read, shape: int) -> None:
    assert "fields" not in await refused(read, CHANGE, "", many(1000)[shape], JSON)
    assert "The JSON body must have at most 1000 fields." in await refused(read, CHANGE, "", many(1001)[shape], JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"{%s}" % b",".join(b'"n%d": 1' % number for number in range(150_000)),
        b'{"states": [%s1]}' % (b"1," * 1_000_000),
        b'{"a" ' + b'"",' * 500_000,
        b'{"a": ["", ' + b'"" ' * 500_000 + b"," * 1000,
    ],
)
async def test_the_fields_of_json_are_counted_before_it_is_parsed(
    read: Read, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser would hold up all other requests."""
    parsed: list[str] = []

    def parse(text: str, **_: Any) -> Any:
        parsed.append(text)
        raise ValueError("it is damaged")

    monkeypatch.setattr(json, "loads", parse)
    said = await refused(read, CHANGE, "", body, JSON)
    assert ("at most 1000 fields" in said, parsed) == (True, [])


async def test_a_text_that_does_not_end_is_read_once(read: Read) -> None:
    said = await refused(read, CHANGE, "", b'{"a": "' + b'\\"' * 500_000 + b"," * 1000, JSON)
    assert "The body must be valid JSON: Unterminated string" in said


async def test_a_list_of_many_items_is_refused(read: Read) -> None:
    assert "at most 1000 items" in await refused(read, CHANGE, "", b"name_server=&states=" + b"start," * 1001, FORM)


async def test_a_large_body_is_too_large_in_any_form(read: Read, multipart: Multipart) -> None:
    parts, kind = multipart(*[('Content-Disposition: form-data; name="note"', b"x" * 60)] * 3)
    for body, content_type in [(b"note=" + b"x" * 200, FORM), (parts, kind), (b"<a>" * 80, "text/xml")]:
        with pytest.raises(web.HTTPRequestEntityTooLarge):
            await read(CHANGE, "", body, content_type, limit=150)


@pytest.mark.parametrize("kind", [FORM, JSON, "multipart/form-data; boundary=XX"])
async def test_an_endless_body_is_refused_after_the_deadline(
    read: Read, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(values, "BODY_SECONDS", 0.01)
    assert await refused(read, CHANGE, "", b"note=x", kind, ends=False) == "The body must arrive within 0.01 s."


@pytest.mark.parametrize("error", [web.RequestPayloadError("gzip"), ConnectionResetError()])
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data; boundary=XX"])
async def test_a_body_that_breaks_off_is_refused(ask: Callable[..., web.Request], error: Exception, kind: str) -> None:
    request = ask("", b"", kind, ends=False)
    request.content.set_exception(error)
    with pytest.raises(Invalid, match="damaged or incomplete"):
        await read_arguments(request, CHANGE.parameters)


# Whatever is sent, there is an answer

ANY = st.text(st.characters(exclude_categories=()), max_size=30)
NAMES = st.one_of(st.sampled_from([each.name for each in CHANGE.parameters]), ANY)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY)
TYPES = st.one_of(
    st.sampled_from([FORM, JSON, "multipart/form-data; boundary=XX", "text/xml"]),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).map(lambda text: f"{FORM}; charset={text}"),
)


async def answers(read: Read, *arguments: Any, **more: Any) -> None:
    """Let nothing pass but arguments, and refusals that can be shown."""
    try:
        await read(*arguments, **more)
    except Invalid as error:
        assert error.sentence.isprintable()
        assert len(error.sentence) < 10_000


@given(pairs=st.lists(st.tuples(NAMES, ANY), max_size=6))
async def test_any_query_and_form_is_answered(read: Read, pairs: list[tuple[str, str]]) -> None:
    text = urlencode(pairs, errors="surrogatepass")
    await answers(read, CHANGE, text)
    await answers(read, CHANGE, "", text.encode(), FORM)
    await answers(read, DEFINE, "", text.encode(), FORM, match=VM)


@given(members=st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=6))
async def test_any_json_is_answered(read: Read, members: dict[str, Any]) -> None:
    await answers(read, CHANGE, "", json.dumps(members).encode(), JSON)


@given(body=st.binary(max_size=80), kind=TYPES, query=ANY, part=st.booleans())
async def test_any_body_of_any_type_is_answered(read: Read, body: bytes, kind: str, query: str, part: bool) -> None:
    if part:
        body = b"--XX\r\n" + body
    for route in (CHANGE, DEFINE):
        await answers(read, route, query, body, kind, match=VM)


@given(text=ANY)
async def test_any_path_value_is_answered(read: Read, text: str) -> None:
    await answers(read, ACL, match={"acl": text})


TREES = Routes("/trees", tag="Trees")


@TREES.post(also="/{name}")
async def plant(context: Any, name: Annotated[Name, Value("Its name", names=True)]) -> Message:
    """Plant a tree."""
    return Message(message="")


@pytest.mark.parametrize(("text", "name"), [("oak", "oak"), ("net200 net300", "net200+net300"), ("a" * 128, "a" * 128)])
async def test_a_value_is_read_in_the_path_as_elsewhere(read: Read, text: str, name: str) -> None:
    plain, named = TREES
    assert (plain.path, named.path) == ("/trees", "/trees/{name}")
    assert await read(named, match={"name": text}) == await read(plain, f"name={quote(text)}") == {"name": name}


@pytest.mark.parametrize("text", ["-a", ".", "..", "a/b", "a\n", "ä", "a" * 129, "\x1b[2J" + "x" * 200])
async def test_a_wrong_value_in_the_path_is_refused_as_elsewhere(read: Read, text: str) -> None:
    plain, named = TREES
    with pytest.raises(Invalid) as in_path:
        await read(named, match={"name": text})
    with pytest.raises(Invalid) as elsewhere:
        await read(plain, f"name={quote(text)}")
    assert in_path.value.sentence == elsewhere.value.sentence
    assert "\x1b" not in in_path.value.sentence and len(in_path.value.sentence) < 250


async def test_a_secret_is_never_shown(read: Read) -> None:
    routes = Routes("/keys", tag="Keys")

    @routes.post()
    async def add(context: Any, key: Annotated[str, Value("A key", secret=True)]) -> Message:
        """Add a key."""
        return Message(message="")

    with pytest.raises(Invalid) as refused:
        await read(next(iter(routes)), "key=swordfish%00")
    assert "swordfish" not in refused.value.sentence
    assert "control character" in refused.value.sentence


async def test_a_malformed_content_type_is_refused(read: Read) -> None:
    with pytest.raises(Invalid, match="Content-Type"):
        await read(CHANGE, "", b"x", "multipart/form-data; a*", match=VM)
