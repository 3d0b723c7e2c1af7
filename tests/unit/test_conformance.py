"""The conformance suite finds what it is there to find, and nothing in a plugin that is as it should be."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pvcd.plugin.loading import import_file
from pvcd.testing import conformance

Complaints = Callable[[str], list[str]]

BEGINNING = '''
"""Tried."""
import asyncio, contextlib, itertools, logging, threading, time
from collections.abc import AsyncIterator
from typing import Annotated, Protocol
from pvcd import *

REQUIRES_PLUGIN_API = PLUGIN_API_1
Word = Annotated[str, Value("A word")]
Number = Annotated[int, Value("A number")]
routes = Routes("/api/v1/tried", tag="Tried")
handlers = Handlers()

class Greeting(Record, path="/tried-greetings/{who}"):
    """Who was greeted."""
    who: Name

def block():
    end = time.thread_time() + 0.6
    while time.thread_time() < end:
        pass
'''


@pytest.fixture
def complaints(tmp_path: Path) -> Complaints:
    """Return the complaints of the suite about a plugin with some code."""

    def complaints(code: str) -> list[str]:
        file = tmp_path / "tried.py"
        file.write_text(BEGINNING.lstrip() + textwrap.dedent(code))
        return conformance.complaints(import_file("tried", file))

    return complaints


HOOK = "@hookimpl\ndef register_{}(): return [{}]\n"
ROUTES, HANDLERS, RECORDS = (
    HOOK.format(kind, what) for kind, what in (("routes", "routes"), ("handlers", "handlers"), ("records", "Greeting"))
)
STORES = (
    '@routes.post()\nasync def greet(context, word: Word) -> Message:\n    "Greet."\n'
    '    if context.store.get(Greeting, "you") is None:\n'
    '        await context.store.write(Create(Greeting(who="you")))\n    return Message(message="Hello")\n'
)

FAULTS = {
    "another API": (
        "REQUIRES_PLUGIN_API = '>=2'",
        "plugin API: Plugin 'pvcd_site_tried' requires plugin API >=2",
    ),
    "a clash with ours": (
        "class Node(Record, path='/nodes/{node}'):\n    'x'\n    node: str\n" + HOOK.format("records", "Node"),
        "declarations: The record '/nodes/{}' is declared by both 'node' and 'pvcd_site_tried'.",
    ),
    "hooks that change their minds": (
        "names = itertools.count()\n" + HOOK.format("node_facts", "NodeFact(f'a{next(names)}', lambda context: None)"),
        "hooks: its hooks must return the same names when they are called again; got {'node_facts': ('a0',)}",
    ),
    "a route elsewhere": (
        "routes = Routes('/elsewhere', tag='x')\n" + STORES + ROUTES + RECORDS,
        "names: the name 'POST /elsewhere' among its routes must have the form",
    ),
    "an odd operation": (
        STORES.replace("post()", "post(operation='Greet_You')") + ROUTES + RECORDS,
        "names: the operation 'Greet_You' of POST /api/v1/tried must have the form",
    ),
    "an operation of its own with an odd name": (
        HOOK.format("operations", "OperationKind('Greet', 'It greets.', 'node')"),
        "names: the name 'Greet' among its operations must have the form",
    ),
    "an operation of its own without a word": (
        HOOK.format("operations", "OperationKind('greet', 'It greets.', 'node', {'who': {'type': 'string'}})"),
        "texts: the argument 'who' of the operation 'greet' has no description.",
    ),
    "an argument without a word": (
        STORES.replace("Word)", "Annotated[str, Value('')])") + ROUTES + RECORDS,
        "texts: the argument 'word' of POST /api/v1/tried has no description.",
    ),
    "a setting without a word": (
        "class Mine(Section):\n    'pvc.mine: x'\n    word: str = 'x'\n"
        + HOOK.format("settings", "SettingsSection('mine', Mine)"),
        "texts: the setting pvc.mine.word has no description.",
    ),
    "a route that fails": (
        '@routes.get()\nasync def get(context, word: Word) -> Message:\n    "Get."\n'
        "    return Message(message=str(int(word)))\n" + ROUTES,
        "answers: GET /api/v1/tried fails with an internal error instead of refusing a value.",
    ),
    "a route that never answers": (
        '@routes.get()\nasync def get(context) -> Message:\n    "Get."\n    await asyncio.Event().wait()\n' + ROUTES,
        "answers: GET /api/v1/tried does not answer within 120 s.",
    ),
    "a route that blocks": (
        '@routes.get()\nasync def get(context) -> Message:\n    "Get."\n    block()\n    return Message(message="x")\n'
        + ROUTES,
        "blocking: block() in tried.py blocks the event loop.",
    ),
    "a handler that blocks": (
        STORES + "@handlers.on(Greeting)\nasync def follow(context, greeting): block()\n" + ROUTES + HANDLERS + RECORDS,
        "blocking: block() in tried.py blocks",
    ),
    "a handler that fails": (
        STORES + "@handlers.on(Greeting)\nasync def follow(context, greeting): 1 / 0\n" + ROUTES + HANDLERS + RECORDS,
        "tracebacks: pvcd_site_tried.follow(Greeting) of plugin 'pvcd_site_tried' failed at /tried-greetings/you",
    ),
    "a task that is left": (
        "async def stay(): await asyncio.Event().wait()\nkept = []\n"
        '@routes.get()\nasync def get(context) -> Message:\n    "Get."\n'
        '    kept.append(asyncio.ensure_future(stay()))\n    return Message(message="x")\n' + ROUTES,
        "stop: stay() still runs after the stop.",
    ),
    "a thread that is left": (
        "over = threading.Event()\n"
        '@routes.get()\nasync def get(context) -> Message:\n    "Get."\n'
        "    threading.Thread(target=over.wait, args=(2,), name='stays', daemon=True).start()\n"
        '    return Message(message="x")\n' + ROUTES,
        "stop: the thread stays still runs after the stop.",
    ),
    "a component that cannot be opened": (
        "@contextlib.asynccontextmanager\nasync def open_it(context) -> AsyncIterator[str]:\n"
        "    raise OSError('out of order')\n    yield ''\n"
        + HOOK.format("components", "Component(ComponentKey('it'), open_it, roles=(Role.API,), in_memory=True)"),
        "trial: it ended the trial: OSError: out of order.",
    ),
    "a component without a fake": (
        "@contextlib.asynccontextmanager\nasync def open_it(context) -> AsyncIterator[str]:\n"
        "    raise AssertionError('nothing outside is opened')\n    yield ''\n"
        + HOOK.format("components", "Component(ComponentKey('it'), open_it, roles=(Role.WORKER,))"),
        "trial: Cannot simulate component 'it' of plugin 'pvcd_site_tried': it has no fake.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(complaints: Complaints, fault: str) -> None:
    code, complaint = FAULTS[fault]
    found = complaints(code)
    assert any(each.startswith(complaint) for each in found), found


def test_a_plugin_without_faults_has_no_complaints(complaints: Complaints) -> None:
    assert complaints("") == []
    follow = "@handlers.on(Greeting)\nasync def follow(context, greeting): pass\n"
    assert complaints(STORES + follow + ROUTES + HANDLERS + RECORDS) == []


DOOR = """
class Door(Protocol):
    async def open_up(self, name: str, *, wide: bool = False) -> None: ...
    async def shut(self) -> None: ...

class Real:
    async def open_up(self, name: str, *, wide: bool = False) -> None: ...
    async def shut(self) -> None: ...

class Fake:
    {}

@contextlib.asynccontextmanager
async def real(context) -> AsyncIterator[Door]:
    raise AssertionError("nothing outside is opened")
    yield Real()

@contextlib.asynccontextmanager
async def fake(context) -> AsyncIterator[{}]:
    yield Fake()

@hookimpl
def register_components(): return [Component(ComponentKey('door'), real, roles=(Role.{},), fake=fake)]
"""
SHUT = "async def shut(self): ..."
OPEN = "async def open_up(self, name, *, wide=False): ..."


@pytest.mark.parametrize("role", ["API", "NODE", "PRIMARY", "WORKER"])
@pytest.mark.parametrize(
    ("verbs", "door", "complaint"),
    [
        ([OPEN, SHUT], "Door", None),
        ([OPEN], "Door", "the fake of the component door has no shut()."),
        (
            [SHUT, "async def open_up(self, name): ..."],
            "Door",
            "open_up() of the component door takes (name, *, wide=False), but that of its fake (name).",
        ),
        ([OPEN, SHUT], "Fake", "`open` and `fake` of the component door must be annotated with the same type."),
    ],
)
def test_a_fake_has_the_verbs_of_its_door(
    complaints: Complaints, verbs: list[str], door: str, complaint: str | None, role: str
) -> None:
    found = complaints(DOOR.format("\n    ".join(verbs), door, role))
    assert found == ([f"doors: {complaint}"] if complaint else [])


def test_every_check_has_a_description() -> None:
    assert [name for name, check in conformance.CHECKS.items() if not inspect.getdoc(check)] == []
