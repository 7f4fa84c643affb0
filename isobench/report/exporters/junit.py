"""The summary of a run as JUnit XML, for tools that show the results of CI jobs.

A suite is a workload; a case in it is a target, or a metric of a target other than time. The suite
"claims" has a case for each of the user's own claims, and "history" one for each cell that was held
beside the history. A refuted claim and a confirmed regression are failures. What is unavailable,
not applicable or untested is skipped, with its reason. A cell that failed is an error. The
documents' sentences are no tests of anybody's, and native's second visit is a control: neither has
a case.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Final

from isobench.model import TIME, Cause, ClaimStatus
from isobench.model.plan import actual
from isobench.model.units import TargetName
from isobench.model.wording import series_text, times_text
from isobench.report.write import Outcome
from isobench.storage.schema import CellSummary, ClaimResult, GapSummary, HistoryCell, Summary

_SKIPPED: Final = frozenset({Cause.UNAVAILABLE, Cause.NOT_APPLICABLE})
_SKIPPED_STATUSES: Final = frozenset({ClaimStatus.UNTESTED, ClaimStatus.INCONCLUSIVE})


def export(outcome: Outcome) -> str:
    """Return the XML document of a run."""
    return junit(outcome.summary)


def junit(summary: Summary) -> str:
    """Return the XML document for a summary."""
    # XML cannot hold control characters, not even as references (XML 1.0, section 2.2). Texts of a
    # summary have none: they were cleaned where they were read.
    root = ET.Element("testsuites", name="isobench")
    for workload, cases in _cases(summary).items():
        _suite(root, workload, list(cases.values()))
    _suite(root, "claims", [_claim(item) for item in summary.claims if not item.is_documents])
    if summary.history is not None:
        _suite(root, "history", [_beside(cell) for cell in summary.history.cells])
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in root)))
    if summary.run.elapsed_seconds is not None:
        root.set("time", f"{summary.run.elapsed_seconds:.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ET.Element, name: str, cases: list[ET.Element]) -> None:
    suite = ET.SubElement(root, "testsuite", name=name, tests=str(len(cases)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)


def _cases(summary: Summary) -> dict[str, dict[str, ET.Element]]:
    """Return by workload a case for each target, with its figures or the reason for a gap."""
    found: dict[str, dict[str, ET.Element]] = {}
    for cell in summary.cells:
        if not _is_control(cell.target):
            name = series_text(cell.target, cell.metric)
            cases = found.setdefault(cell.workload, {})
            cases[name] = case = _case(cell.workload, name)
            _properties(case, dict(_figures(cell)))
    for gap in summary.gaps:
        if not _is_control(gap.target):
            name = series_text(gap.target, gap.metric or TIME.name)
            cases = found.setdefault(gap.workload, {})
            new = name not in cases
            _mark(cases.setdefault(name, _case(gap.workload, name)), gap, new=new)
    return found


def _is_control(target: str) -> bool:
    return target != actual(TargetName(target))


def _beside(cell: HistoryCell) -> ET.Element:
    """Return the case of a cell beside the history."""
    case = _case("history", f"{cell.target} {series_text(cell.workload, cell.metric)}")
    _properties(case, {"outcome": cell.outcome, "before": cell.before, "now": cell.now,
                       "change": cell.change, "runs": cell.runs})  # fmt: skip
    if cell.outcome == "regression" and cell.confirmed:
        message = f"{times_text(cell.before)} -> {times_text(cell.now)}, confirmed"
        ET.SubElement(case, "failure", message=message)
    elif cell.outcome in {"too few runs", "unproven"}:
        ET.SubElement(case, "skipped", message=cell.outcome)
    return case


def _case(workload: str, target: str) -> ET.Element:
    return ET.Element("testcase", classname=workload, name=target)


def _figures(cell: CellSummary) -> Iterator[tuple[str, object]]:
    if cell.metric != TIME.name:
        yield "metric", cell.metric
    yield "ratio", cell.ratio
    yield "standing", cell.status  # the key of summary.json
    yield "blocks", cell.blocks
    yield "value", cell.value
    yield "unit", cell.unit
    low, high = cell.interval or (None, None)
    yield "lower", low
    yield "upper", high
    yield "level", None if cell.interval is None else cell.level


def _mark(case: ET.Element, gap: GapSummary, *, new: bool) -> None:
    """Add the reason of a gap to a case; `new`: the case has no figures."""
    message = f"{gap.cause}: {gap.detail}"
    # A case has at most one result: a cell with figures is not skipped, and the first error counts.
    if gap.cause in _SKIPPED and new:
        ET.SubElement(case, "skipped", message=message).text = gap.hint
    elif case.find("error") is None and gap.cause not in _SKIPPED:
        ET.SubElement(case, "error", message=message).text = gap.hint


def _claim(item: ClaimResult) -> ET.Element:
    case = ET.Element("testcase", classname="claims", name=item.id)
    _properties(case, {"standing": item.status, "quote": item.quote or None})
    if item.status is ClaimStatus.REFUTED:
        ET.SubElement(case, "failure", message=item.sentence).text = item.change
    elif item.status in _SKIPPED_STATUSES:
        message = f"{item.status}: {item.sentence}"
        ET.SubElement(case, "skipped", message=message).text = item.change
    else:
        ET.SubElement(case, "system-out").text = item.sentence
    return case


def _properties(case: ET.Element, values: Mapping[str, object]) -> None:
    properties = ET.SubElement(case, "properties")
    for key, value in values.items():
        if value is not None:
            ET.SubElement(properties, "property", name=key, value=str(value))
