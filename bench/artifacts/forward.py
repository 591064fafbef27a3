"""The float32 reference: one causal pass in numpy over the codes, every precision class beside it as further rows.

Weights are read once, a range of rows at a time, for all classes together: memory stays bounded whatever the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bench.api import Artifact, Codes, Progress, row_ranges
from bench.artifacts.noise import PrecisionClass, mixed_f16
from bench.types import Float32, Int32

WEIGHT_BYTES = 48 << 20  # float32 weights in memory at once
SCORE_BYTES = 64 << 20  # attention scores in memory at once
Observe = Callable[[int, Float32, Float32], None]
"""Called with each layer and its keys and values [positions, kv_heads, head_dim] of the first class, as attention reads
them."""


def forward(
    artifact: Artifact,
    ids: Int32,
    classes: Sequence[str] = ("f32",),
    keep: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Float32]:
    """Logits [positions, vocab] of `ids` [positions] by precision class, of the last `keep` positions or of all."""
    blocks = list(logit_blocks(artifact, ids, classes, keep, progress))
    return {name: np.concatenate([block[i] for block in blocks], axis=-1) for i, name in enumerate(classes)}


def logit_blocks(
    artifact: Artifact,
    ids: Int32,
    classes: Sequence[str],
    keep: int | None = None,
    progress: Progress | None = None,
    observe: Observe | None = None,
) -> Iterator[Float32]:
    """The logits of `forward`, [classes, positions, some rows of the vocabulary] at a time, in order.

    `progress` counts weights (numbers, not bytes).
    """
    yield from _Pass(artifact, ids, classes, progress, observe).logits(keep)


class _Pass:
    """One pass: hidden states are [classes, positions, hidden]."""

    def __init__(
        self,
        artifact: Artifact,
        ids: Int32,
        classes: Sequence[str],
        progress: Progress | None,
        observe: Observe | None,
    ):
        self.artifact, self.arch = artifact, artifact.arch
        self.classes = [PrecisionClass(name) for name in classes]
        self.head = "token_embd.weight" if self.arch.tied else "output.weight"
        self.hidden = self._activations(self._embedded(ids))
        angles = np.outer(np.arange(len(ids)), artifact.inv_freq())
        self.cos, self.sin = (turn(angles).astype(np.float32)[:, None, :] for turn in (np.cos, np.sin))
        self._progress, self._done, self._observe = progress, 0, observe
        names = [*artifact.names(), *([self.head] if self.arch.tied else [])]
        matrices = [shape for shape in (artifact.tensor(name).shape for name in names) if len(shape) == 2]
        self._total = sum(rows * columns for rows, columns in matrices[1:])

    def logits(self, keep: int | None) -> Iterator[Float32]:
        for layer in range(self.arch.layers):
            self._layer(layer)
        hidden = self.hidden if keep is None else self.hidden[:, -keep:]
        normed = self._normed(hidden, "output_norm.weight")
        for _, block in self._products(self.head, self._linear_inputs(normed)):
            yield self._activations(self._product_results(block))

    def _layer(self, layer: int) -> None:
        arch, prefix = self.arch, f"blk.{layer}."
        normed = self._linear_inputs(self._normed(self.hidden, prefix + "attn_norm.weight"))
        query, key, value = (
            self._head_rows(prefix + kind, normed, heads)
            for kind, heads in (("attn_q", arch.heads), ("attn_k", arch.kv_heads), ("attn_v", arch.kv_heads))
        )
        query, key, value = self._rotated(query), self._cached(self._rotated(key)), self._cached(value)
        if self._observe:
            self._observe(layer, key[0], value[0])
        mixed = self._attention(query, key, value)
        self._add(self._linear(prefix + "attn_output", self._linear_inputs(mixed)))
        normed = self._linear_inputs(self._normed(self.hidden, prefix + "ffn_norm.weight"))
        gate, up = (self._linear(prefix + kind, normed) for kind in ("ffn_gate", "ffn_up"))
        product = self._activations(self._activations(_silu(gate)) * up)
        self._add(self._linear(prefix + "ffn_down", self._linear_inputs(product)))

    def _embedded(self, ids: Int32) -> Float32:
        table = self.artifact.tensor("token_embd.weight")
        rows = np.concatenate([table.values(i, i + 1) for i in ids.tolist()])
        return np.repeat(rows[None], len(self.classes), axis=0)

    def _head_rows(self, name: str, normed: Float32, heads: int) -> Float32:
        """[classes, positions, heads, head_dim] of Q, K or V, with bias and per-head norm where the family has them."""
        rows = self._linear(name, normed)
        if self.arch.qkv_bias:
            rows = self._activations(rows + self.artifact.tensor(name + ".bias").values())
        rows = rows.reshape(*rows.shape[:2], heads, self.arch.head_dim)
        if self.arch.qk_norm and not name.endswith("attn_v"):
            rows = self._normed(rows, name + "_norm.weight")
        return rows

    def _rotated(self, rows: Float32) -> Float32:
        first, second = np.split(rows, 2, axis=-1)
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return self._activations(np.concatenate(turned, axis=-1))

    def _attention(self, query: Float32, key: Float32, value: Float32) -> Float32:
        """[classes, positions, heads × head_dim]: causal, a block of queries at a time."""
        arch = self.arch
        classes, positions = query.shape[:2]
        grouped = (classes, positions, arch.kv_heads, arch.heads // arch.kv_heads, arch.head_dim)
        query = self._attention_inputs(query.reshape(grouped).transpose(0, 2, 3, 1, 4))
        query = query * np.float32(arch.head_dim**-0.5)
        key = key.transpose(0, 2, 3, 1)[:, :, None]
        value = value.transpose(0, 2, 1, 3)[:, :, None]
        mixed = np.empty_like(query)
        for start, stop in row_ranges(positions, 4 * classes * arch.heads * positions, SCORE_BYTES):
            scores = self._activations(self._product_results(query[..., start:stop, :] @ key[..., :stop]))
            scores += np.triu(np.full((stop - start, stop), -np.inf, np.float32), k=start + 1)
            summed = {
                index: mixed_f16(scores[index], value[index, ..., :stop, :])
                for index, each in enumerate(self.classes)
                if each.sums_f16
            }
            weights = self._attention_inputs(self._activations(_softmax(scores)))
            mixed[..., start:stop, :] = weights @ value[..., :stop, :]
            for index, rows in summed.items():
                mixed[index, ..., start:stop, :] = rows
        mixed = self._product_results(mixed)
        return self._activations(mixed.transpose(0, 3, 1, 2, 4).reshape(classes, positions, arch.q_rows))

    def _linear(self, name: str, inputs: Float32) -> Float32:
        """[classes, positions, rows] the product of `inputs` with the matrix `name`, without its bias."""
        rows = self.artifact.tensor(name + ".weight").shape[0]
        out = np.empty((*inputs.shape[:2], rows), np.float32)
        for start, block in self._products(name + ".weight", inputs):
            out[..., start : start + block.shape[-1]] = block
        return self._activations(self._product_results(out))

    def _products(self, name: str, inputs: Float32) -> Iterator[tuple[int, Float32]]:
        """(first row, [classes, positions, rows]) of `inputs` times a range of the matrix's rows."""
        tensor = self.artifact.tensor(name)
        flat = inputs.reshape(-1, inputs.shape[-1])
        for start, weights in _row_blocks(tensor):
            self._done += weights.size
            if self._progress:
                self._progress(self._done, self._total)
            yield start, (flat @ weights.T).reshape(*inputs.shape[:2], -1)

    def _normed(self, values: Float32, name: str) -> Float32:
        mean_square = np.mean(np.square(values), axis=-1, keepdims=True)
        scaled = values / np.sqrt(mean_square + np.float32(self.arch.norm_eps))
        return self._activations(self._activations(scaled) * self.artifact.tensor(name).values())

    def _add(self, update: Float32) -> None:
        self.hidden = self._activations(self.hidden + update)

    def _activations(self, values: Float32) -> Float32:
        return self._rounded(PrecisionClass.activation, values)

    def _linear_inputs(self, values: Float32) -> Float32:
        return self._rounded(PrecisionClass.linear_input, values)

    def _product_results(self, values: Float32) -> Float32:
        return self._rounded(PrecisionClass.product_result, values)

    def _attention_inputs(self, values: Float32) -> Float32:
        return self._rounded(PrecisionClass.attention_input, values)

    def _cached(self, values: Float32) -> Float32:
        return self._rounded(PrecisionClass.cached, values)

    def _rounded(self, rounding: Callable[[PrecisionClass, Float32], Float32], values: Float32) -> Float32:
        """`values` themselves, overwritten class by class: copies of twenty classes are what memory would hold most."""
        for each, rows in zip(self.classes, values, strict=True):
            rounded = rounding(each, rows)
            if rounded is not rows:
                rows[...] = rounded
        return values


def _row_blocks(tensor: Codes) -> Iterator[tuple[int, Float32]]:
    rows, columns = tensor.shape
    for start, stop in row_ranges(rows, 4 * columns, WEIGHT_BYTES):
        yield start, tensor.values(start, stop)


def _silu(values: Float32) -> Float32:
    out: Float32 = values / (1 + np.exp(-values))
    return out


def _softmax(scores: Float32) -> Float32:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores
