"""The summary of a run as JUnit's XML, for what shows results of continuous integration.

A suite is a workload, a case in it a target; the suite "claims" has a case for each claim. A
failure is a claim refuted; what is unavailable, not applicable or untested is skipped with its
reason; a cell that broke is an error.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, Final

from isobench.report.sections.run import bounds_of
from isobench.report.sections.values import clean, items_of, mapping_of

_SKIPPED: Final = frozenset({"unavailable", "not-applicable"})
_SKIPPED_STANDINGS: Final = frozenset({"untested", "inconclusive"})


def junit(summary: Mapping[str, Any]) -> str:
    """Return the document for a summary as `summary.json` holds it."""
    root = ET.Element("testsuites", name="isobench")
    cells, gaps = items_of(summary.get("cells")), items_of(summary.get("gaps"))
    workloads = dict.fromkeys(clean(item.get("workload")) for item in (*cells, *gaps))
    for workload in workloads:
        cases = _cells(workload, cells, gaps)
        _suite(root, workload, cases)
    _suite(root, "claims", [_claim(item) for item in items_of(summary.get("claims"))])
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    run = mapping_of(summary.get("run"))
    elapsed = run.get("elapsed_seconds")
    if isinstance(elapsed, int | float):
        root.set("time", f"{elapsed:.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ET.Element, name: str, cases: list[ET.Element]) -> None:
    suite = ET.SubElement(root, "testsuite", name=name, tests=str(len(cases)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)


def _cells(
    workload: str, cells: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, Any]]
) -> list[ET.Element]:
    """Return a case for each target: its figures, and what it has no figure for."""
    found: dict[str, ET.Element] = {}
    for cell in cells:
        if clean(cell.get("workload")) == workload:
            target = clean(cell.get("target"))
            found[target] = ET.Element("testcase", classname=workload, name=target)
            low, high = bounds_of(cell.get("interval")) or (None, None)
            keys = ("ratio", "standing", "blocks", "value", "unit")
            values = {key: cell.get(key) for key in keys} | {"lower": low, "upper": high}
            _properties(found[target], values)
    for gap in gaps:
        target = clean(gap.get("target"))
        if clean(gap.get("workload")) != workload:
            continue
        new = target not in found
        case = found.setdefault(target, ET.Element("testcase", classname=workload, name=target))
        said = f"{clean(gap.get('cause'))}: {clean(gap.get('detail'))}"
        if clean(gap.get("cause")) in _SKIPPED and new:
            ET.SubElement(case, "skipped", message=said).text = clean(gap.get("hint"))
        elif case.find("error") is None and clean(gap.get("cause")) not in _SKIPPED:
            ET.SubElement(case, "error", message=said).text = clean(gap.get("hint"))
    return list(found.values())


def _claim(item: Mapping[str, Any]) -> ET.Element:
    case = ET.Element("testcase", classname="claims", name=clean(item.get("id")))
    status = clean(item.get("standing"))
    _properties(case, {"standing": status, "quote": item.get("quote")})
    sentence = clean(item.get("sentence"))
    if status == "refuted":
        ET.SubElement(case, "failure", message=sentence).text = clean(item.get("change"))
    elif status in _SKIPPED_STANDINGS:
        message = f"{status}: {sentence}"
        ET.SubElement(case, "skipped", message=message).text = clean(item.get("change"))
    else:
        ET.SubElement(case, "system-out").text = sentence
    return case


def _properties(case: ET.Element, values: Mapping[str, Any]) -> None:
    held = ET.SubElement(case, "properties")
    for key, value in values.items():
        if value is not None:
            ET.SubElement(held, "property", name=key, value=clean(value))
