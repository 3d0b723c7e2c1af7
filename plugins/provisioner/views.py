"""Templates, scripts, profiles and tasks as the API shows them; what is not set is null."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from pvcd import Component, ComponentKey, Context, Encoded, LogLine, Role, StepRecord, Task, TaskState, View
from pvcd_plugins.provisioner.records import (
    EMPTY,
    Disk,
    NetworkTemplate,
    Numbered,
    Profile,
    Script,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)

N = TypeVar("N", bound=Numbered)
V = TypeVar("V", bound=BaseModel)
ENDED_WELL = ("ok", "changed", "skipped")
TASK_STATES = tuple(state.upper() for state in get_args(TaskState))


class Named(BaseModel):
    """The name of what was written, and warnings."""

    name: str
    warnings: list[str] | None = Field(default=None, exclude_if=lambda warnings: not warnings)


class NamedNet(Named):
    """The net that was written, and its template."""

    vni: int


class NamedDisk(Named):
    """The disk that was written, and its template."""

    disk_id: str


class SystemTemplateView(BaseModel):
    """A system template; `node_limit` holds names separated by commas."""

    id: int
    name: str
    vcpu_count: int
    vram_mb: int
    serial: bool
    vnc: bool
    vnc_bind: str | None
    node_limit: str | None
    node_selector: str | None
    start_with_node: bool


class NetView(BaseModel):
    """A net of a network template."""

    vni: int


class NetworkTemplateView(BaseModel):
    """A network template, with its nets in the order of the VM's interfaces."""

    id: int
    name: str
    mac_template: str | None
    networks: list[NetView]


class DiskView(BaseModel):
    """A disk of the storage template with the id `storage_template`; `filesystem_args` are separated by blanks."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: int
    storage_template: int
    pool: str
    disk_id: str
    disk_size_gb: int | None
    mountpoint: str | None
    filesystem: str | None
    filesystem_args: str
    source_volume: str | None
    """The volume of the same pool that the disk is a copy of."""


class StorageTemplateView(BaseModel):
    """A storage template."""

    id: int
    name: str
    disks: list[DiskView]


class UserdataTemplateView(BaseModel):
    """A userdata template."""

    id: int
    name: str
    userdata: str


class TemplatesView(BaseModel):
    """All templates."""

    system_templates: list[SystemTemplateView]
    network_templates: list[NetworkTemplateView]
    storage_templates: list[StorageTemplateView]
    userdata_templates: list[UserdataTemplateView]


class ScriptView(BaseModel):
    """A script."""

    id: int
    name: str
    script: str


class ProfileView(BaseModel):
    """A profile; each of the `arguments` is `key=value`."""

    name: str
    system_template: str
    network_template: str
    storage_template: str
    userdata_template: str
    script: str
    arguments: list[str]


class Accepted(BaseModel):
    """A task that was submitted."""

    task_id: UUID
    message: str


class StepView(BaseModel):
    """A step of a task and how it ended; times are in seconds since 1970."""

    name: str
    title: str
    state: str
    message: str
    started: float | None
    ended: float | None


class TaskView(BaseModel):
    """A task: the manual's four fields, and what else is known of it."""

    state: str
    current: int
    total: int
    status: str
    task_id: UUID
    name: str
    profile: str
    created: float
    started: float | None
    ended: float | None
    worker: str | None
    steps: list[StepView]
    leftovers: list[str]
    """A sentence for each thing that could not be undone."""


class Planned(BaseModel):
    """A step of a dry run, and its effect."""

    name: str
    title: str
    message: str


class Plan(BaseModel):
    """A dry run: the effect of a task, of which nothing is done."""

    message: str
    variables: list[dict[str, Any]]
    userdata: str
    xml: str
    steps: list[Planned]


class Line(BaseModel):
    """A line of a log. Its position is where to go on after it."""

    position: str
    time: float
    text: str


SystemTemplateList = Encoded[list[SystemTemplateView]]
NetworkTemplateList = Encoded[list[NetworkTemplateView]]
StorageTemplateList = Encoded[list[StorageTemplateView]]
UserdataTemplateList = Encoded[list[UserdataTemplateView]]
Templates = Encoded[TemplatesView]
ScriptList = Encoded[list[ScriptView]]
ProfileList = Encoded[list[ProfileView]]


def system_view(template: SystemTemplate) -> SystemTemplateView:
    """Return a system template as it is shown."""
    return SystemTemplateView(
        id=template.id,
        name=template.name,
        vcpu_count=template.vcpus,
        vram_mb=template.vram,
        serial=template.serial_console,
        vnc=template.vnc,
        vnc_bind=template.vnc_bind,
        node_limit=",".join(template.node_limit) or None,
        node_selector=template.node_selector,
        start_with_node=template.start_with_node,
    )


def network_view(template: NetworkTemplate) -> NetworkTemplateView:
    """Return a network template as it is shown."""
    networks = [NetView(vni=vni) for vni in template.networks]
    return NetworkTemplateView(
        id=template.id, name=template.name, mac_template=template.mac_template, networks=networks
    )


def disk_view(template: StorageTemplate, disk: Disk) -> DiskView:
    """Return a disk as it is shown."""
    return DiskView(
        id=disk.id,
        storage_template=template.id,
        pool=disk.pool,
        disk_id=disk.disk_id,
        disk_size_gb=disk.disk_size_gb,
        mountpoint=disk.mountpoint,
        filesystem=disk.filesystem,
        filesystem_args=" ".join(disk.filesystem_args),
        source_volume=disk.source_volume,
    )


def storage_view(template: StorageTemplate) -> StorageTemplateView:
    """Return a storage template as it is shown."""
    disks = [disk_view(template, disk) for disk in template.disks]
    return StorageTemplateView(id=template.id, name=template.name, disks=disks)


def userdata_view(template: UserdataTemplate) -> UserdataTemplateView:
    """Return a userdata template as it is shown."""
    return UserdataTemplateView(id=template.id, name=template.name, userdata=template.userdata)


def script_view(script: Script) -> ScriptView:
    """Return a script as it is shown."""
    return ScriptView(id=script.id, name=script.name, script=script.script)


def profile_view(profile: Profile) -> ProfileView:
    """Return a profile as it is shown."""
    return ProfileView(
        name=profile.name,
        system_template=profile.system_template,
        network_template=profile.network_template,
        storage_template=profile.storage_template,
        userdata_template=profile.userdata_template,
        script=profile.script,
        arguments=list(profile.arguments),
    )


def task_view(task: Task) -> TaskView:
    """Return a task as it is shown."""
    running = next((step for step in task.steps if step.state == "running"), None)
    return TaskView(
        state=task.state.upper(),
        current=sum(step.state in ENDED_WELL for step in task.steps),
        total=len(task.steps),
        status=task.sentence or (f"{running.title}." if running else "Waiting for a task worker."),
        task_id=task.id,
        name=task.subject,
        profile=task.values["profile"],
        created=task.created,
        started=task.started,
        ended=task.ended,
        worker=task.worker,
        steps=[step_view(step) for step in task.steps],
        leftovers=list(task.leftovers),
    )


def step_view(step: StepRecord) -> StepView:
    """Return a step of a task as it is shown."""
    return StepView(
        name=step.name,
        title=step.title,
        state=step.state,
        message=step.sentence,
        started=step.started,
        ended=step.ended,
    )


def line_view(line: LogLine) -> Line:
    """Return a line of a log as it is shown."""
    return Line(position=line.position, time=line.time, text=line.text)


class UserdataViews(View[UserdataTemplate, UserdataTemplateView]):
    """Userdata templates, `empty` included, which is not in the store."""

    def _rows(self) -> list[tuple[tuple[str, ...], UserdataTemplate]]:
        if self._sorted is None:
            self._sorted = sorted([*super()._rows(), ((EMPTY.name,), EMPTY)], key=lambda row: row[0])
        return self._sorted


@dataclass(frozen=True)
class Views:
    """The encoded replies about templates, scripts and profiles."""

    system: View[SystemTemplate, SystemTemplateView]
    network: View[NetworkTemplate, NetworkTemplateView]
    storage: View[StorageTemplate, StorageTemplateView]
    userdata: View[UserdataTemplate, UserdataTemplateView]
    script: View[Script, ScriptView]
    profile: View[Profile, ProfileView]

    def templates(self, limit: str | None) -> Templates:
        """Return the templates whose name matches a limit, by kind."""
        kinds: dict[str, View[Any, Any]] = {
            "system_templates": self.system,
            "network_templates": self.network,
            "storage_templates": self.storage,
            "userdata_templates": self.userdata,
        }
        members = [f'"{kind}":'.encode() + listed(view, limit, None).body for kind, view in kinds.items()]
        return Encoded(b"{" + b",".join(members) + b"}")


def listed(view: View[N, V], limit: str | None, name: str | None) -> Encoded[list[V]]:
    """Return the records whose name matches a limit and equals `name`, if they are given."""
    if limit is None and name is None:
        return view.all()
    return view.filter(limit, lambda record: name in (None, record.name))


def _name(record: Numbered) -> tuple[str, ...]:
    return (record.name,)


@contextlib.asynccontextmanager
async def open_views(context: Context) -> AsyncIterator[Views]:
    """Open the views, each sorted by name."""
    store = context.store
    with contextlib.ExitStack() as stack:
        views = Views(
            system=View(store, SystemTemplate, system_view, _name),
            network=View(store, NetworkTemplate, network_view, _name),
            storage=View(store, StorageTemplate, storage_view, _name),
            userdata=UserdataViews(store, UserdataTemplate, userdata_view, _name),
            script=View(store, Script, script_view, _name),
            profile=View(store, Profile, profile_view, _name),
        )
        for view in vars(views).values():
            stack.callback(view.close)
        yield views


VIEWS: ComponentKey[Views] = ComponentKey("provisioner-views")
COMPONENTS: list[Component[Any]] = [Component(VIEWS, open_views, roles=(Role.API,), in_memory=True)]
