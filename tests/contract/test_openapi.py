"""The OpenAPI document of the whole API: it is valid, complete, and what it says of requests and replies is so."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from pvcd import PLUGIN_API_1, Context, Document, Flag, Message, Routes, Value, hookimpl, settings
from pvcd import Path as PathMarker
from pvcd.daemon.cli import main
from pvcd.http import document_routes as documents
from pvcd.http.middleware import MAX_BODY, errors
from pvcd.http.routes import Route, register
from pvcd.testing import Reply, SimulatedCluster
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

DOMAIN = """<domain type='qemu'><name>web1</name><uuid>00000000-0000-4000-8000-000000000001</uuid>
<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""

greetings = Routes("/api/v1/greeting", tag="Greetings")


@greetings.post("/{who}")
async def greet(
    context: Context,
    who: Annotated[str, PathMarker("Whom to greet")],
    card: Annotated[str, Document("What is written on it")],
    polite: Annotated[bool, Flag("Be polite")] = False,
    times: Annotated[int, Value("How often")] = 1,
) -> Message:
    """Greet a person."""
    return Message(message=f"{who} {card} {polite} {times}")


@pytest.fixture
def greeting() -> ModuleType:
    """A third-party plugin."""
    module = ModuleType("greeting")
    module.__dict__.update(REQUIRES_PLUGIN_API=PLUGIN_API_1, register_routes=hookimpl(lambda: [greetings]))
    return module


@contextlib.asynccontextmanager
async def fake_hypervisor(context: Any) -> AsyncIterator[FakeHypervisor]:
    hypervisor = FakeHypervisor(context.clock)
    await hypervisor.open()
    try:
        yield hypervisor
    finally:
        await hypervisor.close()


@pytest.fixture
async def cluster(greeting: ModuleType) -> AsyncIterator[SimulatedCluster]:
    """The API with all plugins that are installed and one more, and a node."""
    replace = {HYPERVISOR: fake_hypervisor}
    async with SimulatedCluster(["hv1"], [greeting], replace, keepalive={"interval": 1}) as cluster:
        await cluster.advance(2)
        yield cluster


@pytest.fixture
async def described(cluster: SimulatedCluster) -> Any:
    """The document as it is served."""
    reply = await cluster.request("GET", "/api/v1/openapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    return reply.json


def operations(described: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


async def test_the_document_is_valid(described: Any) -> None:
    OpenAPIV31SpecValidator(described).validate()


async def test_the_document_has_every_route_once_and_nothing_else(cluster: SimulatedCluster, described: Any) -> None:
    assert sorted(operations(described)) == sorted(route.name for route in cluster.registry.routes)
    assert "POST /api/v1/greeting/{who}" in operations(described)


async def test_each_operation_has_a_summary_a_known_tag_and_its_own_id(described: Any) -> None:
    found = operations(described)
    tags = {each["name"] for each in described["tags"]}
    for name, operation in found.items():
        assert operation["summary"] and not operation["summary"].endswith("."), name
        assert len(operation["tags"]) == 1 and set(operation["tags"]) <= tags, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", operation["operationId"]), name
    assert len({operation["operationId"] for operation in found.values()}) == len(found)


async def test_each_argument_is_explained(described: Any) -> None:
    for name, operation in operations(described).items():
        for parameter in operation.get("parameters", []):
            assert parameter["description"], name
        for content in operation.get("requestBody", {"content": {}})["content"].values():
            for schema in content["schema"].get("properties", {"": content["schema"]}).values():
                assert schema["description"], name


async def test_every_operation_that_is_not_public_names_the_security_schemes(
    cluster: SimulatedCluster, described: Any
) -> None:
    public = {route.name for route in cluster.registry.routes if route.public}
    found = operations(described)
    assert {name for name, operation in found.items() if operation["security"] == []} == public
    schemes = described["components"]["securitySchemes"]
    assert {name for operation in found.values() for each in operation["security"] for name in each} == set(schemes)
    assert (schemes["token"]["in"], schemes["token"]["name"]) == ("header", "X-Api-Key")
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "PVC_SESSION")


# Replies


def check(described: Any, reply: Reply, method: str, template: str) -> None:
    """That a reply is one that the document knows of."""
    responses = described["paths"][template][method.lower()]["responses"]
    status = str(reply.status) if str(reply.status) in responses else f"{reply.status // 100}XX"
    response = responses[status]
    if "$ref" in response:
        response = described["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name, header in response["headers"].items():
        component = described["components"]["headers"][header["$ref"].rpartition("/")[2]]
        assert name in reply.headers or not component.get("required"), name
    kind = reply.headers["Content-Type"].partition(";")[0]
    schema = response["content"][kind]["schema"]
    if kind.endswith("json"):
        OAS31Validator({**schema, "components": described["components"]}).validate(reply.json)


NAMES = {
    **{"vm": "web1", "node": "hv1", "who": "you", "osd": "0", "pool": "vms", "volume": "a", "snapshot": "b"},
    **{"network": "app", "lease": "10.20.0.50", "acl": "ssh", "name": "one", "vni": "200", "disk_id": "sda"},
    "task_id": "none",
}


async def make_profile(ask: Callable[..., Awaitable[None]]) -> None:
    """Everything of the provisioner, each called `one`."""
    template = "/api/v1/provisioner/template"
    await ask("POST", f"{template}/system/{{name}}", vcpus="1", vram="512", node_limit="hv9")
    await ask("POST", f"{template}/network/{{name}}")
    await ask("POST", f"{template}/network/{{name}}/net/{{vni}}")
    await ask("POST", f"{template}/storage/{{name}}")
    await ask("POST", f"{template}/storage/{{name}}/disk/{{disk_id}}", pool="vms", disk_size="1", filesystem="swap")
    await ask("POST", f"{template}/userdata/{{name}}", data="")
    await ask("POST", "/api/v1/provisioner/script/{name}", data="def install(**kwargs): ...")
    words = ("system_template", "network_template", "disk_template", "userdata_template", "script")
    await ask("POST", "/api/v1/provisioner/profile/{name}", **dict.fromkeys(words, "one"), arg="a=b")


async def test_replies_conform_to_the_document(cluster: SimulatedCluster, described: Any) -> None:
    async def ask(method: str, template: str, status: int = 200, **values: str) -> None:
        path = template.format(**NAMES)
        reply = await cluster.request(method, path, **values)
        assert reply.status == status, reply.body
        check(described, reply, method, template)

    await ask("GET", "/api/v1/vm/{vm}", 510)
    await ask("POST", "/api/v1/vm", xml=DOMAIN, limit="hv1,hv9")
    await ask("POST", "/api/v1/vm/{vm}/state", state="start")
    addresses = {"ip4_network": "10.20.0.0/24", "ip4_gateway": "10.20.0.1", "ip6_network": "fd00::/64"}
    await ask("POST", "/api/v1/network", vni="200", description="app", nettype="managed", **addresses)
    await ask("POST", "/api/v1/network/{network}/lease", macaddress="52:54:00:00:00:01", ipaddress="10.20.0.50")
    await ask("POST", "/api/v1/network/{network}/acl", description="ssh", direction="in", rule="accept")
    ceph = "/api/v1/storage/ceph"
    await ask("POST", f"{ceph}/pool", pool="vms", pgs="8", replcfg="copies=1,mincopies=1")
    await ask("POST", f"{ceph}/volume", pool="vms", volume="a", size="1G")
    await ask("POST", f"{ceph}/volume/snapshot", pool="vms", volume="a", snapshot="b")
    await make_profile(ask)
    await cluster.advance(2)
    for route in cluster.registry.routes:
        if route.method == "GET":
            await ask("GET", route.path, 510 if "{task_id}" in route.path else route.status)
    await ask("POST", "/api/v1/greeting/{who}", 510)
    await ask("POST", "/api/v1/greeting/{who}", card="hello")


# Requests


async def call(request: web.Request, route: Route, arguments: dict[str, Any]) -> object:
    return await route.function(None, **arguments)


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    routed = web.Application(middlewares=[errors])
    register(routed, greetings, call)
    async with TestClient(TestServer(routed)) as client:
        yield client


async def test_each_content_type_of_a_body_is_understood(
    client: TestClient[web.Request, web.Application], described: Any
) -> None:
    path = "/api/v1/greeting/you"
    parts = aiohttp.MultipartWriter("form-data")
    parts.append("hello").set_content_disposition("form-data", name="card", filename="card.txt")
    parts.append("true").set_content_disposition("form-data", name="polite")
    sent: dict[str, Any] = {
        "application/x-www-form-urlencoded": {"data": {"card": "hello", "polite": "true"}},
        "multipart/form-data": {"data": parts},
        "application/json": {"json": {"card": "hello", "polite": True, "times": None}},
    }
    for kind in described["paths"]["/api/v1/greeting/{who}"]["post"]["requestBody"]["content"]:
        raw = {"data": b"hello", "params": {"polite": ""}, "headers": {"Content-Type": kind}}
        async with client.post(path, **sent.get(kind, raw)) as reply:
            assert (kind, await reply.json()) == (kind, {"message": "you hello True 1"})


async def test_a_failure_conforms_to_the_document(
    client: TestClient[web.Request, web.Application], described: Any
) -> None:
    template = "/api/v1/greeting/{who}"
    for accept in ("application/json", "application/problem+json"):
        for size in (0, MAX_BODY + 1):
            headers = {"Accept": accept, "Content-Type": "text/plain"}
            async with client.post("/api/v1/greeting/you", headers=headers, data=io.BytesIO(bytes(size))) as reply:
                check(described, Reply(reply.status, await reply.read(), reply.headers), "POST", template)
                assert reply.content_type == accept


# The command


def printed() -> Any:
    result = CliRunner().invoke(main, ["openapi"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_prints_the_same_document_as_the_api_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pvc-api.yaml").write_text("pvc: {plugins: {disabled: [vm]}}")
    monkeypatch.setenv("PVC_CONFIG_FILE", str(tmp_path / "pvc-api.yaml"))
    found = printed()
    assert "/api/v1/node" in found["paths"]
    assert "/api/v1/vm" not in found["paths"]


async def test_without_settings_the_command_describes_the_installed_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVC_CONFIG_FILE", raising=False)
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "pvc-api.yaml")
    async with SimulatedCluster([]) as cluster:
        assert printed() == (await cluster.request("GET", "/api/v1/openapi.json")).json


def test_a_named_settings_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_CONFIG_FILE", str(tmp_path / "nowhere.yaml"))
    result = CliRunner().invoke(main, ["openapi"])
    assert result.exit_code == 2
    assert "nowhere.yaml: No such file" in result.stderr


# The page


async def test_the_page_loads_only_files_of_the_api(cluster: SimulatedCluster) -> None:
    page = await cluster.request("GET", "/api/v1/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    for name in re.findall(r'(?:href|src)="(?!data:)([^"]*)"', page.body.decode()):
        reply = await cluster.request("GET", f"/api/v1/{name}")
        assert reply.status == 200
        assert "Cache-Control" in reply.headers
        assert len(reply.body) > 50
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]


async def test_no_other_file_is_served(cluster: SimulatedCluster) -> None:
    for name in ("swagger-ui.js.map", "redoc.js", "..%2fopenapi.json"):
        assert (await cluster.request("GET", f"/api/v1/docs/{name}")).status == 404


async def test_the_document_is_created_once(cluster: SimulatedCluster) -> None:
    known = cluster.api[documents.DOCUMENTS]
    assert await documents.get_document(cluster.api) is known.document
    assert await documents.get_script(cluster.api) is known.script
