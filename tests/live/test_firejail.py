"""Firejail without a sandbox, and the records of a sandbox that had to be killed."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import prove
from isobench.model import Command
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins import ownership
from isobench.plugins.api import Launcher, Target
from isobench.plugins.registry import Registry
from isobench.targets.sandboxes import firejail
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)

Able = Callable[[str], Target]
Make = Callable[[Any], Staged]


def records() -> set[str]:
    """Firejail's records of sandboxes of this process that run or were killed.

    Tests beside this one start sandboxes too: a record of a sandbox with another's name is theirs.
    """
    home = firejail._RECORDS.parent
    others = set()
    for record in firejail._RECORDS.glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            if not record.read_text().startswith(ownership.mine()):
                others.add(record.name)
    folders = ("name", "profile", "network", "bandwidth", "x11")
    found = (path for folder in folders for path in (home / folder).glob("[0-9]*"))
    return {str(path) for path in found if path.name not in others}


@pytest.fixture(autouse=True)
def nothing_left(able: Able) -> Iterator[None]:
    able("firejail")
    before = records()
    yield
    left = records() - before
    if left:
        time.sleep(1)  # a sandbox of another has its name a moment after its other records
    assert not left & records()


def test_a_record_counts_unless_its_sandbox_is_of_another(able: Able) -> None:
    able("firejail")
    for owner, ours in ((ownership.mine(), True), ("isobench-of-another", False)):
        name = firejail._name(owner)
        argv = ["firejail", "--quiet", "--noprofile", f"--name={name}", "--", "cat"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(b"in force\n")
            running.stdin.flush()
            assert running.stdout.readline() == b"in force\n"
            assert (str(firejail._RECORDS / str(running.pid)) in records()) is ours


def configured(**options: Any) -> Target:
    return Registry({"mine": {"kind": "firejail", **options}}).get("mine")


def test_a_time_limit_in_an_open_sandbox_leaves_no_record(able: Able, staged: Make) -> None:
    target = able("firejail")
    one = staged(target)
    with target.open(one.stage) as session:
        done = session.run(one.command(PROGRAM, "linger", secrets.token_hex(8)), timeout=seconds(1))
    assert done.exit_code is None


def test_a_time_limit_of_a_launched_sandbox_leaves_no_record(able: Able, staged: Make) -> None:
    target = able("firejail")
    assert isinstance(target, Launcher)
    token = secrets.token_hex(8)
    done = target.launch(
        staged(target).stage,
        Command(argv=(PROGRAM, "linger", token)),
        timeout=seconds(1),
    )
    assert done.exit_code is None


def test_an_unknown_argument_is_an_error_of_firejail(staged: Make) -> None:
    target = configured(arguments=["--nonsense"])
    assert isinstance(target, Launcher)
    one = staged(target)
    with pytest.raises(SessionError, match="--nonsense"):
        target.launch(one.stage, one.command("_startup", "cafe"), timeout=TIMEOUT)
    with pytest.raises(SessionError, match="--nonsense"), target.open(one.stage) as session:
        session.run(one.command("_startup", "cafe"), timeout=TIMEOUT)
    assert one.chunks == []


PROBE = """
from isobench.plugins.registry import Registry
answer = Registry().get("firejail").probe()
print(type(answer).__name__, getattr(answer, "what", ""))
"""


def test_inside_another_sandbox_firejail_is_refused(able: Able) -> None:
    space = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*space, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare can make no PID namespace here")
    done = subprocess.run(
        [*space, sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Unavailable ")


def evidence(target: Target, one: Staged) -> bytes:
    nonce = secrets.token_hex(8)
    with target.open(one.stage) as session:
        done = session.run(one.command("_evidence", nonce, str(one.shop.canary)), timeout=TIMEOUT)
    return b"\n".join((nonce.encode(), done.stdout))


def broken(expectations: Any, host: bytes, inside: bytes) -> str:
    seen = []
    for output in (host, inside):
        nonce, _, lines = output.partition(b"\n")
        seen.append(prove.gather(wire.read(lines, nonce=nonce.decode(), iterations=0).facts))
    return prove.unmet(prove.check(expectations, host=seen[0], inside=seen[1]))


@pytest.mark.parametrize(
    "options", [{"seccomp": False}, {"noroot": False}, {"arguments": ["--protocol=unix"]}]
)
def test_every_configuration_meets_its_expectations(
    options: dict[str, Any], able: Able, staged: Make
) -> None:
    native, target = able("native"), configured(**options)
    host, inside = (evidence(each, staged(each)) for each in (native, target))
    assert broken(target.expectations, host, inside) == ""


FORGETFUL = """#!{python} -IS
import os, sys
os.execv({real!r}, [word for word in sys.argv if not word.startswith({words!r})])
"""


@pytest.mark.parametrize(
    "without",
    [
        (("--net",), "ns.net"),
        (("--seccomp",), "security.seccomp"),
        (("--whitelist", "--private"), "host.canary_readable"),
    ],
)
def test_a_restriction_that_is_not_in_force_breaks_its_expectation(
    without: tuple[tuple[str, ...], str],
    able: Able,
    staged: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, fact = without
    native, target = able("native"), able("firejail")
    host = evidence(native, staged(native))
    forgetful = tmp_path / "firejail"
    real = shutil.which("firejail")
    forgetful.write_text(FORGETFUL.format(python=sys.executable, real=real, words=words))
    forgetful.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert f"{fact} should be" in broken(
        target.expectations, host, evidence(target, staged(target))
    )


SKELETON = (".bashrc", ".cshrc", ".zshrc", ".profile", ".Xauthority")
"""Files that Firejail copies into an empty home directory if the user has them."""


def test_the_home_directory_is_empty_inside(able: Able, staged: Make) -> None:
    home = firejail._home()
    assert home is not None
    found = next((path for path in sorted(home.iterdir()) if path.name not in SKELETON), None)
    if found is None:
        pytest.skip(f"{home} holds nothing to look for")
    target = able("firejail")
    with target.open(staged(target).stage) as session:
        done = session.run(
            Command(argv=(PROGRAM, "may", "read", str(found))),
            timeout=TIMEOUT,
        )
    assert done.stdout == b"2\n"
