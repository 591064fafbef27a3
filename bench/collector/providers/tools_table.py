"""Vendors' command line tools: what to call, how to tell a tool from its namesakes, where its output says what.

Every row is `experimental`: its form is known from output that people published, not from a capture made for this
project (tests/collector/captures names the origins).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from bench.collector.sensors import Quantity

POWER_W = (1.0, 2000.0)
"""A card draws more than 1 W and less than 2 kW: milliwatts read as watts lie above, watts read as milliwatts below."""
TEMPERATURE_C = (1.0, 130.0)
MEMORY_BYTES = (0.0, float(4 << 40))
MIB = float(1 << 20)
BUS = r"(?P<device>(?:[0-9A-Fa-f]{2,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])"
"""A PCI address as tools write it; the domain has 2, 4 or 8 digits or is left out."""
NUMBER = r"(?P<value>[0-9]+(?:\.[0-9]+)?)"
SECOND = r"\A.*\n\|"
"""Of the two rows that a table has for a device the second, not a row of the processes below."""
OF_OTHERS_TOO = ("0x0302", "0x0380", "0x0b40", "0x12")
"""Classes of accelerators of a vendor whose network, storage and BMC chips have the same vendor id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One quantity and where a device's part of the output says it.

    `pattern` has a group `value`, and the unit where the tool prints one; `scale` leads to the sensor's unit, and what
    then lies outside of `sound` (from, to) is no reading.
    """

    quantity: Quantity
    pattern: re.Pattern[str]
    sound: tuple[float, float]
    part: str = "card"
    scale: float = 1.0

    def value(self, block: str) -> float | None:
        """What `block` says, in the sensor's unit; None where it says nothing, no number or one that cannot be."""
        found = self.pattern.search(block)
        number = float(found["value"]) * self.scale if found else None
        return number if number is not None and self.sound[0] <= number <= self.sound[1] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One vendor's tool; the first of `programs` that answers is called with `arguments`.

    It is that vendor's if `banner` is found in what it prints and the PCI addresses that it tells are of devices with
    that `vendor_id` (and of one of `classes`). `block` matches where the output begins to tell of a device, `address`
    its PCI address within that part.
    """

    vendor: str
    vendor_id: str
    programs: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    banner: re.Pattern[str]
    block: re.Pattern[str]
    address: re.Pattern[str]
    fields: tuple[Field, ...]
    classes: tuple[str, ...] = ("0x",)
    experimental: bool = True

    def told(self, output: str, addresses: Collection[str]) -> dict[tuple[str, Field], float | None]:
        """By (PCI address, field) what `output` says of `addresses`; None for no sound number, or two for one address.

        Empty where it is another tool's output. An address comes twice where two chips share it: which of the two a
        run computes on cannot be told.
        """
        if not self.banner.search(output):
            return {}
        starts = [match.start() for match in self.block.finditer(output)]
        values: dict[tuple[str, Field], float | None] = {}
        for start, end in zip(starts, [*starts, len(output)][1:], strict=True):
            block = output[start:end]
            found = self.address.search(block)
            address = _as_kernel(found["device"]) if found else ""
            if address in addresses:
                for field in self.fields:
                    key = (address, field)
                    values[key] = None if key in values else field.value(block)
        return values


def _as_kernel(bus: str) -> str:
    """`0000:9d:00.0` for 00000000:9D:00.0, 00:9d:00.0 and 9D:00.0: a PCI address as in /sys/bus/pci/devices."""
    *domain, number, function = bus.lower().split(":")
    return f"{int(domain[0], 16) if domain else 0:04x}:{number}:{function}"


def _line(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.MULTILINE)


def _power(pattern: str) -> Field:
    return Field(quantity="power", pattern=_line(pattern), sound=POWER_W)


def _temperature(pattern: str, part: str = "chip") -> Field:
    return Field(quantity="temperature", part=part, pattern=_line(pattern), sound=TEMPERATURE_C)


def _memory(pattern: str) -> Field:
    return Field(quantity="memory-used", pattern=_line(pattern), sound=MEMORY_BYTES, scale=MIB)


ASCEND = Tool(  # of an NPU with two chips the first one's row has the power of both; DDR is told before HBM
    vendor="Huawei Ascend",
    vendor_id="0x19e5",
    classes=OF_OTHERS_TOO,
    programs=("npu-smi", "/usr/local/bin/npu-smi"),
    arguments=("info",),
    banner=_line(r"^\| npu-smi \S+ +Version:"),
    block=_line(r"^\| *[0-9]+ [^|]*\|[^|]*\| *\S+ +\S+ +[0-9]+ */ *[0-9]+ *\|"),
    address=_line(rf"{SECOND}[^|]*\| *{BUS} *\|"),
    fields=(
        _power(rf"\A\|[^|]*\|[^|]*\| *{NUMBER} "),
        _temperature(rf"\A\|[^|]*\|[^|]*\| *\S+ +{NUMBER} "),
        _memory(rf"{SECOND}[^|]*\| *{BUS} *\|[^|]*[ /]{NUMBER} */ *[0-9]+ *\|"),
    ),
)
CAMBRICON = Tool(  # "/" stands where a virtual function has its number
    vendor="Cambricon",
    vendor_id="0xcabc",
    programs=("cnmon",),
    banner=_line(r"^\| CNMON v[0-9]"),
    block=_line(r"^\| *[0-9]+ +/ +[^|]*\|"),
    address=_line(rf"\A\|[^|]*\| *{BUS} *\|"),
    fields=(
        _power(rf"{SECOND}[^|]* {NUMBER} W/"),
        _temperature(rf"{SECOND} *\S+ +{NUMBER}C "),
        _memory(rf"{SECOND}[^|]*\| *{NUMBER} MiB/"),
    ),
)
HYGON = Tool(  # read by pattern: commas are missing in its JSON, and units stand where numbers should
    vendor="Hygon DCU",
    vendor_id="0x1d94",
    classes=OF_OTHERS_TOO,
    programs=("hy-smi", "/opt/hyhal/bin/hy-smi"),
    arguments=("--showbus", "--showpower", "--showtemp", "--showmeminfo", "vram", "--json"),
    banner=_line(r'"card[0-9]+" *:'),
    block=_line(r'"card[0-9]+" *:'),
    address=_line(rf'"PCI Bus" *: *"?{BUS}'),
    fields=(
        _power(rf'"Average Graphics Package Power \(W\)" *: *"?{NUMBER} *W?["}},]'),
        _temperature(rf'"Temperature \(Sensor junction\) \(C\)" *: *"?{NUMBER} *C?["}},]', part="junction"),
        _memory(rf'"vram Total Used Memory \(MiB\)" *: *"?{NUMBER} *(?:MiB)?["}},]'),
    ),
)
METAX = Tool(
    vendor="MetaX",
    vendor_id="0x9999",
    programs=("mx-smi", "/opt/mxdriver/bin/mx-smi"),
    banner=_line(r"MetaX System Management Interface"),
    block=_line(rf"^\| *[0-9]+ [^|]*\| *{BUS} *\|"),
    address=_line(rf"\A\|[^|]*\| *{BUS} *\|"),
    fields=(
        _power(rf"{SECOND} *\S+ +{NUMBER}W\b"),
        _temperature(rf"{SECOND} *{NUMBER}C\b"),
        _memory(rf"{SECOND}[^|]*\| *{NUMBER}/[0-9]+ MiB"),
    ),
)
MOORE_THREADS = Tool(  # the name of the power has a blank at its end
    vendor="Moore Threads",
    vendor_id="0x1ed5",
    programs=("mthreads-gmi",),
    arguments=("-q", "--json"),
    banner=_line(r'"Vendor ID" *: *"0x1ED5"'),
    block=_line(r'^\s*"Index" *: *"[0-9]+"'),
    address=_line(rf'"Bus ID" *: *"{BUS}"'),
    fields=(
        _power(rf'"Power Draw ?" *: *"{NUMBER} *W"'),
        _temperature(rf'"GPU Current Temp" *: *"{NUMBER} *C"', part="gpu"),
        _memory(rf'"FB Memory Usage" *: *\{{[^}}]*"Used" *: *"{NUMBER} *MiB"'),
    ),
)
ILUVATAR = Tool(  # of a card with two chips only one tells the power, which is the card's
    vendor="Iluvatar",
    vendor_id="0x1e3e",
    programs=("ixsmi", "/usr/local/corex/bin/ixsmi"),
    banner=_line(r"^\| *IX-ML: [0-9]"),
    block=_line(rf"^\| *[0-9]+ [^|]*\| *{BUS} *\|"),
    address=_line(rf"\A\|[^|]*\| *{BUS} *\|"),
    fields=(
        _power(rf"{SECOND}[^|]* {NUMBER}W */"),
        _temperature(rf"{SECOND} *\S+ +{NUMBER}C "),
        _memory(rf"{SECOND}[^|]*\| *{NUMBER}MiB */"),
    ),
)
KUNLUNXIN = Tool(  # columns without names: only of the P800 is it known that the ninth is in W
    vendor="Kunlunxin",
    vendor_id="0x1d22",
    programs=("xpu_smi", "xpu-smi"),
    arguments=("-m",),
    banner=_line(rf'^{BUS} [0-9]+ [0-9]+ .*"P800[^"]*"'),
    block=_line(rf'^{BUS} [0-9]+ [0-9]+ .*"P800[^"]*"'),
    address=_line(rf"\A{BUS} "),
    fields=(
        _power(rf"\A(?:\S+ +){{8}}{NUMBER} "),
        _temperature(rf"\A(?:\S+ +){{4}}{NUMBER} "),
        _memory(rf"\A(?:\S+ +){{17}}{NUMBER} "),
    ),
)
ENFLAME = Tool(
    vendor="Enflame",
    vendor_id="0x1e36",
    programs=("efsmi",),
    banner=_line(r"Enflame System Management Interface"),
    block=_line(rf"^\| *[0-9]+ [^|]*\|[^|]*\| *{BUS} "),
    address=_line(rf"\A\|[^|]*\|[^|]*\| *{BUS} "),
    fields=(_power(rf"{SECOND}[^|]* {NUMBER}W */? *[0-9.]+W *\|"), _temperature(rf"{SECOND} *{NUMBER}[^0-9.|]")),
)
TABLE = (ASCEND, CAMBRICON, HYGON, METAX, MOORE_THREADS, ILUVATAR, KUNLUNXIN, ENFLAME)
# No row, and why not:
# - npu-smi info -t power: its labels differ by chip, and it tells no PCI address; the table tells both.
# - cnmon before driver 5: its table has no PCI address.
# - cnmon info -j: it writes a file into the working directory; no output was seen.
# - mthreads-gmi without --json: its table has no power, and no output of plain -q was seen.
# - ixsmi --query-gpu: the power's name differs by version, and no output was seen; the table tells its unit.
# - xpu_smi -m of Kunlunxin K200 and R series: the column that has W of the P800 is told to have mW of the K200.
# - memory of Enflame: the table tells how much there is, not how much is used.
# - xpu-smi of Intel: the kernel's files tell energy.
# - mx-smi of Moffett, ppu-smi of T-Head, brsmi of Biren: no output was seen.
# - mx-smi dmon, efsmi dmon and other loops: no output that tells PCI addresses was seen.
