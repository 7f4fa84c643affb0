"""Reads the claims of a file or a configuration. Errors name the file, the line and the key."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from isobench.claims.condition import comparisons
from isobench.config import bounded, toml
from isobench.config.suggestions import suggestion
from isobench.model import TIME, Claim, ClaimKind, Direction, Resource, Technology
from isobench.model.bounds import LEAST_SHARE
from isobench.model.cleaning import all_cleaned, cleaned
from isobench.model.errors import UsageError

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Claim) if field.name != "origin")
_SHARES: Final = ("margin", "level", "quantile")
"""Keys whose values may be written "5%" or 0.05."""
BOUNDS: Final = ("below_seconds", "above_seconds", "below_ratio", "above_ratio")
_RANGES: Final = (["below_seconds", "above_seconds"], ["below_ratio", "above_ratio"])
"""The bounds that one claim may have together: they are the ends of one range."""
_CHOICES: Final = {
    "kind": tuple(ClaimKind),
    "direction": tuple(Direction),
    "limits": tuple(Resource),
}
"""The words that a key accepts."""
MOST_BYTES: Final = 1 << 20
"""Bytes of a claims file."""
MOST_CLAIMS: Final = 1000
MOST_NAMES: Final = 200
"""Targets, workloads, limits or facts of one claim, each. Those of the documents have four."""
MOST_OF_ALL: Final = 5_000
"""Of these, and of patterns, in all claims of a file together: each is judged for every target."""
_LEAST_LEVEL: Final = 0.5
_UNWORDED: Final = "…"
_LISTS: Final = ("targets", "workloads", "limits", "evidence")
_COMPARING: Final = (ClaimKind.EQUIVALENT, ClaimKind.ORDER)
_IDENTIFIER: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def load(text: str, *, origin: str) -> tuple[Claim, ...]:
    """Return the claims of a TOML text: an array of tables `[[claims]]` with the fields of `Claim`.

    `origin` is the name of the file for messages. UsageError names it with claim, key and line.
    """
    source = toml.Source(origin=origin, text=text, hint="https://toml.io explains TOML")
    document = source.document()
    rows = document.get("claims")
    unexpected = sorted(document.keys() - {"claims"})
    if not isinstance(rows, list) or unexpected:
        found = f", found {cleaned(', '.join(unexpected), longest=200)}" if unexpected else ""
        message = f"{origin}: expected only [[claims]] tables{found}"
        raise UsageError(message, hint='begin each claim with [[claims]] and id = "…"')
    return of_table(rows, origin=origin, text=text)


def load_file(path: Path) -> tuple[Claim, ...]:
    """Return the claims of a file. UsageError: it cannot be read, or a claim makes no sense."""
    hint = "name a claims file with --claims"
    try:
        text = bounded.read(path, most=MOST_BYTES, hint=hint, pipes=True).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise UsageError(f"{path}: {reason}", hint=hint) from None
    return load(text, origin=str(path))


def of_table(rows: Sequence[Any], *, origin: str, text: str = "") -> tuple[Claim, ...]:
    """Return the claims of the rows of a TOML document; `text` is the document, for line numbers.

    A row has the fields of `Claim`. It may also have `assert`, a table whose keys count as fields
    of the row; `quote` is then optional, and is made from the other fields. UsageError as in
    `load`.
    """
    if len(rows) > MOST_CLAIMS:
        message = f"{origin}: has {len(rows)} claims, and {MOST_CLAIMS} are the most"
        raise UsageError(message, hint="name several smaller files one after another")
    source = _Source(origin=origin, text=text, rows=len(rows))
    claims = tuple(_claim(row, index, source) for index, row in enumerate(rows))
    size = sum(sum(map(len, _lists(claim))) + claim.when.count("~") for claim in claims)
    if size > MOST_OF_ALL:
        message = f"{origin}: its claims have {size:,} names and patterns, and {MOST_OF_ALL:,} are"
        raise UsageError(f"{message} the most", hint="name several smaller files one after another")
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        if claim.id in seen:
            source.refuse(index, claim.id, "id", "is used by an earlier claim")
        seen.add(claim.id)
    return claims


def to_table(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return rows for JSON, which `of_table` reads as the same claims."""
    rows = [msgspec.to_builtins(claim) for claim in claims]
    return [
        {key: value for key, value in row.items() if key in _FIELDS and value not in (None, "")}
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A claims file, for messages with line numbers."""

    origin: str
    text: str
    rows: int

    def refuse(self, index: int, name: str, key: str, reason: str) -> NoReturn:
        """Raise the UsageError that points at a key of the claim at `index`."""
        near = "" if key in _FIELDS else suggestion(key, _FIELDS)
        line = self._line(index, key)
        place = self.origin if line is None else f"{self.origin}:{line}"
        message = f"{place}: claim {name}: {key} {reason}"
        hint = f"{near} a claim has the keys {', '.join(_FIELDS)}".lstrip()
        raise UsageError(message, hint=hint)

    def _line(self, index: int, key: str) -> int | None:
        """Return the line of a key, or of the claim that lacks it; None where it is not known."""
        lines = self.text.splitlines()
        # Claims stand under [[claims]], or under [[tool.isobench.claims]] in a pyproject.toml.
        # Where the number of such lines differs from the number of claims (inline tables), no line
        # is better than a wrong one.
        heads = [
            at for at, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*(\w+\.)*claims", line)
        ]
        if len(heads) != self.rows:
            return None
        end = heads[index + 1] if index + 1 < len(heads) else len(lines) + 1
        own = re.compile(rf"\s*(\[([\w.]+\.)?claims\.)?\"?{re.escape(key)}\"?\s*(\.|=|\])")
        inline = re.compile(rf"\s*assert\s*=.*[{{,]\s*{re.escape(key)}\s*=")
        block = range(heads[index], end)
        for pattern in (own, inline):
            found = next((at for at in block if pattern.match(lines[at - 1])), None)
            if found is not None:
                return found
        return heads[index]


def _claim(row: Any, index: int, source: _Source) -> Claim:  # noqa: ANN401 - whatever TOML held
    """Return one claim; UsageError: it is invalid."""
    # Claims of a run, or of another's file, are printed: this is where their text enters.
    try:
        row = all_cleaned(row)
    except RecursionError:
        source.refuse(index, f"number {index + 1}", "claims", "is nested too deeply")
    identifier = row.get("id") if isinstance(row, dict) else None
    name = identifier if isinstance(identifier, str) else f"number {index + 1}"
    if not isinstance(row, dict):
        source.refuse(index, name, "claims", "must be tables")
    values = _flattened(row, lambda key, reason: source.refuse(index, name, key, reason))
    is_worded = "assert" in row and "quote" not in values
    try:
        written = {"quote": _UNWORDED} if is_worded else {}
        claim = msgspec.convert({**values, **written, "origin": source.origin}, Claim)
    except (msgspec.ValidationError, OverflowError) as error:
        message = str(error)
        where = re.search(r"`\$\.(\w+)|field `(\w+)`", message)
        key = (where[1] or where[2]) if where else "claims"
        source.refuse(index, name, key, _misfit(key, values.get(key), message))
    if is_worded:  # only now: its words need values of the right types
        claim = dataclasses.replace(claim, quote=_wording(values))
    for key, reason in (*_too_long(claim), *_contradictions(claim)):
        source.refuse(index, name, key, reason)
    return claim


def _misfit(key: str, value: object, message: str) -> str:
    """Return why a value is invalid, and what is valid."""
    if key not in _CHOICES or not message.startswith("Invalid enum value"):
        return f"does not fit: {message}"
    near = suggestion(value, _CHOICES[key]) if isinstance(value, str) else ""
    choices = f"must be one of {', '.join(_CHOICES[key])}"
    return f"{choices}, not {value!r}" + (f": {near}" if near else "")


def _flattened(row: Mapping[str, Any], refuse: Callable[[str, str], NoReturn]) -> dict[str, Any]:
    """Return a row with the keys of `assert` as its own, and shares as numbers."""
    values = dict(row)
    asserted = values.pop("assert", {})
    if not isinstance(asserted, dict):
        refuse("assert", 'must be a table, as in { kind = "equivalent" }')
    # Neither may silently replace the other.
    for key in sorted(asserted.keys() & values.keys()):
        refuse(key, "is given both in assert and outside of it")
    values |= asserted
    for key in sorted(values.keys() - set(_FIELDS)):
        refuse(key, "is not a key of a claim")
    for key in _SHARES:
        if key in values:
            share = _share(values[key])
            if share is None:
                refuse(key, f"must be a share between 0% and 100%, as in 5%, not {values[key]!r}")
            values[key] = share
    return values


def _share(written: object) -> float | None:
    """Return 0.05 from "5%" or 0.05; None where that is not a share between 0 and 1."""
    # bool is a subclass of int: true would otherwise count as 1.
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        return None
    text = str(written).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return share if LEAST_SHARE < share < 1 else None


def _wording(values: Mapping[str, Any]) -> str:
    """Return the text of a claim without a quotation, from its other fields."""
    whom = ", ".join(map(str, values.get("targets", ()))) or str(values.get("technology", ""))
    what = ", ".join(map(str, values.get("workloads", ())))
    condition = str(values.get("when", ""))
    about = " ".join(part for part in (whom, what, condition and f"where {condition}") if part)
    reference = values.get("reference", "native")
    margin = f" by {values['margin'] * 100:g} %" if isinstance(values.get("margin"), float) else ""
    kind = values.get("kind")
    metric = str(values.get("metric", TIME.name))
    of = "" if metric == TIME.name else f" in {metric}"
    says = {
        "equivalent": f"is equivalent to {reference}{of}{margin.replace(' by', ' within')}",
        "order": f"is {_order_word(values)} than {reference}{of}{margin}",
        "checksum": "computes the same as native",
        "enforcement": "holds limits of " + ", ".join(map(str, values.get("limits", ()))),
        "evidence": "shows " + ", ".join(f"{k} {v}" for k, v in _pairs(values.get("evidence"))),
    }
    bounds = [f"stays{of} {_bounded(key, values[key])}" for key in BOUNDS if key in values]
    return f"{about}: {says.get(str(kind), ', '.join(bounds) or str(kind))}"


def _order_word(values: Mapping[str, Any]) -> str:
    direction = str(values.get("direction", Direction.SLOWER))
    if values.get("metric", TIME.name) == TIME.name:
        return direction
    return {"slower": "worse", "faster": "better"}.get(direction, direction)


def _bounded(key: str, limit: object) -> str:
    side, _, of = key.partition("_")
    return f"{side} {limit} {'s' if of == 'seconds' else 'times the reference'}"


def _pairs(table: object) -> list[tuple[object, object]]:
    return list(table.items()) if isinstance(table, dict) else []


def _lists(claim: Claim) -> tuple[Collection[str], ...]:
    """Return what a claim lists, in the order of `_LISTS`."""
    return claim.targets, claim.workloads, claim.limits, claim.evidence or {}


def _too_long(claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield the lists of a claim that nobody would read, with the reason."""
    for key, names in zip(_LISTS, _lists(claim), strict=True):
        if len(names) > MOST_NAMES:
            yield key, f"has {len(names)} names, and {MOST_NAMES} are the most"


def _contradictions(claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield keys whose values have the right type and contradict others, with the reason."""
    if not _IDENTIFIER.fullmatch(claim.id):
        yield "id", "must be lower-case words joined by hyphens"
    if not claim.quote.strip():
        yield "quote", "must hold the sentence that is tested"
    if claim.technology not in {"", *Technology}:
        near = suggestion(claim.technology, Technology)
        yield "technology", f"must be one of {', '.join(Technology)}" + (near and f": {near}")
    if not claim.technology and not claim.targets and not claim.when:
        yield "technology", "or targets must name the targets of the claim"
    try:
        list(comparisons(claim.when))
    except ValueError as error:
        yield "when", str(error)
    if claim.kind is not ClaimKind.EVIDENCE and claim.evidence:
        yield "evidence", 'goes with kind = "evidence" only'
    if claim.kind is ClaimKind.EVIDENCE and not claim.evidence and not claim.needs:
        yield "evidence", "must list facts, or needs must say what is missing to test it"
    if (claim.kind is ClaimKind.ENFORCEMENT) != bool(claim.limits):
        yield "limits", f'and kind = "enforcement" go together (of {", ".join(Resource)})'
    if claim.kind not in _COMPARING and claim.margin is not None:
        yield "margin", 'goes with kind = "equivalent" and kind = "order"'
    yield from _metric_contradictions(claim)
    yield from _bound_contradictions(claim)


def _metric_contradictions(claim: Claim) -> Iterator[tuple[str, str]]:
    if claim.metric == TIME.name:
        return
    if claim.kind not in (*_COMPARING, ClaimKind.BOUND):
        yield "metric", 'goes with kind = "equivalent", "order" and "bound"'
    if claim.below_seconds or claim.above_seconds:
        yield "metric", "goes with below_ratio and above_ratio: seconds are time's"


def _bound_contradictions(claim: Claim) -> Iterator[tuple[str, str]]:
    if not _LEAST_LEVEL < claim.level < 1:
        yield "level", "must be above 50%"
    given = [key for key in BOUNDS if getattr(claim, key) is not None]
    if (claim.kind is ClaimKind.BOUND) != bool(given):
        instead = "" if given else f" (or {', '.join(BOUNDS[1:])})"
        yield (given or BOUNDS)[0], f'and kind = "bound" go together{instead}'
    yield from _range_contradictions(claim, given)
    for key in given:
        if not 0 < getattr(claim, key) < math.inf:
            yield key, "must be above zero, and finite"
    if claim.quantile != 0.5 and not (claim.below_seconds or claim.above_seconds):  # noqa: PLR2004 - the median
        yield "quantile", "goes with below_seconds and above_seconds"
    if claim.reference != "native" and (claim.below_seconds or claim.above_seconds):
        yield "reference", "is for ratios only: bounds in seconds have no reference"
    if claim.kind is ClaimKind.BOUND and not claim.workloads and "workload" not in claim.when:
        yield "workloads", "must name the workloads whose time is bounded"


def _range_contradictions(claim: Claim, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with two bounds: only the ends of one range make one statement."""
    if len(given) < 2:  # noqa: PLR2004 - the ends of a range
        return
    if list(given) not in _RANGES:
        yield given[1], f"and {given[0]} are two bounds: write a claim for each"
        return
    below, above = given
    if getattr(claim, above) >= getattr(claim, below):
        yield above, f"must be less than {below}: they are the ends of a range"
