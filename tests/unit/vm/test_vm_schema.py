"""A document that libvirt's schema refuses is refused with the place of the mistake, and holds nobody up."""

import asyncio
import re
import threading
from pathlib import Path

import pytest
from lxml import etree

from pvcd.errors import Invalid
from pvcd_plugins.vm import schema
from pvcd_plugins.vm.domain import prepare
from pvcd_plugins.vm.schema import SCHEMA, Search, mistake_in, validate

from .test_domain import SMALL, WEB1, with_devices

pytestmark = pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed here")

INTERFACE = (
    "<interface type='bridge'><mac address='52:54:00:3c:81:a0'/><source bridge='vmbr200'/>"
    "<model type='virtio'/></interface>"
)
VCPUS = "<vcpupin vcpu='1' cpuset='1'/>"


def within(element: str, parts: str) -> str:
    return SMALL.replace("</domain>", f"<{element}>{parts}</{element}><devices/></domain>")


HOSTILE = {
    "interfaces, and then a bogus element": with_devices(INTERFACE * 500, "<bogus/>"),
    "bad interfaces": with_devices(INTERFACE.replace("bridge='", "brigde='") * 1500),
    "many unknown elements": with_devices("<bad/>" * 20_000),
    "empty disks": with_devices("<disk/>" * 20_000),
    "one element often": SMALL.replace("</domain>", "<vcpu>1</vcpu>" * 10_000 + "</domain>"),
    "many attributes": SMALL.replace("<memory>", "<memory " + " ".join(f"a{n}='1'" for n in range(12_000)) + ">"),
    "attributes of the domain": SMALL.replace("type=", " ".join(f"a{n}='1'" for n in range(12_000)) + " type="),
    "many pins, and then a bogus element": within("cputune", VCPUS * 5000 + "<bogus/>"),
    "many security labels": SMALL.replace("</domain>", "<seclabel type='none'/>" * 7000 + "<bogus/></domain>"),
    "deep chains": with_devices("<disk type='network'>" + "<backingStore type='file'>" * 100 + "<x/>"
    + "</backingStore>" * 100 + "</disk>"),
    "deep nesting": with_devices("<a>" * 200 + "</a>" * 200),
}  # fmt: skip


class Counting:
    """A schema that counts the elements and attributes that it has to look at."""

    def __init__(self) -> None:
        self._grammar = etree.RelaxNG(etree.parse(str(SCHEMA)))
        self.looked_at = 0

    def validate(self, document: etree._Element, /) -> bool:
        self.looked_at += sum(1 + len(element.attrib) for element in document.iter())
        return self._grammar.validate(document)


async def sentence_about(xml: str) -> str:
    with pytest.raises(Invalid) as caught:
        await validate(xml)
    return caught.value.sentence.removeprefix("The XML must be valid by libvirt's schema: ")


async def test_a_good_document_is_accepted() -> None:
    await validate(WEB1)
    await validate(prepare(WEB1, generation=1, console_log="/var/log/console/web1.log"))


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("<vcpu>2</vcpu>", "<vcpus>2</vcpus>", "line 7: the element <vcpus>"),
        ('bus="scsi"', 'bus="scuzzy"', "line 18: the attribute 'bus' with value 'scuzzy' of <target>"),
        ('<console type="pty"/>', "<consol/>", "line 24: the element <consol>"),
        ('type="bridge"', 'type="brigde"', "line 20: the element <interface>"),
        ('unit="MiB"', 'unit="buckets"', "line 6: the attribute 'unit' with value 'buckets' of <memory>"),
        ('<domain type="kvm">', '<domain type="kvm" color="red">', "line 2: the attribute 'color' with value 'red'"),
        ("<devices>", '<devices color="red">', "line 11: the attribute 'color' with value 'red' of <devices>"),
        ("<name>web1</name>", "", "line 2: "),
    ],
)
async def test_the_place_of_a_mistake_is_named(right: str, wrong: str, sentence: str) -> None:
    assert (await sentence_about(WEB1.replace(right, wrong))).startswith(sentence)


async def test_of_two_mistakes_the_first_is_named() -> None:
    wrong = WEB1.replace('<console type="pty"/>', "<consol/>").replace('bus="scsi"', 'bus="scuzzy"')
    assert (await sentence_about(wrong)).startswith("line 18: the attribute 'bus' with value 'scuzzy'")


@pytest.mark.parametrize("document", HOSTILE)
async def test_a_bad_document_is_refused_after_limited_work(document: str) -> None:
    counting, root = Counting(), etree.fromstring(HOSTILE[document])
    size = sum(1 + len(element.attrib) for element in root.iter())
    Search(counting).mistake(root)
    assert counting.looked_at <= schema.MAX_WORK + 3 * size
    assert re.match(r"line \d+: ", await sentence_about(HOSTILE[document]))


def test_a_part_is_validated_without_the_others() -> None:
    counting, root = Counting(), etree.fromstring(HOSTILE["interfaces, and then a bogus element"])
    size = sum(1 + len(element.attrib) for element in root.iter())
    assert Search(counting).mistake(root) == "line 1: the element <bogus>"
    assert counting.looked_at <= 5 * size


async def test_good_documents_are_accepted_while_bad_ones_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bad ones than there are threads, each of which is searched until the good ones are through."""
    through, begun = threading.Event(), threading.Event()

    def search(*_: object) -> None:
        begun.set()
        through.wait(60)

    monkeypatch.setattr(schema, "_search", search)
    bad = [asyncio.create_task(sentence_about(HOSTILE["many unknown elements"])) for _ in range(50)]
    await asyncio.to_thread(begun.wait, 60)
    await asyncio.gather(*(validate(WEB1) for _ in range(50)))
    assert not all(each.done() for each in bad)
    through.set()
    await asyncio.gather(*bad)


async def test_a_search_that_had_to_wait_too_long_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SEARCH_SECONDS", 0.0)
    bogus = HOSTILE["interfaces, and then a bogus element"]
    assert await sentence_about(bogus) == f"{mistake_in(bogus)}."


def test_a_missing_schema_is_an_internal_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        mistake_in(SMALL, tmp_path / "none.rng")
