"""Bodies that are bombs: XML, JSON, forms, and what is packed into them."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.hostile.conftest import HANG, latencies
from tests.hostile.raw import chunked, head, port_of, speak
from tests.integration.cluster import Cluster
from tests.servers import definition, within

MEGABYTE = 1_000_000
SECRET = "/etc/passwd"
PLAIN = definition("web2")


def with_doctype(declarations: str, text: str) -> str:
    return f"<!DOCTYPE domain [{declarations}]>" + PLAIN.replace("<vcpu>", f"<description>{text}</description><vcpu>")


LAUGHS = '<!ENTITY a "ha">' + "".join(f'<!ENTITY {y} "{f"&{x};" * 10}">' for x, y in itertools.pairwise("abcdefghij"))
BOMBS = {
    "a billion laughs": with_doctype(LAUGHS, "&j;"),
    "one large entity": with_doctype(f'<!ENTITY a "{"a" * 50_000}">', "&a;" * 5000),
    "an entity of itself": with_doctype('<!ENTITY a "&b;"><!ENTITY b "&a;">', "&a;"),
    "a file": with_doctype(f'<!ENTITY a SYSTEM "file://{SECRET}">', "&a;"),
    "a file in a parameter": with_doctype(f'<!ENTITY % a SYSTEM "file://{SECRET}"> %a;', "x"),
    "a public document": with_doctype('<!ENTITY a PUBLIC "x" "http://127.0.0.1:{port}/a">', "&a;"),
    "an address in a parameter": with_doctype('<!ENTITY % a SYSTEM "http://127.0.0.1:{port}/b"> %a;', "x"),
    "a DTD elsewhere": '<!DOCTYPE domain SYSTEM "http://127.0.0.1:{port}/c.dtd">' + PLAIN,
    "a DTD after a blank": "<?xml version='1.0'?>\n\n<!DOCTYPE\ndomain []>" + PLAIN,
    "an inclusion": PLAIN.replace(
        "<vcpu>", f"<x:include xmlns:x='http://www.w3.org/2001/XInclude' href='file://{SECRET}' parse='text'/><vcpu>"
    ),
    "an instruction": f'<?xml-stylesheet type="text/xsl" href="http://127.0.0.1:{{port}}/d"?>{PLAIN}',
    "an instruction inside": PLAIN.replace("<vcpu>", "<?php system('id') ?><vcpu>"),
    "deep nesting": PLAIN.replace("<vcpu>", "<a>" * 60_000 + "</a>" * 60_000 + "<vcpu>"),
    "deep metadata": PLAIN.replace("<vcpu>", "<metadata>" + "<a>" * 5000 + "</a>" * 5000 + "</metadata><vcpu>"),
    "many elements": PLAIN.replace("<devices>", "<devices>" + "<disk/>" * 30_000),
    "a mistake after many pins": PLAIN.replace(
        "<os>", "<cputune>" + "<vcpupin vcpu='0' cpuset='0'/>" * 5000 + "<bogus/></cputune><os>"
    ),
    "many attributes": PLAIN.replace("<vcpu>", "<vcpu " + " ".join(f"a{n}='1'" for n in range(15_000)) + ">"),
    "one attribute twice": PLAIN.replace("<vcpu>", "<vcpu a='1' a='2'>"),
    "a long name": PLAIN.replace("<vcpu>", f"<{'a' * 200_000}/><vcpu>"),
    "a long number": PLAIN.replace("<vcpu>1<", f"<vcpu>{'9' * 200_000}<"),
    "a large number": PLAIN.replace(">64<", f">{'9' * 18}<").replace("'MiB'", "'EiB'"),
    "a negative number": PLAIN.replace(">64<", ">-64<"),
    "an open comment": PLAIN.replace("<vcpu>", "<!--" + "-" * 100_000),
    "an open CDATA": PLAIN.replace("<vcpu>", "<![CDATA[" + "]" * 100_000),
    "NUL": PLAIN.replace("<vcpu>", "\x00<vcpu>"),
    "a character that is none": PLAIN.replace("<vcpu>", "<description>&#xFFFF;&#0;</description><vcpu>"),
    "another root": PLAIN.replace("domain", "network"),
    "two roots": PLAIN + PLAIN,
    "text after it": PLAIN + "web1",
    "another encoding": '<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE domain+AD4-' + PLAIN,
}
RAW = {
    "UTF-16": (f"<!DOCTYPE domain [<!ENTITY a SYSTEM 'file://{SECRET}'>]>" + PLAIN).encode("utf-16"),
    "UTF-16 that it says": (f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE d []>{PLAIN}').encode("utf-16-le"),
    "UTF-32": PLAIN.encode("utf-32"),
    "EBCDIC": f'<?xml version="1.0" encoding="cp037"?>{PLAIN}'.encode("cp037"),
    "bytes": bytes(range(256)) * 100,
    "gzip": gzip.compress(PLAIN.encode()),
}


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """A server that should never be asked, and who came all the same."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                came.append(address)
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("bomb", BOMBS)
def test_malicious_xml_is_refused_and_nothing_is_fetched_or_shown(victim: Cluster, bomb: str) -> None:
    with listener() as (port, came):
        xml = BOMBS[bomb].replace("{port}", str(port))
        for method, path in (("POST", "/vm"), ("PUT", "/vm/web1")):
            with within(HANG):
                reply = victim.send(method, path, form={"xml": xml})
            assert (reply.status, reply.code) in ((510, "invalid-value"), (510, "no-suitable-node")), reply.body
            assert len(reply.body) < 1000 and b"root:" not in reply.body
            raw = victim.send(method, path, body=xml.encode(), headers={"Content-Type": "application/xml"})
            assert (raw.status, raw.json) == (reply.status, reply.json)
    assert came == []


@pytest.mark.parametrize("document", RAW)
@pytest.mark.parametrize("kind", ["application/xml", "application/xml; charset=utf-16", "text/xml; charset=cp037"])
def test_xml_in_another_encoding_is_refused(victim: Cluster, document: str, kind: str) -> None:
    reply = victim.send("POST", "/vm", body=RAW[document], headers={"Content-Type": kind})
    assert (reply.status, reply.code) == (510, "invalid-value")


KINDS = ("application/x-www-form-urlencoded", "application/xml", "application/json", "multipart/form-data; boundary=x")


@pytest.mark.parametrize("kind", KINDS)
def test_xml_of_10_megabytes_is_too_large_in_json(victim: Cluster, kind: str) -> None:
    xml = f"<domain>{'<a/>' * (10 * MEGABYTE // 4)}</domain>"
    body = {
        "application/x-www-form-urlencoded": f"xml={xml}",
        "application/xml": xml,
        "application/json": json.dumps({"xml": xml}),
    }.get(kind, f'--x\r\nContent-Disposition: form-data; name="xml"; filename="a"\r\n\r\n{xml}\r\n--x--\r\n')
    data, port = body.encode(), port_of(victim.api)
    announced = head("POST", "/api/v1/vm", f"Content-Type: {kind}", f"Content-Length: {len(data)}"), data
    flowing = head("POST", "/api/v1/vm", f"Content-Type: {kind}", "Transfer-Encoding: chunked"), chunked([data])
    for request in (announced, flowing):
        with within(HANG):
            answer = speak(port, *request)
        assert (answer.status, answer.headers["Content-Type"]) == (413, "application/json")
        assert answer.json["code"] == "body-too-large"


def test_xml_that_barely_fits_into_a_body_is_too_large_for_a_vm(victim: Cluster) -> None:
    xml = PLAIN.replace("<vcpu>", "<description>" + "a" * (2 * MEGABYTE) + "</description><vcpu>")
    with within(HANG):
        reply = victim.send("POST", "/vm", body=xml.encode(), headers={"Content-Type": "application/xml"})
    assert (reply.status, reply.code) == (510, "invalid-value")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_a_compressed_bomb_is_not_decompressed(victim: Cluster, coding: str) -> None:
    bomb = gzip.compress(b"xml=" + b"a" * (100 * MEGABYTE))
    headers = f"Content-Encoding: {coding}", f"Content-Length: {len(bomb)}", f"Content-Type: {KINDS[0]}"
    with within(HANG):
        answer = speak(port_of(victim.api), head("POST", "/api/v1/vm", *headers), bomb)
    assert answer.status in (400, 413, 510)


JSON = {
    "deep lists": "[" * 500_000,
    "deep objects": '{"xml":' * 200_000,
    "closed deep lists": '{"xml":' + "[" * 100_000 + "]" * 100_000 + "}",
    "a long number": '{"xml":' + "9" * MEGABYTE + "}",
    "an endless number": '{"xml":1e999999999}',
    "no number": '{"xml":NaN}',
    "many members": "{" + ",".join(f'"a{n}":1' for n in range(100_000)) + "}",
    "one member often": "{" + ",".join('"xml":"a"' for _ in range(100_000)) + ',"xml":"b"}',
    "a long list": '{"limit":[' + '"a",' * 200_000 + '"a"],"xml":"a"}',
    "half a character": '{"xml":"\\ud800"}',
    "a prototype": '{"__proto__":{"xml":"a"},"constructor":"b"}',
    "an object as value": '{"xml":{"$ne":null}}',
    "no object": '"xml"',
    "nothing": "null",
    "NUL": '{"xml":"a\\u0000"}',
    "two documents": '{"xml":"a"}{"xml":"b"}',
}


@pytest.mark.parametrize("document", JSON)
def test_malicious_json_is_refused(victim: Cluster, document: str) -> None:
    with within(HANG):
        headers = {"Content-Type": "application/json"}
        reply = victim.send("POST", "/vm", body=JSON[document].encode(), headers=headers)
    assert (reply.status, reply.code) == (510, "invalid-value")
    assert len(reply.body) < 3000


FORMS = {
    "many fields": (KINDS[0], "&".join(f"a{n}=1" for n in range(100_000))),
    "one field often": (KINDS[0], "xml=a&" * 300_000),
    "mere separators": (KINDS[0], "&" * 2 * MEGABYTE),
    "mere percents": (KINDS[0], "xml=" + "%" * MEGABYTE),
    "mere pluses": (KINDS[0], "xml=" + "+" * MEGABYTE),
    "a long list": (KINDS[0], "xml=a&limit=" + "a," * 500_000),
    "many parts": (KINDS[3], "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 20_000 + "--x--\r\n"),
    "a part with many headers": (KINDS[3], "--x\r\n" + "A: b\r\n" * 100_000 + "\r\n\r\n--x--\r\n"),
    "parts within parts": (KINDS[3], "--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * 10_000),
    "no end": (KINDS[3], "--x\r\nContent-Disposition: form-data; name=xml\r\n\r\n" + "a" * MEGABYTE),
    "mere boundaries": (KINDS[3], "--x\r\n" * 300_000),
    "a long boundary": (f"multipart/form-data; boundary={'x' * 4000}", "--" + "x" * 4000 + "\r\n"),
    "a packed part": (
        KINDS[3],
        "--x\r\nContent-Disposition: form-data; name=xml\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + "A" * MEGABYTE
        + "\r\n--x--\r\n",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_malicious_form_is_refused(victim: Cluster, form: str) -> None:
    kind, body = FORMS[form]
    with within(HANG):
        reply = victim.send("POST", "/vm", body=body.encode(), headers={"Content-Type": kind})
    assert (reply.status, reply.code) in ((510, "invalid-value"), (413, "body-too-large")), reply.body[:300]
    assert len(reply.body) < 3000


@pytest.mark.alone
def test_others_are_answered_while_bombs_arrive(victim: Cluster) -> None:
    """The heaviest of each kind, again and again, from four clients."""
    bodies = [
        (KINDS[1], PLAIN.replace("<devices>", "<devices>" + "<disk/>" * 30_000).encode()),
        (KINDS[1], BOMBS["a mistake after many pins"].encode()),
        (KINDS[1], PLAIN.replace("<vcpu>", "<vcpu " + " ".join(f"a{n}='1'" for n in range(15_000)) + ">").encode()),
        (KINDS[2], JSON["many members"].encode()),
        (KINDS[3], FORMS["many parts"][1].encode()),
    ]
    end, sent = threading.Event(), []

    def attack(kind: str, body: bytes) -> None:
        while not end.is_set():
            sent.append(victim.send("POST", "/vm", body=body, headers={"Content-Type": kind}).status)

    attackers = [threading.Thread(target=attack, args=each) for each in bodies]
    for attacker in attackers:
        attacker.start()
    try:
        waited = sorted(itertools.islice(latencies(victim, "/vm/web1"), 40))
    finally:
        end.set()
        for attacker in attackers:
            attacker.join()
    assert set(sent) <= {510, 413} and sent
    assert waited[len(waited) // 2] < 1 and waited[-1] < HANG, waited
