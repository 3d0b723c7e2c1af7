"""The door to rendering userdata, which a VM gives to cloud-init, from a template and the VM's variables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pvcd import Component, ComponentKey, Context, Invalid, PvcdError, Role, TemplateFilter, TimedOut, programs
from pvcd_plugins.provisioner.programs import cloudconfig, filters, rendering
from pvcd_plugins.provisioner.programs.rendering import Filters, Mistake
from pvcd_plugins.provisioner.variables import sample_values

MAX_CONCURRENT = 2
TIMEOUT_SECONDS = 20.0
"""Longer than the CPU time because the machine may be busy."""
MAX_SHOWN = 300
"""Characters of a mistake."""

Redact = Callable[[str], str]


class Rendering(Protocol):
    """Renders untrusted templates."""

    async def render(
        self, text: str, values: Mapping[str, Any], *, sample: bool = False, redacted: Redact = str
    ) -> str:
        """Return the rendered text, which is valid UTF-8. Raises `Invalid` with the line, and with the mistake as
        `redacted` returns it; with `sample`, for unknown names in any branch."""

    async def warnings(self, userdata: str) -> list[str]:
        """Return a sentence for each thing that cloud-init would not understand."""


class OutsideRendering:
    """Render in processes of their own, with limited time, memory and output."""

    def __init__(self, filters: Filters | None = None, schema: Path = cloudconfig.SCHEMA) -> None:
        """Take filters, each a function at the top level of a module, which the process imports."""
        self._filters = {
            name: (filter.__module__, filter.__name__, getattr(sys.modules[filter.__module__], "__file__", ""))
            for name, filter in (filters or {}).items()
        }
        self._schema = schema
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def render(
        self, text: str, values: Mapping[str, Any], *, sample: bool = False, redacted: Redact = str
    ) -> str:
        """Return the rendered text."""
        if not any(mark in text for mark in ("{{", "{%", "{#")):
            return text
        wanted = {name: where for name, where in self._filters.items() if name in text}
        request = {"text": text, "values": dict(values), "sample": sample, "filters": wanted, "path": sys.path}
        try:
            result = await self._run(rendering.__file__, input=json.dumps(request).encode())
        except TimedOut:
            raise TimedOut(
                f"Cannot render the userdata within {TIMEOUT_SECONDS:g} s. Make it simpler or try again."
            ) from None
        if result.returncode:
            raise _invalid(Mistake("it takes too much time or memory", None), redacted)
        answer = json.loads(result.stdout)
        if "mistake" in answer:
            raise _invalid(Mistake(answer["mistake"], answer["line"]), redacted)
        return str(answer["rendered"])

    async def warnings(self, userdata: str) -> list[str]:
        """Return a sentence for each thing that cloud-init would not understand."""
        if not await asyncio.to_thread(self._schema.is_file):
            return []
        try:
            result = await self._run(cloudconfig.__file__, str(self._schema), input=userdata.encode())
        except TimedOut:
            return [f"{cloudconfig.NOT_COMPARED}: it takes longer than {TIMEOUT_SECONDS:g} s."]
        if result.returncode:
            return [f"{cloudconfig.NOT_COMPARED}: it takes too much time or memory."]
        found: list[str] = json.loads(result.stdout)
        return found

    async def _run(self, program: str, *arguments: str, input: bytes) -> programs.Result:
        argv = [sys.executable, "-I", program, *arguments]
        async with self._semaphore:
            return await programs.run(argv, timeout=TIMEOUT_SECONDS, input=input, check=False)


class InsideRendering:
    """Render in this process, for tests and simulations with harmless templates."""

    def __init__(self, filters: Filters | None = None) -> None:
        self._filters = dict(filters or {})

    async def render(
        self, text: str, values: Mapping[str, Any], *, sample: bool = False, redacted: Redact = str
    ) -> str:
        """Return the rendered text."""
        try:
            return rendering.render(text, values, self._filters, sample=sample)
        except Mistake as error:
            raise _invalid(error, redacted) from None

    async def warnings(self, userdata: str) -> list[str]:
        """Return no warnings."""
        return []


async def check(renderer: Rendering, text: str) -> list[str]:
    """Render a template with sample values, and return cloud-init's warnings. Raises `Invalid` with the line."""
    rendered = await renderer.render(text, sample_values(), sample=True)
    try:
        return await renderer.warnings(rendered)
    except PvcdError as error:
        return [f"{cloudconfig.NOT_COMPARED}: {error.sentence}"]


def _filters(context: Context) -> Filters:
    return {each.name: each.function for each in context.declared(TemplateFilter)}


def _invalid(mistake: Mistake, redacted: Redact) -> Invalid:
    """Return the error for a mistake. Secrets are masked before anything else changes or cuts its text."""
    where = "" if mistake.line is None else f"line {mistake.line}: "
    said = " ".join(redacted(mistake.mistake).split())[:MAX_SHOWN].encode(errors="replace").decode()
    return Invalid(f"Cannot render the userdata: {where}{said.rstrip('.')}.")


@contextlib.asynccontextmanager
async def open_rendering(context: Context) -> AsyncIterator[Rendering]:
    """Render in processes of their own."""
    yield OutsideRendering(_filters(context))


@contextlib.asynccontextmanager
async def open_fake(context: Context) -> AsyncIterator[Rendering]:
    """Render the userdata of a simulated cluster."""
    yield InsideRendering(_filters(context))


FILTERS = [
    TemplateFilter("b64encode", "as Base64, for `encoding: b64` of write_files", filters.b64encode),
    TemplateFilter("quote", "as one word of a shell", filters.quote),
    TemplateFilter("to_json", "as JSON in one line, which is also YAML", filters.to_json),
    TemplateFilter("to_yaml", "as YAML of several lines", filters.to_yaml),
]
RENDERING: ComponentKey[Rendering] = ComponentKey("userdata-rendering")
COMPONENTS: list[Component[Any]] = [
    Component(RENDERING, open_rendering, roles=(Role.API, Role.PRIMARY, Role.WORKER), fake=open_fake)
]
