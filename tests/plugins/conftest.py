"""The plugin of OpenVINO on whatever processor this is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VENDOR = 308
"""Place of HardwareDevice_VendorId in OrtApi, since 1.22."""
LISTED = """
import sys, onnxruntime as ort
ort.register_execution_provider_library("tried", sys.argv[1])
print(*(entry.ep_name for entry in ort.get_ep_devices()))
"""


def offers_a_device(library: str) -> bool:
    """Whether ONNX Runtime finds a device of the plugin, asked in another process."""
    done = subprocess.run([sys.executable, "-c", LISTED, library], capture_output=True, text=True, check=True)
    return "OpenVINOExecutionProvider" in done.stdout.split()


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the package's library, or of ours around it where it offers no device of this processor."""
    package = pytest.importorskip("onnxruntime_ep_openvino", reason="the plugin package is not installed")
    library = str(package.get_library_path())
    if offers_a_device(library):
        return library
    folder = tmp_path_factory.mktemp("plugin")
    for part in Path(library).parent.glob("*"):
        (folder / part.name).symlink_to(part)
    own = folder / "own.so"  # a copy, beside its own libraries: the original may be loaded in the same process
    shutil.copy(library, own)
    around = folder / "any_vendor.so"
    source = Path(__file__).with_name("any_vendor.c")
    words = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", f"-DVENDOR={VENDOR}", f'-DPLUGIN="{own}"']
    subprocess.run([*words, "-o", str(around), str(source), "-ldl"], check=True, timeout=120)
    assert offers_a_device(str(around)), "the plugin asks for the vendor in another way now"
    return str(around)
