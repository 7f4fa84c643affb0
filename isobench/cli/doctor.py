"""`isobench doctor`: show why a target cannot run, and install what it needs."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from isobench.cli import _complete, _progress
from isobench.cli._inputs import registry_of
from isobench.cli._options import color_option, config_option
from isobench.model.errors import PayloadError, UnavailableError, UsageError
from isobench.model.units import TargetName
from isobench.plugins import packages

if TYPE_CHECKING:
    from rich.console import Console

_WAIT: Final = 0.2
"""Seconds between two looks at whether a command that says nothing has ended."""
_LINE_END: Final = re.compile(rb"\r?\n|\r")


@click.command(epilog=f"Packages for --install: {', '.join(packages.NAMES)}.")
@click.option(
    "--install",
    is_flag=True,
    help="Install what the named targets need, with this system's package manager.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before installing.")
@click.option("--check", is_flag=True, help="Exit with code 3 if a named target cannot run.")
@click.argument(
    "names", nargs=-1, metavar="[NAMES]...", shell_complete=_complete.targets_and_packages
)
@config_option
@color_option
def doctor(
    install: bool, yes: bool, check: bool, names: Sequence[str], config: Path | None, color: str
) -> None:
    """Show why targets cannot run and what to type. With --install, install what they need.

    NAMES are targets. With --install, they can also be packages.
    """
    from isobench.model import Available
    from isobench.plugins import indirect
    from isobench.run import selection

    console = _progress.console_for(color=color)
    registry, _ = registry_of(config, names)
    if install:
        if not names:
            known = " ".join(packages.NAMES)
            raise UsageError("--install needs names", hint=f"isobench doctor --install {known}")
        _install(packages.commands(names), console, yes=yes)
        # The names may be packages such as "qemu-user", which are no targets to probe.
        names = [name for name in names if name in registry.names()]
    wanted = [TargetName(name) for name in names] or registry.names()
    found = {name: registry.get(name) for name in wanted}
    answers = selection.probe_targets(found, lambda _name, _answer: None, _progress.say)
    rows = [_progress.target_row(name, found[name].technology, answers[name]) for name in found]
    _progress.target_table(rows, console)
    if not names:
        _progress.ways_table(indirect.groups(), console)
    _check_machine(console)
    if check and not all(isinstance(answer, Available) for answer in answers.values()):
        sys.exit(UnavailableError.exit_code)


def _install(commands: Sequence[Sequence[str]], console: "Console", *, yes: bool) -> None:
    import shlex

    if not yes and not sys.stdin.isatty():
        raise UsageError(
            "--install asks before it installs, and standard input is no terminal",
            hint="add --yes to install without being asked",
        )
    for command in commands:
        console.print(f"$ {shlex.join(command)}", style="bold", markup=False, soft_wrap=True)
    if not yes and not click.confirm("Run these now?", default=True):
        return
    for command in commands:
        if _shown(command) != 0:
            raise UsageError(
                f"this command failed: {shlex.join(command)}",
                hint="see its output above, and run it yourself",
            )


def _shown(command: Sequence[str]) -> int:
    """Run a command, print each line of its output as it comes, without secrets, and return its
    exit code.
    """
    import subprocess

    from isobench.config import bounded

    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_package_environment(),
    ) as process:
        assert process.stdout is not None
        rest = b""
        try:
            while True:
                if bounded.is_ready(process.stdout.fileno(), _WAIT):
                    found = os.read(process.stdout.fileno(), 1 << 16)
                    *lines, rest = _LINE_END.split(rest + found)
                    for line in lines:
                        _progress.say(line.decode(errors="replace"))
                    if not found:
                        break
                # A service that it has started may keep the pipe open.
                elif process.poll() is not None:
                    break
        except BaseException:
            with contextlib.suppress(PermissionError):  # sudo's: Ctrl-C has reached it as well
                process.kill()
            raise
    if rest:
        _progress.say(rest.decode(errors="replace"))
    return process.returncode


def _package_environment() -> dict[str, str]:
    # Without this, debconf opens dialogs for some packages and waits for an answer for ever:
    # standard input is /dev/null. See debconf(7).
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def _payloads() -> Iterator[str]:
    """Yield lines on payloads: how many are shipped, which must be compiled, and by what."""
    from isobench.payload import build, compiler, ship, shipped

    count, missing = len(shipped.manifest()), build.to_compile(ship.jobs())
    yield f"payloads: {count} shipped with isobench; to be compiled: {len(missing) or 'none'}"
    for program, why in missing.items():
        yield f"  {program}: {why}"
    try:
        yield f"compiler: {compiler.name()}"
    except PayloadError as error:
        use = "no run can start without it" if missing else "only your own C workloads need it"
        yield f"{error}; {use} → {_progress.as_called(error.hint)}"


def _check_machine(console: "Console") -> None:
    """Print the machine, and notes on what will make its figures less precise."""
    from isobench.config import cache
    from isobench.evidence import host

    folder = cache.made()
    facts = host.describe(folder)
    console.print(f"\n{host.summary(facts)}", markup=False)
    for line in _payloads():
        console.print(line, style="dim", markup=False, soft_wrap=True)
    if facts["filesystem"] in host.MEMORY_FILESYSTEMS:
        console.print(
            f"note: {folder} is in memory ({facts['filesystem']}): I/O workloads would not measure"
            " a disk. Set XDG_CACHE_HOME to a folder on a disk.",
            markup=False,
        )
    load, cpus = facts["load"], facts["cpus"]
    if isinstance(load, float | int) and isinstance(cpus, int) and load > cpus / 2:
        console.print(
            f"note: the load is {load:g} on {cpus} CPUs: measure when the machine is quiet.",
            markup=False,
        )
