"""What must not leave the machine: host names, serial numbers, user names, home folders, environment, tokens. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bench.results.record import Record, decode

_NAMES = re.compile(r"(?i)^(hostname|host_?name|node|fqdn|domain|user|user_?name|login|operator)$")
_NUMBERS = re.compile(r"(?i)(^|_)(serial(_?(number|no))?|uuid|asset_tag|machine_id|(mac|ip|ipv4|ipv6)(_address)?)$")
_ENVIRONMENT = re.compile(r"(?i)^(env|environ|environment)$")
_NAMES_NOBODY = frozenset({"root", "localhost", "none", "unknown"})

_HOME = re.compile(r"(?<![\w.])(/home/|/Users/|/var/home/|[A-Za-z]:\\Users\\)[^/\\\s'\":;,]+")
_ROOTS_HOME = re.compile(r"(?<![\w./])/root(?=[/\s'\":;,]|$)")
_FOLDERS = re.compile(r"(?<![\w.~…/])(/|[A-Za-z]:\\)([^/\\\s'\":;,]+[/\\])+")
_ASSIGNMENT = re.compile(r"(?<![\w-])([A-Z][A-Z0-9_]{2,})=(\"[^\"]*\"|'[^']*'|\S+)")
_TOKEN = re.compile(r"\b(hf_|ghp_|gho_|github_pat_|glpat-|sk-|xox[bap]-)[A-Za-z0-9_-]{8,}")
_SECRET_FLAG = re.compile(r"(?i)(--[a-z-]*(?:token|password|secret|api-key)[= ])\S+")

_CLAIMED = (
    *("reason", "covariates", "info", "facts", "warnings", "energy", "load", "memory", "gate", "source"),
    *("conditions", "collector"),
)


def redact(record: Record) -> Record:
    """`record` without what tells whose machine it was; ids and keys stay, so its series does not break.

    Keys named like a host, user, serial number or environment are dropped, and their values vanish from every text.
    The devices' uuids go as well, after which `series_key` can no longer be recomputed: `info.redacted` says so.
    """
    raw = record.raw()
    secrets = secrets_of(record)
    for name in _CLAIMED:
        if name in raw:
            raw[name] = _redacted(raw[name], secrets)
    # nothing but paths and numbers in the identity: a user called `onnx` must not rename the backend
    raw["identity"] = _redacted(raw["identity"], frozenset())
    raw["info"] = _without_folders(raw["info"])
    raw["info"]["redacted"] = True
    return decode(msgspec.json.encode(raw))  # the path would tell whose home the store lies in


def secrets_of(record: Record) -> frozenset[str]:
    """Host names, user names and serial numbers that the record names, for `redact_text` of its launch's log."""
    found: set[str] = set()
    _collect(record.raw(), found)
    for text in _texts(record.raw()):
        found.update(home[0].replace("\\", "/").rsplit("/", 1)[1] for home in _HOME.finditer(text))
    return frozenset(name for name in found if len(name) >= 3 and name.lower() not in _NAMES_NOBODY)


def redact_text(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """`text` without home folders, values of environment variables, access tokens and the given `secrets`."""
    text = _HOME.sub("~", text)
    text = _ROOTS_HOME.sub("~", text)
    text = _TOKEN.sub("[redacted]", text)
    text = _SECRET_FLAG.sub(r"\1[redacted]", text)
    text = _ASSIGNMENT.sub(r"\1=[redacted]", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "[redacted]", text)
    return text


def _redacted(value: Any, secrets: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {redact_text(name, secrets): _redacted(v, secrets) for name, v in value.items() if not _hidden(name)}
    if isinstance(value, list):
        return [_redacted(item, secrets) for item in value]
    return redact_text(value, secrets) if isinstance(value, str) else value


def _without_folders(value: Any) -> Any:
    """Of absolute paths the last name: folders outside of homes tell of their owner too."""
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return _FOLDERS.sub("…/", value) if isinstance(value, str) else value


def _hidden(name: str) -> bool:
    return bool(_NAMES.search(name) or _NUMBERS.search(name) or _ENVIRONMENT.search(name))


def _collect(value: Any, found: set[str], named: bool = False) -> None:
    """Strings under keys that name a host, a user or a number; environments hold too many ordinary words."""
    if isinstance(value, dict):
        for name, item in value.items():
            _collect(item, found, named or bool(_NAMES.search(name) or _NUMBERS.search(name)))
    elif isinstance(value, list):
        for item in value:
            _collect(item, found, named)
    elif named and isinstance(value, str):
        found.add(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
