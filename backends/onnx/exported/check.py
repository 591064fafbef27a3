"""Checks the folder that it lies in: executes the sample and holds the logits against the float32 reference.

Needs onnxruntime and numpy. Exit code 0: all logits are what the folder's precision allows; 1: they are not.

    python check.py                                          on the CPU
    python check.py --provider CANNExecutionProvider         on another provider
    python check.py --inputs DIR                             write all inputs of both graphs, for another runtime
    python check.py --outputs DIR                            compare what another runtime made: DIR/STEP.npy
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
CPU = "CPUExecutionProvider"
EXACT = 1e-4
"""float32 differs from the reference by the order of sums only; 1e-6 is usual."""
BAND, SINGLE = 1.25, 2.0
"""Allowed error over the predicted one, of a phase and of a single step."""
ENOUGH = 8
"""Positions from which on a phase's error is as predicted; fewer are judged as a single step is."""
say = logging.getLogger("check").info


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    args = arguments()
    told = json.loads((HERE / "check.json").read_text("utf-8"))
    if not files_are_whole():
        return 1
    if args.inputs:
        return write_inputs(told, args.inputs)
    try:
        found = given(told, args.outputs) if args.outputs else executed(told, args)
    except Exception as error:  # whatever a provider raises is what its maker wants to read
        say(f"FAIL: {type(error).__name__}: {error}")
        return 1
    if not found:
        say(f"FAIL: no outputs; {args.outputs} must hold {told['steps'][0]['name']}.npy and so on")
        return 1
    accepted = [*told["accepted"], *(args.precision or "").replace(",", " ").split()]
    unknown = set(accepted) - told["steps"][0]["delta2"].keys()
    if unknown:
        say(f"FAIL: nothing is predicted for {', '.join(sorted(unknown))}")
        return 1
    phases = {name.partition("-")[0]: True for name in found}
    passed = [judged(phase, [s for s in told["steps"] if s["name"] in found], found, accepted) for phase in phases]
    missing = [step["name"] for step in told["steps"] if step["name"] not in found]
    if missing:
        say(f"not compared: {', '.join(missing)}")
    say("passed" if all(passed) else "FAILED")
    return 0 if all(passed) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--provider", default=CPU, help="execution provider by its full name")
    parser.add_argument("--plugin", metavar="FILE", help="library that brings the provider")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the provider")
    parser.add_argument("--allow-fallback", action="store_true", help="let the CPU take what the provider refuses")
    parser.add_argument("--precision", metavar="CLASS,…", help="also accept these precision classes (check.json)")
    parser.add_argument("--inputs", type=Path, metavar="DIR", help="write every input as .npy, execute nothing")
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="compare STEP.npy, execute nothing")
    return parser.parse_args()


def files_are_whole() -> bool:
    """Whether all files are as they were exported."""
    lines = (HERE / "SHA256SUMS").read_text("utf-8").splitlines()
    for line in lines:
        digest, name = line.split("  ", 1)
        made = hashlib.sha256()
        try:
            with (HERE / name).open("rb") as file:
                for block in iter(lambda: file.read(1 << 22), b""):
                    made.update(block)
        except OSError as error:
            say(f"FAIL: {name}: {error.strerror}")
            return False
        if made.hexdigest() != digest:
            say(f"FAIL: {name} is not as it was exported")
            return False
    say(f"files: {len(lines)} as exported")
    return True


def inputs_of(step: dict[str, Any]) -> dict[str, Any]:
    """The step's inputs that are kept; of caches the part that is not zero."""
    return {path.stem: np.load(path) for path in sorted((HERE / "inputs" / step["name"]).glob("*.npy"))}


def cache(told: dict[str, Any], name: str, held: Any = None) -> Any:
    """The cache `name`, zeros but for `held`."""
    full = np.zeros(told["caches"][name], told["cache_dtype"])
    if held is not None:
        full[tuple(slice(size) for size in held.shape)] = held
    return full


def write_inputs(told: dict[str, Any], into: Path) -> int:
    """All inputs of the first prefill step and of the first decode step, complete, as DIR/STEP/INPUT.npy."""
    for kind in ("prefill-1", "decode-1"):
        step = next(step for step in told["steps"] if step["name"] == kind)
        held = inputs_of(step)
        (into / kind).mkdir(parents=True, exist_ok=True)
        full = {**held, **{name: cache(told, name, held.get(name)) for name in told["caches"]}}
        for name, array in full.items():
            np.save(into / kind / f"{name}.npy", array)
        say(f"{into / kind}: {len(full)} inputs of {step['graph']}")
    return 0


def given(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Logits that another runtime made, by step."""
    paths = {step["name"]: folder / f"{step['name']}.npy" for step in told["steps"]}
    return {name: np.load(path) for name, path in paths.items() if path.is_file()}


def executed(told: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Logits by step, each step's cache being the next one's; one graph is loaded at a time."""
    caches = {name: cache(told, name) for name in told["caches"]}
    if args.plugin:
        import onnxruntime as ort

        ort.register_execution_provider_library(args.provider, args.plugin)
    found: dict[str, Any] = {}
    loaded, session = None, None
    for step in told["steps"]:
        if session is None or step["graph"] != loaded:
            session = None  # two of them would hold the weights twice
            session, loaded = opened(HERE / step["graph"], args), step["graph"]
        held = {name: array for name, array in inputs_of(step).items() if name not in caches}
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, {**held, **caches})))  # noqa: B905
        caches = {name: outputs[name.replace("past.", "present.", 1)] for name in caches}
        found[step["name"]] = outputs["logits"]
    return found


def opened(path: Path, args: argparse.Namespace) -> Any:
    """A session on the provider asked for, and on nothing else unless that is allowed."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    chosen = dict(text.partition("=")[::2] for text in args.option)
    if args.provider == CPU:  # otherwise it rounds inputs of products to int8
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    elif not args.allow_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if args.plugin:
        devices = [device for device in ort.get_ep_devices() if device.ep_name == args.provider]
        if not devices:
            raise ValueError(f"{args.plugin} tells of no device of {args.provider}")
        options.add_provider_for_devices(devices[:1], chosen)
        session = ort.InferenceSession(str(path), options, enable_fallback=0)
    elif args.provider not in ort.get_available_providers():
        raise ValueError(f"no {args.provider} here; present: {', '.join(ort.get_available_providers())}")
    else:
        asked = [args.provider] if args.provider == CPU else [(args.provider, chosen)]
        session = ort.InferenceSession(str(path), options, providers=asked, enable_fallback=0)
    if args.provider not in session.get_providers():
        raise RuntimeError(f"{args.provider} did not start")
    return session


def judged(phase: str, steps: list[dict[str, Any]], found: dict[str, Any], accepted: list[str]) -> bool:
    """Whether the errors of a phase, and of each of its steps, are those of an accepted precision; says so."""
    steps = [step for step in steps if step["name"].startswith(phase)]
    errors2 = {step["name"]: squared_error(step["name"], found[step["name"]]) for step in steps}
    for name, error2 in errors2.items():
        if not np.isfinite(error2):
            say(f"{name}: FAIL: not finite, or of another shape than expected/{name}.npy")
            return False
    errors = {step["name"]: float(np.sqrt(errors2[step["name"]] / step["centred2"])) for step in steps}
    limits = {step["name"]: bound([step], accepted, SINGLE) for step in steps}
    worst = max(errors, key=lambda name: errors[name] / limits[name])
    error = float(np.sqrt(sum(errors2.values()) / sum(step["centred2"] for step in steps)))
    positions = sum(step["positions"] for step in steps)
    allowed = bound(steps, accepted, BAND if positions >= ENOUGH else SINGLE)
    passed = error <= allowed and errors[worst] <= limits[worst]
    compared = f"error {error:.3g} over {positions} position{'s' * (positions != 1)}, {allowed:.3g} allowed"
    near = likeness(error, steps)
    like = f"like {near}, for which {predicted(steps, near):.3g} is predicted" if near else "like no known rounding"
    say(f"{phase}: {'ok' if passed else 'FAIL'}: {compared}; {'float32' if error <= EXACT else like}")
    if not passed:
        say(f"{phase}: worst in {worst}: error {errors[worst]:.3g}, {limits[worst]:.3g} allowed")
        if near and near not in accepted:
            say(f"{phase}: if the hardware is meant to round so, --precision {near} accepts it")
    return passed


def squared_error(name: str, logits: Any) -> float:
    """Sum of the squared differences to the reference; infinite where they cannot be compared."""
    expected = np.load(HERE / "expected" / f"{name}.npy")
    if logits.size != expected.size:
        return float("inf")
    delta = logits.reshape(expected.shape).astype(np.float64) - expected
    return float(np.square(delta).sum())


def bound(steps: list[dict[str, Any]], accepted: list[str], factor: float) -> float:
    """The largest error that an accepted precision may show over `steps`."""
    return max(EXACT if name == "f32" else factor * predicted(steps, name) for name in accepted)


def predicted(steps: list[dict[str, Any]], name: str) -> float:
    return float(np.sqrt(sum(step["delta2"][name] for step in steps) / sum(step["centred2"] for step in steps)))


def likeness(error: float, steps: list[dict[str, Any]]) -> str | None:
    """The rounding that causes about this error, None where none does or there is nothing to explain."""
    known = {name: predicted(steps, name) for name in steps[0]["delta2"]}
    near = {name: abs(float(np.log(error / known[name]))) for name in known if known[name] > 0 and error > EXACT}
    best = min(near, key=lambda name: near[name], default=None)
    return best if best and near[best] <= np.log(BAND) else None


if __name__ == "__main__":
    sys.exit(main())
