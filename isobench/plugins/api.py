"""The whole plug-in API: what an author of a target implements.

A target is one module with one class, announced by an entry point:

    [project.entry-points."isobench.targets"]
    firejail = "mypackage.firejail:FirejailTarget"

docs/plugins.md is the guide, and `isobench.targets.authoring` has a target for all that is a
command before the command. `Target` and `Session` are all that is required. A class that is a
dataclass may have fields: they are the options a user sets under `[targets.NAME]` in isobench.toml,
checked against the fields' types; an option whose name is a word of Python has a field with an
underscore after it (`class_`). What some technologies have and others cannot is an ability: a small
Protocol of its own below, recognised by `isinstance`, never a method that raises.

A target reads no clock. It calls `command.on_output(chunk)` with every piece of standard output as
it arrives and `command.on_phase(name)` as a phase passes; isobench takes the time of both on one
clock of the host. So an author cannot get timing wrong. (isobench's own spawner takes the time
itself, on the same clock: `on_output` has a second argument for it, which a target leaves alone.)
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from isobench.model import (
    Abi,
    Availability,
    Command,
    Evidence,
    Expectation,
    Leftover,
    Limits,
    Need,
    Resource,
    Stage,
    Technology,
)
from isobench.model.units import Nanoseconds, TargetName

GROUP: Final = "isobench.targets"
"""The entry-point group of targets."""
BEGIN: Final = "begin"
"""The phase at which the clock of a start begins, for targets that must first prepare something
that is isobench's own business (an archive with the payload): `command.on_phase(BEGIN)`, or
`stage.on_phase(BEGIN)` while a session is opened. Without it the clock begins with the call.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended.

    `exit_code` is None when it was stopped at the time limit, and minus the signal's number when a
    signal ended it. Both streams are cut at a mebibyte each.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes


@runtime_checkable
class Session(Protocol):
    """One live instance of a target."""

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program of the stage in this instance and wait for it.

        The session turns `command.argv[0]` into the path inside. The environment is
        `command.environ(scratch)` and nothing else. Every piece of standard output goes to
        `command.on_output` as it arrives. A failing command is a `Completed`, not an exception;
        `SessionError` means that the instance itself is gone. At the time limit the command is
        killed with all its descendants, and `exit_code` is None.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """One way to isolate a process. Holds options, opens sessions, reads no clock."""

    @property
    def name(self) -> TargetName:
        """The name users type. A class attribute will do, here and for the next three."""
        ...

    @property
    def technology(self) -> Technology:
        """The column of the report."""
        ...

    @property
    def abi(self) -> Abi | None:
        """What payloads must be built for; None: this host's own."""
        ...

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What must be seen from inside for the name to be true."""
        ...

    def probe(self) -> Availability:
        """Say whether a session can be opened here. Takes seconds at most, leaves nothing, never
        raises.
        """
        ...

    def open(self, stage: Stage) -> AbstractContextManager[Session]:
        """Start a fresh instance; leaving the context leaves nothing behind."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """Ability of a target: start an instance whose first process is the payload (`docker run`)."""

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a new instance that runs the command, wait for its end, remove it. Output is handed
        on as `Session.run` does.

        Without this ability a cold start is `open` and one `run`.
        """
        ...


@runtime_checkable
class Startable(Protocol):
    """An instance that exists and does not run."""

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Start it, wait for the end of its first process. May be called again."""
        ...


@runtime_checkable
class Exclusive(Protocol):
    """Ability of a target of which there may be one instance at a time (a certain machine)."""

    @property
    def exclusive(self) -> bool:
        """Say whether that is so: then no session is open while an instance is launched."""
        ...


@runtime_checkable
class Restarter(Protocol):
    """Ability of a target: keep a stopped instance and start it again (`docker start`)."""

    def stopped(self, stage: Stage, command: Command) -> AbstractContextManager[Startable]:
        """Make an instance that will run the command at each start, and remove it at the end."""
        ...


@runtime_checkable
class Witness(Protocol):
    """Ability of a session: facts about itself that only the host can see.

    An expectation may be about one of them; of an instance without a session (`Launcher`) nobody
    says them, and it is held to the others alone.
    """

    def witness(self) -> Iterable[Evidence]:
        """Yield facts (keys start with "host."): the runtime in use, limits that were set."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """Ability of a target: limit what an instance takes of the host's resources."""

    @property
    def limitable(self) -> Collection[Resource]:
        """What it can limit here, for this user."""
        ...

    def limited(self, limits: Limits) -> Target:
        """Return the same target with all these limits set that it can set."""
        ...


@runtime_checkable
class Channel(Protocol):
    """Ability of a session that is reached through a channel with a cost of its own (SSH)."""

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Go all the way and execute nothing: what that takes is shown beside the figures."""
        ...


@runtime_checkable
class NullSpawner(Protocol):
    """Ability of a target, native's: start the smallest program there is as it starts payloads."""

    def null(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start it with what `command` has but its argv, and wait for its end: what that takes is
        in every start-up figure.
        """
        ...


@runtime_checkable
class Preparer(Protocol):
    """Ability of a target: make what is kept between runs (a guest, a root file system)."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make it unless it is there; `say` hears of steps that take long. SessionError: it cannot
        be made.
        """
        ...


@runtime_checkable
class Executes(Protocol):
    """Ability of a target: say which of its options are commands, programs or their arguments.

    Where a configuration that was found (and not named by `--config`) sets one of them, the target
    is probed and measured only if the user names it. Of a distribution's own target without this
    ability every option counts as a command; `executes = ()` says that none is.
    """

    @property
    def executes(self) -> Collection[str]:
        """Names of options, as the user writes them. A class attribute will do."""
        ...


@runtime_checkable
class Sweeper(Protocol):
    """Ability of a target: find what runs that died have left, and remove it."""

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove instances whose owner is not `alive`, and return what was found.

        With `cached`, remove as well what is kept between runs (images). Never raises: what cannot
        be removed is returned with the reason. Touches nothing that isobench has not labelled.
        """
        ...


@runtime_checkable
class Lacks(Protocol):
    """Ability of a target: say what its sessions cannot offer, whatever they are built for.

    A workload that needs it (`needs` in workload.toml) is not applicable there, and no failure.
    What programs of the target's ABI lack is known already.
    """

    @property
    def lacks(self) -> Mapping[Need, str]:
        """One sentence for each need that is not met: why not. A class attribute will do."""
        ...


@runtime_checkable
class Explains(Protocol):
    """Ability of a target: say in words what its start-up figures span."""

    @property
    def starts(self) -> Mapping[str, str]:
        """One sentence each for "cold", "warm" and "exec", shown in the report."""
        ...
