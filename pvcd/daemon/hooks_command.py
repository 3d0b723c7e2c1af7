"""`pvcd hooks list | operations | schema | run | log | retry`: for those who write the site's hooks."""

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
    """Look at the site's own hooks, try them, and see what came of them."""


@hooks.command("list")
def list_hooks() -> None:
    """List every file of the hooks directory, and say of each whether it runs, or why not."""
    settings, kinds = _declared()
    entries = scan(settings.directory, {name: kind.phases for name, kind in kinds.items()})
    if not entries:
        click.echo(f"There are no hooks in {settings.directory}.")
    for entry in entries:
        click.echo(f"{entry.place}: {'runs' if entry.reason is None else f'does not run: {entry.reason}'}")


@hooks.command()
def operations() -> None:
    """List all operations, where each is done, and the phases of its hooks."""
    for name, kind in _declared()[1].items():
        click.echo(f"{name} ({kind.place}; {', '.join(kind.phases)}): {kind.doc}")


@hooks.command("schema")
@click.argument("operation")
def show_schema(operation: str) -> None:
    """Print the JSON schema of what the hooks of an OPERATION read from their standard input."""
    click.echo(json.dumps(schema(_kind(operation)), indent=2))


@hooks.command()
@click.argument("operation")
@click.argument("phase", type=click.Choice(PHASES))
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="What it is done with.")
@click.option("--input", "file", type=click.File("rb"), help="The whole document that the hooks are told, as JSON.")
@click.option("--hook", help="Run only the hook of this name.")
@click.option("--dry-run", is_flag=True, help="Tell the hooks that nothing will be done.")
def run(
    operation: str, phase: str, arguments: tuple[str, ...], file: BinaryIO | None, hook: str | None, dry_run: bool
) -> None:
    """Run the hooks of an OPERATION and PHASE by hand; the operation itself is not done."""
    kind = _kind(operation)
    if phase not in kind.phases:
        _refuse(f"{operation} has no phase {phase!r}, only {', '.join(kind.phases)}.")
    told = _told(kind, arguments, file)
    told |= {"dry_run": dry_run or told.get("dry_run", False)}
    if not asyncio.run(_run_all(told, phase, hook)):
        sys.exit(FAILED)


@hooks.command()
@click.argument("id", required=False)
@click.option("--failed", is_flag=True, help="Only those that did not end well.")
@click.option("--last", default=30, show_default=True, help="How many, at most.")
def log(id: str | None, failed: bool, last: int) -> None:
    """List what came of the hooks of this machine, the newest first; of one run, ID, all that is known."""
    runs = Runs(_declared()[0].records)
    if id is not None:
        click.echo(_found(runs, id).model_dump_json(indent=2, exclude={"process"}))
        return
    for each in [run for run in runs.all() if not failed or run.state == "failed"][:last]:
        click.echo(_line(each))


@hooks.command()
@click.argument("id")
def retry(id: str) -> None:
    """Run a hook once more, with what it was told in the run ID; it is told which attempt this is."""
    settings, _ = _declared()
    runs = Runs(settings.records)
    old = _found(runs, id)
    if old.told is None:
        _refuse(f"What run {old.id} was told was too large to be kept, so it cannot be run again.")
    again = old.model_copy(update={"attempt": old.attempt + 1, "process": ProcessIdentity.current()})
    told = {**old.told, "attempt": again.attempt}
    if not asyncio.run(_run_all(told, old.phase, old.hook, lambda ending: runs.save(again.ended(ending)))):
        sys.exit(FAILED)


async def _run_all(told: Envelope, phase: str, only: str | None, keep: Keep = lambda ending: None) -> bool:
    """Run hooks until one of `pre` fails; whether all did well."""
    settings, _ = _declared()
    operation, good, found = told["operation"], True, False
    seconds, place = settings.limit(operation, phase), place_of(operation, phase)
    told = told | {"phase": phase, "seconds": seconds, "directory": str(settings.directory)}
    try:
        with opened(settings.directory, operation, phase) as all_hooks:
            for hook in [hook for hook in all_hooks if only in (None, hook.name)]:
                found = True
                ending = await execute(hook, told | {"hook": hook.name}, seconds)
                keep(ending)
                _show(f"{place}/{hook.name}", ending)
                good = good and not ending.sentence
                if phase == PRE and not good:
                    break
    except Unsafe as error:
        _refuse(f"{settings.directory}/{place} {error}.")
    if not found:
        _refuse(f"{settings.directory} has no hook {place}/{only or '*'} that runs: see pvcd hooks list.")
    return good


def _told(kind: OperationKind, arguments: tuple[str, ...], file: BinaryIO | None) -> Envelope:
    values: dict[str, Any] = {}
    for argument in arguments:
        name, separator, text = argument.partition("=")
        if not separator or name not in kind.arguments:
            _refuse(f"{kind.name} has no argument {name!r}: {did_you_mean(name, kind.arguments)}")
        values[name] = _value(kind.arguments[name], text)
    told = envelope(kind, Operation(kind.name, values), time=time.time(), place=kind.place) | {"attempt": 1}
    if file is None:
        return told
    try:
        given = json.load(file)
        return {**told, **given, "operation": kind.name, "arguments": {**given.get("arguments", {}), **values}}
    except (ValueError, AttributeError, TypeError) as error:
        _refuse(f"{file.name} does not hold a JSON object with what the hooks are told: {error}.")


def _value(described: Mapping[str, Any], text: str) -> Any:
    """A value that is written as a text, unless it is none."""
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
    """The settings of hooks, and all operations by name."""
    try:
        settings, declared = start(read_file(settings_file()))
    except (SettingsError, PluginError) as error:
        _refuse(str(error))
    return settings.hooks, declared.known_operations


def _refuse(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(WRONG)
