"""Finds and makes targets from entry points and the configuration.

Targets are loaded at first use. An error in one names its distribution and never stops isobench.
"""

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from isobench.config.suggestions import suggestion
from isobench.config.toml import Source
from isobench.model import Abi, Availability, Expectation, Lack, Stage, Technology, Unavailable
from isobench.model.cleaning import LONGEST_NAME, is_name
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import TargetName
from isobench.plugins import entry_points, guard, indirect, stdout, untried
from isobench.plugins.api import Session, ShortOptions, Target
from isobench.plugins.entry_points import Kind, Plugin

ORDER: Final = (
    *("native", "namespaces", "docker", "podman", "podman-pod", "nspawn", "lxc", "distrobox"),
    *("kubernetes", "landlock", "bubblewrap", "firejail", "gvisor", "wasm"),
    *("kvm", "uml", "ssh", "qemu", "qemu-aarch64", "qemu-user-aarch64", "qemu-user-riscv64"),
    "wine",
)
"""The order in which the in-tree targets are listed. Others follow in alphabetical order."""


_OTHER_NAMES: Final[Mapping[str, str]] = {"qemu-kvm": "kvm", "qemu-tcg": "qemu"}
"""Other names of kinds in a configuration."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A target with one option changed, which is measured together with it."""

    name: TargetName
    base: TargetName
    option: str
    value: str
    """As the user wrote it."""
    table: Mapping[str, Any]
    """Its configuration: a table [targets.NAME]."""


@dataclass(frozen=True, kw_only=True)
class BrokenTarget:
    """Replaces a target whose plug-in does not load, so that it is reported and not fatal."""

    name: TargetName
    reason: str
    hint: str
    technology: Technology = Technology.NATIVE
    abi: Abi | None = None
    expectations: tuple[Expectation, ...] = ()

    def probe(self) -> Availability:
        """Return what is wrong with the plug-in."""
        return Unavailable(
            lack=Lack.PLUGIN,
            what=f"the plug-in is broken: {self.reason}",
            hint=self.hint,
        )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Session]:
        """Raise SessionError: the plug-in is broken."""
        raise SessionError(f"{self.name}: {self.reason} ({stage.owner})", hint=self.hint)
        yield  # type: ignore[unreachable]  # makes this a generator, as the interface asks


def announced() -> Mapping[str, Plugin]:
    """Return all installed targets by name, isobench's own first."""
    found = entry_points.announced(Kind.TARGET)
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def _options(kind: type, options: Mapping[str, Any], name: str, source: Source) -> dict[str, Any]:
    """Return options by field of a target's class, with values of the fields' types.

    `source` is the configuration. UsageError: there is no such option, or its value is invalid.
    """
    fields = (
        {f.name.rstrip("_"): f for f in dataclasses.fields(kind) if f.init}
        if dataclasses.is_dataclass(kind)
        else {}
    )
    for key in options:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise UsageError(
                f"{_where(source, name, key)}: no such option: {key}",
                hint=f"{suggestion(key, fields)} its options are: {known}".lstrip(),
            )
    # With `from __future__ import annotations` the types of fields are texts.
    hints = typing.get_type_hints(kind) if fields else {}
    types = {name: hints[field.name] for name, field in fields.items()}
    converted = {}
    for key, value in options.items():
        try:
            converted[fields[key].name] = msgspec.convert(value, type=types[key], strict=True)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{_where(source, name, key)} {key} = {_as_toml(value)}: {error}",
                hint=f"{key} takes {_type_words(types[key])}; fix it in {source.origin}",
            ) from None
    return converted


def _kind(options: Mapping[str, Any], name: str) -> object:
    """Return the kind of a configured target by its main name; other types unchanged."""
    kind = options.get("kind", name)
    return _OTHER_NAMES.get(kind, kind) if isinstance(kind, str) else kind


def _as_toml(value: object) -> str:
    """Return a value for a message, about as in TOML, with at most 100 characters."""
    # JSON writes texts, numbers, lists and booleans as TOML does.
    return msgspec.json.encode(value, enc_hook=str).decode()[:100]


def _type_words(kind: object) -> str:
    """Return what values an option of this type takes, as text."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_type_words(part) for part in parts)
    if typing.get_origin(kind) in (tuple, list):
        return "a list of texts" if set(parts) == {str} else "a list"
    if typing.get_origin(kind) is dict:
        return 'a table, as in { "a.key" = "a value" }'
    words = {str: 'text, as in "this"', bool: "true or false", int: "a whole number"}
    words[float] = "a number, as in 1.5"
    return words.get(kind, str(kind)) if isinstance(kind, type) else str(kind)


def _where(source: Source, name: str, *key: str) -> str:
    """Return the place of a target's table for a message, with its line where that is known."""
    place = source.place("targets", name, *key)
    return f"[targets.{name}]" if place == source.origin else f"{place}: [targets.{name}]"


def _load(name: str, plugin: Plugin, options: Mapping[str, Any], source: Source) -> Target:
    info = replace(plugin.info, name=name)
    if not plugin.is_own:  # before its first line runs, which may print
        stdout.protect()
    try:
        with info.loading("loading it"):
            kind: Any = plugin.load()
        with info.loading("its options"):
            settings = _options(kind, options, name, source)
        with info.loading("making it"):
            target = _make(kind, settings, options, name, source)
        return target if plugin.is_own else guard.checked(target, info)
    except SessionError as error:
        plugin.faults.append(error)
        return BrokenTarget(name=TargetName(name), reason=str(error), hint=error.hint)


def _make(
    kind: Callable[..., Any],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str,
    source: Source,
) -> Target:
    """Return a target with these settings; UsageError: the target rejects one of them."""
    try:
        target = kind(**settings)
    except ValueError as error:
        if not settings:
            raise
        # The types are right, so a check of the target itself failed. Most messages begin with the
        # name of the option.
        option = str(error).partition(" ")[0].rstrip(":")
        where = _where(source, name, *([option] if option in options else []))
        raise UsageError(f"{where}: {error}", hint=f"fix it in {source.origin}") from None
    parts = ("name", "technology", "abi", "expectations", "probe", "open")
    missing = [part for part in parts if not hasattr(target, part)]
    if missing or not isinstance(target, Target):
        raise TypeError(f"it lacks {', '.join(missing)}")
    return target


def _from_text(kind: object, text: str) -> object:
    """Return a text as a value of this type; unchanged where it is not one."""
    if typing.get_origin(kind) in (tuple, list):
        return [part for part in text.split(",") if part]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next((_from_text(part, text) for part in typing.get_args(kind)), text)
    if kind is bool:
        return {"true": True, "on": True, "false": False, "off": False}.get(text, text)
    try:
        return {int: int, float: float}.get(kind, str)(text)  # type: ignore[call-overload]
    except ValueError:
        return text


class Registry:
    """All targets by name: those of installed distributions, and those of the configuration."""

    def __init__(
        self,
        configured: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        file: str = "isobench.toml",
        source: Source | None = None,
        trusted: bool = True,
    ) -> None:
        """Take the tables [targets.NAME] of the configuration, and their file, by name (`file`) or
        with its text (`source`).

        If the file is not `trusted`, since the user has not named it, its commands run only for
        permitted targets. Other targets with commands are neither probed nor measured. UsageError:
        a name or a kind is invalid.
        """
        self._source, self._trusted = source or Source(origin=file), trusted
        self._permitted: set[str] = set()
        self._configured = dict(configured or {})
        self._loaded: dict[str, Target] = {}
        for name, options in self._configured.items():
            kind = _kind(options, name)
            is_plain = is_name(name) and entry_points.NAME.fullmatch(name)
            if not is_plain or name in entry_points.RESERVED:
                raise UsageError(
                    f"{_where(self._source, name)}: {name!r} is not a valid name of a target",
                    hint="use small letters, digits, dots and dashes, as in docker-crun: at most"
                    f" {LONGEST_NAME}",
                )
            # [targets.docker] kind = "podman" would show figures of Podman under the name docker.
            if name in announced() and kind != name:
                where = _where(self._source, name, "kind")
                raise UsageError(
                    f"{where}: the target {name} cannot be of the kind {kind!r}",
                    hint=f'use another name: [targets.{name}-2] kind = "{kind}"',
                )
            if not isinstance(kind, str) or kind not in announced():
                raise UsageError(
                    f"{_where(self._source, name, 'kind')}: no target is called {kind!r}",
                    hint=f"{suggestion(str(kind), announced())} set kind"
                    f' = "…" to one of: {", ".join(announced())}'.lstrip(),
                )

    def permit(self, names: Iterable[str]) -> None:
        """Allow the commands in the configuration of these targets, which the user has named."""
        # A replacement (`untried`) that was made before must give way to the target itself.
        fresh = set(names) - self._permitted
        self._permitted |= fresh
        for name in fresh:
            self._loaded.pop(name, None)

    def tables(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return the configuration of these targets."""
        return {name: self._configured[name] for name in names if name in self._configured}

    def with_tables(self, tables: Mapping[str, Mapping[str, Any]]) -> "Registry":
        """Return a registry with these tables added, which replace those of the same name."""
        if not tables:
            return self
        fresh = Registry({**self._configured, **tables}, source=self._source, trusted=self._trusted)
        # What the user has permitted stays permitted.
        fresh.permit(self._permitted)
        return fresh

    def vary(self, written: str) -> Variation:
        """Return the variation that "docker.seccomp=unconfined" means: TARGET.OPTION=VALUE.

        UsageError: there is no such target or option, or the target has that value already.
        """
        base, option, value = self._split_variation(written)
        self.permit([base])
        target = guard.unwrapped(self.get(base))
        short = target.short_options if isinstance(target, ShortOptions) else {}
        key, text = option, value
        if option in short:
            key, _, text = short[option].format(value).partition("=")
        hints = typing.get_type_hints(type(target))
        fields = {f.name.rstrip("_"): f.name for f in dataclasses.fields(target) if f.init}  # type: ignore[arg-type]
        if key not in fields:
            names = ", ".join([*fields, *short]) or "none"
            raise UsageError(
                f"--vary {written}: {base} has no option {option}",
                hint=f"its options are: {names}",
            )
        new = _from_text(hints[fields[key]], text)
        try:
            msgspec.convert(new, type=hints[fields[key]], strict=True)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise UsageError(
                f"--vary {written}: {value!r} is not valid for {option}",
                hint=f"{option} takes {_type_words(hints[fields[key]])}",
            ) from None
        now = getattr(target, fields[key])
        if new == (list(now) if isinstance(now, tuple) else now):
            raise UsageError(
                f"--vary {written}: {base} has that value already", hint="choose another value"
            )
        own = dict(self._configured.get(base, {}))
        name = re.sub(r"[^a-z0-9.]+", "-", f"{base}-{option}-{value}".lower()).strip("-.")
        # A name of records, which no other target has: it would be measured under that name.
        if not is_name(name) or name in self.names():
            why = "would be too long" if not is_name(name) else "is the name of another target"
            raise UsageError(
                f"--vary {written}: {name[:LONGEST_NAME]} {why}",
                hint=f'configure a target of another name, with kind = "{_kind(own, base)}"',
            )
        return Variation(
            name=TargetName(name),
            base=base,
            option=option,
            value=value,
            table={"kind": str(_kind(own, base)), **own, key: new},
        )

    def _split_variation(self, written: str) -> tuple[TargetName, str, str]:
        """Return target, option and value of "docker.network=bridge"; UsageError: it is not one."""
        path, equals, value = written.partition("=")
        known = [name for name in self.names() if path.startswith(f"{name}.")]
        if not equals or not known:
            raise UsageError(
                f"--vary {written}: it is not TARGET.OPTION=VALUE",
                hint="write it as in --vary docker.network=bridge",
            )
        # Names may contain dots: of "box" and "box.2" the longer one is meant.
        base = max(known, key=len)
        return base, path.removeprefix(f"{base}."), value

    def names(self) -> tuple[TargetName, ...]:
        """Return all names, those of installed distributions first."""
        added = [name for name in self._configured if name not in announced()]
        return tuple(TargetName(name) for name in [*announced(), *added])

    def get(self, name: str) -> Target:
        """Return one target; UsageError: there is none of this name."""
        if name not in self.names():
            instructions = indirect.instructions(name)
            if instructions is not None:
                raise UsageError(
                    f"{name!r} is not a target itself",
                    hint=f"{instructions}; in isobench.toml, under [targets.my-{name.lower()}]"
                    if "kind =" in instructions
                    else instructions,
                )
            hint = f"{suggestion(name, self.names())} isobench targets lists them all"
            raise UsageError(f"no target is called {name!r}", hint=hint.lstrip())
        if name not in self._loaded:
            options = dict(self._configured.get(name, {}))
            kind = str(_kind(options, name))
            options.pop("kind", None)
            plugin = announced()[kind]
            target = _load(name, plugin, options, self._source)
            if not self._trusted and name not in self._permitted:
                target = untried.stand_in(
                    name, target, options, file=self._source.origin, in_tree=plugin.is_own
                )
            self._loaded[name] = target
        return self._loaded[name]

    def select(
        self, names: Sequence[str]
    ) -> tuple[dict[TargetName, Target], frozenset[TargetName]]:
        """Return the selected targets, always with native, and which of them were named.

        No names, "all" and "auto" select every target; those that cannot run are skipped.
        """
        wanted: list[TargetName] = [TargetName("native")]
        explicit: set[TargetName] = set()
        for name in names or ["auto"]:
            if name in ("all", "auto"):
                wanted += self.names()
            else:
                self.get(name)
                wanted.append(TargetName(name))
                explicit.add(TargetName(name))
        return {name: self.get(name) for name in dict.fromkeys(wanted)}, frozenset(explicit)
