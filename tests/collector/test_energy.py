"""Readings to joules: counters that wrap, are reset, stick or lie, power readings with gaps, windows of any kind."""

import math
import random
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.collector.energy import Extremes, Idle, Used, extremes, grown, mean_power, used
from bench.collector.sensors import Sensor
from bench.collector.series import Series, Window

S = 10**9
WRAP_J = 262_143.328850
"""max_energy_range_uj of a package (telemetry.md 1.4)."""


def sensor(quantity="energy", **more):
    kind = "counter" if quantity in ("energy", "throttle-time") else "gauge"
    given = {"period_s": 0.1, **more}
    return Sensor(device="cpu:0", quantity=quantity, part="package", kind=kind, source="made up", **given)


def series(readings, quantity="energy", **more):
    """Readings at seconds."""
    return Series.of(sensor(quantity, **more), [(round(at * S), value) for at, value in readings])


def ticks(seconds=20.0, step=0.1):
    return [index * step for index in range(round(seconds / step) + 1)]


def steady(watts=100.0, start_j=1000.0, seconds=20.0, **more):
    """A counter that is updated with every reading."""
    return series([(at, start_j + watts * at) for at in ticks(seconds)], **more)


def gauge(watts=lambda at: 100.0, seconds=20.0, step=0.1, **more):
    return series([(at, watts(at)) for at in ticks(seconds, step)], "power", **more)


def window(begin=5.0, end=15.0):
    return Window(round(begin * S), round(end * S))


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-6)


# counters


def test_a_counter_gives_its_difference_between_the_edges():
    found = used(steady(), None, [window(5.03, 14.97)])
    assert found.joules == close(994.0)
    assert (found.method, found.reason, found.flags) == ("counter", None, ())
    assert found.mean_w == close(100.0)
    assert found.uncertainty_j == close(2 * 0.1 * 100)
    assert (found.updates, found.coverage_ratio, found.largest_gap_s) == (99, close(1.0), close(0.1))


def test_edges_lie_between_updates_not_between_repeated_readings():
    stairs = series([(at, 100.0 * math.floor(at + 1e-9)) for at in ticks()])
    found = used(stairs, None, [window(5.5, 12.25)])
    assert found.joules == close(675.0)
    assert found.updates == 7


@given(st.floats(0, WRAP_J - 1), st.floats(1, 500))
@settings(max_examples=50)
def test_where_a_counter_wraps_does_not_matter(start_j, watts):
    wrapping = series([(at, (start_j + watts * at) % WRAP_J) for at in ticks()], wraps_at=WRAP_J)
    assert used(wrapping, None, [window()]).joules == pytest.approx(10 * watts, rel=1e-6)


def test_a_wrap_that_may_have_been_missed_leaves_nothing():
    readings = [(at, 100.0 * at % 65_712.999613) for at in ticks() if not 6 < at < 14]
    found = used(series(readings, wraps_at=65_712.999613), None, [window()])
    assert found.joules is None and "may have wrapped" in found.reason
    assert used(series(readings), None, [window()]).joules == close(1000.0)


@given(st.lists(st.floats(0.1, 300), min_size=200, max_size=200), st.integers(1, 9 * S), st.integers(1, 9 * S))
@settings(max_examples=50)
@pytest.mark.parametrize("quantity", ["energy", "power"])
def test_adjacent_windows_add_up_to_the_window_that_joins_them(quantity, watts, first_ns, second_ns):
    values = np.cumsum(watts) / 10 if quantity == "energy" else watts
    readings = series([(0.1 * index, float(value)) for index, value in enumerate(values)], quantity)
    pair = (readings, None) if quantity == "energy" else (None, readings)
    begin, middle, end = S // 2, S // 2 + first_ns, S // 2 + first_ns + second_ns
    parts = [Window(begin, middle), Window(middle, end)]
    each = [used(*pair, [part]).joules for part in parts]
    whole, both = used(*pair, [Window(begin, end)]).joules, used(*pair, parts[::-1]).joules
    if None not in (*each, whole):
        assert sum(each) == pytest.approx(whole, rel=1e-9)
    if None not in (both, whole):
        assert both == pytest.approx(whole, rel=1e-9)


@given(st.floats(5.2, 14.8), st.floats(0, 999), st.sampled_from([None, WRAP_J]))
@settings(max_examples=50)
def test_a_reset_within_a_window_never_yields_a_number(at_s, restart_j, wraps_at):
    readings = [(at, 1000 + 100 * at if at < at_s else restart_j + 100 * (at - at_s)) for at in ticks()]
    found = used(series(readings, wraps_at=wraps_at), None, [window()])
    assert (found.joules, found.method, found.reason) == (None, None, "counter reset")
    assert found.mean_w is None and found.uncertainty_j is None


def test_windows_beside_a_reset_keep_their_numbers():
    readings = series([(at, 1000 + 100 * at if at < 10 else 100 * (at - 10)) for at in ticks()])
    assert used(readings, None, [window(2, 9)]).joules == close(700.0)
    assert used(readings, None, [window(11, 19)]).joules == close(800.0)
    assert used(readings, None, [window(2, 9), window(9, 11)]).joules is None, "no total leaves out a window"


def test_a_counter_that_runs_backwards_a_little_was_reset():
    """Made up after ROCm/amdsmi #115."""
    readings = [(at, 1000 + 100 * at - (0.5 + 10 if at >= 10 else 0)) for at in ticks()]
    assert used(series(readings), None, [window()]).reason == "counter reset"
    assert used(series(readings, wraps_at=WRAP_J), None, [window()]).reason == "counter reset"


@pytest.mark.parametrize("odd_j", [204.0, 1.8e13, 0.0])
def test_single_readings_far_off_are_dropped_and_flagged(odd_j):
    """Made up after intel/compute-runtime #938: 100 to 300 J instead of MJ, terawatts by their difference."""
    readings = [(at, odd_j if round(10 * at) in (70, 90, 92) else 3.1e6 + 100 * at) for at in ticks()]
    found = used(series(readings), None, [window()])
    assert found.joules == close(1000.0)
    assert found.flags == ("dropped-readings",)
    assert used(series(readings), None, [window(10, 19)]).flags == ()


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0, 10**400, "12 W", None])
@pytest.mark.parametrize("quantity", ["energy", "power"])
def test_what_is_no_reading_is_left_out(quantity, odd):
    readings = [(at, odd if round(10 * at) % 7 == 0 else 1000 + 100 * at) for at in ticks()]
    found = series(readings, quantity)
    pair = (found, None) if quantity == "energy" else (None, found)
    expected = 1000.0 if quantity == "energy" else (1000 + 1000) * 10
    assert used(*pair, [window()]).joules == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("jump_j", [1e5, 1e12])
def test_a_jump_that_no_device_can_make_leaves_nothing(jump_j):
    readings = series([(at, 1000 + 100 * at + (jump_j if at >= 10 else 0)) for at in ticks()])
    found = used(readings, None, [window()])
    assert (found.joules, found.reason) == (None, "impossible reading")


@given(st.sampled_from([1e3, 1e6]), st.floats(30, 350))
@settings(max_examples=20)
def test_units_taken_for_smaller_ones_are_refused(factor, watts):
    pair = steady(watts * factor), gauge(lambda at: watts * factor)
    found = used(*pair, [window()], most_w=1.5 * 350)
    assert found.joules is None
    assert found.reason == "impossible reading; power: impossible reading"
    assert found.flags == (), "a spike is one after which the counter goes on as before"


def test_units_taken_for_larger_ones_are_refuted_by_the_other_method():
    found = used(steady(0.1), gauge(), [window()])
    assert found.integral_ratio == close(1e-3)
    assert found.joules is None and "counter-mismatch" in found.flags


def test_growth_a_little_beyond_the_limit_is_refused_over_the_whole_window():
    assert used(steady(900.0), None, [window()], most_w=525.0).reason == "impossible reading"
    assert used(steady(500.0), None, [window()], most_w=525.0).joules == close(5000.0)
    assert used(steady(900.0), None, [window()], most_w=None).joules == close(9000.0)


def test_an_update_after_a_pause_belongs_to_the_pause():
    rare = series([(at, 300 * math.floor(at + 1e-9)) for at in ticks()])
    assert used(rare, None, [window()], most_w=450.0).joules == close(3000.0)


# counters that stand still


def frozen(begin=7.0, end=20.0):
    return series([(at, 1000 + 100 * (min(at, begin) + max(0.0, at - end))) for at in ticks()])


def test_a_counter_that_never_moves_is_stuck():
    """Made up after ROCm/rocm_smi_lib #180: constant within a process."""
    still = series([(at, 1000.0) for at in ticks()])
    found = used(still, None, [window()])
    assert (found.joules, found.reason, found.updates) == (None, "counter stuck", 0)
    assert mean_power(still, None, window(0, 20)).reason == "counter stuck"


@pytest.mark.parametrize("end_s", [9.0, 20.0])
def test_power_readings_stand_for_a_counter_that_froze(end_s):
    found = used(frozen(end=end_s), gauge(), [window()])
    assert (found.joules, found.method, found.flags) == (close(1000.0), "integral", ("counter-stuck",))
    assert found.integral_ratio is None
    assert used(frozen(end=end_s), None, [window()]).reason == "counter stuck"


def test_a_counter_may_rest_while_power_reads_zero():
    resting = gauge(lambda at: 0.0 if 7 < at < 9.05 else 100.0)
    assert used(frozen(end=9.0), resting, [window()]).method == "counter"


# power


@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0, 500)), min_size=30, max_size=40))
@settings(max_examples=50)
def test_the_trapezoid_is_exact_for_power_that_is_linear_between_readings(pairs):
    at_s = np.cumsum([apart for apart, _ in pairs])
    watts = [value for _, value in pairs]
    begin, end = 0.5 * (at_s[0] + at_s[1]), 0.3 * at_s[-2] + 0.7 * at_s[-1]
    inside = [(at, value) for at, value in zip(at_s, watts, strict=True) if begin < at < end]
    edges = [(edge, float(np.interp(edge, at_s, watts))) for edge in (begin, end)]
    known = np.array([edges[0], *inside, edges[1]])
    expected = float((np.diff(known[:, 0]) * (known[1:, 1] + known[:-1, 1]) / 2).sum())
    readings = series(zip(at_s.tolist(), watts, strict=True), "power")
    found = used(None, readings, [window(begin, end)])
    if expected > 1:
        assert found.joules == pytest.approx(expected, rel=1e-5)
        assert found.method == "integral"


def test_the_trapezoid_follows_a_sine():
    sine = gauge(lambda at: 200 + 100 * math.sin(at))
    expected = 2000 + 100 * (math.cos(5) - math.cos(15))
    assert used(None, sine, [window()]).joules == pytest.approx(expected, rel=1e-3)


def test_repeated_power_readings_are_not_removed():
    """A step after a plateau is no ramp from the plateau's begin (Zeus drops repeats; telemetry.md 1)."""
    step = gauge(lambda at: 100.0 if at < 10 - 1e-6 else 300.0)
    assert used(None, step, [window()]).joules == pytest.approx(500 + 1500 + 10, rel=1e-6)


def test_averaged_power_is_of_the_middle_of_what_it_averages():
    averaged = gauge(lambda at: 100.0 + 10 * (at - 0.5), averaging_s=1.0)
    found = used(None, averaged, [window()])
    assert (found.joules, found.uncertainty_j) == (close(2000.0), close(2 * 1.0 * 200))
    assert "averaged over 1 s" in used(None, averaged, [window(5, 9)]).reason
    assert used(None, averaged, [window(12, 19.8)]).reason == "readings end 0.3 s before the window"


def test_a_gap_within_a_window_leaves_nothing():
    readings = series([(at, 100.0) for at in ticks() if not 7.05 < at < 8.95], "power")
    found = used(None, readings, [window()])
    assert (found.joules, found.reason) == (None, "gap of 2 s")
    assert (found.coverage_ratio, found.largest_gap_s) == (close(0.8), close(2.0))
    assert used(None, readings, [window(10, 19)]).joules == close(900.0)


@pytest.mark.parametrize("watts", [1e12, -5.0])
def test_power_that_no_device_uses_is_dropped(watts):
    spiked = gauge(lambda at: watts if round(10 * at) == 100 else 100.0)
    found = used(None, spiked, [window()])
    assert (found.joules, found.flags) == (close(1000.0), ("dropped-readings",))
    assert used(None, gauge(lambda at: watts), [window()]).reason == "impossible reading"


def test_power_that_reads_zero_throughout_is_no_measurement():
    """aristocratos/btop #1457: 0 W where there is no power file."""
    assert used(None, gauge(lambda at: 0.0), [window()]).reason == "power reads 0 throughout"


@given(st.integers(0, 2**32), st.floats(0.02, 0.1), st.floats(10, 400), st.floats(0, 0.7))
@settings(max_examples=80)
@pytest.mark.parametrize("quantity", ["energy", "power"])
def test_lost_readings_cost_no_more_than_the_stated_uncertainty(quantity, seed, update_s, watts, lost):
    chance = random.Random(seed)
    readings = []
    for at in ticks(30):
        jittered = at + chance.uniform(0, 0.05)
        told = watts * update_s * math.floor(jittered / update_s) if quantity == "energy" else watts
        readings.append((jittered, None if chance.random() < lost else told))
    found = series(readings, quantity)
    pair = (found, None) if quantity == "energy" else (None, found)
    begin = chance.uniform(1, 10)
    windows = [window(begin, begin + 4), window(begin + 5, begin + 5 + chance.uniform(1, 10))]
    seconds = sum(each.seconds for each in windows)
    result = used(*pair, windows)
    if result.joules is not None:
        assert abs(result.joules - watts * seconds) <= result.uncertainty_j + 1e-6
    assert result.coverage_ratio <= 1
    if not lost:
        assert result.joules is not None


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_the_order_of_readings_and_windows_does_not_matter(seed):
    chance = random.Random(seed)
    rows = [(round(at * S), None if chance.random() < 0.1 else 100 * at) for at in ticks()]
    rows += [(5 * S, 7.0), (5 * S, None), (5 * S, 501.0)]
    windows = [window(6, 9), window(2, 4), window(9, 12)]
    expected = used(Series.of(sensor(), rows), None, sorted(windows, key=lambda each: each.begin_ns))
    chance.shuffle(rows), chance.shuffle(windows)
    assert used(Series.of(sensor(), rows), None, windows) == expected


# both, and neither


def test_both_methods_are_compared():
    found = used(steady(80.0), gauge(), [window(5, 10)])
    assert found.joules == close(400.0)
    assert found.integral_ratio == close(0.8)
    assert found.flags == ("counter-mismatch",)
    assert used(steady(80.0), gauge(), [window(5, 9.9)]).flags == ()
    assert used(steady(95.0), gauge(), [window()]).flags == ()


@pytest.mark.parametrize(
    ("counter_w", "power_w", "both"),
    [
        (187 / 5, 327 / 5, "counter 187 J, power readings 327 J"),  # after ml-energy/zeus #181
        (120.0, 360.0, "counter 600 J, power readings 1800 J"),
        (360.0, 120.0, "counter 1800 J, power readings 600 J"),
    ],
)
def test_where_both_methods_contradict_each_other_neither_counts(counter_w, power_w, both):
    found = used(steady(counter_w), gauge(lambda at: power_w), [window(5, 10)])
    assert found.joules is None and found.method is None and found.mean_w is None and found.uncertainty_j is None
    assert both in found.reason
    assert found.flags == ("counter-mismatch",) and found.integral_ratio == close(counter_w / power_w)
    brief = used(steady(counter_w), gauge(lambda at: power_w), [window(5, 9.9)])
    assert brief.joules == close(counter_w * 4.9), "edges alone may make so much in less than 5 s"
    assert used(steady(149.0), gauge(), [window(5, 10)]).joules == close(745.0)


@pytest.mark.parametrize(("lasts_s", "doubt"), [(0.4, "100%"), (0.8, "50%"), (1.0, None), (4.0, None)])
def test_what_may_be_off_by_more_than_two_fifths_has_no_number(lasts_s, doubt):
    """A sensor of 0.2 s; windows that the timed samples of a short phase leave."""
    readings = series([(at, 1000 + 120 * at) for at in ticks(60, 0.2)], period_s=0.2)
    found = used(readings, None, [window(at + 0.1, at + 0.1 + lasts_s) for at in range(5, 50, 5)])
    assert (found.joules is None) is (doubt is not None)
    if doubt:
        assert found.reason.startswith("window too short") and found.reason.endswith(f"uncertain by {doubt}")
    else:
        assert found.uncertainty_j <= 0.4 * found.joules + 1e-6


def test_power_readings_stand_for_a_counter_that_was_reset():
    broken = series([(at, 1000 - 100 * (at > 10) + at) for at in ticks()])
    found = used(broken, gauge(), [window()])
    assert (found.joules, found.method, found.flags) == (close(1000.0), "integral", ("counter-reset",))


@pytest.mark.parametrize(
    ("counter", "power", "windows", "reason"),
    [
        (None, None, [window()], "no sensor"),
        (steady(), None, [], "no window"),
        (steady(), None, [window(5, 5)], "no window"),
        (steady(), None, [window(6, 5)], "a window ends before it begins"),
        (series([(1, None), (2, None)]), None, [window()], "the sensor could never be read"),
        (series([]), series([], "power"), [window()], "the sensor could never be read"),
        (series([(10, 5.0)]), None, [window()], "one reading only"),
        (steady(), None, [window(5.04, 5.09)], "window too short: 0.05 s, 0 updates"),
        (steady(), None, [window(5.02, 5.22)], "window too short: 0.2 s, 2 updates"),
        (steady(), None, [window(5.05, 5.45)], "window too short: 0.4 s, 4 updates"),
        (steady(), None, [window(at + 0.05, at + 0.2) for at in range(1, 10)], "too short: 1.35 s, 18 updates, 9 win"),
        (steady(), None, [window(-1, 5)], "no update before the window"),
        (None, gauge(), [window(-1, 5)], "readings begin 1 s after the window"),
        (steady(), None, [window(15, 21)], "readings end 1 s before the window"),
        (steady(), None, [window(0, 5)], "no update before the window"),
        (None, steady(), [window(5, 5.3)], "window too short: 0.3 s, 3 updates"),
        (steady(), gauge(seconds=4), [window(15, 21)], "1 s before the window; power: readings end 17 s before"),
    ],
)
def test_without_a_number_there_is_a_reason(counter, power, windows, reason):
    found = used(counter, power, windows)
    assert found.joules is None and found.method is None and found.mean_w is None
    assert reason in found.reason


@pytest.mark.parametrize(("end", "flags"), [(7.05, ()), (6.95, ("coarse",)), (5.55, ("coarse",))])
def test_few_updates_are_coarse(end, flags):
    assert used(steady(), None, [window(5.05, end)]).flags == flags
    assert used(None, gauge(), [window(5.05, end)]).flags == flags


# the rest


def test_power_at_rest_has_a_mean_and_a_spread():
    found = mean_power(steady(20.0, seconds=30), None, window(0, 30))
    assert found == Idle(close(20.0), close(0.0), close(29.9), None)
    swinging = gauge(lambda at: 20.0 + 5 * (-1) ** math.floor(at + 0.05), seconds=30)
    assert mean_power(None, swinging, window(0, 30)).sd_w == pytest.approx(5, rel=0.1)


def test_power_at_rest_comes_from_power_readings_where_the_counter_fails():
    still = series([(at, 1000.0) for at in ticks()])
    assert mean_power(still, gauge(), window(0, 20)).mean_w == close(100.0)
    assert mean_power(still, gauge(lambda at: 0.0), window(0, 20)).reason == (
        "counter stuck; power: power reads 0 throughout"
    )


@pytest.mark.parametrize(
    ("counter", "span", "reason"),
    [
        (steady(), window(5, 9.9), "window too short: 4.9 s, 50 updates"),
        (steady(), window(30, 40), "readings end"),
        (None, window(), "no sensor"),
        (series([]), Window(0, 0), "the sensor could never be read"),
        (series([(at, 1e12 * at) for at in ticks()]), window(), "impossible reading"),
    ],
)
def test_power_at_rest_may_be_unknown(counter, span, reason):
    found = mean_power(counter, None, span)
    assert found.mean_w is None and found.sd_w is None
    assert reason in found.reason


def throttled(readings, **more):
    return series(readings, "throttle-time", **more)


@pytest.mark.parametrize(
    ("readings", "windows", "expected"),
    [
        ([(0, 1.0), (4, 1.5), (6, 2.5), (20, 3.0)], [window(5, 6)], 1.0),
        ([(0, 1.0), (4, 1.5), (6, 2.5), (20, 3.0)], [window(5, 5.5), window(5.5, 6)], 1.0),
        ([(4, 1.0), (16, 1.0)], [window()], 0.0),
        ([(6, 1.0), (16, 2.0)], [window()], None),
        ([(4, 1.0), (14, 2.0)], [window()], None),
        ([(4, 2.0), (16, 1.0)], [window()], None),
        ([(4, 1.0), (16, 1e6)], [window()], None),
        ([(4, 1.0), (16, 2.0)], [], None),
        ([(4, None)], [window()], None),
        ([], [window()], None),
    ],
)
def test_a_counter_grew_between_the_readings_around_the_windows(readings, windows, expected):
    found = grown(throttled(readings), windows)
    assert (found[0] if found else None) == expected


def test_a_counter_may_wrap_while_it_grows_but_not_run_backwards():
    assert grown(throttled([(4, 99.0), (16, 1.0)], wraps_at=100.0), [window()]) == (2.0, 12.0)
    assert grown(throttled([(4, 50.0), (160, 49.0)], wraps_at=100.0), [window(5, 150)]) is None


def test_extremes_are_of_readings_inside():
    clock = series([(1, 9e9), (5, 1e9), (6, 2e9), (7, None), (15, 3e9), (16, 4e9), (8, 1e15)], "clock", most=1e10)
    assert extremes(clock, [window(14, 15), window(5, 6)]) == Extremes(1e9, 2e9, 3e9)
    assert extremes(clock, [window(7, 7.5)]) == Extremes()
    assert extremes(clock, []).highest == 9e9
    assert extremes(series([], "clock"), []) == Extremes()


def test_a_series_is_sorted_and_knows_its_ends():
    found = series([(3, None), (2, 5.0), (1, None), (2, None)])
    assert found.at_ns.tolist() == [1 * S, 2 * S, 3 * S]
    assert (found.known, found.first_ns, found.last_ns) == (True, 2 * S, 2 * S)
    empty = series([(1, None)])
    assert (empty.known, empty.first_ns, empty.last_ns) == (False, 0, 0)


def test_results_are_plain():
    plain = (int, float, str, type(None))
    told = asdict(used(steady(), gauge(), [window()])) | asdict(mean_power(steady(), None, window()))
    assert all(type(value) in plain for name, value in told.items() if name != "flags")
    assert isinstance(Used().flags, tuple)
