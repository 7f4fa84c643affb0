"""Entry points and configuration -> targets, loaded when first used, blamed on the right
distribution when broken.
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

from isobench.config.suggestions import meant
from isobench.config.toml import Source
from isobench.model import Abi, Availability, Expectation, Lack, Stage, Technology, Unavailable
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import TargetName
from isobench.plugins import entry_points, guard, indirect, stdout, untried
from isobench.plugins.api import Session, Target
from isobench.plugins.entry_points import Kind, Plugin

ORDER: Final = (
    *("native", "namespaces", "docker", "podman", "podman-pod", "nspawn", "lxc", "distrobox"),
    *("kubernetes", "landlock", "bubblewrap", "firejail", "gvisor", "wasm"),
    *("kvm", "uml", "ssh", "qemu", "qemu-aarch64", "qemu-user-aarch64", "qemu-user-riscv64"),
    "wine",
)
"""How the in-tree targets are listed; others follow by name."""


_OTHER_NAMES: Final[Mapping[str, str]] = {"qemu-kvm": "kvm", "qemu-tcg": "qemu"}
"""What else a kind may be called in a configuration."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A target with one of its options changed, measured beside it."""

    name: TargetName
    base: TargetName
    option: str
    value: str
    """As the user wrote it."""
    table: Mapping[str, Any]
    """Its configuration, as of a target of its own."""


@dataclass(frozen=True, kw_only=True)
class BrokenTarget:
    """Stands for a target whose plug-in does not load: reported, never fatal."""

    name: TargetName
    why: str
    way_out: str
    technology: Technology = Technology.NATIVE
    abi: Abi | None = None
    expectations: tuple[Expectation, ...] = ()

    def probe(self) -> Availability:
        """Say what is wrong with the plug-in."""
        return Unavailable(
            lack=Lack.PLUGIN,
            what=f"the plug-in is broken: {self.why}",
            hint=self.way_out,
        )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Session]:
        """Refuse."""
        raise SessionError(f"{self.name}: {self.why} ({stage.owner})", hint=self.way_out)
        yield  # type: ignore[unreachable]  # makes this a generator, as the interface asks


def announced() -> Mapping[str, Plugin]:
    """Return all installed targets by name, isobench's own first."""
    found = entry_points.announced(Kind.TARGET)
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def _options(kind: type, options: Mapping[str, Any], name: str, source: Source) -> dict[str, Any]:
    """Return options as the fields of a target's class want them; `source` is where they are."""
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
                hint=f"{meant(key, fields)} its options are: {known}".lstrip(),
            )
    hints = typing.get_type_hints(kind) if fields else {}
    types = {name: hints[field.name] for name, field in fields.items()}
    converted = {}
    for key, value in options.items():
        try:
            converted[fields[key].name] = msgspec.convert(value, type=types[key], strict=True)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{_where(source, name, key)} {key} = {_spelt(value)}: {error}",
                hint=f"{key} takes {_wanted(types[key])}; fix it in {source.origin}",
            ) from None
    return converted


def _kind(options: Mapping[str, Any], name: str) -> object:
    """Return the kind of a configured target as it is announced, where it is a name at all."""
    kind = options.get("kind", name)
    return _OTHER_NAMES.get(kind, kind) if isinstance(kind, str) else kind


def _spelt(value: object) -> str:
    """Return a value about as TOML has it."""
    return msgspec.json.encode(value, enc_hook=str).decode()[:100]


def _wanted(kind: object) -> str:
    """Say in words what an option of this type takes."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_wanted(part) for part in parts)
    if typing.get_origin(kind) in (tuple, list):
        return "a list of texts" if set(parts) == {str} else "a list"
    if typing.get_origin(kind) is dict:
        return 'a table, as in { "a.key" = "a value" }'
    words = {str: 'text, as in "this"', bool: "true or false", int: "a whole number"}
    words[float] = "a number, as in 1.5"
    return words.get(kind, str(kind)) if isinstance(kind, type) else str(kind)


def _where(source: Source, name: str, *key: str) -> str:
    """Return where the table of a target is, with its line where the text is known."""
    place = source.place("targets", name, *key)
    return f"[targets.{name}]" if place == source.origin else f"{place}: [targets.{name}]"


def _load(name: str, plugin: Plugin, options: Mapping[str, Any], source: Source) -> Target:
    maker = replace(plugin.maker, name=name)
    if not plugin.is_own:
        stdout.protect()
    try:
        with maker.loading("loading it"):
            kind: Any = plugin.load()
        with maker.loading("its options"):
            settings = _options(kind, options, name, source)
        with maker.loading("making it"):
            target = _make(kind, settings, options, name, source)
        return target if plugin.is_own else guard.checked(target, maker)
    except SessionError as error:
        plugin.faults.append(error)
        return BrokenTarget(name=TargetName(name), why=str(error), way_out=error.hint)


def _make(
    kind: Callable[..., Any],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str,
    source: Source,
) -> Target:
    """Return a target with these settings; UsageError where it refuses them itself."""
    try:
        target = kind(**settings)
    except ValueError as error:
        if not settings:
            raise
        # Its types are right: the target itself refuses what the configuration says.
        option = str(error).partition(" ")[0].rstrip(":")  # most begin with what they are about
        where = _where(source, name, *([option] if option in options else []))
        raise UsageError(f"{where}: {error}", hint=f"fix it in {source.origin}") from None
    parts = ("name", "technology", "abi", "expectations", "probe", "open")
    missing = [part for part in parts if not hasattr(target, part)]
    if missing or not isinstance(target, Target):
        raise TypeError(f"it lacks {', '.join(missing)}")
    return target


def _from_text(kind: object, text: str) -> object:
    """Return a text as a value that an option of this type takes; the text where it is none."""
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
    """All targets by the names users type: announced ones, and those the configuration adds."""

    def __init__(
        self,
        configured: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        file: str = "isobench.toml",
        source: Source | None = None,
        vouched: bool = True,
    ) -> None:
        """Take the tables [targets.NAME] of the configuration, and the file that they are from, by
        its name or with its text.

        Unless it is `vouched` for, since the user has named it, its commands run for permitted
        targets alone: the others are neither probed nor measured.
        """
        self._source, self._vouched = source or Source(origin=file), vouched
        self._permitted: set[str] = set()
        self._configured = dict(configured or {})
        self._loaded: dict[str, Target] = {}
        for name, options in self._configured.items():
            kind = _kind(options, name)
            if not entry_points.NAME.fullmatch(name) or name in entry_points.RESERVED:
                raise UsageError(
                    f"{_where(self._source, name)}: {name!r} cannot be the name of a target",
                    hint="use small letters, digits, dots and dashes, as in docker-crun",
                )
            if name in announced() and kind != name:
                where = _where(self._source, name, "kind")
                raise UsageError(
                    f"{where}: {name} is {name}, and no kind of {kind!r}",
                    hint=f'give it a name of its own: [targets.{name}-2] kind = "{kind}"',
                )
            if not isinstance(kind, str) or kind not in announced():
                raise UsageError(
                    f"{_where(self._source, name, 'kind')}: no target is called {kind!r}",
                    hint=f"{meant(str(kind), announced())} set kind"
                    f' = "…" to one of: {", ".join(announced())}'.lstrip(),
                )

    def permit(self, names: Iterable[str]) -> None:
        """Let the commands in the configuration of these targets run: the user has named them."""
        fresh = set(names) - self._permitted
        self._permitted |= fresh
        for name in fresh:
            self._loaded.pop(name, None)

    def tables(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what is configured of these targets."""
        return {name: self._configured[name] for name in names if name in self._configured}

    def with_tables(self, tables: Mapping[str, Mapping[str, Any]]) -> "Registry":
        """Return a registry in which these tables stand in place of those of the same name."""
        if not tables:
            return self
        fresh = Registry({**self._configured, **tables}, source=self._source, vouched=self._vouched)
        fresh.permit(self._permitted)
        return fresh

    def vary(self, written: str) -> Variation:
        """Return what "docker.seccomp=unconfined" asks for: a target's name, an option, a value.

        UsageError where there is no such target or option, or the target has that value anyway.
        """
        path, equals, value = written.partition("=")
        known = [name for name in self.names() if path.startswith(f"{name}.")]
        if not equals or not known:
            raise UsageError(
                f"--vary {written}: it names no target's option and value",
                hint="write TARGET.OPTION=VALUE, as in --vary docker.network=bridge",
            )
        base = max(known, key=len)
        option = path.removeprefix(f"{base}.")
        self.permit([base])
        target = guard.direct(self.get(base))
        spoken: Mapping[str, str] = getattr(target, "spoken", {})
        key, text = option, value
        if option in spoken:  # as users call it: a part of an option's value
            key, _, text = spoken[option].format(value).partition("=")
        hints = typing.get_type_hints(type(target))
        fields = {f.name.rstrip("_"): f.name for f in dataclasses.fields(target) if f.init}  # type: ignore[arg-type]
        if key not in fields:
            names = ", ".join([*fields, *spoken]) or "none"
            raise UsageError(
                f"--vary {written}: {base} has no option {option}",
                hint=f"its options are: {names}",
            )
        new = _from_text(hints[fields[key]], text)
        try:
            msgspec.convert(new, type=hints[fields[key]], strict=True)
        except msgspec.ValidationError:
            raise UsageError(
                f"--vary {written}: {value!r} is nothing that {option} takes",
                hint=f"{option} takes {_wanted(hints[fields[key]])}",
            ) from None
        now = getattr(target, fields[key])
        if new == (list(now) if isinstance(now, tuple) else now):
            raise UsageError(
                f"--vary {written}: {base} has that value anyway", hint="name another value"
            )
        own = dict(self._configured.get(base, {}))
        name = re.sub(r"[^a-z0-9.]+", "-", f"{base}-{option}-{value}".lower()).strip("-.")
        return Variation(
            name=TargetName(name),
            base=base,
            option=option,
            value=value,
            table={"kind": str(_kind(own, base)), **own, key: new},
        )

    def names(self) -> tuple[TargetName, ...]:
        """Return every name, announced ones first."""
        added = [name for name in self._configured if name not in announced()]
        return tuple(TargetName(name) for name in [*announced(), *added])

    def get(self, name: str) -> Target:
        """Return one target; UsageError if there is none of this name."""
        if name not in self.names():
            known_way = indirect.way(name)
            if known_way is not None:
                raise UsageError(
                    f"{name!r} is no target by itself",
                    hint=f"{known_way}; in isobench.toml, under [targets.my-{name.lower()}]"
                    if "kind =" in known_way
                    else known_way,
                )
            hint = f"{meant(name, self.names())} isobench targets lists them all"
            raise UsageError(f"no target is called {name!r}", hint=hint.lstrip())
        if name not in self._loaded:
            options = dict(self._configured.get(name, {}))
            kind = str(_kind(options, name))
            options.pop("kind", None)
            plugin = announced()[kind]
            target = _load(name, plugin, options, self._source)
            if not self._vouched and name not in self._permitted:
                target = untried.held_back(
                    name, target, options, file=self._source.origin, in_tree=plugin.is_own
                )
            self._loaded[name] = target
        return self._loaded[name]

    def select(
        self, names: Sequence[str]
    ) -> tuple[dict[TargetName, Target], frozenset[TargetName]]:
        """Return the targets that `names` mean, native always among them, and which were asked for
        by name.

        No names, "all" and "auto" mean every target, to be skipped where it cannot run.
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
