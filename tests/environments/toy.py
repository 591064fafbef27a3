"""A backend whose runtime is compiled on the spot, in a second and without a network.

`make_toys` writes a folder of distributions for PIP_FIND_LINKS: the source of `toyruntime`, whose build backend lies in
it and needs nothing, and a wheel of numpy that leads to the running one. It does as these variables say: TOY_NOTES (a
line for each build), TOY_FLAGS (compiled in), TOY_SLOW (a file: compiling waits until it is gone), TOY_NEEDS (a tool).
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

ADAPTER = """
import os
from backends.null import Null
from bench.errors import unknown_name
from bench.types import Availability, Requirements

class Toy(Null):
    name = "toy"

    def probe(self):
        try:
            import toyruntime
        except ImportError as error:
            return Availability(reason=f"no toyruntime: {error}", remedy="pip install toyruntime")
        if toyruntime.FLAGS == "broken":
            return Availability(reason="toyruntime is broken", remedy="mend it")
        return Availability(versions={"toyruntime": "1.0", "flags": toyruntime.FLAGS})

    def open(self, group, prepared):
        import toyruntime
        return super().open(group, prepared)

    def requirements(self, accelerator):
        if accelerator not in (None, "fast"):
            raise unknown_name("accelerator", accelerator, ["fast"])
        flags = accelerator or os.environ.get("TOY_ASKED", "plain")
        return Requirements(
            packages=("toyruntime==1.0",), notes="toys need batteries", build={"TOY_FLAGS": flags}, native=True,
            tools=tuple(os.environ.get("TOY_NEEDS", "").split()), minutes=0.1, download_bytes=2000,
            disk_bytes=int(os.environ.get("TOY_DISK", "1000")),
        )
"""
BUILD = """
import os, pathlib, time, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open(os.environ["TOY_NOTES"], "a") as notes:
        print("building with", os.environ.get("TOY_FLAGS"), file=notes)
    while os.path.exists(os.environ.get("TOY_SLOW", "")):
        time.sleep(0.02)
    name = "toyruntime-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("toyruntime.py", f"FLAGS = {os.environ.get('TOY_FLAGS')!r}\\n")
        for file, text in {METADATA}.items():
            wheel.writestr("toyruntime-1.0.dist-info/" + file, text)
    return name
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_toys(folder: Path) -> Path:
    """The folder `folder`/wheels; `folder`/toy.py is the adapter `toy:Toy`."""
    (folder / "toy.py").write_text(ADAPTER)
    wheels = folder / "wheels"
    wheels.mkdir()
    build = BUILD.replace("{METADATA}", repr(_metadata("toyruntime", "1.0")))
    project = '[build-system]\nrequires = []\nbuild-backend = "toy_build"\nbackend-path = ["."]\n'
    project += '[project]\nname = "toyruntime"\nversion = "1.0"\n'
    with tarfile.open(wheels / "toyruntime-1.0.tar.gz", "w:gz") as source:
        for name, text in {"pyproject.toml": project, "toy_build.py": build, "PKG-INFO": _pkg_info()}.items():
            entry = tarfile.TarInfo(f"toyruntime-1.0/{name}")
            entry.size = len(text.encode())
            source.addfile(entry, BytesIO(text.encode()))
    make_numpy(folder, wheels)
    return wheels


def make_numpy(folder: Path, wheels: Path) -> None:
    """A wheel in `wheels` that leads to the running numpy through `folder`/linked."""
    real = Path(np.__file__).parent
    (folder / "linked").mkdir()
    for name in ("numpy", "numpy.libs"):
        if (real.parent / name).exists():
            (folder / "linked" / name).symlink_to(real.parent / name)
    with zipfile.ZipFile(wheels / f"numpy-{np.__version__}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("linked_numpy.pth", f"{folder / 'linked'}\n")
        for file, text in _metadata("numpy", np.__version__).items():
            wheel.writestr(f"numpy-{np.__version__}.dist-info/{file}", text)


def offline(folder: Path) -> dict[str, str]:
    """Variables of a machine without a package index, that has the toys."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        "TOY_NOTES": str(folder / "notes"),
        "TOY_SLOW": str(folder / "slow"),
    }


def _metadata(name: str, version: str) -> dict[str, str]:
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return {"METADATA": about, "WHEEL": WHEEL, "RECORD": f"{name}-{version}.dist-info/RECORD,,\n"}


def _pkg_info() -> str:
    return _metadata("toyruntime", "1.0")["METADATA"]
