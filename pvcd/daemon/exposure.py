"""Exposure: what settings leave open to others, in sentences for `pvcd check` and for the log of each daemon."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pvcd.settings import Api, PluginsSection, Settings

GOOD_KEY_CHARACTERS = 32
GOOD_TOKEN_CHARACTERS = 20


def warnings(settings: Settings, file: Path) -> list[str]:
    """Return a sentence for each thing that is open or easily guessed; `file` holds the settings."""
    return [*_api(settings.api), *_servers(settings), *_files(settings.api, file), *_plugins(settings.plugins)]


def _api(api: Api) -> Iterator[str]:
    authentication = api.authentication
    if not authentication.enabled:
        if not api.listens_on_loopback:
            yield (
                f"pvc.api listens on {api.listen_address} without authentication: "
                f"everyone who can reach port {api.listen_port} controls the cluster."
            )
        return
    if len(authentication.secret_key) < GOOD_KEY_CHARACTERS:
        yield f"pvc.api.authentication.secret_key should have at least {GOOD_KEY_CHARACTERS} random characters."
    short = [
        place for place, each in enumerate(authentication.tokens, 1) if 0 < len(each.token) < GOOD_TOKEN_CHARACTERS
    ]
    for place in short:
        yield (
            f"Token {place} of pvc.api.authentication.tokens should have at least {GOOD_TOKEN_CHARACTERS} "
            "random characters."
        )


def _servers(settings: Settings) -> Iterator[str]:
    zookeeper, redis = settings.zookeeper, urlsplit(settings.redis.url)
    if not (zookeeper.username and zookeeper.password):
        yield (
            "pvc.zookeeper has no username and password: "
            "everyone who can reach ZooKeeper can read and change all records."
        )
    if redis.scheme != "unix" and not (redis.password or "password" in parse_qs(redis.query)):
        yield "pvc.redis.url has no password: everyone who can reach Redis can read task logs and wake task workers."


def _files(api: Api, file: Path) -> Iterator[str]:
    """Look at the modes of files with secrets. A group is allowed to read them: it is chosen, as `ssl-cert` is."""
    for each in (file, Path(api.ssl.key_file)) if api.ssl.enabled else (file,):
        if _mode(each) & (stat.S_IROTH | stat.S_IWOTH):
            yield f"{each} holds secrets, but every user of this machine can open it: run chmod o= {each}."


def _plugins(section: PluginsSection) -> Iterator[str]:
    for directory in section.directories:
        for each in (directory, *directory.iterdir()) if directory.is_dir() else ():
            if _mode(each) & stat.S_IWOTH:
                yield (
                    f"{each} holds plugins, which run with all rights of the daemons, "
                    f"but every user of this machine can change it: run chmod o-w {each}."
                )


def _mode(path: Path) -> int:
    """Return the mode of a file; 0 if there is none, as at the end of a broken link."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
