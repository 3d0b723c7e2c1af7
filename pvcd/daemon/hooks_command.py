"""`pvcd hooks list | operations | schema | run | log | retry`: for authors of site hooks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, BinaryIO, NoReturn

import click

from pvcd.declare.hook_schema import schema
from pvcd.declare.operations import PHASES, PRE, Operation, OperationKind
from pvcd.errors import PvcdError, did_you_mean
from pvcd.plugin.loading import PluginError
from pvcd.plugin.registry import start
from pvcd.process import ProcessIdentity
from pvcd.settings import HooksSection, SettingsError, read_file, settings_file
from pvcd.sitehooks.envelope import Envelope, envelope
from pvcd.sitehooks.execution import Ending, execute
from pvcd.sitehooks.folder import Unsafe, opened, place_of, scan
from pvcd.sitehooks.runs import HookRun, Runs

WRONG, FAILED = 2, 1
Keep = Callable[[Ending], None]


@click.group()
def hooks() -> None:
    """List site hooks, try them, and show their past runs."""


@hooks.command("list")
def list_hooks() -> None:
    """List every file of the directory of site hooks, and whether it runs or why not."""
    settings, kinds = _declared()
    entries = scan(settings.directory, {name: kind.phases for name, kind in kinds.items()})
    if not entries:
        click.echo(f"There are no site hooks in {settings.directory}.")
    for entry in entries:
        click.echo(f"{entry.place}: {'runs' if entry.reason is None else f'does not run: {entry.reason}'}")


@hooks.command()
def operations() -> None:
    """List all operations, the daemon that runs each, and the phases of its site hooks."""
    for name, kind in _declared()[1].items():
        click.echo(f"{name} ({kind.place}; {', '.join(kind.phases)}): {kind.doc}")


@hooks.command("schema")
@click.argument("operation")
def show_schema(operation: str) -> None:
    """Print the JSON schema of the document that site hooks of an OPERATION read from standard input."""
    click.echo(json.dumps(schema(_kind(operation)), indent=2))


@hooks.command()
@click.argument("operation")
@click.argument("phase", type=click.Choice(PHASES))
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="An argument of the operation.")
@click.option("--input", "file", type=click.File("rb"), help="The document for the hooks, as JSON.")
@click.option("--hook", help="Run only the site hook of this name.")
@click.option("--dry-run", is_flag=True, help="Set dry_run in the document.")
def run(
    operation: str, phase: str, arguments: tuple[str, ...], file: BinaryIO | None, hook: str | None, dry_run: bool
) -> None:
    """Run the site hooks of an OPERATION and PHASE, without the operation itself."""
    kind = _kind(operation)
    if phase not in kind.phases:
        _refuse(f"phase of {operation} must be one of {', '.join(kind.phases)}; got {phase!r}.")
    document = _document(kind, arguments, file)
    document |= {"dry_run": dry_run or document.get("dry_run", False)}
    if not asyncio.run(_run_all(document, phase, hook)):
        sys.exit(FAILED)


@hooks.command()
@click.argument("id", required=False)
@click.option("--failed", is_flag=True, help="List failed runs only.")
@click.option("--last", default=30, show_default=True, help="The most runs to list.")
def log(id: str | None, failed: bool, last: int) -> None:
    """List the runs of site hooks on this machine, the newest first; or show everything about the run ID."""
    runs = Runs(_declared()[0].records)
    if id is not None:
        click.echo(_found(runs, id).model_dump_json(indent=2, exclude={"process"}))
        return
    for each in [run for run in runs.all() if not failed or run.state == "failed"][:last]:
        click.echo(_line(each))


@hooks.command()
@click.argument("id")
def retry(id: str) -> None:
    """Run a site hook again with the document of the run ID, in which `attempt` is counted up."""
    settings, _ = _declared()
    runs = Runs(settings.records)
    old = _found(runs, id)
    if old.told is None:
        _refuse(f"Cannot retry run {old.id}: its document was too large to be kept.")
    again = old.model_copy(update={"attempt": old.attempt + 1, "process": ProcessIdentity.current()})
    document = {**old.told, "attempt": again.attempt}
    if not asyncio.run(_run_all(document, old.phase, old.hook, lambda ending: runs.save(again.ended(ending)))):
        sys.exit(FAILED)


async def _run_all(document: Envelope, phase: str, only: str | None, keep: Keep = lambda ending: None) -> bool:
    """Run site hooks until one of `pre` fails; return whether all succeeded."""
    settings, _ = _declared()
    operation, good, found = document["operation"], True, False
    seconds, place = settings.limit(operation, phase), place_of(operation, phase)
    document = document | {"phase": phase, "seconds": seconds, "directory": str(settings.directory)}
    try:
        with opened(settings.directory, operation, phase) as all_hooks:
            for hook in [hook for hook in all_hooks if only in (None, hook.name)]:
                found = True
                ending = await execute(hook, document | {"hook": hook.name}, seconds)
                keep(ending)
                _show(f"{place}/{hook.name}", ending)
                good = good and not ending.sentence
                if phase == PRE and not good:
                    break
    except Unsafe as error:
        _refuse(f"{settings.directory}/{place} {error}.")
    if not found:
        _refuse(f"There is no site hook {place}/{only or '*'} in {settings.directory} that runs. See pvcd hooks list.")
    return good


def _document(kind: OperationKind, arguments: tuple[str, ...], file: BinaryIO | None) -> Envelope:
    values: dict[str, Any] = {}
    for argument in arguments:
        name, separator, text = argument.partition("=")
        if not separator or name not in kind.arguments:
            _refuse(f"{kind.name} has no argument {name!r}: {did_you_mean(name, kind.arguments)}")
        values[name] = _value(kind.arguments[name], text)
    document = envelope(kind, Operation(kind.name, values), time=time.time(), place=kind.place) | {"attempt": 1}
    if file is None:
        return document
    try:
        given = json.load(file)
        return {**document, **given, "operation": kind.name, "arguments": {**given.get("arguments", {}), **values}}
    except (ValueError, AttributeError, TypeError) as error:
        _refuse(f"{file.name} must hold a JSON object for the hooks: {error}.")


def _value(described: Mapping[str, Any], text: str) -> Any:
    """Return the value of a text: itself where the argument may be text, else what it is as JSON."""
    if any("enum" in each or each.get("type") in (None, "string") for each in described.get("anyOf", [described])):
        return text
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


def _show(name: str, ending: Ending) -> None:
    click.echo(f"{name}: {'ok' if not ending.sentence else ending.sentence} ({ending.seconds:.2f} s)")
    for output in filter(None, (ending.stdout, ending.stderr)):
        click.echo(output.rstrip("\n"))


def _line(run: HookRun) -> str:
    when = datetime.fromtimestamp(run.queued).astimezone().isoformat(sep=" ", timespec="seconds")
    again = f" (attempt {run.attempt})" if run.attempt > 1 else ""
    return f"{run.id}  {when}  {run.state:7}  {run.name}{again}  {run.sentence}".rstrip()


def _found(runs: Runs, id: str) -> HookRun:
    try:
        return runs.find(id)
    except PvcdError as error:
        _refuse(error.sentence)


def _kind(name: str) -> OperationKind:
    kinds = _declared()[1]
    if name not in kinds:
        _refuse(f"There is no operation {name!r}: {did_you_mean(name, kinds)}")
    return kinds[name]


@cache
def _declared() -> tuple[HooksSection, Mapping[str, OperationKind]]:
    """Return the settings of site hooks, and all operations by name."""
    try:
        settings, declared = start(read_file(settings_file()))
    except (SettingsError, PluginError) as error:
        _refuse(str(error))
    return settings.hooks, declared.known_operations


def _refuse(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(WRONG)
