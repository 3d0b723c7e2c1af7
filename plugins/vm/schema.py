"""libvirt's own schema of domains: whether a document is valid by it, and if not, where the mistake is.

The validator says of most mistakes only that <devices> is invalid. Which part is meant is searched for afterwards: by
one thread for all requests, for a limited time, so that bad documents do not hold up good ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Protocol

from lxml import etree

from pvcd import Invalid
from pvcd_plugins.vm.domain import read_input

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
SEARCH_SECONDS = 2.0
"""The time for the search, waiting for others included; after that, the validator's own words have to do."""
MAX_WORK = 200_000
"""The elements and attributes that one search may have validated: less than a second."""

_SKELETON = b"<domain type='qemu'><name>a</name><memory>1</memory><os><type>hvm</type></os></domain>"
_SKELETON_SIZE = 10
_searches = ThreadPoolExecutor(1, "schema")
_threads = local()


class Grammar(Protocol):
    """A compiled schema."""

    def validate(self, etree: etree._Element, /) -> bool:
        """Return whether a document is valid."""


async def validate(xml: str, schema: Path = SCHEMA) -> None:
    """Raise `Invalid` for a document that libvirt's schema refuses."""
    end = time.monotonic() + SEARCH_SECONDS
    mistake = await asyncio.to_thread(mistake_in, xml, schema)
    if mistake is not None:
        search = asyncio.get_running_loop().run_in_executor(_searches, _search, xml, schema, end)
        raise Invalid(f"The XML must be valid by libvirt's schema: {await search or mistake}.")


def mistake_in(xml: str, schema: Path = SCHEMA) -> str | None:
    """Return the validator's words about an invalid document; None for a valid one. Slow: call it in a thread."""
    root, grammar = read_input(xml), _grammar(schema)
    if grammar.validate(root):
        return None
    first = next(iter(grammar.error_log), None)
    line, message = (first.line, first.message) if first else (0, "not a domain")
    return f"line {line or root.sourceline}: {message}"


def _grammar(schema: Path) -> etree.RelaxNG:
    """Return the schema as compiled for this thread: it keeps the errors of its last validation."""
    grammars: dict[Path, etree.RelaxNG] = _threads.__dict__.setdefault("grammars", {})
    if schema not in grammars:
        grammars[schema] = etree.RelaxNG(etree.parse(str(schema)))
    return grammars[schema]


def _search(xml: str, schema: Path, end: float) -> str | None:
    return Search(_grammar(schema), lambda: time.monotonic() < end).mistake(read_input(xml))


class _Exhausted(Exception):
    """The search has taken too much time or work."""


class Search:
    """The search for the innermost element or attribute that is a mistake.

    Each part is validated in a document that has nothing else, so that the work grows with the document and not with
    its square. It is limited; then the innermost element that was found so far has to do.
    """

    def __init__(self, grammar: Grammar, in_time: Callable[[], bool] = lambda: True) -> None:
        self._grammar, self._in_time = grammar, in_time
        self._work = MAX_WORK
        self._found: str | None = None

    def mistake(self, root: etree._Element) -> str | None:
        """Return the mistake in an invalid document, which is taken apart.

        None if no part is wrong by itself: one is missing then, or there are two of which there may be one.
        """
        with contextlib.suppress(_Exhausted):
            part = self._wrong_child(etree.fromstring(_SKELETON), root)
            if part is None:
                part = etree.fromstring(_SKELETON)
                part.attrib.update(root.attrib)
                part.sourceline = root.sourceline
                if self._valid(part, _size(part)):
                    return None
            device = None
            if part.tag == "devices":
                device = self._wrong_child(etree.SubElement(etree.fromstring(_SKELETON), "devices"), part)
            self._narrow(part if device is None else device)
        return self._found

    def _wrong_child(self, place: etree._Element, parent: etree._Element) -> etree._Element | None:
        """Move the children of an element, one after the other, into a valid document; return the first wrong one."""
        document = place.getroottree().getroot()
        for child in list(parent):
            known = place.find(child.tag) if place is document else None
            if known is not None:
                place.replace(known, child)
            else:
                place.append(child)
            if not self._valid(document, _size(child)):
                self._found = f"line {child.sourceline}: the element <{child.tag}>"
                return child
            if known is not None:
                place.replace(child, known)
            else:
                place.remove(child)
        return None

    def _narrow(self, part: etree._Element) -> None:
        """Find the innermost element or attribute without which the document around a wrong part would be valid."""
        document, size = part.getroottree().getroot(), _size(part)
        candidates = list(part)
        while candidates:
            candidate = candidates.pop(0)
            position = part.index(candidate)
            part.remove(candidate)
            valid = self._valid(document, size)
            part.insert(position, candidate)
            if valid:
                self._found = f"line {candidate.sourceline}: the element <{candidate.tag}>"
                part, candidates = candidate, list(candidate)
        for element, name in [(owner, str(name)) for owner in part.iter() for name in owner.attrib]:
            value = element.attrib.pop(name)
            valid = self._valid(document, size)
            element.set(name, value)
            if valid:
                shown = f"{name!r} with value {value[:80]!r}"
                self._found = f"line {element.sourceline}: the attribute {shown} of <{element.tag}>"
                return

    def _valid(self, document: etree._Element, size: int) -> bool:
        if self._work <= 0 or not self._in_time():
            raise _Exhausted
        self._work -= size + _SKELETON_SIZE
        return self._grammar.validate(document)


def _size(part: etree._Element) -> int:
    """Return the number of its elements and attributes."""
    return sum(1 + len(element.attrib) for element in part.iter())
