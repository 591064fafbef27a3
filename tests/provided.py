"""In the place of ONNX Runtime's providers and sessions: what is asked for is kept, what is refused is set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from backends.onnx.known import CPU


def entry(name: str, kind: str = "gpu", library: str | None = None, **told: str) -> Any:
    """What the runtime lists: a provider with a device."""
    device = SimpleNamespace(type=f"OrtHardwareDeviceType.{kind.upper()}", vendor="Maker", metadata=told)
    metadata = {"version": "1.2", **({"library_path": library} if library else {})}
    return SimpleNamespace(ep_name=name, ep_vendor="Vendor", ep_metadata=metadata, device=device)


@dataclass
class Runtime:
    """In ONNX Runtime's place. `refuses` are raised one a session, as long as there are some."""

    available: list[str] = field(default_factory=lambda: [CPU])
    entries: list[Any] = field(default_factory=list)
    refuses: list[Exception | None] = field(default_factory=list)
    starts: bool = True
    brings: Callable[[str, str], list[Any]] = lambda name, path: []
    asked: list[dict[str, Any]] = field(default_factory=list)

    def register(self, name: str, path: str) -> None:
        self.entries += self.brings(name, path)

    def session(self, graph: Any, options: Any, *, providers: Any, enable_fallback: int, **_: Any) -> Any:
        self.asked.append({"graph": graph, "providers": providers, "fallback": enable_fallback, **vars(options)})
        if self.refuses and (refusal := self.refuses.pop(0)):
            raise refusal
        wanted = providers or [options.devices[0].ep_name]
        names = [each if isinstance(each, str) else each[0] for each in wanted]
        return SimpleNamespace(get_providers=lambda: [*names, CPU] if self.starts else [CPU])

    @property
    def last(self) -> dict[str, Any]:
        return self.asked[-1]


class Options:
    """In the place of SessionOptions: keeps what it is told."""

    def __init__(self) -> None:
        self.config: dict[str, str] = {}
        self.dims: dict[str, int] = {}
        self.devices: list[Any] = []
        self.given: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.config[name] = value

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        self.dims[name] = size

    def add_provider_for_devices(self, devices: Sequence[Any], given: dict[str, str]) -> None:
        self.devices, self.given = list(devices), dict(given)
