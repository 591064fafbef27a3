"""models.toml, MODEL-SCHEME, and the grammar of workloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import spec
from bench.errors import UsageError
from bench.spec import PROJECT_MODELS, definition_hash, load_catalog, parameters, parse_workload
from bench.toml_file import tomllib

CATALOG = spec.Catalog(spec._read_models(PROJECT_MODELS))

GOOD = """
[tiny]
params_b = 0.00014
family = "llama"
layers = 2
hidden = 64
heads = 4
kv_heads = 2
head_dim = 16
ffn = 128
vocab = 1024
context = 2048
rope_theta = 1e4
norm_eps = 1e-5
tied = true
"""


@pytest.fixture(autouse=True)
def no_user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "config")
    return tmp_path / "config"


def read(tmp_path: Path, text: str) -> spec.Catalog:
    (tmp_path / "more.toml").write_text(text)
    return load_catalog([tmp_path / "more.toml"])


def test_every_model_adds_up_to_its_published_size() -> None:
    assert len(CATALOG.models) == 20
    for model in CATALOG.models.values():
        assert model.params_b == pytest.approx(parameters(model.arch) / 1e9, abs=6e-4), model.id


def test_parameters_of_a_hand_counted_model() -> None:
    arch = replace(CATALOG.models["qwen2.5-0.5b"].arch, layers=1, hidden=32, heads=2, kv_heads=1, head_dim=16, ffn=64)
    arch = replace(arch, vocab=100, tied=False)
    attention = 32 * (32 + 16 + 16 + 32) + (32 + 16 + 16)
    assert parameters(arch) == 2 * 100 * 32 + attention + 3 * 32 * 64 + 2 * 32 + 32
    assert parameters(replace(arch, family="qwen3")) == parameters(arch) - 64 + 2 * 16


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        ("deepseek-1.5b", {"rope_theta": 1e4, "tied": False, "context": 131072}),
        ("deepseek-7b", {"rope_theta": 1e4, "tied": False, "context": 131072, "norm_eps": 1e-6}),
        ("deepseek-14b", {"rope_theta": 1e6, "norm_eps": 1e-5}),
        ("qwen2.5-1.5b", {"rope_theta": 1e6, "tied": True}),
        ("qwen3-0.6b", {"head_dim": 128, "hidden": 1024, "heads": 16}),
        ("qwen3-4b", {"head_dim": 128, "hidden": 2560, "heads": 32}),
        ("deepseek-llm-7b", {"family": "llama", "vocab": 102400, "context": 4096}),
    ],
)
def test_the_traps_of_the_published_configurations(model: str, numbers: dict[str, object]) -> None:
    arch = CATALOG.models[model].arch
    assert {name: getattr(arch, name) for name in numbers} == numbers


def test_llama3_scaling_is_on_exactly_the_llama3_models() -> None:
    scaled = {model.id: model.arch.rope_scaling for model in CATALOG.models.values() if model.arch.rope_scaling}
    assert set(scaled) == {"deepseek-8b", "deepseek-70b", "llama3.1-8b", "llama3.1-70b"}
    for scaling in scaled.values():
        assert (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor) == (8, 1, 4)
        assert scaling.original_context == 8192


def test_the_file_beside_the_code_is_the_one_at_the_root() -> None:
    root = Path(spec.__file__).parents[1] / "models.toml"
    assert PROJECT_MODELS.resolve() == root
    pyproject = tomllib.loads((root.parent / "pyproject.toml").read_text())
    assert PROJECT_MODELS.name in pyproject["tool"]["setuptools"]["package-data"]["bench"]


def test_resolve() -> None:
    model, scheme, arch, digest = CATALOG.resolve("deepseek-7b-int8")
    assert (model, scheme, arch.layers) == ("deepseek-7b", "int8", 28)
    assert digest == definition_hash(arch) != definition_hash(replace(arch, norm_eps=1e-5))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepsek-7b-int8", "deepseek-7b-int8"),
        ("deepseek-7b", "write deepseek-7b-int8"),
        ("deepseek-7b-int9", "int8, int4"),
        ("zzz", "bench list models"),
        ("", "bench list models"),
    ],
)
def test_unknown_models_and_schemes_suggest_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CATALOG.resolve(name)


def test_a_users_file_adds_and_overrides(tmp_path: Path, no_user_file: Path) -> None:
    no_user_file.mkdir()
    (no_user_file / "models.toml").write_text(GOOD)
    assert load_catalog().resolve("tiny-int4").arch.hidden == 64
    catalog = read(tmp_path, GOOD.replace("layers = 2", "layers = 3").replace("params_b = 0.00014\n", ""))
    assert catalog.models["tiny"].arch.layers == 3
    assert "deepseek-7b" in catalog.models


def test_malformed_toml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"more\.toml:3: malformed TOML"):
        read(tmp_path, "\n[tiny]\nlayers = = 2\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("layers = 2", 'layers = "2"', r"more\.toml:5: \[tiny\] layers: Expected `int`, got `str`"),
        ("layers = 2", "layers = 0", r"more\.toml:5: \[tiny\] layers: .*>= 1"),
        ("layers = 2", "layres = 2", r"more\.toml:5: \[tiny\] layres: unknown key 'layres' \(nearest: layers\)"),
        ("layers = 2\n", "", r"more\.toml:2: \[tiny\] layers: .*missing required field"),
        ("hidden = 64", "hidden = 65", r"more\.toml:6: \[tiny\] hidden: .*multiple of 32"),
        ("heads = 4", "heads = 3", r"more\.toml:8: \[tiny\] kv_heads|more\.toml:9: \[tiny\] head_dim"),
        ("kv_heads = 2", "kv_heads = 3", r"more\.toml:8: \[tiny\] kv_heads: 4 heads cannot share 3"),
        ("head_dim = 16", "head_dim = 17", r"more\.toml:9: \[tiny\] head_dim"),
        ("params_b = 0.00014", "params_b = 0.2", r"more\.toml:3: \[tiny\] params_b: 0.2 is not"),
        ("rope_theta = 1e4", "rope_theta = nan", r"more\.toml:13: \[tiny\] rope_theta"),
        ('family = "llama"', 'family = "gpt"', r"more\.toml:4: \[tiny\] family"),
        ("tied = true", "rope_scaling = { factor = 8.0 }\ntied = true", r"more\.toml:15: \[tiny\] rope_scaling"),
        (
            "tied",
            "rope_scaling = { fctor = 8.0 }\ntied",
            r"more\.toml:15: \[tiny\] rope_scaling: .*unknown field `fctor`",
        ),
        ("[tiny]", "[tiny-int8]", r"ends in no scheme"),
        ("[tiny]", "[Tiny]", r"lower-case"),
        ("[tiny]", "[tiny.b]", r'write \["tiny\.b"\] in quotes'),
        ("[tiny]", "tiny = 3\n[other]", r"\[tiny\]: a model is a table"),
    ],
)
def test_wrong_values_name_file_line_table_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert read(tmp_path, GOOD).models["tiny"].title == "tiny"
    with pytest.raises(UsageError, match=said):
        read(tmp_path, GOOD.replace(old, new, 1))


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_catalog([tmp_path / "absent.toml"])
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        load_catalog([tmp_path / "bytes.toml"])


@pytest.mark.parametrize(
    ("text", "name", "prompt", "new", "depth", "batch", "steps", "positions"),
    [
        ("pp512", "pp512", 512, 0, 0, 1, 0, 512),
        ("tg128", "tg128", 0, 128, 0, 1, 128, 128),
        ("pp512+tg128", "pp512+tg128", 512, 128, 0, 1, 128, 640),
        ("chat", "chat", 512, 128, 0, 1, 127, 639),
        ("rag", "rag", 3072, 512, 0, 1, 511, 3583),
        ("reasoning", "reasoning", 256, 3072, 0, 1, 3071, 3327),
        ("512/128", "512/128", 512, 128, 0, 1, 127, 639),
        ("8/1", "8/1", 8, 1, 0, 1, 0, 8),
        ("tg128@d4096", "tg128@d4096", 0, 128, 4096, 1, 128, 4224),
        ("pp512 @ d4096", "pp512@d4096", 512, 0, 4096, 1, 0, 4608),
        ("pp512x4", "pp512x4", 512, 0, 0, 4, 0, 512),
        (" tg064@d0x1 ", "tg64", 0, 64, 0, 1, 64, 64),
        ("chat@d16x2", "chat@d16x2", 512, 128, 16, 2, 127, 655),
    ],
)
def test_workloads(
    text: str, name: str, prompt: int, new: int, depth: int, batch: int, steps: int, positions: int
) -> None:
    workload = parse_workload(text, chunk=64)
    assert (workload.name, workload.prompt_tokens, workload.new_tokens) == (name, prompt, new)
    assert (workload.depth, workload.batch, workload.chunk) == (depth, batch, 64)
    assert (workload.decode_steps, workload.positions) == (steps, positions)
    assert parse_workload(workload.name, chunk=64) == workload


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pp512x0", "batch 0"),
        ("pp0", "0 tokens"),
        ("pp0+tg8", "0 tokens"),
        ("512/0", "0 tokens"),
        ("caht", "nearest: chat"),
        ("pp512tg128", r"nearest: pp512\+tg128"),
        ("pp9999999999", "above 1e9"),
        ("pp" + "9" * 5000, "unknown workload"),
        *((text, "write one like pp512") for text in ("", "pp", "+", "+tg5", "pp5+", "tg5+pp5", "x4", "@d5", "pp-5")),
        *((text, "write one like pp512") for text in ("pp٣", "5/", "pp5@4096", "pp5x4@d5", "pp5 tg5", "pp5\ntg5")),
    ],
)
def test_nonsense_workloads(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_workload(text)


def test_chunk_must_be_positive() -> None:
    with pytest.raises(UsageError, match="chunk of 0"):
        parse_workload("pp512", chunk=0)
