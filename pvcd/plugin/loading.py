"""Find and import the plugins. One that cannot be imported is refused by name; the others are used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pvcd.plugin import hookspecs
from pvcd.settings import PluginsSection, SettingsError

ENTRY_POINTS = "pvcd"
BUILT_IN = "pvcd"
"""The distribution whose plugins are all required."""
CORE = "core"
"""The name of the core among the plugins."""
LOAD_SECONDS, REQUIRED_SECONDS = 10.0, 60.0
"""Limits for the import of a plugin, and again for its hooks together: of an optional one, and of a required one."""
T = TypeVar("T")


class PluginError(Exception):
    """A plugin cannot be used: one sentence that names it."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: its name, its module and where it came from."""

    name: str
    module: ModuleType
    origin: str
    required: bool = True
    """True if the daemons do not start without it."""

    def refused(self, reason: object) -> RefusedPlugin:
        """Return it as a refused plugin."""
        return RefusedPlugin(self.name, self.origin, str(reason), self.required)


@dataclass(frozen=True)
class RefusedPlugin:
    """A plugin of which nothing is used, and the sentence that says why."""

    name: str
    origin: str
    reason: str
    required: bool = False


class _Candidate(NamedTuple):
    name: str
    origin: str
    built_in: bool
    import_it: Callable[[], ModuleType]


def load(settings: PluginsSection, only: str | None = None) -> list[Plugin | RefusedPlugin]:
    """Import the installed plugins and those of the directories, except disabled ones; or `only` a built-in one."""
    loaded: dict[str, Plugin] = {}
    refused: list[RefusedPlugin] = []
    for candidate in [*_installed(), *_in_directories(settings.directories)]:
        name, origin = candidate.name, candidate.origin
        if name in settings.disabled or (only and (name != only or not candidate.built_in)):
            continue
        required = candidate.built_in or name in settings.required
        try:
            if name in loaded or name == CORE:
                first = "pvcd itself" if name == CORE else loaded[name].origin
                raise PluginError(f"Two plugins are called {name!r}: {first} and {origin}.")
            loaded[name] = Plugin(name, _import(candidate, required), origin, required)
        except PluginError as error:
            refused.append(RefusedPlugin(name, origin, str(error), required))
    for name in settings.required - {*loaded, *(plugin.name for plugin in refused)}:
        reason = f"Plugin {name!r}, which pvc.plugins.required names, is not installed."
        refused.append(RefusedPlugin(name, "nowhere", reason, required=True))
    return [*(loaded[name] for name in sorted(loaded)), *refused]


def in_time(act: Callable[[], T], *, required: bool) -> T:
    """Return what a function returns, or raise what it raises; if it blocks, leave it in its thread and raise."""
    seconds = REQUIRED_SECONDS if required else LOAD_SECONDS
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(act())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        raise TimeoutError(f"it took longer than {seconds:g} s") from None


def _installed() -> Iterator[_Candidate]:
    """The entry points, ours first."""
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda each: not _is_ours(each)):
        release = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
        yield _Candidate(entry.name, f"package {entry.value}{release}", _is_ours(entry), entry.load)


def _is_ours(entry: importlib.metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == BUILT_IN


def _in_directories(directories: Iterable[Path]) -> Iterator[_Candidate]:
    for directory in directories:
        if not directory.is_dir():
            raise SettingsError([f"pvc.plugins.directories: {directory} is not a directory."])
        for path in sorted(directory.iterdir()):
            if (file := plugin_file(path)) and not path.name.startswith(("_", ".")):
                yield _Candidate(path.stem, str(path), False, lambda path=path, file=file: import_file(path.stem, file))  # type: ignore[misc]


def plugin_file(path: Path) -> Path | None:
    """Return the file to import for a path: itself, or the `__init__.py` of a package; None if it is neither."""
    file = path / "__init__.py" if path.is_dir() else path
    return file if file.suffix == ".py" and file.is_file() else None


def import_file(name: str, file: Path) -> ModuleType:
    """Import a file as a module, or as a package if it is an `__init__.py`."""
    full_name = f"pvcd_site_{name}"  # without a dot: otherwise `from . import` looks for a parent
    search = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(full_name, file, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _import(candidate: _Candidate, required: bool) -> ModuleType:
    try:
        module = in_time(candidate.import_it, required=required)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"Plugin {candidate.name!r} ({candidate.origin}) could not be imported: {type(error).__name__}: {error}. "
            f"Repair it, or add it to pvc.plugins.disabled."
        ) from error
    check_version(candidate.name, module)
    return module


def check_version(name: str, module: ModuleType) -> None:
    """Raise `PluginError` for a plugin that works with another plugin API, or does not declare any."""
    wanted = getattr(module, "REQUIRES_PLUGIN_API", None)
    try:
        versions = SpecifierSet(wanted if isinstance(wanted, str) and wanted else "nonsense")
    except InvalidSpecifier:
        raise PluginError(
            f"Plugin {name!r} cannot be used: REQUIRES_PLUGIN_API must be a range of versions, such as '>=1,<2'; "
            f"got {wanted!r}."
        ) from None
    if hookspecs.PLUGIN_API not in versions:
        raise PluginError(
            f"Plugin {name!r} requires plugin API {wanted}, but pvcd has {hookspecs.PLUGIN_API}. Update one of them."
        )
