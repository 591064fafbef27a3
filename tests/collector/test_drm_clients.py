"""How many processes hold something on a device: whose fdinfo counts, whose does not, and when nothing is known."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.collector.providers import drm_clients, providers
from bench.collector.providers.drm_clients import HOST_NAMESPACE, DrmClients
from bench.collector.sensors import Found
from tests.collector.trees import UNREADABLE, tree

CARD, OTHER = "0000:03:00.0", "0000:c5:00.1"
NODE, NPU = "/dev/dri/renderD128", "/dev/accel/accel0"

# Umio-Yasuno/amdgpu_top#87: a process that draws, on a kernel of 2024.
AMDGPU = """pos:\t0
flags:\t02104002
mnt_id:\t24
ino:\t614
pasid:\t32784
drm-driver:\tamdgpu
drm-pdev:\t0000:03:00.0
drm-client-id:\t217
drm-memory-vram:\t2068 KiB
drm-memory-gtt: \t8192 KiB
drm-memory-cpu: \t0 KiB
drm-engine-gfx:\t107322799 ns
"""
# nokyan/resources#417: a program that opened an NPU and did nothing with it.
AMDXDNA_OPEN = """drm-driver:\tamdxdna_accel_driver
drm-client-id:\t76
drm-pdev:\t0000:c5:00.1
drm-engine-npu-amdxdna:\t0 ns
drm-total-memory:\t0
drm-shared-memory:\t0
drm-active-memory:\t0
"""
# The keys of the example in xe_drm_client.c, for a client that holds nothing: total cycles and capacities are not its.
XE_OPEN = """drm-driver:\txe
drm-client-id:\t3
drm-pdev:\t0000:03:00.0
drm-total-system:\t0
drm-shared-system:\t0
drm-active-system:\t0
drm-resident-system:\t0
drm-total-vram0:\t0
drm-resident-vram0:\t0
drm-cycles-rcs:\t0
drm-total-cycles-rcs:\t7655183225
drm-cycles-vcs:\t0
drm-total-cycles-vcs:\t7655183225
drm-engine-capacity-vcs:\t2
"""
# Umio-Yasuno/amdgpu_top#120: the driver of Linux 6.14 has no show_fdinfo.
AMDXDNA_SILENT = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t894\n"
# amdgpu_fdinfo.c of Linux 5.14 to 5.18, as Umio-Yasuno/amdgpu_top#132 has it: an older format, without the prefix.
AMDGPU_OLD = "pdev:\t0000:03:00.0\npasid:\t32769\nvram mem:\t2068 kB\ngfx0:\t0.00%\n"
HEAD = "drm-driver:\tx\ndrm-client-id:\t1\ndrm-pdev:\t0000:03:00.0\n"

Files = Mapping[int, tuple[str, str]]
"""Descriptor → (what it leads to, what fdinfo says)."""


def device(root: Path, node: str, address: str, driver: str, kind: str = "drm") -> None:
    """A node in /sys, linked as the kernel links it to its PCI device, and that to its driver."""
    at = f"sys/devices/pci0000:00/{address}"
    links = {f"sys/class/{kind}/{node}/device": at}
    if not (root / at / "driver").is_symlink():
        links[f"{at}/driver"] = f"sys/bus/pci/drivers/{driver}"
    (root / at).mkdir(parents=True, exist_ok=True)
    tree(root, {f"sys/bus/pci/drivers/{driver}/bind": ""}, links)


def process(root: Path, pid: int, files: Files | None = None) -> None:
    """A process in /proc, as proc(5) describes it."""
    (root / f"proc/{pid}/fd").mkdir(parents=True, exist_ok=True)
    for descriptor, (target, said) in (files or {}).items():
        (root / f"proc/{pid}/fd/{descriptor}").symlink_to(target)
        tree(root, {f"proc/{pid}/fdinfo/{descriptor}": said})


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A card with two nodes, an NPU, and processes that hold nothing."""
    for node in ("card0", "renderD128"):
        device(tmp_path, node, CARD, "amdgpu")
    device(tmp_path, "accel0", OTHER, "amdxdna", "accel")
    process(tmp_path, 1)
    process(tmp_path, 2, {0: ("/dev/null", "pos:\t0\n")})
    tree(tmp_path, {"proc/uptime": "1.0 1.0", "proc/self/ns/user": ""})
    (tmp_path / "proc/self/ns/pid").symlink_to(HOST_NAMESPACE)
    return tmp_path


def counts(root: Path) -> dict[str, float | None]:
    provider = DrmClients(root)
    sensors = provider.probe().sensors
    return dict(zip([each.device for each in sensors], provider.read(sensors), strict=True))


def on_card(root: Path, said: str) -> float | None:
    """What the card's sensor says where process 10 has it open, and fdinfo says this."""
    process(root, 10, {4: (NODE, said)})
    return counts(root)[f"pci:{CARD}"]


def test_a_device_has_one_sensor_however_many_nodes(machine: Path) -> None:
    found = DrmClients(machine).probe()
    assert [each.id for each in found.sensors] == [f"pci:{CARD}/processes/drm", f"pci:{OTHER}/processes/drm"]
    assert [each.source for each in found.sensors] == ["amdgpu fdinfo", "amdxdna fdinfo"]
    assert {(each.kind, each.pace) for each in found.sensors} == {("gauge", "edges")}
    assert not found.denied


def test_it_is_among_the_providers_before_the_tools() -> None:
    names = [each.name for each in providers()]
    assert names.index("amdsmi") < names.index("drm-clients") < names.index("tools")


def test_processes_are_counted_on_the_device_that_they_name(machine: Path) -> None:
    held = AMDXDNA_OPEN.replace("total-memory:\t0", "total-memory:\t64 MiB")
    process(machine, 10, {3: ("/dev/null", "pos:\t0\n"), 4: (NODE, AMDGPU), 5: ("/dev/dri/card0", AMDGPU)})
    process(machine, 11, {4: (NODE, AMDGPU), 7: (NPU, held)})
    process(machine, 12, {7: (NPU, AMDXDNA_OPEN)})
    assert counts(machine) == {f"pci:{CARD}": 2.0, f"pci:{OTHER}": 1.0}


def test_nobody_is_zero(machine: Path) -> None:
    assert counts(machine) == {f"pci:{CARD}": 0.0, f"pci:{OTHER}": 0.0}


def test_an_open_file_alone_does_not_count(machine: Path) -> None:
    process(machine, 11, {7: (NPU, AMDXDNA_OPEN)})
    assert on_card(machine, XE_OPEN) == 0.0
    assert counts(machine)[f"pci:{OTHER}"] == 0.0


@pytest.mark.parametrize(
    "line",
    [  # each key of drm-usage-stats.rst that is memory held or time taken, with and without its unit
        "drm-total-vram0:\t67108864",
        "drm-resident-gtt:\t192 KiB",
        "drm-memory-vram: 1 MiB",
        "drm-memory-gtt: \t8192 KiB",
        "drm-engine-video-enhance:\t9288864723 ns",
        "drm-cycles-ccs:\t4501008337",
        "drm-total-cpu:\t" + "9" * 5000,  # more digits than Python reads
    ],
)
def test_one_key_that_is_not_zero_is_enough(machine: Path, line: str) -> None:
    assert on_card(machine, f"{XE_OPEN}{line}\n") == 1.0


@pytest.mark.parametrize(
    "line",
    [
        "drm-total-cycles-ccs:\t2013619918356",
        "drm-engine-capacity-ccs:\t4",
        "drm-maxfreq-rcs:\t2400000000 Hz",
        "amd-requested-vram:\t11952 KiB",
        "drm-client-name:\tdrm-total-vram0: 5",
    ],
)
def test_keys_that_are_not_the_clients_own_do_not_count(machine: Path, line: str) -> None:
    assert on_card(machine, f"{XE_OPEN}{line}\n") == 0.0


@pytest.mark.parametrize(
    "said",
    [
        AMDGPU_OLD,
        AMDXDNA_SILENT,
        "",
        HEAD,  # drm_show_fdinfo where the driver adds nothing
        HEAD + "drm-total-cycles-rcs:\t7655183225\n",
        HEAD + "drm-memory-vram:\tmany KiB\ndrm-engine-gfx:\t-5 ns\ndrm-total-gtt:\t\n",
        AMDGPU.replace("drm-pdev:\t0000:03:00.0\n", ""),
        AMDGPU.replace("0000:03:00.0", "nowhere"),
        AMDGPU[: AMDGPU.index("drm-memory")],  # cut off
    ],
)
def test_a_file_that_does_not_say_makes_its_device_unknown_and_no_other(machine: Path, said: str) -> None:
    assert on_card(machine, said) is None
    assert counts(machine)[f"pci:{OTHER}"] == 0.0


def test_what_one_file_leaves_open_another_of_the_same_process_may_say(machine: Path) -> None:
    process(machine, 10, {4: (NODE, HEAD), 5: (NODE, AMDGPU)})
    assert counts(machine)[f"pci:{CARD}"] == 1.0
    process(machine, 11, {4: (NODE, HEAD)})
    assert counts(machine)[f"pci:{CARD}"] is None


def test_files_elsewhere_are_not_looked_into(machine: Path) -> None:
    process(machine, 10, {4: ("/home/dev/dri/notes", AMDGPU), 5: ("socket:[17]", AMDGPU), 6: ("/dev/drift", AMDGPU)})
    assert counts(machine)[f"pci:{CARD}"] == 0.0


def test_clients_of_a_card_without_a_sensor_belong_to_nobody(machine: Path) -> None:
    device(machine, "card1", "0000:81:00.0", "nvidia")  # nvidia-drm's node: fdinfo without any drm- key
    process(machine, 10, {4: ("/dev/dri/card1", AMDXDNA_SILENT), 5: (NODE, AMDGPU.replace(CARD, "0000:82:00.0"))})
    assert counts(machine) == {f"pci:{CARD}": 0.0, f"pci:{OTHER}": 0.0}


@pytest.mark.parametrize(
    ("node", "at", "driver"),
    [
        ("card0", "0000:81:00.0", "nvidia"),
        ("renderD128", "fb000000.gpu", "panthor"),  # a platform device: drm_show_fdinfo names no address
        ("card0-DP-1", CARD, "amdgpu"),
        ("card0", "amdgpu_xcp_1", "amdgpu"),
    ],
)
def test_what_does_not_tell_has_no_sensor_and_nothing_to_say(tmp_path: Path, node: str, at: str, driver: str) -> None:
    device(tmp_path, node, at, driver)
    assert DrmClients(tmp_path).probe() == Found()


@pytest.mark.parametrize("files", [{}, {"sys/class/drm": "no folder"}, {"sys/class/drm/version": "drm 1.1.0 20060810"}])
def test_a_machine_without_devices_has_nothing_to_say(tmp_path: Path, files: dict[str, str | int]) -> None:
    assert DrmClients(tree(tmp_path, files)).probe() == Found()


def test_processes_and_files_that_vanish_are_passed_over(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(machine, 10, {4: (NODE, AMDGPU)})
    process(machine, 11, {4: (NODE, UNREADABLE), 5: (NODE, AMDGPU)})
    process(machine, 12, {4: (NODE, AMDGPU), 5: (NODE, UNREADABLE)})  # one of the two is unreadable first
    process(machine, 13, {4: (NODE, AMDGPU)})
    (machine / "proc/13/fdinfo/4").unlink()  # closed between its link and its file
    tree(machine, {"proc/14/comm": "ended"})  # its descriptors went first
    plain = Path.readlink

    def readlink(path: Path) -> Path:
        if path.match("proc/10/fd/*"):
            raise ProcessLookupError(3, "No such process")
        return plain(path)

    assert counts(machine)[f"pci:{CARD}"] == 3.0
    monkeypatch.setattr(Path, "readlink", readlink)
    found = DrmClients(machine).probe()
    assert counts(machine)[f"pci:{CARD}"] == 2.0
    assert not found.denied


def gone(root: Path) -> None:
    (root / "proc").rename(root / "elsewhere")


def no_folder(root: Path) -> None:
    gone(root)
    (root / "proc").write_text("")


def not_mounted(root: Path) -> None:
    gone(root)
    tree(root, {"proc/uptime": ""})


@pytest.mark.parametrize("damage", [gone, no_folder, not_mounted])
def test_without_proc_nothing_is_known(machine: Path, damage: Callable[[Path], None]) -> None:
    damage(machine)
    assert counts(machine) == {f"pci:{CARD}": None, f"pci:{OTHER}": None}
    assert [(each.why, each.remedy) for each in DrmClients(machine).probe().denied] == [
        ("/proc shows no process", None)
    ]


def test_a_device_that_was_taken_away_is_unknown(machine: Path) -> None:
    provider = DrmClients(machine)
    sensors = provider.probe().sensors
    (machine / "sys/class/drm").rename(machine / "gone")
    assert provider.read(sensors) == [None, 0.0]
    (machine / "sys").rename(machine / "all gone")
    assert provider.read(sensors) == [None, None]


def refusing(monkeypatch: pytest.MonkeyPatch, pattern: str, method: str) -> None:
    """As fs/proc/fd.c refuses who may not trace a process, also where the tests are root's."""
    plain = getattr(Path, method)

    def refused(path: Path) -> Iterator[Path] | Path:
        if path.match(pattern):
            raise PermissionError(13, "Permission denied", str(path))
        found: Iterator[Path] | Path = plain(path)
        return found

    monkeypatch.setattr(Path, method, refused)


@pytest.mark.parametrize(("pattern", "method"), [("proc/10/fd", "iterdir"), ("proc/10/fd/*", "readlink")])
def test_processes_of_others_are_missing_and_said_to_be(
    machine: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, method: str
) -> None:
    process(machine, 10, {4: (NODE, AMDGPU)})
    process(machine, 11, {4: (NODE, AMDGPU)})
    refusing(monkeypatch, pattern, method)
    assert counts(machine) == {f"pci:{CARD}": 1.0, f"pci:{OTHER}": 0.0}
    (denied,) = DrmClients(machine).probe().denied
    assert denied.what == f"processes of other users on pci:{CARD}, pci:{OTHER}"
    assert "as root" in (denied.remedy or "")
    assert "sys_ptrace,+dac_read_search" in (denied.remedy or "")


def test_hidden_processes_are_noticed_by_the_first_ones_absence(machine: Path) -> None:
    (machine / "proc/1").rename(machine / "hidden")  # hidepid=invisible (Documentation/filesystems/proc.rst)
    assert [each.what.split(" on ")[0] for each in DrmClients(machine).probe().denied] == ["processes of other users"]


def test_a_container_says_that_it_sees_its_own_processes_only(machine: Path) -> None:
    (machine / "proc/self/ns/pid").unlink()
    (machine / "proc/self/ns/pid").symlink_to("pid:[4026532281]")
    (denied,) = DrmClients(machine).probe().denied
    assert denied.what.startswith("processes outside of this container")
    assert "--pid=host" in (denied.remedy or "")


def test_one_look_serves_all_devices(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = DrmClients(machine)
    sensors = provider.probe().sensors
    plain, looks = drm_clients._look, []

    def counted(proc: Path, nodes: Mapping[str, tuple[str, str]]) -> drm_clients.Look | None:
        looks.append(proc)
        return plain(proc, nodes)

    monkeypatch.setattr(drm_clients, "_look", counted)
    assert provider.read(sensors) == [0.0, 0.0]
    assert looks == [machine / "proc"]


HELD, OPEN = "drm-total-vram:\t4 KiB\n", "drm-total-vram:\t0\n"
opened = st.tuples(st.integers(1, 6), st.sampled_from([CARD, OTHER]), st.sampled_from([HELD, OPEN]))


@settings(max_examples=40, deadline=None)
@given(st.lists(opened, max_size=12))
def test_no_process_counts_twice(files: Sequence[tuple[int, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for node, address in (("renderD128", CARD), ("renderD129", OTHER)):
            device(root, node, address, "xe")
        for descriptor, (pid, address, use) in enumerate([(1, CARD, OPEN), *files]):
            process(root, pid, {descriptor: (NODE, f"drm-pdev:\t{address}\n{use}")})
        for address in (CARD, OTHER):
            holders = {pid for pid, at, use in files if (at, use) == (address, HELD)}
            assert counts(root)[f"pci:{address}"] == len(holders)


def test_the_kernels_own_proc_is_read(tmp_path: Path) -> None:
    address = "ffff:ff:1f.7"  # where no machine has a card
    device(tmp_path, "card99999", address, "xe")
    (tmp_path / "proc").symlink_to("/proc")
    assert counts(tmp_path) == {f"pci:{address}": 0.0}
