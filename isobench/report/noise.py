"""The document of what a machine can tell apart -> a sheet. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from isobench.analysis.verdict import duration_text, percent_text
from isobench.report import sheet
from isobench.report.sheet import Row, Sheet

_UNKNOWN: Final = "-"
_MANY: Final = "over 1,000"


def build(document: Mapping[str, Any]) -> Sheet:
    """Return what is shown of it."""
    sizes = list(document["workloads"][0]["smallest_effect"])
    width, margin = percent_text(document["precision"]), percent_text(document["margin"])
    half = f"\N{PLUS-MINUS SIGN}{width}"
    return Sheet(
        title=f"Native against native: {document['run']['path']} ({document['run']['started']})",
        warnings=(),
        headings=(
            "workload", "floor", "a block", *(f"of {n}" for n in sizes), f"to {half}",
            f"verdict at {margin}", "drift", "outliers",
        ),
        numbers=frozenset({"floor", "a block", *(f"of {n}" for n in sizes), "drift", "outliers"}),
        rows=tuple(_row(row, sizes) for row in document["workloads"]),
        legend=(_legend(document, sizes, half),),
        remarks=dict(_remarks(document)),
        closing=document["headline"],
    )  # fmt: skip


def _legend(document: Mapping[str, Any], sizes: Sequence[str], half: str) -> str:
    return (
        "Floor: noise floor, the smallest effect that this run tells from none. A block: its"
        f" spread. Of {', '.join(sizes)}: the smallest effect that so many blocks show, nine times"
        f" out of ten. To {half}: blocks until the {100 * document['level']:g} % interval is as"
        " narrow, and their time with one target as fast as native. Verdict: blocks that show"
        f" near-native at {percent_text(document['margin'])}."
    )


def csv(document: Mapping[str, Any]) -> str:
    """Return the workloads as CSV."""
    sizes = list(document["workloads"][0]["smallest_effect"])
    plain = ("workload", "class", "blocks", "noise", "spread", "seconds_a_block", "outlying_rate")
    headings = [
        *plain,
        *(f"smallest_effect_{n}" for n in sizes),
        *("precision_blocks", "precision_seconds", "verdict_blocks", "verdict_seconds", "drift"),
    ]
    return sheet.csv(headings, [_flat(row, plain) for row in document["workloads"]])


def _flat(row: Mapping[str, Any], plain: Sequence[str]) -> dict[str, object]:
    flat: dict[str, object] = {key: row[key] for key in plain}
    flat |= {f"smallest_effect_{n}": effect for n, effect in row["smallest_effect"].items()}
    for what in ("precision", "verdict"):
        flat |= {f"{what}_{key}": value for key, value in row[what].items()}
    return flat | {"drift": row["drift"] and row["drift"]["change"]}


def _row(row: Mapping[str, Any], sizes: Sequence[str]) -> Row:
    drift = row["drift"]
    outlying = row["outlying_rate"]
    return Row(
        cells=(
            row["workload"],
            _share(row["noise"]),
            _share(row["spread"]),
            *(_share(row["smallest_effect"][n]) for n in sizes),
            _effort(row["precision"], known=row["spread"] is not None),
            _effort(row["verdict"], known=row["spread"] is not None),
            _UNKNOWN if drift is None else f"{drift['change']:+.0%}" + "!" * drift["notable"],
            _UNKNOWN if outlying is None else f"{outlying:.0%}",
        ),
        group=row["class"],
    )


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else percent_text(value)


def _effort(effort: Mapping[str, Any], *, known: bool) -> str:
    blocks, seconds = effort["blocks"], effort["seconds"]
    if blocks is None:
        return _MANY if known else _UNKNOWN
    return f"{blocks:,}" if seconds is None else f"{blocks:,} in {duration_text(seconds)}"


def _remarks(document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    health = document["health"]
    lines = [
        f"{one['fact']}: {one['value']}" + (f" - {one['note']}" if one["note"] else "")
        for one in document["host"]
    ]
    yield "This machine", tuple(lines)
    broken = [f"{rule}: {count} of {health['blocks']}" for rule, count in health["broken"].items()]
    if broken:
        said = f"{health['invalid']} of {health['blocks']} blocks do not count"
        yield "Blocks that broke a rule for a quiet host", (*broken, said)
