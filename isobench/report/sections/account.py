"""The account of the run: when, where and how it was measured, and how to read it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from isobench.model import Status
from isobench.report.sections.figures import SPACE, percent_text, ratio_text
from isobench.report.sections.marks import MARKS
from isobench.report.sections.phrases import sessions_of
from isobench.report.sections.run import Run, heading_of
from isobench.report.sections.shapes import Banner, Fact, Method, Noise, PayloadView, Value
from isobench.report.sections.values import (
    CLIP,
    clean,
    counted,
    items_of,
    listed,
    mapping_of,
    moment_of,
    number_of,
    value_of,
)

_STOPPED: Final = {
    "budget": "the time budget was spent",
    "precision": "every interval was narrow enough",
    "blocks": "all planned blocks had run",
    "interrupted": "it was interrupted",
}
_ALPHA: Final = 0.05
_LABELS: Final = {
    "cpu": "Processor",
    "cpus": "CPUs usable",
    "memory_bytes": "Memory",
    "kernel": "Kernel",
    "os": "Operating system",
    "virtualization": "Itself virtualized by",
    "clock_source": "Clock source",
    "filesystem": "File system",
    "load": "Load when it began",
}


def _when(run: Run) -> str:
    begun, ended = moment_of(run.raw.get("started")), moment_of(run.raw.get("finished"))
    if begun is None:
        return clean(run.raw.get("started")) or "not recorded"
    text = f"{begun.day} {begun:%B %Y, %H:%M}"
    if ended is None:
        return f"{text} UTC, not finished"
    pattern = "%H:%M" if begun.date() == ended.date() else "%d %B %Y, %H:%M"
    return f"{text} to {ended.strftime(pattern)} UTC"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def _integer(value: object) -> str:
    number = number_of(value)
    return "an unknown number of" if number is None else f"{number:.0f}"


def _blocks(run: Run) -> str:
    blocks, planned = number_of(run.raw.get("blocks")), number_of(run.raw.get("blocks_planned"))
    if blocks is None:
        return "not recorded"
    text = f"{blocks:.0f}" if planned is None else f"{blocks:.0f} (at most {planned:.0f})"
    text += {"duet": ", in duets", "sequential": ", not in random order"}.get(
        clean(run.raw.get("schedule")), ""
    )
    invalid = number_of(run.raw.get("blocks_invalid"))
    return f"{text}, {invalid:.0f} more discarded as disturbed" if invalid else text


def _sessions(run: Run) -> str:
    """Return how many sessions served the blocks, where fewer than one a block did."""
    fewest: dict[str, int] = {}
    for cell in run.cells.values():
        if (sessions := sessions_of(cell)) is not None:
            fewest[cell.target] = min(sessions, fewest.get(cell.target, sessions))
    return listed(f"{number} of {target}" for target, number in fewest.items())


def _budget(run: Run) -> str:
    budget = number_of(run.raw.get("budget_seconds"))
    elapsed = _span(number_of(run.raw.get("elapsed_seconds")))
    return f"{elapsed} used, no limit set" if budget is None else f"{elapsed} of {_span(budget)}"


def run_line(run: Run) -> tuple[Fact, ...]:
    """Return what identifies the run: machine, times, blocks, budget, seed and id."""
    pairs = (
        ("Machine", run.raw.get("machine") or "not recorded"),
        ("Measured", _when(run)),
        ("Blocks", _blocks(run)),
        *((("Sessions", sessions),) if (sessions := _sessions(run)) else ()),
        ("Time", _budget(run)),
        ("Seed", clean(run.raw.get("seed")) or "not recorded"),
        ("Run", clean(run.raw.get("id")) or "not recorded"),
    )
    return tuple(Fact(label=label, value=value_of(value)) for label, value in pairs)


def banners(run: Run) -> Iterable[Banner]:
    """Yield the warnings that stand above everything else: quick, partial, empty."""
    if run.raw.get("quick") is True:
        text = (
            "Too few blocks to judge by. Ratios are shown as a first look; no cell has a verdict."
        )
        yield Banner(kind="quick", title="Quick: no verdicts", text=text)
    if run.raw.get("interrupted") is True:
        text = "What was measured until then is valid; cells may be missing, intervals wide."
        yield Banner(kind="interrupted", title="Interrupted: partial", text=text)
    elif run.raw.get("complete") is False:
        text = "The plan was not carried out to its end; cells may be missing."
        yield Banner(kind="interrupted", title="Incomplete", text=text)
    if not run.cells:
        text = "No cell holds a number. Why, and what to do, stands under Gaps and doubts."
        yield Banner(kind="empty", title="Nothing was measured", text=text)


def environment(run: Run) -> tuple[Fact, ...]:
    """Return the host, the compiler and the command, without the facts that `details` holds."""
    facts = [
        Fact(label=_LABELS.get(key, clean(key).replace("_", " ").capitalize()), value=value)
        for key, value in _host_values(run)
        if "." not in key
    ]
    extra = (
        ("Compiler of the payloads", run.raw.get("compiler")),
        ("Compiler flags", run.raw.get("flags")),
        ("isobench", run.raw.get("tool_version")),
        ("Command", _command(run.raw.get("argv"))),
    )
    facts += [Fact(label=label, value=value_of(value)) for label, value in extra if value]
    return tuple(facts)


def _command(argv: object) -> str:
    return " ".join(["isobench", *map(clean, argv)]) if isinstance(argv, list | tuple) else ""


def details(run: Run) -> tuple[Fact, ...]:
    """Return the facts that come in families ("mitigation.spectre_v2"), to be folded away."""
    return tuple(Fact(label=key, value=value) for key, value in _host_values(run) if "." in key)


def _host_values(run: Run) -> Iterator[tuple[str, Value]]:
    for key, value in mapping_of(run.raw.get("host")).items():
        yield clean(key), _host(clean(key), value)


def _host(key: str, value: object) -> Value:
    number = number_of(value)
    if number is None:
        return value_of(value, "not known")
    if key.endswith("_bytes"):
        return Value(shown=f"{number / 2**30:.3g}{SPACE}GiB")
    return Value(shown=f"{number:.0f}" if number.is_integer() else f"{number:.3g}")


def noise(run: Run) -> tuple[Noise, ...]:
    """Return the noise floor of each workload that has one, in the order of the summary."""
    return tuple(
        Noise(workload=name, floor=percent_text(floor), over=floor > run.margin)
        for name, floor in run.noise.items()
    )


def method(run: Run) -> Method:
    """Return the numbers that the account of the method names, as text."""
    floors = sorted(run.noise.values())
    return Method(
        blocks=_integer(run.raw.get("blocks")),
        discarded=_integer(run.raw.get("blocks_invalid")),
        duet=clean(run.raw.get("schedule")) == "duet",
        sessions=_sessions(run),
        seed=clean(run.raw.get("seed")) or "not recorded",
        stopped=_STOPPED.get(clean(run.raw.get("stopped")), "not recorded"),
        level=percent_text(run.level),
        margin=percent_text(run.margin),
        margin_low=ratio_text(1 / (1 + run.margin)),
        margin_high=ratio_text(1 + run.margin),
        quietest=percent_text(floors[0]) if floors else "",
        loudest=percent_text(floors[-1]) if floors else "",
        together=_together(run),
    )


def _together(run: Run) -> str:
    """Return how many near-native verdicts also hold for all cells of the run together."""
    adjusted = [
        (cell.status, number_of(cell.raw.get("p_equivalence_together")))
        for cell in run.cells.values()
    ]
    family = [(status, p) for status, p in adjusted if p is not None]
    near = [p for status, p in family if status == Status.NEAR_NATIVE]
    if not near:
        return ""
    hold = sum(p <= _ALPHA for p in near)
    return f"{hold} of {len(near)}, adjusted for {counted(len(family), 'cell')} (Holm)"


def payloads(run: Run) -> tuple[PayloadView, ...]:
    """Return the programs that ran, by hash, in the order of the summary."""
    return tuple(
        PayloadView(
            program=clean(item.get("program")),
            abi=clean(item.get("abi")),
            sha256=clean(item.get("sha256"))[:CLIP],
        )
        for item in items_of(run.raw.get("payloads"))
    )


def records(run: Run) -> str:
    """Return the name of the raw records. It becomes a link, so it must be a bare file name."""
    name = clean(run.raw.get("records"))
    return name if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) else "records.jsonl"


def remarks(run: Run) -> str:
    """Return what the headline adds to the answers: what is missing, what was busy."""
    found = run.raw.get("remarks")
    return " ".join(clean(one) for one in found) if isinstance(found, list | tuple) else ""


def headline(run: Run) -> str:
    """Return the summary's own headline without its remarks, or else how many cells have which
    outcome.
    """
    found = clean(run.raw.get("headline")).removesuffix(remarks(run)).rstrip()
    if found:
        return found
    counts = Counter(
        cell.mark.word for cell in run.cells.values() if not heading_of(cell.target, "").control
    )
    if not counts:
        return "This run measured nothing."
    parts = listed(f"{counts[word]} {word}" for word in MARKS if counts[word])
    return f"{counted(counts.total(), 'cell')} measured: {parts}."
