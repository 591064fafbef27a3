"""Units: the suffixes used in names, and the only place where numbers become text.

_s seconds · _ns nanoseconds · _j joules · _w watts · _bytes · _ratio (0..1) · _per_s · _tokens · _utc ISO 8601.
Stored values are in base units. None means "not measured" and is shown as an en dash.
"""

from __future__ import annotations

import math

NOT_MEASURED = "–"
SHARE_NOISE = 1e-6
"""Sums of shares that are meant to be 1 differ from it by less."""
MIB, GIB = 2**20, 2**30


def render_number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent for everyday sizes."""
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    text = f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}" if "e" in text else _padded(text, digits)


def render_bytes(value: int | float | None, digits: int = 3) -> str:
    """Bytes as `8.10 GB` (decimal, as disks and model cards count)."""
    if value is None:
        return NOT_MEASURED
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{render_number(value / size, digits)} {unit}"
    return f"{value:.0f} B"


def render_duration(value_s: float | None) -> str:
    """Seconds as `850 µs`, `12.3 ms`, `4.56 s`, `3m 20s` or `1h 05m`."""
    if value_s is None:
        return NOT_MEASURED
    if value_s >= 3600:
        hours, rest = divmod(round(value_s / 60), 60)
        return f"{hours}h {rest:02d}m"
    if value_s >= 99.5:
        minutes, rest = divmod(round(value_s), 60)
        return f"{minutes}m {rest:02d}s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value_s >= size:
            return f"{render_number(value_s / size, 3)} {unit}"
    return f"{value_s * 1e9:.0f} ns"


def render_share(ratio: float) -> str:
    """0..1 as `97 %`: with so many digits that nothing but all reads as 100 %, and nothing but none as 0 %."""
    percent = 100 * ratio
    nearest = min(abs(percent), abs(100 - percent))
    if nearest < 100 * SHARE_NOISE:
        return f"{percent:.0f} %"
    text = f"{percent:.{max(0, 1 - math.floor(math.log10(nearest)))}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def parse_share(text: str) -> float:
    """`5%` or `0.05` as a ratio above 0 and below 1; raises ValueError on anything else."""
    number, percent, rest = text.strip().partition("%")
    share = float(number) / (100 if percent else 1)
    if not 0 < share < 1 or rest:
        raise ValueError(text)
    return share


def parse_duration(text: str) -> float:
    """`90`, `90s`, `10m` or `1.5h` as seconds; raises ValueError on anything else."""
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    value = float(text[:-1] if scale else text) * (scale or 1.0)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _padded(text: str, digits: int) -> str:
    """`1.5` with three digits is `1.50`: trailing zeros are significant."""
    have = len(text.replace(".", "").replace("-", "").lstrip("0"))
    if have >= digits:
        return text
    return (text if "." in text else text + ".") + "0" * (digits - have)
