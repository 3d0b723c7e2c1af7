"""pvc-api.yaml as frozen settings: the manual's keys, the optional sections, and one sentence for each mistake."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails

from pvcd.errors import did_you_mean
from pvcd.records import Name

DEFAULT_FILE = Path("/etc/pvc/pvc-api.yaml")
MAX_FILE_BYTES = 64 * 1024
MAX_DEPTH, MAX_PARTS, MAX_VALUE = 20, 10_000, 4000
"""Limits of a settings file: the depth of its sections, the number of its parts, the characters of one value."""
MAX_MISTAKES = 100
_NAME_OF_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
Model = TypeVar("Model", bound=BaseModel)


class SettingsError(Exception):
    """The settings cannot be used: one sentence for each mistake."""

    def __init__(self, sentences: Iterable[str]) -> None:
        every = tuple(sentences)
        self.sentences = every[:MAX_MISTAKES]
        if len(every) > MAX_MISTAKES:
            self.sentences += (f"There are {len(every) - MAX_MISTAKES} more mistakes.",)
        super().__init__("\n".join(self.sentences))


class Section(BaseModel):
    """A section of the file: immutable, and without unknown keys. Plugins derive their own sections from it.

    The text below a field says what it is for, in docs/configuration.md too. A field with `repr=False` is a secret: its
    value is never shown, not even in the sentence about a mistake in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def empty(cls, values: Any) -> Any:
        """Treat an empty section as one that leaves all settings out."""
        return {} if values is None else values


@dataclass(frozen=True)
class SettingsSection:
    """A plugin's own section `pvc.<name>` of the file; `settings.of(model)` returns it."""

    name: str
    model: type[Section]


def _with_port(default: int) -> Any:
    def check(host: str) -> str:
        match = _HOST.fullmatch(host)
        if not match or not 0 < int(match["port"] or default) < 65536:
            raise ValueError(
                f"must be a host such as pvc-hv1, pvc-hv1:{default} or [fd00::1]:{default}; got {host!r:.60}"
            )
        return host if match["port"] else f"{host}:{default}"

    return AfterValidator(check)


def _at_least_one(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must have at least one value")
    return values


def _list_of_nothing(value: Any) -> Any:
    return [] if value is None else value


def _host_name(name: str) -> str:
    if not _NAME_OF_HOST.fullmatch(name):
        raise ValueError(f"must be a host name without a port, such as pvc.example.com; got {name!r:.60}")
    return name


Port = Annotated[int, Field(ge=1, le=65535)]
HostName = Annotated[str, Field(max_length=253), AfterValidator(_host_name)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Token(Section):
    """pvc.api.authentication.tokens: one token for each user of the API"""

    description: Annotated[str, BeforeValidator(lambda text: "" if text is None else text)] = ""
    """The owner's name, as tasks and site hooks show it."""
    token: str = Field(repr=False)
    """It allows everything: make it long and random, such as a UUID. An empty token is ignored."""


class Authentication(Section):
    """pvc.api.authentication: who may use the API"""

    enabled: bool
    """If true, a request needs a token (in the header X-Api-Key) or a login session."""
    secret_key: str = Field(default="", repr=False)
    """A random string of 32 characters or more, the same for all API servers of a cluster. The keys of login sessions
    are derived from it: changing it ends them all. Required while authentication is enabled."""
    tokens: Annotated[tuple[Token, ...], BeforeValidator(_list_of_nothing)] = Field(default=(), repr=False)
    """Each token allows everything; at least one is required while authentication is enabled. On SIGHUP an API server
    reads the tokens again; the login sessions of removed tokens end."""
    session_seconds: Annotated[int, Field(ge=1, le=31 * 86400)] = 8 * 3600
    """Seconds after which a login session ends, even if it is in use."""

    @model_validator(mode="after")
    def depends(self) -> Self:
        """Require a key and tokens for an enabled authentication, as the manual does."""
        if self.enabled and not self.secret_key:
            raise ValueError("enabled requires secret_key")
        if self.enabled and not any(token.token for token in self.tokens):
            raise ValueError("enabled requires at least one token in tokens")
        return self


class Ssl(Section):
    """pvc.api.ssl: TLS"""

    enabled: bool
    """With TLS (1.2 or newer), the API accepts no other connections. SIGHUP reads both files again."""
    cert_file: str = ""
    """The certificate and its chain to a root, as PEM; required while TLS is enabled."""
    key_file: str = ""
    """The certificate's private key, as PEM without a password; required while TLS is enabled."""

    @model_validator(mode="after")
    def depends(self) -> Self:
        """Require two readable files for an enabled TLS."""
        for key in ("cert_file", "key_file") if self.enabled else ():
            path = getattr(self, key)
            if not path or not os.access(path, os.R_OK):
                raise ValueError(f"enabled requires a readable file as {key}; got {path!r}")
        return self


class Api(Section):
    """pvc.api: the HTTP API"""

    listen_address: IPvAnyAddress
    """"0.0.0.0" means all interfaces."""
    listen_port: Port = 7370
    """The TCP port."""
    allowed_hosts: Annotated[tuple[HostName, ...], BeforeValidator(_list_of_nothing)] = ()
    """Names by which the API is reached, such as a proxy's. If the API listens on loopback, or authentication is
    disabled, or this list has a name, requests for any other name are refused, except IP addresses, localhost and the
    name of this machine."""
    authentication: Authentication
    ssl: Ssl

    @property
    def listens_on_loopback(self) -> bool:
        """True if only this machine can reach it."""
        return (getattr(self.listen_address, "ipv4_mapped", None) or self.listen_address).is_loopback


class NodeSection(Section):
    """pvc.node: this machine, for its node agent"""

    name: Name = Field(default_factory=lambda: socket.gethostname().split(".")[0])
    """Its name in the cluster; by default the host name up to the first dot."""
    coordinator: bool = True
    """If true, it may become the primary."""


class ZooKeeperSection(Section):
    """pvc.zookeeper: the connection to the ensemble that `coordinators` names"""

    chroot: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)*$")] = ""
    """The path below which all records are stored."""
    session_timeout: Annotated[float, Field(ge=1, le=120)] = 10.0
    """Seconds without contact after which a node shows as dead."""
    deadline: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """Seconds after which a request fails if ZooKeeper does not answer."""
    username: str | None = None
    """Digest authentication: if both are set, no other client can read or change the records."""
    password: str | None = Field(default=None, repr=False)
    """The password of `username`."""


class RedisSection(Section):
    """pvc.redis: the queue that wakes task workers, and the logs of tasks"""

    url: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^(redis|rediss|unix)://", repr=False)
    """The URL of Redis; may contain a password."""


class WorkerSection(Section):
    """pvc.worker: the task worker, which runs tasks such as the provisioning of VMs"""

    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """How many tasks a worker runs at the same time."""


class HooksSection(Section):
    """pvc.hooks: site hooks, the site's own programs that run before and after operations"""

    directory: Path = Path("/etc/pvc/hooks")
    """Their directory on a local disk, as <operation>.<phase>.d/NN-name."""
    records: Path = Path("/var/lib/pvcd/hooks")
    """Where each daemon of this machine keeps the records of runs; only its user can read them."""
    seconds: Seconds = 30.0
    """Seconds that one site hook may take."""
    phase_seconds: Seconds = 60.0
    """Seconds that all site hooks before one operation may take together."""
    limits: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+\.(pre|post|fail)$")], Seconds] = {}
    """Other limits than `seconds`, by operation and phase: `vm-remove.pre: 600`."""

    def limit(self, operation: str, phase: str) -> float:
        """Return how many seconds one site hook of an operation and phase may take."""
        return self.limits.get(f"{operation}.{phase}", self.seconds)


class PluginsSection(Section):
    """pvc.plugins: the plugins that are loaded besides the installed packages, and those that are not"""

    directories: Annotated[tuple[Path, ...], BeforeValidator(_list_of_nothing)] = ()
    """Directories in which each Python file or package is a plugin."""
    disabled: Annotated[frozenset[str], BeforeValidator(_list_of_nothing)] = frozenset()
    """The names of plugins that are not loaded."""
    required: Annotated[frozenset[str], BeforeValidator(_list_of_nothing)] = frozenset()
    """The names of plugins without which no daemon starts. Any other plugin that cannot be used is left out and named
    in the log. The built-in plugins are always required, unless they are disabled."""


class Pvc(Section):
    """pvc: the cluster"""

    debug: bool
    """Log more. Not for production."""
    coordinators: Annotated[tuple[Annotated[str, _with_port(2181)], ...], AfterValidator(_at_least_one)]
    """The ZooKeeper ensemble: one host for each coordinator, with a port if it is not 2181."""
    api: Api
    node: NodeSection = NodeSection()
    zookeeper: ZooKeeperSection = ZooKeeperSection()
    redis: RedisSection = RedisSection()
    worker: WorkerSection = WorkerSection()
    hooks: HooksSection = HooksSection()
    plugins: PluginsSection = PluginsSection()
    handlers_resync: Seconds = 30.0
    """Seconds after which a node reconciles every record again, even if nothing has changed."""

    def of(self, model: type[Model]) -> Model:
        """Return a plugin's own section, by the model that it declared."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, model):
                return value
        raise LookupError(f"no plugin declared the settings {model.__name__}")


Settings = Pvc


def settings_file() -> Path:
    """Return the file named by PVC_CONFIG_FILE, or the default."""
    return Path(os.environ.get("PVC_CONFIG_FILE") or DEFAULT_FILE)


def read_file(path: Path) -> dict[str, Any]:
    """Return the `pvc` section of a file, not yet checked."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError([f"Cannot read {path}: {error.strerror}."]) from error
    if len(text) > MAX_FILE_BYTES:
        raise SettingsError([f"Cannot read {path}: it is larger than {MAX_FILE_BYTES} bytes."])
    try:
        _refuse_excess(text)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError([f"{path} is not valid YAML: {_complaint(error)}."]) from None
    if not isinstance(document, dict) or not isinstance(document.get("pvc"), dict):
        raise SettingsError([f"{path} must hold a section 'pvc' with the settings."])
    strangers = [str(key) for key in document if key != "pvc"]
    if strangers:
        raise SettingsError(
            [f"{name}: unknown section of {path}; all settings belong below 'pvc'." for name in strangers]
        )
    values: dict[str, Any] = document["pvc"]
    return values


def _complaint(error: Exception) -> str:
    """Return the problem and its line number, without the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'it cannot be understood'}"


def _refuse_excess(text: bytes) -> None:
    """Raise `YAMLError` early for what no settings need and could keep a parser busy."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias *{event.anchor} is not allowed in settings"
        elif depth > MAX_DEPTH:
            problem = f"it is nested deeper than {MAX_DEPTH} levels"
        elif count > MAX_PARTS:
            problem = f"it has more than {MAX_PARTS} parts"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_VALUE:
            problem = f"a value has more than {MAX_VALUE} characters"
        else:
            continue
        mark: Any = event.start_mark
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def plugins_section(values: Mapping[str, Any]) -> PluginsSection:
    """Return the one section that is needed before the plugins are known."""
    try:
        return PluginsSection.model_validate(values.get("plugins") or {})
    except ValidationError as error:
        raise SettingsError(
            _sentence(detail, ("pvc", "plugins"), PluginsSection) for detail in error.errors()
        ) from None


def build(values: Mapping[str, Any], sections: Iterable[SettingsSection] = ()) -> Settings:
    """Return checked settings with the sections of plugins. Raises `SettingsError` with all mistakes at once."""
    extra: dict[str, Any] = {section.name: (section.model, ...) for section in sections}
    model = create_model("Pvc", __base__=Pvc, **extra)
    try:
        return model.model_validate({**dict.fromkeys(extra), **values})
    except ValidationError as error:
        raise SettingsError(_sentence(detail, ("pvc",), model) for detail in error.errors()) from None


def _sentence(detail: ErrorDetails, prefix: tuple[str, ...], model: type[BaseModel]) -> str:
    """Return one mistake as a sentence with its full path: `pvc.api.ssl.cert_file: ...`."""
    where = [str(part) for part in detail["loc"]]
    path = ".".join((*prefix, *where))
    match detail["type"]:
        case "missing":
            return f"{path}: this setting is required."
        case "extra_forbidden":
            section = _look_up(model, where[:-1]).section
            return f"{path}: unknown setting, {did_you_mean(where[-1], section.model_fields if section else ())}"
        case "value_error":
            return f"{path}: {detail['ctx']['error']}."
        case "tuple_type" | "list_type" | "frozen_set_type":
            return f"{path}: must be a list."
        case "model_type":
            return f"{path}: must be a section with settings below it."
        case _:
            given = f"; got {detail['input']!r:.60}" if _look_up(model, where).may_be_shown else ""
            return f"{path}: {detail['msg'][0].lower()}{detail['msg'][1:]}{given}."


@dataclass(frozen=True)
class _Setting:
    """The setting or section at a path of the file."""

    section: type[BaseModel] | None
    may_be_shown: bool


def _look_up(model: type[BaseModel], where: list[str]) -> _Setting:
    """Look up a path; a value in place of a section may be anything, so it must not be shown."""
    section: type[BaseModel] | None = model
    secret = False
    for part in where:
        field = section.model_fields.get(part) if section else None
        if field is not None:
            secret = secret or not field.repr
            kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
            section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return _Setting(section, may_be_shown=section is None and not secret)
