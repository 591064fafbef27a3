"""What can be asked for: models and schemes (models.toml), and workloads. Reads files, executes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import platformdirs

from bench.errors import UsageError, unknown_name
from bench.toml_file import line_of, read_toml
from bench.types import Arch, Family, RopeScaling, Workload

SCHEMES = ("int8", "int4", "fp16", "bf16")
"""Schemes that synthetic weights can be coded in; imported files bring their own names."""

PROJECT_MODELS = Path(__file__).with_name("models.toml")
"""The project's models: a link to models.toml at the root of a checkout, a copy of it in a wheel."""

Positive = Annotated[int, msgspec.Meta(gt=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0, lt=1e12)]


class RopeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rope_scaling` of one model, as written."""

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_context: Positive


class ModelTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table of models.toml, as written."""

    title: str | None = None
    hub: str | None = None
    params_b: PositiveFloat | None = None
    family: Family
    layers: Positive
    hidden: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    ffn: Positive
    vocab: Positive
    context: Positive
    rope_theta: PositiveFloat
    norm_eps: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    tied: bool
    rope_scaling: RopeTable | None = None

    def arch(self) -> Arch:
        numbers = {field.name: getattr(self, field.name) for field in fields(Arch)}
        if self.rope_scaling is not None:
            numbers["rope_scaling"] = RopeScaling(**msgspec.structs.asdict(self.rope_scaling))
        return Arch(**numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the catalog. `hub` says where real weights live; `params_b` is the published size in 1e9."""

    id: str
    title: str
    hub: str | None
    params_b: float | None
    arch: Arch
    file: Path


class Resolved(NamedTuple):
    """What MODEL-SCHEME names."""

    model: str
    scheme: str
    arch: Arch
    definition_hash: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models that can be asked for, by id; or the one that a file holds, whatever its name."""

    models: Mapping[str, Model]
    file: Resolved | None = None

    def resolve(self, name: str) -> Resolved:
        """`deepseek-7b-int8` as model, scheme and architecture; UsageError with the nearest names otherwise."""
        if self.file is not None:
            return self.file
        remedy = "`bench list models` shows all"
        model, _, scheme = name.rpartition("-")
        if name in self.models:
            raise UsageError(
                f"{name!r} names no scheme", cause=f"schemes: {', '.join(SCHEMES)}", remedy=f"write {name}-{SCHEMES[0]}"
            )
        if model in self.models and scheme not in SCHEMES:
            raise unknown_name("scheme", scheme, SCHEMES, where=name, remedy=f"write {model}-{SCHEMES[0]}")
        if model not in self.models:
            whole = (f"{known}-{scheme}" for known in self.models) if scheme in SCHEMES else self.models
            raise unknown_name("model", name, whole, remedy=remedy)
        arch = self.models[model].arch
        return Resolved(model, scheme, arch, definition_hash(arch))


def load_catalog(extra: Iterable[Path] = ()) -> Catalog:
    """The project's models, then the user's, then those of `extra` files (`--models`); a later definition wins.

    UsageError with file, line and key for a file that is missing, malformed or out of range.
    """
    user = platformdirs.user_config_path("evenbench") / "models.toml"
    files = [PROJECT_MODELS, *([user] if user.is_file() else []), *extra]
    models: dict[str, Model] = {}
    for file in files:
        models.update(_read_models(file))
    return Catalog(models)


def definition_hash(arch: Arch) -> str:
    """16 hex digits of the architecture numbers: two definitions of one id are told apart by it."""
    return hashlib.sha256(json.dumps(asdict(arch), sort_keys=True).encode()).hexdigest()[:16]


def parameters(arch: Arch) -> int:
    """Number of weights, biases and norms that the architecture adds up to."""
    embedding = arch.vocab * arch.hidden
    return embedding * (1 if arch.tied else 2) + arch.layers * layer_parameters(arch) + arch.hidden


def layer_parameters(arch: Arch) -> int:
    """Number of weights, biases and norms of one layer."""
    projections = arch.hidden * (2 * arch.q_rows + 2 * arch.kv_rows + 3 * arch.ffn)
    biases = arch.q_rows + 2 * arch.kv_rows if arch.qkv_bias else 0
    norms = 2 * arch.hidden + (2 * arch.head_dim if arch.qk_norm else 0)
    return projections + biases + norms


def _read_models(path: Path) -> dict[str, Model]:
    text, tables = read_toml(path, remedy="give --models a TOML file")
    return {model_id: _read_model(path, text, model_id, table) for model_id, table in tables.items()}


def _read_model(path: Path, text: str, model_id: str, table: Any) -> Model:
    def wrong(what: str, key: str | None = None, **more: str) -> UsageError:
        line = line_of(text, model_id, key)
        where = f"{path}:{line}" if line else str(path)
        return UsageError(what, where=f"{where}: [{model_id}]" + (f" {key}" if key else ""), **more)

    if not isinstance(table, dict):
        raise wrong("a model is a table", remedy=f"write [{model_id}] above its keys")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", model_id):
        raise wrong("a model id has lower-case letters, digits, '.', '_' and '-' only")
    if model_id.rpartition("-")[2] in SCHEMES:
        raise wrong("a model id ends in no scheme", cause="MODEL-SCHEME could not be told apart")
    if all(isinstance(value, dict) for value in table.values()):
        inner = next(iter(table), "")
        raise wrong("has no keys of its own", cause="a dot in an id", remedy=f'write ["{model_id}.{inner}"] in quotes')
    known = {field.name for field in msgspec.structs.fields(ModelTable)}
    for key in table:
        if key not in known:
            error = unknown_name("key", key, known)
            raise wrong(error.what, key, cause=str(error.cause))
    try:
        written = msgspec.convert(table, ModelTable)
    except msgspec.ValidationError as error:
        key_of = re.search(r"`\$\.(\w+)", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise wrong(str(error), key_of[1] if key_of else None) from error
    problem = _inconsistent(written)
    if problem:
        raise wrong(problem[1], problem[0])
    return Model(
        id=model_id,
        title=written.title or model_id,
        hub=written.hub,
        params_b=written.params_b,
        arch=written.arch(),
        file=path,
    )


def _inconsistent(table: ModelTable) -> tuple[str, str] | None:
    """(key, what is wrong) of numbers that do not fit together."""
    for key, size in (("hidden", table.hidden), ("ffn", table.ffn), ("head_dim", table.heads * table.head_dim)):
        if size % 32:
            name = "heads × head_dim" if key == "head_dim" else key
            return key, f"{name} = {size} is no multiple of 32, the size of a quantization group"
    if table.head_dim % 2:
        return "head_dim", f"{table.head_dim} is odd, but rotary positions turn pairs"
    if table.heads % table.kv_heads:
        return "kv_heads", f"{table.heads} heads cannot share {table.kv_heads} KV heads evenly"
    size_b = parameters(table.arch()) / 1e9
    if table.params_b is not None and abs(table.params_b / size_b - 1) > 0.01:
        return "params_b", f"{table.params_b} is not what the architecture adds up to, {size_b:.3f}"
    return None


NAMED_WORKLOADS = {"chat": (512, 128), "rag": (3072, 512), "reasoning": (256, 3072)}
"""Prompt and new tokens of the workloads that have a name."""

WORKLOAD_EXAMPLES = ("pp512", "tg128", "pp512+tg128", *NAMED_WORKLOADS, "512/128", "tg128@d4096", "pp512x4")

_N = "[0-9]{1,10}"
_SIZES = re.compile(rf"(?P<named>[a-z]+)|(?P<prompt>{_N})/(?P<new>{_N})|(?:pp(?P<pp>{_N}))?\+?(?:tg(?P<tg>{_N}))?")
_WORKLOAD = re.compile(rf"(?P<sizes>[^@ x]+)(?: ?@ ?d(?P<depth>{_N}))?(?: ?x(?P<batch>{_N}))?")
_MOST = 10**9


def parse_workload(text: str, chunk: int = 512) -> Workload:
    """A workload from `NAME[@dDEPTH][xBATCH]`; llama-bench's `pp512 @ d4096` is the same as `pp512@d4096`.

    NAME is ppN, tgN, ppN+tgN, chat, rag, reasoning or IN/OUT. UsageError with examples on anything else.
    """
    if chunk < 1:
        raise UsageError(f"a chunk of {chunk} tokens", remedy="give at least 1")
    found = _WORKLOAD.fullmatch(text.strip())
    sizes = _SIZES.fullmatch(found["sizes"]) if found else None
    if not found or not sizes:
        raise _unknown_workload(text)
    depth, batch = int(found["depth"] or 0), int(found["batch"] or 1)
    name, prompt, new = _lengths(text, sizes)
    if batch < 1:
        raise UsageError("batch 0", where=f"workload {text!r}", remedy=f"write {name} or {name}x4")
    if max(depth, batch, prompt, new) > _MOST:
        raise UsageError("a number above 1e9", where=f"workload {text!r}")
    return Workload(
        name=name + (f"@d{depth}" if depth else "") + (f"x{batch}" if batch > 1 else ""),
        prompt_tokens=prompt,
        new_tokens=new,
        depth=depth,
        batch=batch,
        chunk=chunk,
        first_id_from_prompt=sizes["pp"] is None and sizes["tg"] is None,
    )


def _lengths(text: str, sizes: re.Match[str]) -> tuple[str, int, int]:
    """(canonical name, prompt tokens, new tokens)."""
    if sizes["named"] in NAMED_WORKLOADS:
        return sizes["named"], *NAMED_WORKLOADS[sizes["named"]]
    given = [int(number) for key in ("prompt", "new", "pp", "tg") if (number := sizes[key]) is not None]
    if 0 in given:
        raise UsageError("0 tokens", where=f"workload {text!r}", remedy="write at least 1, or leave that part out")
    if sizes["prompt"]:
        prompt, new = given
        return f"{prompt}/{new}", prompt, new
    prompt, new = int(sizes["pp"] or 0), int(sizes["tg"] or 0)
    parts = [f"pp{prompt}"] * bool(prompt) + [f"tg{new}"] * bool(new)
    name = "+".join(parts)
    if not parts or ("+" in sizes[0]) != ("+" in name):
        raise _unknown_workload(text)
    return name, prompt, new


def _unknown_workload(text: str) -> UsageError:
    near = get_close_matches(text, WORKLOAD_EXAMPLES)
    return UsageError(
        f"unknown workload {text!r}",
        cause=f"nearest: {', '.join(near)}" if near else None,
        remedy=f"write one like {', '.join(WORKLOAD_EXAMPLES)}",
    )
