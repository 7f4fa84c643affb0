"""How fast isobench's guest starts, against the time that its kernel alone takes: `nox -s bench`.

Read "to SSH" and "to the nonce" against "to the first process": what lies between is isobench's.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.plugins.api import Target
from isobench.targets.machines import _instance
from isobench.targets.machines.qemu import QemuTarget
from tests.conftest import Staged

ROUNDS = 3


@contextlib.contextmanager
def powered_on(target: QemuTarget, one: Staged, *argv: str) -> Iterator[_instance.Booted]:
    request = _instance.request(one.stage, argv) if argv else None
    with tempfile.TemporaryDirectory(dir=one.shop.scratch) as folder:
        parts = target._parts(one.stage, Path(folder), request=request)
        with _instance.powered_on(one.stage, parts) as booted:
            yield booted


@pytest.mark.benchmark(group="one boot, emulated")
@pytest.mark.parametrize("until", ["the first process", "the nonce", "SSH answers", "logged in"])
def bench_boot(
    benchmark: Callable[..., Any],
    able: Callable[[str], Target],
    staged: Callable[[Target], Staged],
    until: str,
) -> None:
    target = able("qemu")
    assert isinstance(target, QemuTarget)
    target.prepare(lambda _: None)
    one = staged(target)

    def boot() -> None:
        argv = ("_startup", "x") if until == "the nonce" else ()
        with powered_on(target, one, *argv) as booted:
            if until == "the first process":
                assert booted.machine.wait_for("init", deadline=booted.deadline) is not None
            elif until == "the nonce":
                assert booted.wait_for_exit(booted.deadline).exit_code == 0
            else:
                booted.wait_until_ready()
                link = booted.banner()
                if until == "logged in":
                    booted.connected().close()
                link.close()

    benchmark.pedantic(boot, rounds=ROUNDS, iterations=1)


@pytest.mark.benchmark(group="a start from a saved state, emulated")
def bench_restore(
    benchmark: Callable[..., Any],
    able: Callable[[str], Target],
    staged: Callable[[Target], Staged],
) -> None:
    target = able("qemu")
    assert isinstance(target, QemuTarget)
    one = staged(target)
    with target.stopped(one.stage, one.command("_startup", "x")) as instance:
        benchmark.pedantic(
            instance.start, kwargs={"timeout": 60_000_000_000}, rounds=ROUNDS, iterations=1
        )
