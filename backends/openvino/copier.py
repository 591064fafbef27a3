"""What the bandwidth of a device's own memory is probed with: a copy from one buffer in it to another."""

from __future__ import annotations

from typing import Any

import openvino as ov
import openvino.opset13 as ops

BYTES = 256 << 20
"""Of each of the two buffers: far above the caches of any device."""


class Copier:
    """Copies a buffer inside the memory of the device `name`; the caller holds the clock."""

    def __init__(self, core: Any, name: str):
        self.kind = name.partition(".")[0].lower()
        self.moved_bytes = 2 * BYTES
        shape = ov.Shape([BYTES // 4])
        source = ops.parameter(shape, ov.Type.f32)
        model = ov.Model([ops.add(source, ops.constant(1.0, ov.Type.f32))], [source], "copy")
        self._request = core.compile_model(model, name, {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        context = core.get_default_context(name)
        self._request.set_input_tensor(context.create_tensor(ov.Type.f32, shape, {}))
        self._request.set_output_tensor(context.create_tensor(ov.Type.f32, shape, {}))

    def move(self) -> None:
        """One copy, finished on return."""
        self._request.start_async()
        self._request.wait()

    def close(self) -> None:
        self._request = None
