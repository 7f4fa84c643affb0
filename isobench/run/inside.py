"""Programs of one's own in a target: sessions that stay open, and whose evidence was checked.

This is what the pytest plug-in stands on. Nothing here estimates: a caller that wants ratios with
intervals measures a run.
"""

import contextlib
import functools
import hashlib
import inspect
import json
import re
import secrets
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from isobench.config import bounded, redaction
from isobench.model import (
    Abi,
    Available,
    BlockHealth,
    Command,
    Payload,
    Record,
    Scope,
    Visit,
    Workload,
    host_abi,
)
from isobench.model.errors import SessionError, UnavailableError, UsageError
from isobench.model.units import Nanoseconds, Sha256, TargetName, WorkloadName, seconds
from isobench.payload import build, stage, wire
from isobench.plugins import guard, ownership
from isobench.plugins.api import Completed, Launcher, Preparer, Session, Target
from isobench.plugins.registry import Registry
from isobench.run import measure
from isobench.run.rounds import is_interactive
from isobench.run.waiting import EndedError, LateError, Waiting
from isobench.workloads import loader

_NATIVE: Final = TargetName("native")
_BY_SHELL: Final = "own-command"
_SHELL: Final = b'#!/bin/sh\nexec "$@"\n'
_MOST_PROGRAM: Final = 64 << 20
_OWN: Final = WorkloadName("own")
_TURN: Final = 0.01
"""Seconds of one iteration, about."""
_FIRST_LOOPS: Final = 1
_PATIENCE: Final = 10
"""Times the time limit of one visit, for all iterations together."""
_MOST_LOOPS: Final = 1 << 40


class _Nowhere:
    """A sink that keeps nothing but what was last written to standard error."""

    def __init__(self) -> None:
        self.errors = b""

    def write(self, record: Record) -> None:
        del record

    def sync(self) -> None:
        pass

    def log(self, name: str, text: bytes) -> None:
        del name
        self.errors = text

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        del health, valid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An open and proven session."""

    runner: measure.Runner
    session: Session
    close: Callable[[], None]


class Inside:
    """A target in which programs run. `close` ends all sessions."""

    def __init__(self, name: str, registry: Registry | None = None) -> None:
        """Take a target by its name. UsageError: there is none. UnavailableError: it cannot run
        here.
        """
        every = registry or Registry()
        every.permit([name])
        self.target: Target = every.get(name)
        answer = self.target.probe()
        if not isinstance(answer, Available):
            raise UnavailableError(f"{name} cannot run here: {answer.reason}", hint=answer.hint)
        self.version = answer.version
        if isinstance(self.target, Preparer):
            self.target.prepare(lambda _: None)
        home = host_abi()
        if home is None:
            raise UnavailableError("isobench has no payloads for this machine", hint="use Linux")
        self._home: Abi = home
        self._native = every.get(_NATIVE)
        self._stack = contextlib.ExitStack()
        self._sessions: dict[tuple[str, ...], _Opened] = {}

    @property
    def name(self) -> str:
        """The name of the target."""
        return str(self.target.name)

    @functools.cached_property
    def _folder(self) -> Path:
        """A folder for programs, which goes with the sessions."""
        return self._stack.enter_context(ownership.temporary_folder("inside"))

    # ---- programs --------------------------------------------------------------------------------

    def run(
        self,
        *words: str | Path,
        timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command in the target, and return how it ended.

        A first word with a slash is a file of this host, a static program or a script, that is put
        into the target; its interpreter must be there. Any other first word is a command of the
        target itself, found by its shell. `timeout` is in seconds; a command that is killed then
        has no exit code, and the next one runs in a new instance. The output is bytes, each stream
        cut at one mebibyte.

        UsageError: there is no such file. SessionError: the session broke, or its evidence shows
        that the target was not in force.
        """
        argv = [str(word) for word in words]
        if not argv:
            raise UsageError("no command is given", hint='run("./program", "argument")')
        content, argv = _program(argv)
        opened = self._session(content)
        visit = Visit(block=0, target=self.target.name, workload=_OWN)
        variables = opened.runner.context(visit).environment
        command = Command(argv=tuple(argv), environment={**variables, **(environment or {})})
        done = opened.session.run(command, timeout=seconds(timeout))
        if done.exit_code is None:
            # Many targets can end a command only together with its instance.
            self._end(opened)
        return done

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float = 60.0) -> Any:  # noqa: ANN401 - plain data
        """Run a Python function in the target, and return what it returns.

        Its source is sent, so that it must import what it needs itself, and know nothing from
        around it. Arguments and result are plain data, as JSON has it. The target must have
        python3. SessionError: it failed; the message has the end of its standard error.
        """
        source = textwrap.dedent(inspect.getsource(function))
        script = (
            "#!/usr/bin/env python3\nimport json, sys\n"
            f"{source}\n"
            f"print(json.dumps({function.__name__}(*json.loads(sys.argv[1]))))\n"
        )
        path = self._file(script)
        done = self.run(path, json.dumps(arguments), timeout=timeout)
        if done.exit_code != 0:
            how = "was killed" if done.exit_code is None else f"ended with {done.exit_code}"
            end = wire.printable(
                redaction.text(done.stderr.decode(errors="replace").strip())[-500:]
            )
            raise SessionError(
                f"{function.__name__} {how} in {self.name}: {end}", hint=f"python3 in {self.name}?"
            )
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise SessionError(
                f"{function.__name__} printed no result in {self.name}",
                hint="it must print nothing after its result",
            ) from None

    def _file(self, text: str) -> Path:
        path = self._folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        path.write_text(text)
        path.chmod(0o700)
        return path

    # ---- workloads -------------------------------------------------------------------------------

    def turns(self, workload: Workload, loops: int = 0) -> "Turns":
        """Return a payload that waits in the target, and makes one iteration at a time.

        An iteration has so many `loops`; 0: as many as take about ten milliseconds. Targets are
        comparable only with the same number. SessionError: the target has no stream, or the payload
        failed.
        """
        return self._stack.enter_context(self._turns(workload, loops))

    def loops(self, workload: Workload) -> int:
        """Return how many loops of a workload take about ten milliseconds. Errors as in `turns`."""
        with self._turns(workload, 0) as found:
            return found.loops

    def _turns(self, workload: Workload, loops: int) -> "Turns":
        opened = self._session({}, (workload,))
        session = guard.unwrapped(opened.session)
        if not is_interactive(session):
            raise SessionError(f"{self.name} has no stream", hint="measure a run: isobench run")
        return Turns(opened.runner, session, self.target, workload, loops)

    def starts(self, workload: Workload) -> Callable[[], None]:
        """Return a function that starts an instance with the payload of a start and waits for its
        end. SessionError: the target has no such start.
        """
        opened = self._session({}, (workload,))
        runner, session = opened.runner, opened.session
        context = runner.context(Visit(block=0, target=self.target.name, workload=workload.name))

        def once() -> None:
            nonce = secrets.token_hex(8)
            command = context.command(workload.program, nonce)
            if workload.name.endswith(".exec"):
                done = session.run(command, timeout=workload.timeout)
            else:
                assert isinstance(self.target, Launcher)
                done = self.target.launch(
                    runner.stage(self.target), command, timeout=workload.timeout
                )
            # A failed start is the fastest one: only one that answers counts.
            if done.exit_code != 0 or wire.hello(nonce) not in done.stdout:
                raise SessionError(f"{self.name}: the payload of {workload.name} did not answer")

        if not workload.name.endswith(".exec") and not isinstance(self.target, Launcher):
            raise SessionError(f"{self.name} has no start of an instance")
        return once

    # ---- sessions --------------------------------------------------------------------------------

    def _session(
        self, programs: Mapping[str, bytes], workloads: Sequence[Workload] = ()
    ) -> _Opened:
        """Return an open and proven session that has these programs."""
        key = (*programs, *(hashlib.sha256(one).hexdigest() for one in programs.values()),
               *(one.name for one in workloads))  # fmt: skip
        if key not in self._sessions:
            self._sessions[key] = self._opened(programs, workloads)
        return self._sessions[key]

    def _opened(self, programs: Mapping[str, bytes], workloads: Sequence[Workload]) -> _Opened:
        abi = self.target.abi or self._home
        built = build.build_all(build.programs(workloads), [*{self._home, abi}], host=self._home)
        own = [self._payload(name, content, abi) for name, content in programs.items()]
        # Part of the common stack before anything is opened: an exception closes it.
        stack = self._stack.enter_context(contextlib.ExitStack())
        runner = measure.Runner(
            targets={_NATIVE: self._native, self.target.name: self.target},
            workloads={one.name: one for one in workloads},
            workshop=stack.enter_context(stage.workshop((*built, *own))),
            host_abi=self._home,
            sink=_Nowhere(),
            run_id=secrets.token_hex(4),
        )
        # Native's evidence is what that of the target is compared with.
        with self._native.open(runner.stage(self._native)) as native:
            self._prove(runner, native, _NATIVE)
        session = stack.enter_context(self.target.open(runner.stage(self.target)))
        self._prove(runner, session, self.target.name)
        return _Opened(runner=runner, session=session, close=stack.close)

    def _end(self, opened: _Opened) -> None:
        """End a session; what it was for opens a new one."""
        self._sessions = {key: one for key, one in self._sessions.items() if one is not opened}
        opened.close()

    def _payload(self, name: str, content: bytes, abi: Abi) -> Payload:
        digest = Sha256(hashlib.sha256(content).hexdigest())
        path = self._folder / f"{name}-{digest[:16]}"
        path.write_bytes(content)
        return Payload(program=name, abi=abi, path=path, sha256=digest, compiler="", flags=())

    @staticmethod
    def _prove(runner: measure.Runner, session: Session, name: TargetName) -> None:
        context = runner.context(Visit(block=0, target=name, workload=_OWN))
        runner.prover.prove_session(context, session).demand()

    def close(self) -> None:
        """End all sessions."""
        self._sessions.clear()
        self._stack.close()


def _program(argv: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """Return the program that a command needs in the target, and the command there."""
    first, *rest = argv
    if "/" not in first:
        return {_BY_SHELL: _SHELL}, [_BY_SHELL, *argv]
    try:
        content = bounded.read(
            Path(first), most=_MOST_PROGRAM, hint="name a static program or a script"
        )
    except OSError as error:
        raise UsageError(
            f"{first}: {error.strerror}", hint="a command of the target has no slash"
        ) from None
    name = f"own-{re.sub(r'[^A-Za-z0-9.]', '-', Path(first).name)[:40]}"
    return {name: content}, [name, *rest]


class Turns:
    """A payload that waits in a session. Calling it makes one iteration."""

    def __init__(
        self,
        runner: measure.Runner,
        session: Session,
        target: Target,
        workload: Workload,
        loops: int = 0,
    ) -> None:
        """Take an open session; start nothing yet."""
        self._runner, self._session = runner, session
        self._target, self._workload = target, workload
        self._nonce = secrets.token_hex(8)
        self._requests = 0
        self.loops = loops or _FIRST_LOOPS
        self._is_fixed = loops > 0

    def __enter__(self) -> Self:
        """Start the payload with so much work that an iteration takes about ten milliseconds."""
        # A payload gets the most loops of a request when it starts, and warms up by as many.
        while True:
            self._start()
            if self._is_fixed:
                return self
            began = time.perf_counter()
            self._ask()
            if time.perf_counter() - began >= _TURN / 2 or self.loops >= _MOST_LOOPS:
                return self
            self._end()
            self.loops *= 4

    def _start(self) -> None:
        workload = self._workload
        self._nonce, self._requests = secrets.token_hex(8), 0
        visit = Visit(block=0, target=self._target.name, workload=workload.name)
        command = self._runner.context(visit).command(
            workload.program, self._nonce, wire.ASK, str(self.loops), *workload.args
        )
        limit = Nanoseconds(_PATIENCE * workload.timeout)
        self._waiting = Waiting(lambda it: self._session.run(it, timeout=limit), command)
        self._expect(wire.WARM)

    def __call__(self) -> None:
        """Make one iteration. SessionError: the payload ended, or did not answer in time."""
        self._ask()

    def _ask(self) -> None:
        self._requests += 1
        try:
            self._waiting.send(wire.request(self.loops, 0))
        except EndedError:
            raise self._ended() from None
        self._expect(wire.ITERATION)

    def _expect(self, beginning: bytes) -> None:
        try:
            self._waiting.expect(beginning, self._workload.timeout)
        except (EndedError, LateError):
            raise self._ended() from None

    def _ended(self) -> SessionError:
        return SessionError(f"{self._workload.name} has ended or hangs in {self._target.name}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the payload, and check that each iteration came from it: nonce and number."""
        self._end(check=error is None)

    def _end(self, *, check: bool = True) -> None:
        try:
            done = self._waiting.end(self._workload.timeout)
        except LateError:
            raise self._ended() from None
        if check:
            self._runner.prover.reply(
                done, self._target.name, nonce=self._nonce, iterations=self._requests
            )


def workloads_of(names: Sequence[str]) -> list[Workload]:
    """Return the workloads of these names or classes that can be benchmarked here one by one.

    UsageError: a name matches nothing.
    """
    chosen = loader.select(loader.find(), names)
    return [
        one
        for one in chosen.values()
        if one.scope is not Scope.SESSION or one.name == "startup.cold"
    ]
