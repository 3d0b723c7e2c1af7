"""The steps in which a VM is built: undoing them, and a dry run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest

from pvcd import Context, Create, Delete, Listener, Operation, Run, Task
from pvcd.declare.operations import kind_of
from pvcd.sitehooks.envelope import envelope
from pvcd.tasks.records import TaskSecrets
from pvcd.testing import SimulatedCluster
from pvcd_plugins.ceph.cluster.fake import FakeCluster
from pvcd_plugins.ceph.components import CLUSTER
from pvcd_plugins.provisioner.components import INSTALLATION
from pvcd_plugins.provisioner.grammar import NOT_SHOWN
from pvcd_plugins.provisioner.installation import InstallFailed
from pvcd_plugins.provisioner.installation.fake import FakeInstallation
from pvcd_plugins.provisioner.programs.userdata import InsideRendering
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.service import blueprint
from pvcd_plugins.provisioner.steps import disks, gather, machine
from pvcd_plugins.provisioner.variables import Level, Variables, arguments_of
from pvcd_plugins.provisioner.volumes import Leftovers
from pvcd_plugins.vm.records import VM, State, VMName
from tests.unit.conftest import plugin
from tests.unit.provisioner.conftest import PROFILE, Provisioner

UUID = uuid4()
VALUES = {"profile": "tiny", "uuid": str(UUID), "arguments": [], "define_vm": True, "start_vm": False}


@pytest.fixture
async def ceph() -> FakeCluster:
    ceph = FakeCluster()
    ceph.add_osd("hv1")
    await ceph.create_pool("vms", 8, 1, 1)
    await ceph.create_volume("vms", "web1_sda", 1024)
    return ceph


@pytest.fixture
async def run(ceph: FakeCluster) -> AsyncIterator[Run]:
    """Return a task that is undone after its volume was created."""
    async with SimulatedCluster([]) as cluster:
        context = cluster.api.derive(components={**cluster.api.components, CLUSTER: ceph})
        task = Task(id=uuid4(), kind="provision", subject="web1", values=VALUES, created=0)
        volume = {"pool": "vms", "volume": "web1_sda", "id": (await ceph.volume("vms", "web1_sda")).id}
        yield Run(context, task, {}, {"volumes": [volume], "uuid": str(UUID)})


async def define(run: Run, state: State) -> None:
    vm = VM(uuid=UUID, name="web1", node="hv1", state=state, xml="<domain/>")
    await run.context.store.write(Create(VMName(name="web1", uuid=UUID)), Create(vm), Create(GuestMetadata(uuid=UUID)))


async def test_an_incomplete_vm_is_removed_with_everything(run: Run, ceph: FakeCluster) -> None:
    await define(run, State.PROVISION)
    await disks.remove(run)
    await machine.undefine(run)
    assert await ceph.volumes("vms") == []
    assert run.context.store.all(VM) == run.context.store.all(VMName) == run.context.store.all(GuestMetadata) == []


async def test_a_completed_vm_keeps_its_volumes(run: Run, ceph: FakeCluster) -> None:
    await define(run, State.STOP)
    with pytest.raises(Leftovers, match=r"Cannot remove the volumes of VM .web1.: the VM was completed already"):
        await disks.remove(run)
    await machine.undefine(run)
    assert [volume.name for volume in await ceph.volumes("vms")] == ["web1_sda"]
    assert len(run.context.store.all(VM)) == len(run.context.store.all(GuestMetadata)) == 1


async def test_undoing_tolerates_metadata_that_the_primary_removes_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(run, State.PROVISION)
    store = run.context.store
    read = store.read

    async def read_and_lose(kind: Any, *key: Any) -> Any:
        found = await read(kind, *key)
        if isinstance(found, GuestMetadata):
            await store.write(Delete(found))
        return found

    monkeypatch.setattr(store, "read", read_and_lose)
    await machine.undefine(run)
    assert store.all(VM) == store.all(GuestMetadata) == []


async def test_undoing_twice_does_no_harm(run: Run, ceph: FakeCluster) -> None:
    await define(run, State.PROVISION)
    for _ in range(2):
        await disks.remove(run)
        await machine.undefine(run)
    assert await ceph.volumes("vms") == []


async def test_secret_arguments_stand_in_no_task_and_no_event() -> None:
    events: list[Any] = []

    async def listen(context: Context, operation: Operation) -> None:
        kind = kind_of(context, operation.name)
        events.append(envelope(kind, operation, time=0, place="api")["arguments"])

    example = plugin(listeners=[Listener("listen", ("provisioner-create",), listen)])
    made = Provisioner()
    made.cluster = SimulatedCluster(["hv1"], plugins=[example])
    async with made.cluster:
        await made.cluster.advance(30)
        await made.fill()
        await made.do("PUT", "/template/userdata/base", data="{{ arguments.values() | sort | join(' ') }}")
        await made.do("POST", "/profile/web", **PROFILE, arg=["token=s3cret-0"])
        asked = {"name": "web1", "profile": "web", "arg": ["size=9", "root_password=s3cret-1"]}
        asked["secret_arg"] = "license=s3cret-2"
        plan = await made.do("POST", "/create", **asked, check="true")
        await made.do("POST", "/create", **asked)
        [task] = made.context.store.all(Task)
        secrets = await made.context.store.read(TaskSecrets, task.id)
        await made.do("PUT", "/template/userdata/base", data="{{ {'sample': 1}[arguments.license] }}")
        _, sentence = await made.refused("POST", "/create", **asked | {"name": "web2"})
        cut = "{% if arguments.license != 'sample' %}{{ {}['x' * 265 ~ arguments.license] }}{% endif %}"
        await made.do("PUT", "/template/userdata/base", data=cut)
        _, cut = await made.refused("POST", "/create", **asked | {"name": "web2"})
        half = r"{% if arguments.size == '9' %}{{ '\ud800' }}{% endif %}"
        await made.do("PUT", "/template/userdata/base", data=half)
        _, half = await made.refused("POST", "/create", **asked | {"name": "web2"})
    assert cut.endswith("xxx(no.") and half.endswith(": it becomes a text that is not valid UTF-8.")
    assert sentence == "Cannot render the userdata: line 1: 'dict object' has no attribute '(not shown)'."
    assert plan["userdata"] == "9 s3cret-0 s3cret-1 s3cret-2"
    shown = {each["name"]: each["value"] for each in plan["variables"]}
    assert [shown[name] for name in ("root_password", "license", "token", "size")] == [NOT_SHOWN] * 3 + ["9"]
    assert secrets and secrets.values == {"arguments": ["license=s3cret-2", "root_password=s3cret-1"]}
    assert task.values["arguments"] == ["size=9"]
    assert "s3cret" not in task.model_dump_json() + str(events)
    assert events[-1]["arg"] == ["size=9", f"root_password={NOT_SHOWN}"]


async def test_secrets_of_a_script_stand_in_no_log_and_no_sentence(run: Run) -> None:
    lines: list[str] = []
    script = "def install(root_password, **kwargs):\n    print(root_password)\n    raise ValueError(root_password)\n"
    context = run.context.derive(components={**run.context.components, INSTALLATION: FakeInstallation()})
    asked = Run(context, run.task, {"blueprint": drawn(script, ["root_password=s3cret", "empty_password="])})
    asked.log = AsyncMock(side_effect=lines.append)  # type: ignore[method-assign]
    with pytest.raises(InstallFailed, match=r"^The script failed in line 3: ValueError: \(not shown\)$"):
        await disks.install(asked)
    assert lines[0] == NOT_SHOWN and "s3cret" not in str(lines)


@pytest.mark.parametrize("before", [0, 300, 480])
async def test_a_secret_is_masked_before_a_sentence_is_cut(run: Run, before: int) -> None:
    secret = f"two  spaces {'s3cret' * 60}"
    script = f"def install(root_password, **kwargs):\n    raise ValueError('x' * {before} + root_password)\n"
    context = run.context.derive(components={**run.context.components, INSTALLATION: FakeInstallation()})
    asked = Run(context, run.task, {"blueprint": drawn(script, [f"root_password={secret}"])})
    with pytest.raises(InstallFailed) as caught:
        await disks.install(asked)
    assert caught.value.sentence == f"The script failed in line 2: ValueError: {'x' * before}{NOT_SHOWN}"


async def test_a_short_secret_does_not_make_a_log_unreadable(run: Run) -> None:
    lines: list[str] = []
    script = "def install(keyboard, **kwargs):\n    print(f'status of the bus: {keyboard}, keyboard={keyboard}')\n"
    context = run.context.derive(components={**run.context.components, INSTALLATION: FakeInstallation()})
    asked = Run(context, run.task, {"blueprint": drawn(script, ["keyboard=us"])})
    asked.log = AsyncMock(side_effect=lines.append)  # type: ignore[method-assign]
    await disks.install(asked)
    assert lines == [f"status of the bus: {NOT_SHOWN}, keyboard={NOT_SHOWN}"]


def drawn(script: str, arguments: list[str]) -> Any:
    """A blueprint as far as running its script goes."""
    return SimpleNamespace(
        script=SimpleNamespace(name="deb", script=script),
        request=SimpleNamespace(name="web1"),
        networks=SimpleNamespace(networks=()),
        variables=Variables(arguments_of(Level.REQUEST, "request", arguments)),
        vm_id=1,
        disks=(),
    )


async def test_a_dry_run_draws_the_blueprint_and_renders_the_userdata_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: calls.append(name) or real(*given, **named))

    made = Provisioner()
    made.cluster = SimulatedCluster(["hv1"])
    async with made.cluster:
        await made.cluster.advance(30)
        await made.fill()
        await made.do("PUT", "/template/userdata/base", data="{{ vm_name }}")
        await made.do("POST", "/profile/web", **PROFILE)
        counted(gather, "draw")
        counted(blueprint, "draw")
        counted(InsideRendering, "render")
        plan = await made.do("POST", "/create", name="web1", profile="web", check="true")
    assert calls == ["draw", "render"]
    assert (plan["userdata"], plan["message"]) == ("web1", "VM 'web1' can be built.")
    assert [step["name"] for step in plan["steps"]][:2] == ["collect", "verify"]


@pytest.mark.parametrize("more", [{}, {"check": "true"}])
async def test_a_name_that_looks_like_a_uuid_is_named_as_it_was_given(more: dict[str, str]) -> None:
    made = Provisioner()
    made.cluster = SimulatedCluster(["hv1"])
    name = "3f1c0b1e-6a55-4c3c-9b0a-2f6c1d0e7a11"
    async with made.cluster:
        await made.cluster.advance(30)
        await made.fill()
        await made.do("POST", "/profile/web", **PROFILE)
        refusal = await made.refused("POST", "/create", name=name, profile="web", **more)
    assert refusal == ("invalid-value", f"name must not look like a UUID; got '{name}'.")
