"""The document of a comparison -> a sheet, and its cells as CSV. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from isobench.analysis.verdict import interval_text, percent_text, ratio_text
from isobench.model import Interval
from isobench.report import sheet
from isobench.report.sheet import Row, Sheet

COLUMNS: Final = (
    "target", "workload", "base", "head", "change", "interval", "p", "noise", "blocks", "runs",
    "standing",
)  # fmt: skip
USUAL: Final = ("target", "workload", "base", "head", "change", "interval", "standing")
GROUPS: Final = ("target", "workload", "class", "none")
_NUMBERS: Final = frozenset({"change", "interval", "p", "noise", "blocks", "runs"})
_STYLES: Final = {
    "regression": "red",
    "improvement": "blue",
    "same": "green",
    "unproven": "magenta",
}
_MOST_REASONS: Final = 12
_MOST_NAMED: Final = 4
_SMALL_P: Final = 0.001


def build(
    document: Mapping[str, Any],
    *,
    columns: Sequence[str] = USUAL,
    group_by: str = "target",
    only_changed: bool = False,
) -> Sheet:
    """Return what is shown of a comparison: columns and groups as asked for."""
    cells: list[Mapping[str, Any]] = list(document["cells"])
    if group_by != "none":
        order = list(dict.fromkeys(cell[group_by] for cell in cells))
        cells.sort(key=lambda cell: order.index(cell[group_by]))
    shown = [cell for cell in cells if not only_changed or status(cell) in _CHANGED]
    targets = document["mode"] == "targets"
    kept = [name for name in columns if not (targets and name == "target")]
    names = {
        "base": document["base"]["target"] or "BASE",
        "head": document["head"]["target"] or "HEAD",
    }
    effect = percent_text(document["minimum_effect"])
    left_out = len(cells) - len(shown)
    return Sheet(
        title=_title(document),
        warnings=tuple(document["warnings"]),
        headings=tuple(names.get(name, name) for name in kept),
        numbers=_NUMBERS | set(names.values()),
        rows=tuple(
            _row(cell, kept, "" if group_by == "none" else cell[group_by]) for cell in shown
        ),
        legend=(
            _legend(names["base"], names["head"], effect),
            document["method"],
            *([f"Left out: {left_out} of {len(cells)}, that did not change."] if left_out else ()),
        ),
        remarks=dict(_remarks(document, shown)),
        closing=document["headline"],
    )


_CHANGED: Final = frozenset(
    {"regression", "improvement", "suspected regression", "suspected improvement"}
)


def status(cell: Mapping[str, Any]) -> str:
    """Return a standing in words: what was seen once is suspected, other programs are unlike."""
    word = str(cell["standing"])
    if cell["change"] is None and "unlike" in cell["doubt_codes"]:
        return "unlike"
    changed = word in ("regression", "improvement")
    return f"suspected {word}" if changed and cell["confirmed"] is None else word


def csv(document: Mapping[str, Any]) -> str:
    """Return all cells as CSV."""
    sides = ("ratio", "low", "high", "blocks", "runs", "noise")
    headings = [
        *("target", "workload", "class"),
        *(f"{side}_{key}" for side in ("base", "head") for key in sides),
        *("change", "low", "high", "p", "p_adjusted", "noise", "standing", "confirmed", "doubts"),
    ]
    return sheet.csv(headings, [_flat(cell) for cell in document["cells"]])


def _flat(cell: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {
        key: cell[key]
        for key in ("target", "workload", "class", "change", "p", "p_adjusted", "noise",
                    "standing", "confirmed")
    }  # fmt: skip
    flat["low"], flat["high"] = cell["interval"] or (None, None)
    for side in ("base", "head"):
        for key in ("ratio", "blocks", "runs", "noise"):
            flat[f"{side}_{key}"] = cell[side][key]
        flat[f"{side}_low"], flat[f"{side}_high"] = cell[side]["interval"] or (None, None)
    flat["doubts"] = "; ".join(cell["doubts"])
    return flat


def _legend(base: str, head: str, effect: str) -> str:
    return (
        f"{base} and {head}: time over native. Change: {head} over {base}; above 1 costs more in"
        f" {head}. Same: shown to lie within \N{PLUS-MINUS SIGN}{effect}."
    )


def _title(document: Mapping[str, Any]) -> str:
    base, head = document["base"], document["head"]
    if document["mode"] == "targets":
        return f"{head['target']} against {base['target']}, in {_runs(base)}"
    return f"HEAD {_runs(head)} against BASE {_runs(base)}"


def _runs(side: Mapping[str, Any]) -> str:
    first, *others = side["runs"]
    more = f" and {len(others)} more" if others else ""
    return f"{first['path']} ({first['started']}){more}"


def _row(cell: Mapping[str, Any], columns: Sequence[str], group: str) -> Row:
    return Row(
        cells=tuple(_shown(cell, name) for name in columns),
        style=_STYLES.get(cell["standing"], "") if columns[-1:] == ["standing"] else "",
        group=group,
    )


def _shown(cell: Mapping[str, Any], column: str) -> str:
    match column:
        case "base" | "head":
            ratio = cell[column]["ratio"]
            return "-" if ratio is None else ratio_text(ratio)
        case "change":
            return "-" if cell["change"] is None else ratio_text(cell["change"])
        case "interval":
            return _interval(cell)
        case "p":
            p = cell["p_adjusted"]
            return "<0.001" if p < _SMALL_P else f"{p:.3f}"
        case "noise":
            return "unknown" if cell["noise"] is None else percent_text(cell["noise"])
        case "blocks" | "runs":
            return f"{cell['base'][column]}, {cell['head'][column]}"
        case "standing":
            return status(cell)
        case _:
            return str(cell[column])


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["interval"] is None:
        return "-"
    low, high = cell["interval"]
    return interval_text(Interval(low=low, high=high, level=0))


def _remarks(
    document: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what differs, why cells are open, and what one side alone has."""
    if document["notes"]:
        yield "What else differs", tuple(document["notes"])
    reasons = tuple(_reasons(shown))
    if reasons:
        yield "Doubts", reasons
    absent = tuple(_absent(document["absent"]))
    if absent:
        yield "In one side alone", absent


def _reasons(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each doubt once, with the cells that it is about."""
    about: dict[str, list[str]] = {}
    for cell in cells:
        for doubt in cell["doubts"]:
            about.setdefault(doubt, []).append(f"{cell['target']} {cell['workload']}")
    for place, (doubt, names) in enumerate(about.items()):
        if place == _MOST_REASONS:
            yield f"and {len(about) - place} more doubts, in --export-json"
            return
        first = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        yield f"{first}: {doubt}"


def _absent(absent: Sequence[Mapping[str, str]]) -> Iterator[str]:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for one in absent:
        key = (one["lacking"], one["target"], one["detail"])
        grouped.setdefault(key, []).append(one["workload"])
    for (lacking, target, detail), workloads in grouped.items():
        named = ", ".join(workloads[:_MOST_NAMED])
        more = len(workloads) - _MOST_NAMED
        named += f" and {more} more" if more > 0 else ""
        yield f"{lacking.upper()} lacks {target}, {named}: {detail}"
