"""The policy for VMs' XML: what stays within the guest is allowed, all else needs a grant of pvc.vm.host_access."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache

from lxml import etree

from pvcd import Refused
from pvcd_plugins.vm.domain import read_input
from pvcd_plugins.vm.free import FREE, INCLUDED, VALUES, WORD
from pvcd_plugins.vm.grants import GRANTS

TEXT = "#"
FILE, PACKAGED = "FILE", "PACKAGED"
FILES, EVERYTHING = "files", "everything"
PACKAGED_DIRECTORIES = ("/usr/share/OVMF", "/usr/share/AAVMF", "/usr/share/qemu", "/usr/share/seabios")
"""The directories of the firmware of packages, which no guest can write to."""
_MAX_SHOWN = 80


class HostAccessRequired(Refused):
    """The XML of a VM reaches into the node without a grant."""

    status = 403
    code = "host-access-required"


@dataclass(frozen=True, slots=True)
class HostAccess:
    """The grants of pvc.vm.host_access, and the directories of the grant `files`."""

    grants: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


@dataclass(slots=True)
class Rule:
    """An element of the table: its attributes and text with their patterns, and the elements that it may contain."""

    values: dict[str, str] = field(default_factory=dict)
    required: dict[str, str] = field(default_factory=dict)
    children: dict[str, Rule] = field(default_factory=dict)
    free: bool = False
    """Whatever is in it is allowed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of a document that reaches into the node, or may do so."""

    element: etree._Element
    shown: str
    grant: str


def refuse_host_access(cannot: str, xml: str, access: HostAccess) -> None:
    """Raise `HostAccessRequired` for the first part of a document without its grant; `cannot` begins its sentence."""
    if EVERYTHING in access.grants:
        return
    found = next(findings(read_input(xml), access), None)
    if found is None:
        return
    needs = f"the grant {found.grant!r}"
    if found.grant == FILES:
        needs = "a directory above it in the grant 'files'"
    why = "is not known to stay within the guest" if found.grant == EVERYTHING else "reaches into the node"
    raise HostAccessRequired(
        f"{cannot} {found.shown} (line {found.element.sourceline}) {why}; it requires {needs} in pvc.vm.host_access."
    )


def findings(root: etree._Element, access: HostAccess) -> Iterator[Finding]:
    """Yield each part of a document that is neither in the table of what is free nor opened by a grant."""
    pending = [(root, "", free())]
    while pending:
        element, path, rule = pending.pop()
        yield from _values(element, path, rule, access)
        for child in reversed(element):
            below = f"{path}/{child.tag}".removeprefix("/")
            known = rule.children.get(str(child.tag)) or rule.children.get("*" if "}" not in str(child.tag) else "")
            if known is None:
                grants = opened_by(below)
                if not access.grants.intersection(grants):
                    yield Finding(child, f"<{_name(child)}>", grants[0])
            elif not known.free:
                pending.append((child, below, known))


def _values(element: etree._Element, path: str, rule: Rule, access: HostAccess) -> Iterator[Finding]:
    text = "".join([element.text or "", *(child.tail or "" for child in element)])
    given = {str(name): str(value) for name, value in element.attrib.items()}
    if text.strip():
        given[TEXT] = text
    for name, value in given.items():
        pattern = rule.values.get(name)
        if pattern is not None and _matches(pattern, value, access, blanks=name == TEXT):
            continue
        grants = (FILES,) if pattern in (FILE, PACKAGED) else opened_by(path, name, value)
        if pattern in (FILE, PACKAGED) or not access.grants.intersection(grants):
            yield Finding(element, _shown(element, name, value), grants[0])
    for name, pattern in rule.required.items() if TEXT in given else ():
        if not re.fullmatch(pattern, given.get(name, "")):
            yield Finding(element, f"<{_name(element)}> without {name}={pattern!r}", EVERYTHING)


def _matches(pattern: str, value: str, access: HostAccess, *, blanks: bool) -> bool:
    """Return whether a value is allowed; with `blanks`, it may have some around it, except if it is a path."""
    if pattern in (FILE, PACKAGED):
        directories = access.files + (PACKAGED_DIRECTORIES if pattern == PACKAGED else ())
        normal = value.isprintable() and value.startswith("/") and value == posixpath.normpath(value)
        return normal and any(value.startswith(f"{each.rstrip('/')}/") for each in directories)
    return re.fullmatch(pattern, value.strip() if blanks else value, re.DOTALL) is not None


@lru_cache(maxsize=4096)
def opened_by(path: str, name: str | None = None, value: str = "") -> tuple[str, ...]:
    """Return the grants that open an element, or a value of one of its attributes; the last one opens everything."""
    wanted = (path,) if name is None else (f"{path}@{name}", f"{path}@{name}={value}")
    found = [
        grant for grant, its in GRANTS.items() if any(re.fullmatch(each, text) for each in its.opens for text in wanted)
    ]
    return (*found, EVERYTHING)


def _name(element: etree._Element) -> str:
    name = etree.QName(element)
    return f"{element.prefix}:{name.localname}" if name.namespace and element.prefix else name.localname


def _shown(element: etree._Element, name: str, value: str) -> str:
    short = repr(value[:_MAX_SHOWN])
    return f"<{_name(element)}> with {short}" if name == TEXT else f"<{_name(element)} {name}={short}>"


@cache
def free() -> Rule:
    """Return the table of what is free, as a tree."""
    return _read(FREE).children["domain"]


def _read(table: str) -> Rule:
    """Return the rule that contains those of a table's outermost elements."""
    root = Rule()
    above: list[list[Rule]] = [[root]]
    for line in filter(None, map(str.rstrip, table.splitlines())):
        depth = (len(line) - len(line.lstrip())) // 2
        tags, *words = line.split()
        if tags in INCLUDED:
            for rule in above[depth]:
                rule.children.update(_read(INCLUDED[tags]).children)
            continue
        rules = {tag: above[depth][0].children.get(tag, Rule()) for tag in tags.split("|")}
        for rule in rules.values():
            _add(rule, words)
        for rule in above[depth]:
            rule.children.update(rules)
        above[depth + 1 :] = [list(rules.values())]
    return root


def _add(rule: Rule, words: list[str]) -> None:
    rule.free = words == ["ANY"]
    for word in words:
        if word in INCLUDED:
            rule.values.update(dict.fromkeys(INCLUDED[word].split(), WORD))
            continue
        name, sign, pattern = word.partition("=")
        rule.values[name.rstrip("!")] = VALUES.get(pattern, pattern) if sign else WORD
        if name.endswith("!"):
            rule.required[name.rstrip("!")] = pattern
