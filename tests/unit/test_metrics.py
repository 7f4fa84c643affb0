"""Metrics beside time: measured by payloads, compared like time, shown in rows of their own."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis import summary as analysis
from isobench.analysis.cells import Analysis
from isobench.claims import load
from isobench.comparison.noise import machine_noise
from isobench.config import paths
from isobench.model import Better, Clock, Metric, Sample, Schedule
from isobench.model.errors import UsageError
from isobench.model.units import Unit
from isobench.report import comparison as comparison_view
from isobench.report import html, markdown, sections
from isobench.report import noise as noise_view
from isobench.report.exporters.junit import junit
from isobench.report.exporters.openmetrics import openmetrics
from isobench.storage import documents, reader
from tests.comparisons import compared, document, pair
from tests.faults import damage
from tests.unit.conftest import Counted, Synthetic

Write = Callable[..., Path]
MakeRun = Callable[..., reader.Run]
PAGES, SIEVE = ("box", "app.pages"), ("box", "cpu.sieve")
PEAK = Metric(name="peak", unit=Unit.BYTE, fact="memory.peak")
RATE = Metric(name="rate", unit=Unit.OPERATIONS_PER_SECOND, better=Better.HIGHER, fact="pages.rate")
FAULTS = Metric(name="faults", unit=Unit.COUNT, fact="memory.faults")


def measured(metric: Metric, factor: float, **more: Any) -> Counted:
    return Counted(metric=metric, factors={PAGES: factor}, **more)


def summary(path: Path) -> dict[str, Any]:
    made = analysis.summarise(reader.load(path), ())
    found: dict[str, Any] = json.loads(documents.encoded(made))
    return found


def cell(made: Mapping[str, Any], metric: str, target: str = "box") -> dict[str, Any]:
    (found,) = (c for c in made["cells"] if (c["target"], c["metric"]) == (target, metric))
    return dict(found)


# ---- ratios: above 1 is worse


@pytest.mark.parametrize(
    ("metric", "factor", "ratio", "status"),
    [
        (PEAK, 2.0, 2.0, "slower"),
        (PEAK, 0.5, 0.5, "faster"),
        (PEAK, 1.0, 1.0, "near-native"),
        (RATE, 0.5, 2.0, "slower"),
        (RATE, 2.0, 0.5, "faster"),
        (RATE, 1.0, 1.0, "near-native"),
    ],
)
def test_a_ratio_above_one_is_worse_whichever_values_are_better(
    metric: Metric, factor: float, ratio: float, status: str, synthetic: Write
) -> None:
    found = cell(summary(synthetic({PAGES: 1.0}, metrics=(measured(metric, factor),))), metric.name)
    assert found["ratio"] == pytest.approx(ratio, rel=0.005)
    low, high = found["interval"]
    assert low < ratio < high
    assert found["standing"] == status
    assert found["value"] / found["reference"] == pytest.approx(factor, rel=0.01)
    assert (found["unit"], found["blocks"]) == (str(metric.unit), 15)


@pytest.mark.parametrize("ratio", [0.8, 1.3])
def test_a_higher_metric_is_compared_with_native_beside_it_in_duets(
    ratio: float, synthetic: Write
) -> None:
    run = synthetic(
        {PAGES: 1.0}, metrics=(measured(RATE, 1 / ratio),), schedule=Schedule.DUET, blocks=30
    )
    found = cell(summary(run), "rate")
    assert found["ratio"] == pytest.approx(ratio, rel=0.01)
    assert found["blocks"] == 15


def test_times_that_a_payload_prints_are_in_seconds(synthetic: Write) -> None:
    cpu = Metric(name="cpu", unit=Unit.NANOSECOND, fact="cpu.used")
    found = cell(summary(synthetic({PAGES: 1.0}, metrics=(measured(cpu, 3.0),))), "cpu")
    assert found["unit"] == "seconds"
    assert found["reference"] == pytest.approx(1e-3, rel=0.01)


def test_time_is_the_same_whatever_stands_beside_it(synthetic: Write) -> None:
    both = (measured(PEAK, 2.0), measured(RATE, 0.25))
    plain = summary(synthetic({PAGES: 1.3}, name="plain"))
    more = summary(synthetic({PAGES: 1.3}, name="more", metrics=both))
    alone = {"p_equivalence_together"}  # adjusted for more cells
    for target in ("box", "native#2"):
        time, same = (cell(made, "time", target) for made in (plain, more))
        assert {k: v for k, v in time.items() if k not in alone} == {
            k: v for k, v in same.items() if k not in alone
        }
    assert [c["metric"] for c in more["cells"] if c["target"] == "box"] == ["time", "peak", "rate"]
    assert more["run"]["noise"] == plain["run"]["noise"]
    assert set(more["run"]["metric_noise"]["app.pages"]) == {"peak", "rate"}


def test_means_of_classes_are_of_time_alone(tmp_path: Path) -> None:
    ratios = {("box", "cpu.sieve"): 1.2, ("box", "cpu.matmul"): 1.2}
    peak = Counted(metric=PEAK, factors=dict.fromkeys(ratios, 3.0))
    made = summary(Synthetic(ratios=ratios, metrics=(peak,)).write(tmp_path / "run"))
    (mean,) = (one for one in made["suites"] if one["target"] == "box")
    assert mean["ratio"] == pytest.approx(1.2, rel=0.01)


def test_a_run_of_a_version_that_named_no_metrics_has_time_alone() -> None:
    path = damage.EXAMPLES / "2026-11-25-debian12-2cpu"
    assert "metrics" not in json.loads((path / "run.json").read_text())["workloads"][0]
    run = Analysis(reader.load(path))
    assert run.metrics == ["time"]
    assert {cell["metric"] for cell in summary(path)["cells"]} == {"time"}


# ---- counted values


@pytest.mark.parametrize(("factor", "status"), [(1.0, "near-native"), (1.5, "slower")])
def test_counts_that_never_differ_are_exact_and_no_fault_of_a_timer(
    factor: float, status: str, synthetic: Write
) -> None:
    made = summary(synthetic({PAGES: 1.0}, metrics=(measured(FAULTS, factor, noise=0.0),)))
    found = cell(made, "faults")
    assert found["ratio"] == pytest.approx(factor)
    assert (found["standing"], found["doubt_codes"]) == (status, [])
    assert found["p_equivalence"] is found["p_equivalence_together"] is None
    assert made["run"]["metric_noise"] == {"app.pages": {"faults": 0.0}}


def test_a_rate_that_never_differs_is_a_clock_too_coarse(synthetic: Write) -> None:
    found = cell(
        summary(synthetic({PAGES: 1.0}, metrics=(measured(RATE, 1.0, noise=0.0),))), "rate"
    )
    assert (found["standing"], found["doubt_codes"]) == ("unproven", ["timer-limited"])


def test_a_count_of_nothing_has_a_value_and_no_ratio(synthetic: Write) -> None:
    found = cell(
        summary(synthetic({PAGES: 1.0}, metrics=(measured(FAULTS, 1.0, amount=0),))), "faults"
    )
    assert (found["value"], found["reference"], found["ratio"]) == (0.0, 0.0, None)
    assert found["standing"] == "unproven"
    assert any("0 has none" in doubt for doubt in found["doubts"])


def test_numbers_below_zero_are_no_values(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    below = [a_sample(n, "box", "app.pages", -5, metric="fact.memory.peak") for n in range(1, 16)]
    peak = measured(PEAK, 1.0, missing=frozenset({"box"}))
    made = summary(synthetic({PAGES: 1.0}, metrics=(peak,), samples=below))
    assert [c["target"] for c in made["cells"] if c["metric"] == "peak"] == ["native#2"]


def test_a_metric_by_a_clock_that_is_off_is_not_proven_and_counts_are(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    spans = [
        a_sample(block, "box", "app.pages", value, metric=metric, clock=clock)
        for block in range(1, 16)
        for metric, value, clock in (
            ("span.guest", 5 * 10**7, Clock.GUEST),
            ("span.host", 10**8, Clock.HOST),
            ("dispatch", 20_000, Clock.HOST),
        )
    ]
    both = (measured(RATE, 0.5), measured(PEAK, 1.0))
    made = summary(synthetic({PAGES: 0.65}, metrics=both, samples=spans))
    assert cell(made, "time")["ratio"] == pytest.approx(1.3, rel=0.01)
    assert (cell(made, "rate")["standing"], cell(made, "rate")["doubt_codes"]) == (
        "unproven",
        ["guest-clock"],
    )
    assert cell(made, "peak")["standing"] == "near-native"


# ---- what is lacking


def test_where_the_payload_prints_no_such_number_the_metric_alone_is_a_gap(
    synthetic: Write,
) -> None:
    ratios = {PAGES: 1.0, ("wasm", "app.pages"): 1.0}
    peak = Counted(metric=PEAK, factors=dict.fromkeys(ratios, 1.0), missing=frozenset({"wasm"}))
    made = summary(synthetic(ratios, metrics=(peak,)))
    (gap,) = made["gaps"]
    assert (gap["target"], gap["workload"], gap["metric"]) == ("wasm", "app.pages", "peak")
    assert gap["cause"] == "not-applicable"
    assert gap["detail"] == "the payload gave no number for memory.peak"
    assert cell(made, "time", "wasm")["standing"] == "near-native"
    text = markdown.markdown(sections.build(documents.summary_of(made)))
    assert "wasm, app.pages: peak: not-applicable" in text


def test_a_fact_that_no_payload_prints_is_reported_with_where_it_is_named(synthetic: Write) -> None:
    nobody = frozenset({"native", "native#2", "box"})
    made = summary(synthetic({PAGES: 1.0}, metrics=(measured(PEAK, 1.0, missing=nobody),)))
    assert {gap["target"] for gap in made["gaps"]} == {"box", "native#2"}
    for gap in made["gaps"]:
        assert gap["detail"] == "natively the payload gave no number for memory.peak"
        assert "workload.toml" in gap["hint"]


def test_a_metric_that_is_missing_from_many_blocks_is_not_proven(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    few = [
        a_sample(block, "box", "app.pages", 10**6 + block, metric="fact.memory.peak")
        for block in range(1, 12)
    ]
    peak = measured(PEAK, 1.0, missing=frozenset({"box"}))
    made = summary(synthetic({PAGES: 1.0}, metrics=(peak,), samples=few))
    assert cell(made, "peak")["doubt_codes"] == ["incomplete"]
    assert cell(made, "time")["doubt_codes"] == []


def of_blocks(
    a_sample: Callable[..., Sample], values: Mapping[str, Callable[[int], int]]
) -> list[Sample]:
    """Return the peaks of 15 blocks, by target."""
    return [
        a_sample(block, target, "app.pages", value(block), metric="fact.memory.peak")
        for target, value in values.items()
        for block in range(1, 16)
    ]


@pytest.mark.parametrize("side", ["box", "native"])
@pytest.mark.parametrize(
    ("zeros", "codes"), [(1, ["zero-values"]), (8, ["incomplete", "zero-values"])]
)
def test_a_block_in_which_one_side_alone_is_zero_leaves_no_verdict(
    side: str, zeros: int, codes: list[str], synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    steady = dict.fromkeys(["box", "native", "native#2"], lambda block: 10**6 + block)
    values = steady | {side: lambda block: 0 if block <= zeros else 10**6 + block}
    sides = frozenset(steady)
    made = summary(
        synthetic(
            {PAGES: 1.0},
            metrics=(measured(PEAK, 1.0, missing=sides),),
            samples=of_blocks(a_sample, values),
        )
    )
    found = cell(made, "peak")
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == codes
    assert f"in {zeros} of 15 blocks one side alone has the value 0" in found["doubts"][-1]
    assert cell(made, "time")["standing"] == "near-native"


def test_a_cell_whose_native_has_no_value_in_many_blocks_is_not_proven(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    few = [
        a_sample(block, "native", "app.pages", 10**6 + block, metric="fact.memory.peak")
        for block in range(1, 12)
    ]
    peak = measured(PEAK, 1.0, missing=frozenset({"native"}))
    made = summary(synthetic({PAGES: 1.0}, metrics=(peak,), samples=few))
    assert cell(made, "peak")["doubt_codes"] == ["incomplete"]
    assert "only 11 of 15 blocks have a ratio" in cell(made, "peak")["doubts"][0]


# ---- claims


CLAIM = """
[[claims]]
id = "peak"
quote = "It takes no more memory"
kind = "equivalent"
targets = ["box"]
metric = "peak"
"""


@pytest.mark.parametrize(("factor", "status"), [(1.0, "supported"), (2.0, "refuted")])
def test_a_claim_on_a_metric_is_judged_by_that_metric(
    factor: float, status: str, synthetic: Write
) -> None:
    path = synthetic({PAGES: 1.3}, metrics=(measured(PEAK, factor),))
    (made,) = analysis.summarise(reader.load(path), load(CLAIM, origin="own.toml")).claims
    assert made.status == status
    assert "box app.pages: peak" in made.sentence
    assert "slower" not in made.sentence


def test_a_claim_on_a_metric_that_no_workload_has_is_not_tested(synthetic: Write) -> None:
    path = synthetic({PAGES: 1.0})
    (made,) = analysis.summarise(reader.load(path), load(CLAIM, origin="own.toml")).claims
    assert made.status == "untested"


def test_an_order_and_a_bound_may_be_of_a_metric_too(synthetic: Write) -> None:
    text = CLAIM.replace('"equivalent"', '"order"') + CLAIM.replace(
        '"peak"\nq', '"least"\nq'
    ).replace('"equivalent"', '"bound"\nbelow_ratio = 1.5\nworkloads = ["app"]')
    path = synthetic({PAGES: 1.0}, metrics=(measured(PEAK, 2.0),))
    made = analysis.summarise(reader.load(path), load(text, origin="own.toml")).claims
    assert [claim.status for claim in made] == ["supported", "refuted"]


@pytest.mark.parametrize(
    "wrong",
    [
        'kind = "bound"\nbelow_seconds = 1.0\nworkloads = ["app"]',
        'kind = "checksum"',
        'kind = "evidence"\nevidence = { "kernel.boot_id" = "same" }',
    ],
)
def test_a_claim_on_a_metric_that_cannot_be_meant_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="metric goes with"):
        load(CLAIM.replace('kind = "equivalent"', wrong), origin="own.toml")


def test_a_claim_without_a_quotation_names_its_metric() -> None:
    text = """
[[claims]]
id = "peak"
when = "target == 'box'"
assert = { kind = "order", metric = "peak", margin = "10%" }
"""
    (made,) = load(text, origin="own.toml")
    assert made.quote == "where target == 'box': is worse than native in peak by 10 %"


# ---- reports


@pytest.fixture
def shown(synthetic: Write) -> dict[str, Any]:
    """Return the summary of a run whose memory and rate are worse, and whose time is not."""
    both = (measured(PEAK, 2.0, amount=4 << 20), measured(RATE, 0.5))
    return summary(synthetic({PAGES: 1.0, SIEVE: 1.0}, metrics=both))


def test_the_headline_has_a_sentence_for_each_metric(shown: dict[str, Any]) -> None:
    said = shown["run"]["headline"]
    assert "Applications, peak: worse in box (2.0x)." in said
    assert "Applications, rate: worse in box (2.0x)." in said
    assert "slower" not in said


def test_other_metrics_have_rows_of_their_own_with_their_unit(shown: dict[str, Any]) -> None:
    view = sections.build(documents.summary_of(shown))
    text = markdown.markdown(view)
    assert "| app.pages: peak (bytes) |" in text
    assert "Above 1\N{MULTIPLICATION SIGN} is worse" in text
    page = html.render(view, paths.shared("reports") / "templates")
    for words in (
        "app.pages: rate",
        "4.00\N{NO-BREAK SPACE}MiB",
        "1,000,000/s",
        "higher is better",
    ):
        assert words in page, words


def test_a_report_of_time_alone_says_nothing_of_other_metrics(synthetic: Write) -> None:
    made = summary(synthetic({PAGES: 1.0}))
    assert "metric" not in markdown.markdown(sections.build(documents.summary_of(made)))


def test_open_metrics_label_other_metrics_and_leave_time_as_it_was(shown: dict[str, Any]) -> None:
    text = openmetrics(documents.summary_of(shown))
    labels = 'workload="app.pages",target="box",reference="native"'
    assert f'isobench_ratio{{{labels},bound="point"}} 1' in text
    assert f'isobench_ratio{{{labels},metric="peak",bound="point"}} 2' in text
    assert f'isobench_value{{{labels},metric="rate",unit="ops/s",quantile="0.5"}} ' in text
    assert f'isobench_verdict{{{labels},metric="rate",verdict="slower"}} 1' in text
    assert 'isobench_noise_floor_ratio{workload="app.pages",metric="peak"} ' in text
    durations = [line for line in text.splitlines() if line.startswith("isobench_duration")]
    assert durations
    assert not any("metric=" in line for line in durations)


def test_junit_has_a_case_for_each_metric(shown: dict[str, Any]) -> None:
    root = ET.fromstring(junit(documents.summary_of(shown)))  # noqa: S314 - our own
    (suite,) = (one for one in root if one.get("name") == "app.pages")
    cases = {str(case.get("name")): case for case in suite}
    assert {"box", "box: peak", "box: rate"} <= set(cases)
    found = {
        one.get("name"): one.get("value")
        for one in cases["box: peak"].findall("properties/property")
    }
    assert (found["metric"], found["unit"]) == ("peak", "bytes")
    assert cases["box"].find("properties/property[@name='metric']") is None


def test_what_an_option_explains_is_shown_by_metric(synthetic: Write) -> None:
    ratios = {PAGES: 1.0, ("box-x", "app.pages"): 1.0}
    rate = Counted(metric=RATE, factors={PAGES: 0.5, ("box-x", "app.pages"): 1.0})
    about = {"variations": [{"name": "box-x", "base": "box", "option": "x", "value": "1"}]}
    made = summary(synthetic(ratios, metrics=(rate,), about=about))
    effects = {one["metric"]: one for one in made["variations"]}
    assert effects["rate"]["effect"] == pytest.approx(2.0, rel=0.01)
    assert effects["rate"]["standing"] == "slower"
    assert effects["rate"]["share"] == pytest.approx(1.0, abs=0.05)
    assert effects["time"]["standing"] == "near-native"


# ---- two runs, and noise


def test_a_metric_that_got_worse_is_a_regression_whichever_values_are_better(
    make_run: MakeRun,
) -> None:
    base = make_run({PAGES: 1.0}, metrics=(measured(RATE, 1.0), measured(PEAK, 1.0)))
    head = make_run({PAGES: 1.0}, metrics=(measured(RATE, 0.8), measured(PEAK, 0.8)))
    made = compared(base, head)
    found = {one["metric"]: one for one in document(made)["cells"]}
    assert {name: one["standing"] for name, one in found.items()} == {
        "time": "same",
        "rate": "regression",
        "peak": "improvement",
    }
    assert found["rate"]["change"] == pytest.approx(1.25, rel=0.01)
    assert "box app.pages: rate 1.2" in comparison_view.headline(made)
    assert comparison_view.csv(made).splitlines()[0].endswith(",metric")


def test_a_count_that_changed_exactly_is_a_regression_and_one_that_did_not_is_the_same(
    make_run: MakeRun,
) -> None:
    def run(factor: float, noise: float = 0.0) -> reader.Run:
        return make_run({PAGES: 1.0}, metrics=(measured(FAULTS, factor, noise=noise),))

    for base, head, status in (
        (run(1.0), run(1.5), "regression"),
        (run(1.5), run(1.5), "same"),
        (run(1.0), run(1.5, noise=0.01), "regression"),
    ):
        (found,) = (
            one for one in document(compared(base, head))["cells"] if one["metric"] == "faults"
        )
        assert found["standing"] == status


def test_two_metrics_of_one_name_are_not_compared(make_run: MakeRun) -> None:
    other = replace(PEAK, better=Better.HIGHER)
    made = compared(
        make_run({PAGES: 1.0}, metrics=(measured(PEAK, 1.0),)),
        make_run({PAGES: 1.0}, metrics=(measured(other, 1.0),)),
    )
    (found,) = (one for one in document(made)["cells"] if one["metric"] == "peak")
    assert (found["standing"], found["change"]) == ("unproven", None)
    assert "peak is not the same in both" in found["doubts"][0]


def test_a_metric_of_one_run_alone_is_on_one_side(make_run: MakeRun) -> None:
    made = compared(make_run({PAGES: 1.0}), make_run({PAGES: 1.0}, metrics=(measured(PEAK, 1.0),)))
    (absent,) = document(made)["absent"]
    assert (absent["metric"], absent["lacking"]) == ("peak", "base")


def test_two_targets_of_a_run_are_compared_by_each_metric(make_run: MakeRun) -> None:
    ratios = {PAGES: 1.0, ("jar", "app.pages"): 1.0}
    rate = Counted(metric=RATE, factors={PAGES: 1.0, ("jar", "app.pages"): 0.5})
    made = pair(make_run(ratios, metrics=(rate,)), "box", "jar")
    found = {one["metric"]: one["change"] for one in document(made)["cells"]}
    assert found == pytest.approx({"time": 1.0, "rate": 2.0}, rel=0.01)


def test_noise_has_a_row_for_each_metric_and_its_headline_is_about_time(make_run: MakeRun) -> None:
    noisy = measured(PEAK, 1.0, noise=0.5)
    found = machine_noise(make_run({PAGES: 1.0}, metrics=(noisy, measured(FAULTS, 1.0, noise=0.0))))
    made = {one["metric"]: one for one in noise_view.document(found)["workloads"]}
    assert list(made) == ["time", "peak", "faults"]
    assert made["faults"]["noise"] == 0.0
    assert made["peak"]["noise"] > 0.05
    assert "above 5 %" not in noise_view.headline(found)
    assert [row.cells[0] for row in noise_view.build(found).rows] == [
        "app.pages",
        "app.pages: peak",
        "app.pages: faults",
    ]
