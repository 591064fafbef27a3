"""How others' compilers are called, each from what its maker or its users published; nobody here has executed one."""

from __future__ import annotations

from typing import NamedTuple


class Vendor(NamedTuple):
    """A compiler by name, how it is called for the graph GRAPH.onnx, what to know."""

    name: str
    call: str
    note: str


VENDORS = (
    Vendor(
        "Ascend, ATC",
        "atc --model=GRAPH.onnx --framework=5 --output=GRAPH --soc_version=Ascend310P3 --input_format=ND "
        "--precision_mode=must_keep_origin_dtype",
        "soc_version is your chip's. Its operators have no DequantizeLinear: opset17. The manual of CANN 8.0 names "
        "opsets 11 to 15; the graph of opset17 has no operator that is newer than opset 16. Where a type is refused: "
        "--precision_mode=allow_mix_precision.",
    ),
    Vendor(
        "Cambricon, MagicMind",
        """import magicmind.python.runtime as mm
from magicmind.python.runtime.parser import Parser
network, config = mm.Network(), mm.BuilderConfig()
assert Parser(mm.ModelKind.kOnnx).parse(network, "GRAPH.onnx").ok()
assert config.parse_from_string('{"precision_config": {"precision_mode": "force_float16"}}').ok()
assert mm.Builder().build_model("GRAPH", network, config).serialize_to_file("GRAPH.mm").ok()""",
        "Python. force_float32 is the other mode; `archs` in the configuration chooses the chip.",
    ),
    Vendor(
        "Iluvatar, IxRT",
        "ixrtexec --onnx GRAPH.onnx --precision fp16 --save_engine GRAPH.engine",
        "Dynamic graphs also want --min_shape, --opt_shape and --max_shape, each NAME:1x2x3,…",
    ),
    Vendor(
        "Enflame, TopsInference",
        """import TopsInference
with TopsInference.device(0, 0):
    network = TopsInference.create_parser(TopsInference.ONNX_MODEL).read("GRAPH.onnx")
    optimizer = TopsInference.create_optimizer()
    optimizer.set_build_flag(TopsInference.KFP16_MIX)
    optimizer.build(network).save_executable("GRAPH.exec")""",
        "Python. KDEFAULT and KFP16 are the other flags.",
    ),
    Vendor(
        "Rockchip, RKNN-Toolkit2",
        """from rknn.api import RKNN
rknn = RKNN()
rknn.config(target_platform="rk3588")
assert rknn.load_onnx(model="GRAPH.onnx") == 0
assert rknn.build(do_quantization=False) == 0
assert rknn.export_rknn("GRAPH.rknn") == 0""",
        "Python, on x86.",
    ),
    Vendor(
        "Sophgo, TPU-MLIR",
        "model_transform.py --model_name GRAPH --model_def GRAPH.onnx --mlir GRAPH.mlir\n"
        "model_deploy.py --mlir GRAPH.mlir --quantize F16 --chip bm1684x --model GRAPH.bmodel",
        "Newer releases call --chip --processor.",
    ),
    Vendor(
        "AMD, MIGraphX",
        "migraphx-driver compile --onnx GRAPH.onnx --gpu --binary --output GRAPH.mxr",
        "Its documents name opset 19 as the newest: opset17.",
    ),
)
UNKNOWN = ("Hygon", "Kunlunxin", "MetaX", "Moore Threads", "Biren")
"""Of whose compilers no public command line was found; some have a provider of ONNX Runtime."""
