"""libvirt's schema of domains as a flat list: every element and attribute that a domain may have, with its kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

RNG = "{http://relaxng.org/ns/structure/1.0}"
TEXT = "#"
"""Stands for the text of an element where otherwise the name of an attribute stands."""


class Schema:
    """The elements of a RELAX NG grammar, whose choices and orders do not matter here."""

    def __init__(self, file: Path) -> None:
        self._defines: dict[str, list[etree._Element]] = defaultdict(list)
        self._read: set[Path] = set()
        self._load(file)

    def _load(self, file: Path) -> None:
        if file not in self._read:
            self._read.add(file)
            for part in etree.parse(str(file)).getroot().iter(RNG + "include", RNG + "define"):
                if part.tag == RNG + "include":
                    self._load(file.parent / part.get("href", ""))
                else:
                    self._defines[part.get("name", "")].append(part)

    def leaves(self, start: str) -> Iterator[tuple[str, str, frozenset[str]]]:
        """Yield the path of each element, and each of its attributes and its text with the kinds of their values.

        A kind is the name of a definition, such as `absFilePath`, or of a type, or a literal in quotes. A chain of
        elements that contain themselves is followed once.
        """
        roots = [each for define in self._defines[start] for each in self._parts(define, "element", ())]
        yield from self._element("", roots, ())

    def _element(
        self, above: str, same: list[etree._Element], within: tuple[etree._Element, ...]
    ) -> Iterator[tuple[str, str, frozenset[str]]]:
        path = above + self._name(same[0])
        attributes: dict[str, set[str]] = defaultdict(set)
        children: dict[str, list[etree._Element]] = defaultdict(list)
        for element in same:
            for attribute in self._parts(element, "attribute", ()):
                attributes[self._name(attribute)] |= set(self._kinds(attribute)) or {"text"}
            attributes[TEXT] |= set(self._kinds(element))
            for child in self._parts(element, "element", ()):
                if child not in within and child not in children[self._name(child)]:
                    children[self._name(child)].append(child)
        for name in sorted(attributes):
            if attributes[name] or name == TEXT:
                yield path, name, frozenset(attributes[name])
        for name in sorted(children):
            yield from self._element(f"{path}/", children[name], (*within, *same, *children[name]))

    def _name(self, part: etree._Element) -> str:
        name = part.get("name") or "".join(part.xpath("*[local-name()='name']/text()"))
        namespace = next((each.get("ns") for each in (part, *part.iterancestors()) if each.get("ns")), "")
        return f"{{{namespace}}}{name}" if namespace and name else name or "*"

    def _parts(self, pattern: etree._Element, wanted: str, refs: tuple[str, ...]) -> Iterator[etree._Element]:
        """Yield the elements or attributes directly in a pattern, references followed."""
        for part in pattern:
            if part.tag == RNG + wanted:
                yield part
            elif part.tag == RNG + "ref":
                name = part.get("name", "")
                if name not in refs:
                    for define in self._defines[name]:
                        yield from self._parts(define, wanted, (*refs, name))
            elif part.tag not in (RNG + "element", RNG + "attribute"):
                yield from self._parts(part, wanted, refs)

    def _kinds(self, pattern: etree._Element, refs: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the kinds of the values directly in a pattern."""
        for part in pattern:
            if part.tag == RNG + "value":
                yield repr((part.text or "").strip())
            elif part.tag == RNG + "data":
                yield refs[0] if refs else part.get("type", "")
            elif part.tag == RNG + "text":
                yield refs[0] if refs else "text"
            elif part.tag == RNG + "ref":
                name = part.get("name", "")
                if name not in refs:
                    for define in self._defines[name]:
                        yield from self._kinds(define, (*refs, name))
            elif part.tag not in (RNG + "element", RNG + "attribute"):
                yield from self._kinds(part, refs)
