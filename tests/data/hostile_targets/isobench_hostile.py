"""Targets that break the interface, each in one place. `Honest` shows that the rest is in order."""

import atexit
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from isobench.model import (
    Available,
    Evidence,
    Expectation,
    Lack,
    Resource,
    Technology,
    Unavailable,
)
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import TargetName
from isobench.plugins.api import Completed
from isobench.plugins.testing import Script, reply

NEVER = 3600.0


class Session:
    """Answers as a payload would."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage

    def run(self, command: Any, *, timeout: Any) -> Any:
        return answer(command)


def answer(command: Any) -> Completed:
    done = reply(command.argv, Script())
    command.on_output(done.stdout)
    return done


class Honest:
    """Keeps to the interface."""

    name: Any = TargetName("hostile-honest")
    technology: Any = Technology.SANDBOX
    abi: Any = None
    expectations: Any = ()
    session: Any = Session

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            words = re.findall(r"[A-Z][a-z]*", cls.__name__)
            cls.name = TargetName("-".join(["hostile", *words]).lower())

    def probe(self) -> Any:
        return Available(version="1")

    @contextlib.contextmanager
    def open(self, stage: Any) -> Iterator[Any]:
        yield self.session(stage)


class Unprintable(Exception):  # noqa: N818 - its name is shown
    def __str__(self) -> str:
        raise RuntimeError("not even this")


# ---- loading -------------------------------------------------------------------------------------

ClassNumber = 3


class InitRaises(Honest):
    def __init__(self) -> None:
        raise OSError("no licence")


class InitExits(Honest):
    def __init__(self) -> None:
        sys.exit(3)


class NameNumber(Honest):
    name = 3


class TechnologyText(Honest):
    technology = "sandbox"


class AbiText(Honest):
    abi = "x86_64-linux"


class ExpectationsText(Honest):
    expectations = "ns.pid"


class ExpectationsKeys(Honest):
    expectations = ("ns.pid",)


class ExpectationsNoRelation(Honest):
    expectations = (Expectation(key="ns.pid", relation="unlike"),)  # type: ignore[arg-type]


class TechnologyExits(Honest):
    @property
    def technology(self) -> Any:
        sys.exit(3)


class OptionsUnknown(Honest):
    """Its annotations cannot be resolved: asked for when its options are read."""

    __dataclass_fields__: Any = 3


# ---- probing -------------------------------------------------------------------------------------


class ProbeString(Honest):
    def probe(self) -> Any:
        return "yes"


class ProbeNothing(Honest):
    def probe(self) -> Any:
        return None


class ProbeRaises(Honest):
    def probe(self) -> Any:
        raise KeyError("its own fault")


class ProbeUnprintable(Honest):
    def probe(self) -> Any:
        raise Unprintable


class ProbeExits(Honest):
    def probe(self) -> Any:
        sys.exit(3)


class ProbeInterrupts(Honest):
    def probe(self) -> Any:
        raise KeyboardInterrupt


class ProbeVersionNumber(Honest):
    def probe(self) -> Any:
        return Available(version=3)  # type: ignore[arg-type]


class ProbeHintNothing(Honest):
    def probe(self) -> Any:
        return Unavailable(lack=Lack.TOOL, what="a tool", hint=None)  # type: ignore[arg-type]


class ProbeHangs(Honest):
    def probe(self) -> Any:
        while True:
            time.sleep(NEVER)


class StartsText(Honest):
    starts = "at once"


class StartsNumbers(Honest):
    starts = {"cold": 1}  # noqa: RUF012 - what is wrong with it is something else


class LimitableRaises(Honest):
    @property
    def limitable(self) -> Any:
        raise RuntimeError("cannot say")

    def limited(self, limits: Any) -> Any:
        return self


class LacksText(Honest):
    lacks = "threads"


class LacksWords(Honest):
    lacks = {"threads": "it has none"}  # noqa: RUF012 - what is wrong with it is something else


class ExclusiveText(Honest):
    exclusive = "yes"


class Prints(Honest):
    """Prints in every way there is, wherever it is asked."""

    def _print(self, where: str) -> None:
        print(f"print in {where}")  # noqa: T201 - what it is for
        sys.stdout.buffer.write(f"buffer in {where}\n".encode())
        sys.stdout.flush()
        os.write(1, f"descriptor in {where}\n".encode())
        subprocess.run(["echo", f"child in {where}"], check=True)

    def __init__(self) -> None:
        self._print("init")
        atexit.register(self._print, "atexit")

    def probe(self) -> Any:
        self._print("probe")
        return Available(version="1")

    @contextlib.contextmanager
    def open(self, stage: Any) -> Iterator[Any]:
        self._print("open")
        yield _Printing(self, stage)
        self._print("the end of open")


class _Printing(Session):
    def __init__(self, target: Prints, stage: Any) -> None:
        super().__init__(stage)
        self.target = target

    def run(self, command: Any, *, timeout: Any) -> Any:
        self.target._print("run")
        return super().run(command, timeout=timeout)


# ---- before and after a run ----------------------------------------------------------------------


class PrepareExits(Honest):
    def prepare(self, say: Any) -> None:
        sys.exit(3)


class PrepareMisused(Honest):
    def prepare(self, say: Any) -> None:
        raise UsageError("use it otherwise")


class SweepRaises(Honest):
    def sweep(self, alive: Any, *, cached: bool) -> Any:
        raise FileNotFoundError("gone")


class SweepExits(Honest):
    def sweep(self, alive: Any, *, cached: bool) -> Any:
        sys.exit(3)


class SweepText(Honest):
    def sweep(self, alive: Any, *, cached: bool) -> Any:
        return "removed"


# ---- sessions ------------------------------------------------------------------------------------


class OpenRaises(Honest):
    def open(self, stage: Any) -> Any:
        raise KeyError("its own fault")


class OpenExits(Honest):
    def open(self, stage: Any) -> Any:
        sys.exit(3)


class OpenInterrupts(Honest):
    def open(self, stage: Any) -> Any:
        raise KeyboardInterrupt


class OpenNothing(Honest):
    def open(self, stage: Any) -> Any:
        return None


class OpenYieldsNothing(Honest):
    @contextlib.contextmanager
    def open(self, stage: Any) -> Any:
        yield None


class OpenHangs(Honest):
    def open(self, stage: Any) -> Any:
        with contextlib.suppress(Exception):
            time.sleep(NEVER)


class OpenHintNumber(Honest):
    def open(self, stage: Any) -> Any:
        raise SessionError("no", hint=3)  # type: ignore[arg-type]


class CloseRaises(Honest):
    @contextlib.contextmanager
    def open(self, stage: Any) -> Any:
        yield Session(stage)
        raise KeyError("its own fault")


class CloseExits(Honest):
    @contextlib.contextmanager
    def open(self, stage: Any) -> Any:
        yield Session(stage)
        sys.exit(3)


class CloseSwallows(Honest):
    @contextlib.contextmanager
    def open(self, stage: Any) -> Any:
        with contextlib.suppress(BaseException):
            yield Session(stage)


class _Bad(Session):
    """Is honest about evidence, and then not."""

    def run(self, command: Any, *, timeout: Any) -> Any:
        return (
            super().run(command, timeout=timeout) if command.argv[0] == "_evidence" else self.bad()
        )

    def bad(self) -> Any: ...


def running(bad: Any) -> type[_Bad]:
    return type("Running", (_Bad,), {"bad": lambda self: bad()})


def thrown(error: BaseException) -> Any:
    raise error


class RunString(Honest):
    session = running(lambda: "done")


class RunCodeText(Honest):
    session = running(lambda: Completed(exit_code="0", stdout=b"", stderr=b""))  # type: ignore[arg-type]


class RunCodeTrue(Honest):
    session = running(lambda: Completed(exit_code=True, stdout=b"", stderr=b""))


class RunStdoutText(Honest):
    session = running(lambda: Completed(exit_code=0, stdout="", stderr=b""))  # type: ignore[arg-type]


class RunExits(Honest):
    session = running(lambda: sys.exit(3))


class RunInterrupts(Honest):
    session = running(lambda: thrown(KeyboardInterrupt()))


class RunGeneratorExits(Honest):
    session = running(lambda: thrown(GeneratorExit()))


class RunUnprintable(Honest):
    session = running(lambda: thrown(Unprintable()))


class RunMisused(Honest):
    session = running(lambda: thrown(UsageError("use it otherwise")))


class RunHintNumber(Honest):
    session = running(lambda: thrown(SessionError("no", hint=3)))  # type: ignore[arg-type]


class RunHangs(Honest):
    session = running(lambda: time.sleep(NEVER))


class RunOutputText(Honest):
    class session(Session):  # noqa: N801
        def run(self, command: Any, *, timeout: Any) -> Any:
            command.on_output("text")
            return super().run(command, timeout=timeout)


class WitnessNumber(Honest):
    class session(Session):  # noqa: N801
        def witness(self) -> Any:
            return [3]


class WitnessExits(Honest):
    class session(Session):  # noqa: N801
        def witness(self) -> Any:
            yield sys.exit(3)


class WitnessKey(Honest):
    class session(Session):  # noqa: N801
        def witness(self) -> Any:
            yield Evidence(key="kernel.boot_id", value="mine", source="invention")


class NullExits(Honest):
    class session(Session):  # noqa: N801
        def null(self, *, timeout: Any) -> Any:
            sys.exit(3)


# ---- instances -----------------------------------------------------------------------------------


class LaunchExits(Honest):
    def launch(self, stage: Any, command: Any, *, timeout: Any) -> Any:
        sys.exit(3)


class LaunchString(Honest):
    def launch(self, stage: Any, command: Any, *, timeout: Any) -> Any:
        return "launched"


class StoppedNothing(Honest):
    @contextlib.contextmanager
    def stopped(self, stage: Any, command: Any) -> Any:
        yield None


class StartExits(Honest):
    @contextlib.contextmanager
    def stopped(self, stage: Any, command: Any) -> Any:
        yield type("Instance", (), {"start": lambda self, *, timeout: sys.exit(3)})()


class LimitedNothing(Honest):
    technology = Technology.CONTAINERIZATION
    limitable = (Resource.CPU,)

    def limited(self, limits: Any) -> Any:
        return None
