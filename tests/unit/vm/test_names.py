"""A VM is found by its UUID or its name, and no name can be mistaken for a UUID."""

import pytest

from pvcd import NotFound
from pvcd_plugins.vm import service
from pvcd_plugins.vm.records import VM, State

from .conftest import Cluster, domain_xml, uuid_of

OTHER = str(uuid_of("web1"))
FORMS = [OTHER, OTHER.upper(), OTHER.replace("-", ""), OTHER.replace("-", "", 1), f"{OTHER[:3]}-{OTHER[3:]}"]


@pytest.mark.parametrize("name", [*FORMS, "7a5d9c60-1de9-4b1f-8c2e-3c7d2f0a9b11"])
async def test_a_vm_cannot_be_named_like_a_uuid(cluster: Cluster, name: str) -> None:
    await cluster.add_node("hv1")
    await cluster.add_vm("web1")
    xml = domain_xml("web2").replace("<name>web2<", f"<name>{name}<")
    reply = await cluster.simulated.request("POST", "/api/v1/vm", xml=xml)
    assert (reply.status, reply.json["code"]) == (510, "invalid-value")
    assert reply.json["message"] == f"<name> must not look like a UUID; got {name!r}."
    assert [vm.name for vm in cluster.context.store.all(VM)] == ["web1"]


@pytest.mark.parametrize("name", ["a" * 32 + "-x", "0f6e3b1a", "f" * 31, "f" * 33])
async def test_a_name_that_is_nearly_a_uuid_is_a_name(cluster: Cluster, name: str) -> None:
    await cluster.add_node("hv1")
    xml = domain_xml("web2").replace("<name>web2<", f"<name>{name}<")
    assert (await cluster.simulated.request("POST", "/api/v1/vm", xml=xml)).status == 200
    assert service.find(cluster.context, name).uuid == uuid_of("web2")


@pytest.mark.parametrize("key", [OTHER, OTHER.upper(), OTHER.replace("-", "")])
async def test_a_uuid_wins_over_a_name_of_older_records(cluster: Cluster, key: str) -> None:
    await cluster.add_node("hv1")
    await cluster.add_vm("web1", state=State.STOP, generation=0)
    await cluster.add_vm(key, state=State.STOP, generation=0)
    assert service.find(cluster.context, key).name == "web1"
    reply = await cluster.simulated.request("DELETE", f"/api/v1/vm/{key}")
    assert (reply.status, reply.json["message"]) == (200, "VM 'web1' removed.")
    assert [vm.name for vm in cluster.context.store.all(VM)] == [key]
    assert service.find(cluster.context, key).name == key, "the name alone matches by now"


@pytest.mark.parametrize("form", ["urn:uuid:{}", "{{{}}}", "{}-", "-{}"])
async def test_other_forms_of_a_uuid_name_no_vm(cluster: Cluster, form: str) -> None:
    await cluster.add_vm("web1")
    with pytest.raises(NotFound):
        service.find(cluster.context, form.format(OTHER))
