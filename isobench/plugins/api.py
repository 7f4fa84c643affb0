"""The plug-in API: what the author of a target implements.

A target is one module with one class, declared by an entry point:

    [project.entry-points."isobench.targets"]
    firejail = "mypackage.firejail:FirejailTarget"

docs/plugins.md is the guide. `isobench.targets.authoring` has a base for technologies that are a
prefix of the command line. Only `Target` and `Session` are required. The fields of a dataclass are
the options that a user sets under `[targets.NAME]` in isobench.toml; they are checked against the
types of the fields. A field for an option that is a keyword of Python has an underscore at its end
(`class_`). Features that only some technologies have are abilities: small Protocols below, which
isobench recognises by `isinstance`. No method raises an error for a missing feature.

A target never reads a clock. It calls `command.on_output(chunk)` with every piece of standard
output as it arrives, and `command.on_phase(name)` when a phase ends; isobench takes the time of
both, with one clock of the host. (isobench's own spawner takes the time itself, with the same
clock, and passes it as the second argument of `on_output`. Targets do not use that argument.)
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

# `runtime_checkable` makes `isinstance` look only whether the names exist, not at their types:
# https://docs.python.org/3/library/typing.html#typing.runtime_checkable. `guard` checks the types.

BEGIN: Final = "begin"
"""The phase that starts the clock of a start-up time again, with `command.on_phase(BEGIN)`, or
`stage.on_phase(BEGIN)` while a session is opened. It is for preparations that users of the
technology do not have, such as an archive with the payload. Without it the clock starts with the
call.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended.

    `exit_code` is None if the command was killed at the time limit, and the negative number of the
    signal if a signal ended it. Each stream is cut at one mebibyte.
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes


@runtime_checkable
class Session(Protocol):
    """One live instance of a target."""

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program of the stage in this instance and wait for its end.

        The session turns `command.argv[0]` into the path inside. The environment is exactly
        `command.environ(scratch)`. Every piece of standard output goes to `command.on_output` as it
        arrives. At the time limit the command and all its descendants are killed, and `exit_code`
        is None. A command that fails is a `Completed` and not an exception; SessionError: the
        instance itself broke.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """One way to isolate a process. It has options and opens sessions; it never reads a clock."""

    @property
    def name(self) -> TargetName:
        """The name that users type. It may be a class attribute, like the next three."""
        ...

    @property
    def technology(self) -> Technology:
        """The column of the report."""
        ...

    @property
    def abi(self) -> Abi | None:
        """The ABI of its payloads; None: that of this host."""
        ...

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """The facts that a session must show, so that its results count for this target."""
        ...

    def probe(self) -> Availability:
        """Return whether a session can be opened here.

        It takes a few seconds at most, leaves nothing behind, and never raises.
        """
        ...

    def open(self, stage: Stage) -> AbstractContextManager[Session]:
        """Start a new instance. At the end of the context nothing of it may be left."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """Ability of a target: start an instance whose first process is the payload (`docker run`)."""

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a new instance that runs the command, wait for its end, and remove it. Output, time
        limit and result are as in `Session.run`.

        Without this ability a cold start is `open` and one `run`.
        """
        ...


@runtime_checkable
class Startable(Protocol):
    """An instance that exists but does not run."""

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Start it and wait for the end of its first process. It may be called several times."""
        ...


@runtime_checkable
class Exclusive(Protocol):
    """Ability of a target that can have only one instance at a time (a certain machine)."""

    @property
    def exclusive(self) -> bool:
        """Whether it can. Then no session is open while an instance is launched."""
        ...


@runtime_checkable
class Restarter(Protocol):
    """Ability of a target: keep a stopped instance and start it again (`docker start`)."""

    def stopped(self, stage: Stage, command: Command) -> AbstractContextManager[Startable]:
        """Make an instance that runs the command at each start. It is removed at the end."""
        ...


@runtime_checkable
class Witness(Protocol):
    """Ability of a session: facts about it that only the host can see.

    Expectations may be about them. An instance that was started by `Launcher` has no session, and
    must meet the other expectations only.
    """

    def witness(self) -> Iterable[Evidence]:
        """Yield facts whose keys start with "host.": the runtime in use, limits that are set."""
        ...


@runtime_checkable
class Limiter(Protocol):
    """Ability of a target: limit the resources of an instance."""

    @property
    def limitable(self) -> Collection[Resource]:
        """The resources that it can limit here, for this user."""
        ...

    def limited(self, limits: Limits) -> Target:
        """Return the same target with those of these limits that it can set."""
        ...


@runtime_checkable
class Throttled(Protocol):
    """Ability of a target: its instances may use only a share of the CPU time.

    A quota counts in periods of 100 ms, so that short turns would not notice it: such a target has
    long ones.
    """

    @property
    def cpu_quota(self) -> float:
        """CPUs that an instance may use in a period (0.5: half of one); 0: no limit."""
        ...


@runtime_checkable
class Channel(Protocol):
    """Ability of a session whose channel takes a notable time itself (SSH)."""

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Send a request that executes nothing. The report shows the time that this takes."""
        ...


@runtime_checkable
class Interactive(Protocol):
    """Ability of a session: pass what isobench writes on to the standard input of a program.

    Payloads of such sessions wait for their turns in a round. Each payload of other sessions is
    started again for its visit.
    """

    @property
    def interactive(self) -> bool:
        """Whether `run` calls `command.on_stdin`, where it is set. A class attribute will do.

        What is written must reach the program at once. It is below 128 bytes at a time, and the
        next is written when the program has answered.
        """
        ...


@runtime_checkable
class NullSpawner(Protocol):
    """Ability of the target native: start the smallest program in the way it starts payloads."""

    def null(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start it with environment and listeners of `command`, and wait for its end. Every
        start-up time contains the time that this takes.
        """
        ...


@runtime_checkable
class Preparer(Protocol):
    """Ability of a target: make files that are kept between runs (a guest, a root file system)."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make them if they do not exist. Call `say` with each step that takes long. SessionError:
        they cannot be made.
        """
        ...


@runtime_checkable
class Executes(Protocol):
    """Ability of a target: name its options that are commands, programs or their arguments.

    Where a configuration that was found (and not named by `--config`) sets one of them, the target
    is probed and measured only if the user names it. Without this ability all options of a plug-in
    count as commands; `executes = ()` means that none does.
    """

    @property
    def executes(self) -> Collection[str]:
        """The names of the options, as the user writes them. It may be a class attribute."""
        ...


@runtime_checkable
class ShortOptions(Protocol):
    """Ability of a target: short names for parts of an option's value, for `--vary`."""

    @property
    def short_options(self) -> Mapping[str, str]:
        """The option and value that each short name stands for, with {} for what the user writes:
        `{"seccomp": "security_opt=seccomp={}"}`. A class attribute will do.
        """
        ...


@runtime_checkable
class Sweeper(Protocol):
    """Ability of a target: find and remove what dead runs have left."""

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove instances whose owner is not `alive`, and return what was found.

        With `cached`, also remove what is kept between runs (images). It removes only what isobench
        has labelled. It never raises: what cannot be removed is returned with the reason.
        """
        ...


@runtime_checkable
class Lacks(Protocol):
    """Ability of a target: name the needs of workloads that its sessions do not meet.

    A workload with such a need (`needs` in workload.toml) is not applicable there, which is not a
    failure. The needs that the target's ABI does not meet are known already.
    """

    @property
    def lacks(self) -> Mapping[Need, str]:
        """The reason for each need that is not met. It may be a class attribute."""
        ...


@runtime_checkable
class Explains(Protocol):
    """Ability of a target: explain what its start-up times span."""

    @property
    def starts(self) -> Mapping[str, str]:
        """One sentence each for "cold", "warm" and "exec", for the report."""
        ...
