"""Reads TOML into checked values. Errors name the file, the line, the mistake and what to type."""

import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from isobench.config.suggestions import suggestion
from isobench.model.cleaning import cleaned
from isobench.model.errors import UsageError

_T = TypeVar("_T")
_Path = tuple[str | int, ...]

# tomllib reports no positions of keys, and msgspec only the path of a value. So the lines are found
# by reading the text again with these expressions: a wrong line in a message is the worst that can
# happen where they do not understand it.
_KEY: Final = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")
_AT: Final = " - at `"
_STEP: Final = re.compile(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]")
_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_MOST: Final = 1 << 63
_MOST_PARTS: Final = 50
"""Parts of a key, and levels of tables and lists. No configuration needs ten."""
_LABELLED: Final = 5
# What TOML consists of, as far as tomllib reads it without an error: a dot, other parts of a dotted
# key, and what no key contains. A string that does not end goes to the end of its line or of the
# text. The possessive quantifiers never go back, so that this takes time in proportion to the text.
_TOKEN: Final = re.compile(
    r"""
    (?P<dot> \. )
    | (?P<part> "(?!"") (?: [^"\\\n] | \\[^\n] )*+ "?
              | '(?!\'') [^'\n]*+ '?
              | [\w\ \t-]++ )
    | \"{3} (?: [^"\\] | \\. | "(?!"") )*+ (?: "{3,5} | \\?\Z )
    | \'{3} (?: [^'] | '(?!\'') )*+ (?: '{3,5} | \Z )
    | \#[^\n]*+
    | [^\w\ \t."'\#-]++
    | .
    """,
    re.DOTALL | re.VERBOSE,
)
_LONGEST: Final = 2000
"""Characters of a message."""
_BOUNDS: Final = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A TOML file, for messages with line numbers."""

    origin: str
    """Its name in messages."""
    text: str = ""
    prefix: tuple[str, ...] = ()
    """The table that holds all settings, as in ("tool", "isobench")."""
    hint: str = ""
    """What to do about any mistake in it."""

    def place(self, *path: str | int) -> str:
        """Return "FILE:LINE" of a key, or of its table; "FILE" where no line is known."""
        line = line_of(self.text, (*self.prefix, *path))
        return self.origin if line is None else f"{self.origin}:{line}"

    def refuse(self, path: _Path, what: str, hint: str = "") -> NoReturn:
        """Raise the UsageError that points at a key."""
        hints = "; ".join(part for part in (hint, self.hint) if part)
        message = f"{self.place(*path)}: {_label(path)}{what}"
        # Keys and values may hold characters that control a terminal.
        raise UsageError(cleaned(message, longest=_LONGEST), hint=cleaned(hints, longest=_LONGEST))

    def document(self) -> dict[str, Any]:
        """Return the text as tables; UsageError: it is not valid TOML."""
        self._check_keys()
        try:
            found = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            # The error of Python 3.11 has its position only in its text: "(at line 3, column 5)",
            # or "(at end of document)".
            line = _LINE.search(str(error))
            where = f"{self.origin}:{line[1] if line else len(self.text.splitlines())}"
            raise UsageError(f"{where}: not TOML: {error}", hint=self.hint) from None
        except RecursionError:  # tomllib parses nested values recursively
            raise UsageError(f"{self.origin}: nested too deeply", hint=self.hint) from None
        except ValueError as error:  # a number of thousands of digits
            raise UsageError(f"{self.origin}: {error}", hint=self.hint) from None
        self._check_values(found)
        return found

    def _check_keys(self) -> None:
        """Check that no key has too many parts: tomllib takes the square of their number."""
        dots = 0
        for found in _TOKEN.finditer(self.text):
            dots = 0 if found.lastgroup is None else dots + (found.lastgroup == "dot")
            if dots >= _MOST_PARTS:
                line = self.text.count("\n", 0, found.start()) + 1
                what = f"a key has more than {_MOST_PARTS} parts"
                raise UsageError(f"{self.origin}:{line}: {what}", hint=self.hint)

    def _check_values(self, document: Mapping[str, Any]) -> None:
        """Check nesting and numbers: TOML's own are of 64 bits, and tomllib's of any size."""
        left: list[tuple[_Path, Any]] = [((), document)]
        while left:
            path, value = left.pop()
            if isinstance(value, int) and not -_MOST <= value < _MOST:
                self.refuse(path, "the number is out of range")
            if len(path) > _MOST_PARTS:
                self.refuse(path[:_LABELLED], "nested too deeply")
            if isinstance(value, Mapping):
                left += [((*path, key), each) for key, each in value.items()]
            elif isinstance(value, list):
                left += [((*path, at), each) for at, each in enumerate(value)]

    def convert(self, document: object, kind: type[_T]) -> _T:
        """Return a document as a value of a type; UsageError points at the value that is wrong."""
        try:
            return msgspec.convert(document, type=kind, strict=True)
        except msgspec.ValidationError as error:
            # The path is at the end, as in "Expected `int`, got `str` - at `$.run.seed`". A key may
            # hold the mark as well: no expression that looks for it at each place.
            message, mark, place = str(error).rpartition(_AT)
            if not mark:
                message, place = place, ""
            path, at, value = _walk(document, kind, place.removeprefix("key in ").rstrip("`"))
            self._explain(path, at, value, message, _example(kind, path))
        except (RecursionError, OverflowError) as error:
            raise UsageError(f"{self.origin}: {error}", hint=self.hint) from None

    def _explain(
        self, path: _Path, kind: object, value: object, message: str, example: str
    ) -> NoReturn:
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
            known = _fields(kind)
            near = suggestion(unknown[1], known)
            hint = f"{near} its keys are: {', '.join(known)}".lstrip()
            self.refuse((*path, unknown[1]), "there is no such key", hint)
        if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
            self.refuse(path, f"lacks {missing[1]}", f"{missing[1]} = …")
        if message.startswith("Invalid enum value"):
            choices = _choices(kind)
            self.refuse(
                path,
                f"{value!r} is not one of {', '.join(choices)}",
                suggestion(str(value), choices),
            )
        hint = f'write {path[-1]} = "{example}"' if example else ""
        self.refuse(path, _type_words(message, value), hint)


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line of a key in a TOML text, else that of the table that should hold it; None
    where neither is found. Numbers in `path` count the tables of an array from 0.
    """
    best, found = 0, None
    arrays: dict[_Path, int] = {}
    head: _Path = ()
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        # A line in a text of several lines may look like a key or a table.
        was_inside, inside = inside, inside ^ ((line.count('"""') + line.count("'''")) % 2 == 1)
        if was_inside:
            continue
        if line.lstrip().startswith("["):
            is_array = line.lstrip().startswith("[[")
            keys, rest = _keys(line.lstrip()[1 + is_array :])
            if not keys or not rest.startswith("]"):
                continue
            full = head = _table_path(keys, arrays, is_array=is_array)
        else:
            keys, rest = _keys(line)
            if not keys or not rest.startswith("="):
                continue
            full = (*head, *keys)
        shared = sum(a == b for a, b in zip(full, path, strict=False))
        if shared in (len(full), len(path)) and full[:shared] == tuple(path[:shared]):
            best, found = max((best, found), (shared, number), key=lambda pair: pair[0])
    return found


def _keys(text: str) -> tuple[list[str], str]:
    """Return the dotted keys at the beginning of a text, and the rest."""
    keys: list[str] = []
    at = 0
    while len(keys) <= _MOST_PARTS and (found := _KEY.match(text, at)):
        keys.append(next(part for part in found.groups() if part is not None))
        at = found.end()
        if not text.startswith(".", at):
            break
        at += 1
    return keys, text[at:]


def _table_path(keys: Sequence[str], arrays: dict[_Path, int], *, is_array: bool) -> _Path:
    """Return the path of a table, with its numbers in arrays. `is_array`: it is a new table of an
    array. `arrays` holds the number of the latest table of each array, and is updated.
    """
    path: _Path = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if is_array and position == len(keys) - 1:
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _label(path: _Path) -> str:
    """Return a path for a message: "[run] blocks.min: "."""
    words = [str(part) for part in path if isinstance(part, str)]
    if not words:
        return ""
    if len(words) == 1:
        return f"{words[0]}: "
    return f"[{words[0]}] {'.'.join(words[1:])}: "


def _walk(document: object, kind: object, steps: str) -> tuple[_Path, object, object]:
    """Follow the steps of a validation error; return the path, the type and the value there."""
    path: _Path = ()
    kind = _base_type(kind)
    for name, index in _STEP.findall(steps):
        if name:
            path, kind = (*path, name), _base_type(_hints(kind).get(name, object))
            document = document.get(name) if isinstance(document, Mapping) else None
            continue
        arguments = typing.get_args(kind)
        kind = _base_type(arguments[-1]) if arguments else object
        # msgspec writes "[...]" for a value of a dict, without its key: the first value that does
        # not fit is the one.
        if index == "...":
            entries = document.items() if isinstance(document, Mapping) else ()
            misfit = [(key, value) for key, value in entries if not _fits(value, kind)]
            if not misfit:
                break
            path, document = (*path, misfit[0][0]), misfit[0][1]
        else:
            document = document[int(index)] if isinstance(document, list) else None
    return path, kind, document


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - any type that msgspec knows
    try:
        msgspec.convert(value, type=kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def _base_type(kind: object) -> object:
    """Return a type without annotations and without None."""
    if typing.get_origin(kind) is typing.Annotated:
        return _base_type(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return _base_type(parts[0]) if len(parts) == 1 else kind
    return kind


def _example(kind: object, path: _Path) -> str:
    """Return the example of a key that a type has in its msgspec.Meta; empty: it has none."""
    for key in path:
        kind = _hints(_base_type(kind)).get(str(key), object)
    for part in (kind, *typing.get_args(kind)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.examples:
                return str(meta.examples[0])
    return ""


def _hints(kind: object) -> Mapping[str, object]:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return typing.get_type_hints(kind, include_extras=True) if is_struct else {}


def _fields(kind: object) -> list[str]:
    return list(_hints(kind))


def _choices(kind: object) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(one.value) for one in kind]
    return [str(one) for one in typing.get_args(kind)]


def _type_words(message: str, value: object) -> str:
    """Return a message of msgspec in the words of TOML; unknown messages stay as they are."""
    found = re.fullmatch(
        r"Expected `(\w+)(?: \| null)?`(?: (>=|<=|>|<) (\S+?))?(?:, got `(\w+)`)?", message
    )
    if found is None or found[1] not in _KINDS:
        return message
    bound = f" {_BOUNDS[found[2]]} {found[3]}" if found[2] else ""
    got = _KINDS.get(found[4] or "", "")
    wrong = f", and not {got}" if got else f", and not {value!r}"
    return f"takes {_KINDS[found[1]]}{bound}{wrong}"
