"""A claims file, or the claims of a configuration -> claims. Every mistake is pointed at."""

import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from isobench.claims.condition import comparisons
from isobench.config.suggestions import meant
from isobench.model import TIME, Claim, ClaimKind, Direction, Resource, Technology
from isobench.model.errors import UsageError

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Claim) if field.name != "origin")
_SHARES: Final = ("margin", "level", "quantile")
"""Keys that may be written "5%" as well as 0.05."""
BOUNDS: Final = ("below_seconds", "above_seconds", "below_ratio", "above_ratio")
_CHOICES: Final = {
    "kind": tuple(ClaimKind),
    "direction": tuple(Direction),
    "limits": tuple(Resource),
}
"""Keys that take one of some words."""
_COMPARING: Final = (ClaimKind.EQUIVALENT, ClaimKind.ORDER)
_IDENTIFIER: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def load(text: str, *, origin: str) -> tuple[Claim, ...]:
    """Return the claims of a TOML text: an array of tables `[[claims]]` with the fields of `Claim`.

    `origin` is the file's name, for messages. UsageError names it with claim, key and line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{origin}: not TOML: {error}"
        raise UsageError(message, hint="https://toml.io tells how TOML is written") from error
    rows = document.get("claims")
    strangers = sorted(document.keys() - {"claims"})
    if not isinstance(rows, list) or strangers:
        found = f", found {', '.join(strangers)}" if strangers else ""
        message = f"{origin}: only [[claims]] tables are expected{found}"
        raise UsageError(message, hint="reports/claims.toml is an example")
    return of_table(rows, origin=origin, text=text)


def load_file(path: Path) -> tuple[Claim, ...]:
    """Return the claims of a file. UsageError: it cannot be read, or a claim makes no sense."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise UsageError(f"{path}: {reason}", hint="name a claims file with --claims") from None
    return load(text, origin=str(path))


def of_table(rows: Sequence[Any], *, origin: str, text: str = "") -> tuple[Claim, ...]:
    """Return the claims of rows as TOML holds them; `text` is where they stand, for line numbers.

    Besides the fields of `Claim` a row may hold `assert`, a table of what is claimed, whose keys
    count as the row's own; a quotation may then be missing, and the claim is put in words of its
    own. UsageError as in `load`.
    """
    source = _Source(origin=origin, text=text, rows=len(rows))
    claims = tuple(_claim(row, index, source) for index, row in enumerate(rows))
    for index, claim in enumerate(claims):
        if claim.id in {other.id for other in claims[:index]}:
            source.refuse(index, claim.id, "id", "is taken by an earlier claim")
    return claims


def to_table(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return rows that `of_table` reads as the same claims, for JSON."""
    rows = [msgspec.to_builtins(claim) for claim in claims]
    return [
        {key: value for key, value in row.items() if key in _FIELDS and value not in (None, "")}
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A claims file, to point into."""

    origin: str
    text: str
    rows: int

    def refuse(self, index: int, name: str, key: str, reason: str) -> NoReturn:
        """Raise the error that points at a key of the claim at `index`."""
        near = "" if key in _FIELDS else meant(key, _FIELDS)
        line = self._line(index, key)
        place = self.origin if line is None else f"{self.origin}:{line}"
        message = f"{place}: claim {name}: {key} {reason}"
        hint = f"{near} a claim has the keys {', '.join(_FIELDS)}".lstrip()
        raise UsageError(message, hint=hint)

    def _line(self, index: int, key: str) -> int | None:
        """Return the line of a key, or of the claim that lacks it; None where it cannot be told."""
        lines = self.text.splitlines()
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
    """Return one claim, or refuse it."""
    named = row.get("id") if isinstance(row, dict) else None
    name = named if isinstance(named, str) else f"number {index + 1}"
    if not isinstance(row, dict):
        source.refuse(index, name, "claims", "must be tables")
    values = _flattened(row, lambda key, reason: source.refuse(index, name, key, reason))
    try:
        claim = msgspec.convert({**values, "origin": source.origin}, Claim)
    except msgspec.ValidationError as error:
        said = str(error)
        where = re.search(r"`\$\.(\w+)|field `(\w+)`", said)
        key = (where[1] or where[2]) if where else "claims"
        source.refuse(index, name, key, _misfit(key, values.get(key), said))
    for key, reason in _contradictions(claim):
        source.refuse(index, name, key, reason)
    return claim


def _misfit(key: str, value: object, said: str) -> str:
    """Say why a value does not fit, and what would."""
    if key not in _CHOICES or not said.startswith("Invalid enum value"):
        return f"does not fit: {said}"
    near = meant(value, _CHOICES[key]) if isinstance(value, str) else ""
    choices = f"must be one of {', '.join(_CHOICES[key])}"
    return f"{choices}, not {value!r}" + (f": {near}" if near else "")


def _flattened(row: Mapping[str, Any], refuse: Callable[[str, str], NoReturn]) -> dict[str, Any]:
    """Return a row with what it asserts as keys of its own, and shares as numbers."""
    values = dict(row)
    asserted = values.pop("assert", {})
    if not isinstance(asserted, dict):
        refuse("assert", 'must be a table, as in { kind = "equivalent" }')
    for key in sorted(asserted.keys() & values.keys()):
        refuse(key, "stands beside assert and in it")
    values |= asserted
    for key in sorted(values.keys() - set(_FIELDS)):
        refuse(key, "is not a key of a claim")
    for key in _SHARES:
        if key in values:
            share = _share(values[key])
            if share is None:
                refuse(key, f"must be a share between 0% and 100%, as in 5%, not {values[key]!r}")
            values[key] = share
    if "assert" in row and "quote" not in values:
        values["quote"] = _wording(values)
    return values


def _share(written: object) -> float | None:
    """Return 0.05 from "5%" or 0.05; None where it is no share between 0 and 1."""
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        return None
    text = str(written).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def _wording(values: Mapping[str, Any]) -> str:
    """Return a claim in words, from what it asserts."""
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
        "checksum": "computes what native does",
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


def _contradictions(claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield keys whose values fit their types and still cannot be meant."""
    if not _IDENTIFIER.fullmatch(claim.id):
        yield "id", "must be lower-case words joined by hyphens"
    if not claim.quote.strip():
        yield "quote", "must hold the sentence that is tested"
    if claim.technology not in {"", *Technology}:
        near = meant(claim.technology, Technology)
        yield "technology", f"must be one of {', '.join(Technology)}" + (near and f": {near}")
    if not claim.technology and not claim.targets and not claim.when:
        yield "technology", "or targets must say whom the claim speaks of"
    try:
        list(comparisons(claim.when))
    except ValueError as error:
        yield "when", str(error)
    if claim.kind is not ClaimKind.EVIDENCE and claim.evidence:
        yield "evidence", 'goes with kind = "evidence" only'
    if claim.kind is ClaimKind.EVIDENCE and not claim.evidence and not claim.needs:
        yield "evidence", "must name facts, or needs must say what is missing to test it"
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
    given = [key for key in BOUNDS if getattr(claim, key) is not None]
    if (claim.kind is ClaimKind.BOUND) != bool(given):
        instead = "" if given else f" (or {', '.join(BOUNDS[1:])})"
        yield (given or BOUNDS)[0], f'and kind = "bound" go together{instead}'
    if len(given) > 1:
        yield given[1], f"and {given[0]} are two bounds: write a claim for each"
    for key in given:
        if not getattr(claim, key) > 0:
            yield key, "must be above zero"
    if claim.quantile != 0.5 and not (claim.below_seconds or claim.above_seconds):  # noqa: PLR2004 - the median
        yield "quantile", "goes with below_seconds and above_seconds"
    if claim.reference != "native" and (claim.below_seconds or claim.above_seconds):
        yield "reference", "is for ratios: seconds are bounded as they are"
    if claim.kind is ClaimKind.BOUND and not claim.workloads and "workload" not in claim.when:
        yield "workloads", "must say whose time is bounded"
