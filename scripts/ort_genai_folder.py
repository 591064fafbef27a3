"""Folders that onnxruntime-genai loads: our contrib graph under its names, or what its own model builder makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import graph
from backends.onnx.weights import WEIGHTS_FILE
from bench.types import Arch, Prepared

NATIVE = "native.onnx"
MODEL = "model.onnx"
CONFIG = "genai_config.json"
CACHES = {"past": "past_key_values.%d.", "present": "present.%d."}
BUILDER = ("onnxruntime_genai", "onnx_ir", "torch", "transformers")


def over_ours(prepared: Prepared, capacity: int, into: Path) -> None:
    """Make the folder `into` of what genai needs to execute the integers of `prepared`.

    The weights are the same file under a second name, so both lie in one file system: ONNX Runtime refuses symbolic
    links that lead out of the model's folder.
    """
    source, arch = Path(prepared.path), Arch.from_json(prepared.notes["arch"])
    into.mkdir()
    os.link(source / WEIGHTS_FILE, into / WEIGHTS_FILE)
    model = renamed(graph.load(source / NATIVE), prepared.notes["inv_freq"], capacity)
    (into / MODEL).write_bytes(model.SerializeToString())
    (into / CONFIG).write_text(json.dumps(config(arch), indent=1))


def renamed(ours: onnx.ModelProto, inv_freq: list[float], capacity: int) -> onnx.ModelProto:
    """The contrib graph `ours` with the inputs that genai fills: input_ids int64, attention_mask, past_key_values.L.

    What ours takes as inputs is computed as genai's builder does it: the last key and the number of keys from the
    mask, cos and sin as constants. All positions go through the head, as in the builder's graph.
    """
    angles = np.arange(capacity)[:, None] * np.array(inv_freq, np.float64)
    constants = {
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
        "mask/one": np.array(1),
        "mask/axis": np.array([1]),
    }
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "mask/axis"], ["mask/sum"], keepdims=0),
        helper.make_node("Sub", ["mask/sum", "mask/one"], ["mask/last"]),
        helper.make_node("Cast", ["mask/last"], ["last_key"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["mask/shape"]),
        helper.make_node("Gather", ["mask/shape", "mask/one"], ["mask/length"], axis=0),
        helper.make_node("Cast", ["mask/length"], ["key_count"], to=TensorProto.INT32),
    ]
    (rows,) = (node for node in ours.graph.node if "head_positions" in node.input)
    names = {rows.output[0]: rows.input[0]}
    inputs = [helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "length"])]
    for value in ours.graph.input:
        if value.name == "input_ids":
            value.type.tensor_type.elem_type = TensorProto.INT64
            inputs.append(value)
        elif value.name.startswith("past."):
            names[value.name] = value.name = value.name.replace("past.", "past_key_values.", 1)
            inputs.append(value)
    for node in ours.graph.node:
        if node is not rows:
            taken = [names.get(name, name) for name in node.input]
            del node.input[:]
            node.input.extend(taken)
            nodes.append(node)
    logits = next(value for value in ours.graph.output if value.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_param = "n"
    tensors = [*ours.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())]
    made = helper.make_graph(nodes, ours.graph.name, inputs, list(ours.graph.output), tensors)
    return helper.make_model(made, opset_imports=list(ours.opset_import), ir_version=ours.ir_version)


def config(arch: Arch) -> dict[str, Any]:
    """genai's description of the model. It wants a token that ends a sequence: the last of the vocabulary."""
    past, present = CACHES["past"], CACHES["present"]
    decoder = {
        "session_options": {"provider_options": []},
        "filename": MODEL,
        "head_size": arch.head_dim,
        "hidden_size": arch.hidden,
        "num_attention_heads": arch.heads,
        "num_hidden_layers": arch.layers,
        "num_key_value_heads": arch.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": past + "key",
            "past_value_names": past + "value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": present + "key",
            "present_value_names": present + "value",
        },
    }
    model = {
        "type": arch.family,
        **dict.fromkeys(("bos_token_id", "pad_token_id", "eos_token_id"), arch.vocab - 1),
        "context_length": arch.context,
        "vocab_size": arch.vocab,
        "decoder": decoder,
    }
    return {"model": model, "search": {}}


def build(arch: Arch, into: Path) -> None:
    """Let genai's own model builder write an int8 model of `arch` into `into`: random weights, everything its default.

    The checkpoint that the builder reads is made first, in float16, and removed at the end.
    """
    missing = [name for name in BUILDER if find_spec(name) is None]
    if missing:
        sys.exit(f"genai's model builder needs {', '.join(missing)}; first: pip install {' '.join(missing)}")
    checkpoint = into.with_name(into.name + ".checkpoint")
    write_checkpoint(arch, checkpoint)
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "int8", "-e", "cpu"]
    command += ["-i", str(checkpoint), "-o", str(into), "-c", str(checkpoint / "cache")]
    log = into.with_name(into.name + ".log")
    with log.open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
        )
    if done.returncode or not (into / CONFIG).exists():
        sys.exit(f"genai's model builder failed; see {log}")
    shutil.rmtree(checkpoint)


def write_checkpoint(arch: Arch, into: Path) -> None:
    """A checkpoint of `arch` as transformers writes it, with random weights, and a tokenizer of one word."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    if arch.rope_scaling:
        sys.exit("scaled rotary positions are not written for genai's model builder; without --built it takes ours")
    description = AutoConfig.for_model(
        arch.family,
        vocab_size=arch.vocab,
        hidden_size=arch.hidden,
        intermediate_size=arch.ffn,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_heads=arch.kv_heads,
        head_dim=arch.head_dim,
        max_position_embeddings=arch.context,
        rms_norm_eps=arch.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": arch.rope_theta},
        tie_word_embeddings=arch.tied,
        bos_token_id=arch.vocab - 1,
        eos_token_id=arch.vocab - 1,
        pad_token_id=arch.vocab - 1,
    )
    model = AutoModelForCausalLM.from_config(description, dtype=torch.float16)
    for name, numbers in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(numbers, std=0.02)  # as they begin, zeros, the builder would leave them out
    model.save_pretrained(into)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a", eos_token="a").save_pretrained(into)
