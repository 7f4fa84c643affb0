"""The view of a run as Markdown: summary.md, job summaries, comments."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from isobench.report.sections import Axis, Column, GapView, Missing, Report, StartCell

_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~#$@!])")


def markdown(view: Report) -> str:
    """Return the documents' table, ratios, start-up, claims and gaps as Markdown."""
    parts = [f"# {escaped(view.headline)}"]
    if view.remarks:
        parts.append(escaped(view.remarks))
    parts += [f"> **{escaped(one.title)}.** {escaped(one.text)}" for one in view.banners]
    parts.append("\n".join(f"- {escaped(f.label)}: {escaped(f.value.shown)}" for f in view.run))
    parts += _documents(view)
    parts += _ratios(view)
    parts += _startup(view)
    parts += _variations(view)
    parts += _limits(view)
    parts += _claims(view)
    parts += _gaps(view)
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return text of which Markdown makes neither markup nor HTML nor a table cell."""
    return html.escape(_SPECIAL.sub(r"\\\1", text), quote=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def _documents(view: Report) -> Iterator[str]:
    yield "## What the documents say, and what this run found"
    head = ["", *(escaped(column.title) for column in view.columns)]
    rows = (
        ["Kernel", *(_kernel(column) for column in view.columns)],
        ["Performance", *(_performance(column) for column in view.columns)],
        ["Examples", *(_examples(column) for column in view.columns)],
    )
    yield table(head, rows)


def _joined(parts: Iterable[str]) -> str:
    return "<br>".join(part for part in parts if part)


def _quote(text: str) -> str:
    return f"*\N{LEFT DOUBLE QUOTATION MARK}{escaped(text)}\N{RIGHT DOUBLE QUOTATION MARK}*"


def _kernel(column: Column) -> str:
    kernel = column.kernel
    found = escaped(kernel.found or column.empty)
    return _joined((_quote(kernel.says), found, f"**{kernel.agreement.word}**"))


def _performance(column: Column) -> str:
    startup = f"Start-up, apart: {escaped(column.startup)}" if column.startup else ""
    axes = map(_axis, column.axes)
    return _joined(
        (
            _quote(column.performance_says),
            *axes,
            startup,
            "" if column.axes else escaped(column.empty),
        )
    )


def _axis(axis: Axis) -> str:
    return (
        f"{escaped(axis.name)}: {axis.mark.word} {escaped(axis.text)} (**{axis.agreement.word}**)"
    )


def _examples(column: Column) -> str:
    missing = map(_missing, column.missing)
    out = f"Left out to keep the budget: {', '.join(column.left_out)}" if column.left_out else ""
    nothing = "" if column.ran or column.missing or out else escaped(column.empty)
    ran = (escaped(f"{one.label}: {one.value.shown}") for one in column.ran)
    return _joined((_quote(column.examples_says), *ran, *missing, escaped(out), nothing))


def _missing(one: Missing) -> str:
    text = f"{one.name} ({one.status}): {one.reason.shown}"
    return escaped(f"{text}; {one.hint.shown}" if one.hint.shown else text)


def _ratios(view: Report) -> Iterator[str]:
    matrix = view.matrix
    if not matrix.targets or not matrix.groups:
        return
    yield "## Ratios to native"
    margin = f"\N{PLUS-MINUS SIGN}{view.method.margin}"
    yield f"Time over native: above 1 is slower. Near-native: shown to lie within {margin}."
    head = ["Workload", *(escaped(target.name) for target in matrix.targets)]
    yield table(
        head,
        (
            [escaped(row.workload), *(escaped(f"{c.ratio} {c.mark.word}") for c in row.cells)]
            for group in matrix.groups
            for row in group.rows
        ),
    )


def _startup(view: Report) -> Iterator[str]:
    if view.startup is None:
        return
    yield "## Start-up"
    head = ["Target", *(escaped(kind.name) for kind in view.startup.kinds)]
    rows = ([escaped(row.target.name), *map(_start, row.cells)] for row in view.startup.rows)
    yield table(head, rows)
    if view.startup.remains:
        yield "\n".join(f"- {escaped(sentence)}" for sentence in view.startup.remains)
    if view.startup.start_phases:
        yield "\n".join(
            f"- {escaped(f'{phases.target}, {phases.kind}')}: {escaped(phases.words)}"
            for phases in view.startup.start_phases
        )


def _start(cell: StartCell) -> str:
    if cell.place is None:
        return escaped(cell.mark.word)
    return escaped(f"{cell.value} ({cell.ratio} {cell.interval})" if cell.ratio else cell.value)


def _variations(view: Report) -> Iterator[str]:
    if view.variations:
        yield "## What single options explain"
    for one in view.variations:
        yield f"{escaped(one.base)} with {escaped(one.change)}:"
        yield "\n".join(
            f"- **{effect.mark.word}** {escaped(effect.workload)}: {escaped(effect.sentence)}"
            for effect in one.effects
        )


def _limits(view: Report) -> Iterator[str]:
    if not view.limits:
        return
    yield "## Limits, pushed past"
    yield "\n".join(
        f"- **{one.mark.word}** "
        + escaped(f"{one.target}, {one.resource}: {one.reached} of {one.limit}")
        + escaped(f" ({one.native} natively)" + (f": {one.why}" if one.why else ""))
        for one in view.limits
    )


def _claims(view: Report) -> Iterator[str]:
    if not view.claims and not view.untested:
        return
    yield f"## Claims: {view.claim_counts}"
    if view.claims:
        yield "\n".join(
            f"- **{claim.mark.word}** {_quote(claim.quote)}: {escaped(claim.sentence)}"
            for claim in view.claims
        )


def _gaps(view: Report) -> Iterator[str]:
    if not view.gaps:
        return
    yield "## Gaps"
    yield "\n".join(map(_gap, view.gaps))


def _gap(gap: GapView) -> str:
    text = escaped(f"{gap.target}, {gap.workloads}: {gap.cause}: {gap.detail.shown}")
    hint = f" \N{RIGHTWARDS ARROW} {escaped(gap.hint.shown)}" if gap.hint.shown else ""
    return f"- {text}{hint}"
