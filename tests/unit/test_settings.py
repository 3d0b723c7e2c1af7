"""pvc-api.yaml: what it may hold, and one clear sentence for each mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel, Field

from pvcd.daemon.cli import main
from pvcd.plugin import registry
from pvcd.settings import Section, SettingsError, SettingsSection, build, read_file, settings_file

MANUAL = """
---
pvc:
    debug: True
    coordinators:
      - pvc-hv1
      - pvc-hv2
      - pvc-hv3
    api:
        listen_address: "127.0.0.1"
        listen_port: "7370"
        authentication:
            enabled: False
            secret_key: "aSuperLong&SecurePasswordString"
            tokens:
                - description: "testing"
                  token: ""
        ssl:
            enabled: False
            cert_file: ""
            key_file: ""
"""
EXAMPLE = Path(__file__).parents[2] / "pvc-api.yaml"


def minimal() -> dict[str, Any]:
    return {
        "debug": False,
        "coordinators": ["hv1"],
        "api": {"listen_address": "0.0.0.0", "authentication": {"enabled": False}, "ssl": {"enabled": False}},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The minimal settings with another value at a path."""
    values = minimal()
    *sections, key = path.split(".")
    section = values
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    return values


def sentences(values: dict[str, Any], *sections: SettingsSection) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        build(values, sections)
    return error.value.sentences


def write(folder: Path, text: str) -> Path:
    file = folder / "pvc-api.yaml"
    file.write_text(text)
    return file


class ExampleSettings(Section):
    colour: str = "blue"
    key: str = Field(default="", repr=False, max_length=3)


def test_the_example_of_the_manual_is_valid(tmp_path: Path) -> None:
    settings, _ = registry.start(read_file(write(tmp_path, MANUAL)))
    assert settings.debug is True
    assert settings.coordinators == ("pvc-hv1:2181", "pvc-hv2:2181", "pvc-hv3:2181")
    assert (str(settings.api.listen_address), settings.api.listen_port) == ("127.0.0.1", 7370)
    authentication = settings.api.authentication
    assert (authentication.enabled, authentication.secret_key) == (False, "aSuperLong&SecurePasswordString")
    assert [(token.description, token.token) for token in authentication.tokens] == [("testing", "")]
    assert (settings.api.ssl.enabled, settings.api.ssl.cert_file, settings.api.ssl.key_file) == (False, "", "")


def test_optional_settings_may_be_left_out() -> None:
    settings = build(minimal())
    assert settings.api.listen_port == 7370
    assert settings.api.authentication.tokens == ()
    assert settings.zookeeper.session_timeout == 10.0


@pytest.mark.parametrize(
    "path",
    [
        "debug",
        "coordinators",
        "api",
        "api.listen_address",
        "api.authentication",
        "api.authentication.enabled",
        "api.ssl",
        "api.ssl.enabled",
    ],
)
def test_a_missing_setting_is_reported_with_its_full_path(path: str) -> None:
    values = minimal()
    *sections, key = path.split(".")
    section = values
    for name in sections:
        section = section[name]
    del section[key]
    assert sentences(values) == (f"pvc.{path}: this setting is required.",)


def test_an_empty_section_has_no_settings() -> None:
    values = minimal() | {"node": None, "zookeeper": None, "plugins": None, "example": None}
    settings = build(values, [SettingsSection("example", ExampleSettings)])
    assert settings.zookeeper.deadline == 1.0
    assert settings.of(ExampleSettings).colour == "blue"
    assert sentences(changed("api", None))[0] == "pvc.api.listen_address: this setting is required."


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("debugg", "did you mean 'debug'?"),
        ("api.listen_adress", "did you mean 'listen_address'?"),
        ("api.ssl.certfile", "did you mean 'cert_file'?"),
        ("zookeeper.sesion_timeout", "did you mean 'session_timeout'?"),
        ("plugins.x", "valid are: directories, disabled, required."),
        ("example.color", "did you mean 'colour'?"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_suggestion(path: str, guess: str) -> None:
    (sentence,) = sentences(changed(path, 1), SettingsSection("example", ExampleSettings))
    assert sentence == f"pvc.{path}: unknown setting, {guess}"


def test_an_unknown_setting_of_a_token_is_refused_with_a_suggestion() -> None:
    values = changed("api.authentication.tokens", [{"token": "t", "descripton": "x"}])
    path = "pvc.api.authentication.tokens.0.descripton"
    assert sentences(values) == (f"{path}: unknown setting, did you mean 'description'?",)


def test_all_mistakes_are_reported_once_and_together() -> None:
    values = changed("api.listen_address", "localhost")
    values["api"]["listen_port"] = 0
    values["colour"] = "blue"
    values["zookeeper"] = {"deadline": "soon"}
    del values["debug"]
    assert sorted(sentence.split(":")[0] for sentence in sentences(values)) == [
        "pvc.api.listen_address",
        "pvc.api.listen_port",
        "pvc.colour",
        "pvc.debug",
        "pvc.zookeeper.deadline",
    ]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("debug", "perhaps", "input should be a valid boolean, unable to interpret input; got 'perhaps'."),
        ("coordinators", [], "must have at least one value."),
        ("coordinators", "hv1", "must be a list."),
        ("api.listen_address", "hv1", "value is not a valid IPv4 or IPv6 address; got 'hv1'."),
        ("api.listen_port", 65536, "input should be less than or equal to 65535; got 65536."),
        ("api", [1], "must be a section with settings below it."),
        ("node.name", "a b", "string should match pattern '^[A-Za-z0-9][A-Za-z0-9._+-]*$'; got 'a b'."),
        ("zookeeper.session_timeout", 0, "input should be greater than or equal to 1; got 0."),
        ("handlers_resync", 0, "input should be greater than 0; got 0."),
    ],
)
def test_a_wrong_value_is_reported_with_its_path_and_rule(path: str, value: Any, sentence: str) -> None:
    assert sentences(changed(path, value)) == (f"pvc.{path}: {sentence}",)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hv1", "hv1:2181"),
        ("hv1.example.org:2182", "hv1.example.org:2182"),
        ("10.0.0.1", "10.0.0.1:2181"),
        ("[fd00::1]", "[fd00::1]:2181"),
        ("[::1]:2182", "[::1]:2182"),
    ],
)
def test_a_coordinator_is_a_host_with_an_optional_port(written: str, meant: str) -> None:
    assert build(changed("coordinators", [written])).coordinators == (meant,)


@pytest.mark.parametrize("host", ["::1", "fd00::1:2181", "hv1:", ":21", "hv1:0", "hv1:65536", "a b", "a,b", "a/b", ""])
def test_an_invalid_coordinator_is_refused(host: str) -> None:
    (sentence,) = sentences(changed("coordinators", ["hv1", host]))
    assert sentence.startswith("pvc.coordinators.1: must be a host such as pvc-hv1, pvc-hv1:2181 or [")


@pytest.mark.parametrize("listen", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_the_api_listens_on_either_kind_of_address(listen: str) -> None:
    assert str(build(changed("api.listen_address", listen)).api.listen_address) == listen


def test_an_enabled_authentication_needs_its_key_and_a_token() -> None:
    values = changed("api.authentication", {"enabled": True})
    assert sentences(values) == ("pvc.api.authentication: enabled requires secret_key.",)
    values["api"]["authentication"] |= {"secret_key": "k", "tokens": [{"description": None, "token": ""}]}
    assert sentences(values) == ("pvc.api.authentication: enabled requires at least one token in tokens.",)
    values["api"]["authentication"]["tokens"].append({"token": "t"})
    assert build(values).api.authentication.enabled


def test_an_enabled_tls_needs_two_readable_files(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.touch()
    values = changed("api.ssl", {"enabled": True, "cert_file": str(cert)})
    assert sentences(values) == ("pvc.api.ssl: enabled requires a readable file as key_file; got ''.",)
    values["api"]["ssl"]["key_file"] = str(key)
    assert "got '" + str(key) in sentences(values)[0]
    key.touch()
    assert build(values).api.ssl.key_file == str(key)


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("api.authentication.secret_key", [SECRET]),
        ("api.authentication.tokens", SECRET),
        ("api.authentication.tokens", [SECRET]),
        ("api.authentication.tokens", [{"token": [SECRET]}]),
        ("api.authentication.tokens", [{"tokn": SECRET}]),
        ("api.authentication.tokens", {SECRET: SECRET}),
        ("api.authentication", SECRET),
        ("api.authentication", [{"token": SECRET}]),
        ("api.authentication", {"enabled": True, "tokens": [{"token": SECRET}]}),
        ("api", [{"secret_key": SECRET}]),
        ("zookeeper.password", [SECRET]),
        ("zookeeper", [SECRET]),
        ("redis.url", f"http://:{SECRET}@host"),
        ("example.key", SECRET),
    ],
)
def test_a_secret_is_in_no_error(path: str, value: Any) -> None:
    with pytest.raises(SettingsError) as error:
        build(changed(path, value), [SettingsSection("example", ExampleSettings)])
    while_handling: BaseException | None = error.value
    while while_handling is not None:
        assert SECRET not in str(while_handling) + repr(while_handling)
        while_handling = while_handling.__cause__ or while_handling.__context__


def test_a_secret_is_in_no_repr() -> None:
    values = changed("zookeeper.password", SECRET)
    values["api"]["authentication"] |= {"secret_key": SECRET, "tokens": [{"token": SECRET}]}
    values |= {"redis": {"url": f"redis://:{SECRET}@host/0"}, "example": {"key": "abc"}}
    settings = build(values, [SettingsSection("example", ExampleSettings)])
    token = settings.api.authentication.tokens[0]
    assert token.token == SECRET
    for shown in (repr(settings), str(settings), repr(token), repr(settings.zookeeper), repr(settings.redis)):
        assert SECRET not in shown
    assert "abc" not in repr(settings.of(ExampleSettings))


def test_settings_are_frozen() -> None:
    settings: Any = build(minimal())
    with pytest.raises(ValueError, match="frozen"):
        settings.api.listen_port = 1


def test_a_plugin_finds_its_section_by_its_model() -> None:
    section = SettingsSection("example", ExampleSettings)
    assert build(minimal(), [section]).of(ExampleSettings).colour == "blue"
    assert build(changed("example.colour", "red"), [section]).of(ExampleSettings).colour == "red"
    with pytest.raises(LookupError, match="no plugin declared the settings ExampleSettings"):
        build(minimal()).of(ExampleSettings)


def test_a_missing_setting_of_a_plugin_is_reported_with_its_full_path() -> None:
    class Strict(Section):
        size: int

    section = SettingsSection("strict", Strict)
    assert sentences(minimal(), section) == ("pvc.strict.size: this setting is required.",)
    assert sentences(changed("strict.size", "x"), section)[0].startswith("pvc.strict.size: input should be a valid int")


def test_the_file_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVC_CONFIG_FILE", "/somewhere/else.yaml")
    assert settings_file() == Path("/somewhere/else.yaml")
    monkeypatch.delenv("PVC_CONFIG_FILE")
    assert settings_file() == Path("/etc/pvc/pvc-api.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must hold a section 'pvc' with the settings."),
        ("pvc:", "must hold a section 'pvc'"),
        ("- pvc", "must hold a section 'pvc'"),
        ("pvc: {}\nother: {}", "other: unknown section of"),
        ("pvc: {a: &x 1, b: *x}", "the alias *x is not allowed"),
        ("pvc: {a: &x {c: 1}, b: {<<: *x}}", "the alias *x is not allowed"),
        ("pvc: !!python/object/apply:os.getcwd []", "line 1: could not determine a constructor"),
        (f"pvc:\n  secret_key: '{SECRET}\n  x: 1", "is not valid YAML: line 3: found unexpected end of stream."),
        (f"pvc:\n  a: {SECRET}\n b: {SECRET}", "is not valid YAML: line 3: "),
        ("pvc: {a: 2024-13-45}", "is not valid YAML: month must be in 1..12."),
        ("pvc: \x00", "is not valid YAML"),
        ("pvc:\n  a: " + "[" * 600, "line 2: it is nested deeper than 20 levels."),
        ("pvc: [" + "1," * 10_000 + "]", "line 1: it has more than 10000 parts."),
        ("pvc: {debug: " + "1:" * 2000 + "1}", "line 1: a value has more than 4000 characters."),
        ("#" * (64 * 1024 + 1), "is larger than 65536 bytes."),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_file(write(tmp_path, text))
    (told,) = error.value.sentences
    assert sentence in told
    assert SECRET not in told


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot read .*missing.yaml: No such file or directory\."):
        read_file(tmp_path / "missing.yaml")


def check(file: Path) -> Any:
    return CliRunner().invoke(main, ["check", str(file)])


def test_check_accepts_a_valid_file(tmp_path: Path) -> None:
    result = check(write(tmp_path, MANUAL))
    assert result.exit_code == 0
    assert all(line.startswith("Warning: ") for line in result.stderr.splitlines())
    assert "is valid; plugins: ceph, network, node, provisioner, sandbox, vm" in result.stdout


def test_check_exits_with_2_and_a_line_for_each_mistake(tmp_path: Path) -> None:
    result = check(write(tmp_path, MANUAL.replace("debug: True", "debog: True").replace('"7370"', "0")))
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "pvc.debug",
        "pvc.api.listen_port",
        "pvc.debog",
    ]


@pytest.mark.parametrize("text", ["", "pvc: {plugins: {directories: [/nowhere]}}", "pvc: {plugins: {nope: 1}}"])
def test_check_exits_with_2_for_an_unusable_file_or_plugin(tmp_path: Path, text: str) -> None:
    result = check(write(tmp_path, text))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def every_setting(model: type[BaseModel], prefix: str = "pvc") -> Iterator[str]:
    """The full path of each setting of a model; those of a list's items stand for the list."""
    for name, field in model.model_fields.items():
        path = f"{prefix}.{name}"
        below = [kind for kind in all_types(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        yield from every_setting(below[0], path) if below else (path,)


def all_types(annotation: Any) -> Iterator[Any]:
    yield annotation
    if not isinstance(annotation, type) or isinstance(annotation, UnionType) or get_args(annotation):
        for part in get_args(annotation):
            yield from all_types(part)


def test_every_setting_is_found() -> None:
    class Inner(Section):
        items: tuple[Annotated[ExampleSettings, Field()], ...] = ()
        plain: str | None = None

    assert list(every_setting(Inner)) == ["pvc.items.colour", "pvc.items.key", "pvc.plain"]


def uncommented(text: str) -> str:
    """The example with all settings that it only shows: `#key:` and `#    key:`, unlike `# A sentence`."""
    return re.sub(r"^( *)#(?! [^ ])", r"\1", text, flags=re.MULTILINE)


def test_the_example_file_is_valid_and_names_every_setting() -> None:
    _, declared = registry.start(read_file(EXAMPLE))
    everything = yaml.safe_load(uncommented(EXAMPLE.read_text()))
    settings = build(everything["pvc"], declared.sections)
    assert sorted(set(paths(everything))) == sorted(every_setting(type(settings)))


def test_commented_settings_of_the_example_file_are_the_defaults() -> None:
    text = uncommented(EXAMPLE.read_text())
    shown, declared = registry.start(yaml.safe_load(text)["pvc"])
    used = build(read_file(EXAMPLE), declared.sections)
    of_the_machine = shown.node.model_copy(update={"name": used.node.name})
    assert shown.model_dump() | {"node": of_the_machine.model_dump()} == used.model_dump()


def paths(values: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from paths(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        for value in values:
            yield from paths(value, prefix)
    else:
        yield prefix


def test_the_number_of_reported_mistakes_is_limited() -> None:
    error = SettingsError(f"mistake {number}" for number in range(1000))
    assert len(error.sentences) == 101
    assert error.sentences[-1] == "There are 900 more mistakes."
