"""What Landlock refuses, that Landlock itself refuses it, and what it allows."""

import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import prove
from isobench.model import Command, Environment
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins.api import Target, Witness
from isobench.plugins.registry import Registry
from isobench.targets.sandboxes import landlock
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)
ABI = landlock._abi()

Able = Callable[[str], Target]
Make = Callable[[Any], Staged]


@pytest.fixture(autouse=True)
def needed(able: Able) -> None:
    able("landlock")


@dataclass(frozen=True)
class Outside:
    """Things outside of the sandbox that a plain process may use."""

    wanted: Mapping[str, str]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    (tmp_path / "secret").write_text("not for inside\n")
    name = f"isobench-{secrets.token_hex(8)}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket() as free,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        abstract.bind(b"\0" + name.encode())
        abstract.listen()
        yield Outside(
            {
                "read": str(tmp_path / "secret"),
                "create": str(tmp_path / "new"),
                "execute": "/bin/true",
                "connect": str(server.getsockname()[1]),
                "listen": str(port),
                "reach": name,
                "signal": str(os.getpid()),
            }
        )


def refused(target: Target, staged: Staged, wanted: Mapping[str, str]) -> dict[str, int | None]:
    """The errno of each attempt inside; None if a program was executed."""
    answers: dict[str, int | None] = {}
    with target.open(staged.stage) as session:
        for what, which in wanted.items():
            done = session.run(
                Command(argv=(PROGRAM, "may", what, which)),
                timeout=TIMEOUT,
            )
            assert done.exit_code == 0, done.stderr
            answers[what] = int(done.stdout) if done.stdout else None
    return answers


def configured(**options: Any) -> Target:
    return Registry({"mine": {"kind": "landlock", **options}}).get("mine")


ALLOWED = {
    "read": 0, "create": 0, "execute": None, "connect": 0, "listen": 0, "reach": 0, "signal": 0,
}  # fmt: skip
REFUSED: dict[str, int | None] = {
    "read": errno.EACCES,
    "create": errno.EACCES,
    "execute": errno.EACCES,
    "connect": errno.EACCES if ABI >= 4 else 0,
    "listen": errno.EACCES if ABI >= 4 else 0,
    "reach": errno.EPERM if ABI >= 6 else 0,
    "signal": errno.EPERM if ABI >= 6 else 0,
}


def test_landlock_refuses_files_that_a_plain_process_may_open(
    able: Able, staged: Make, outside: Outside
) -> None:
    native, confined = able("native"), able("landlock")
    assert refused(native, staged(native), outside.wanted) == ALLOWED
    assert refused(confined, staged(confined), outside.wanted) == REFUSED


def test_landlock_itself_refuses_and_not_the_seccomp_filter(staged: Make, outside: Outside) -> None:
    unfiltered = configured(seccomp=False)
    assert refused(unfiltered, staged(unfiltered), outside.wanted) == REFUSED


def test_tcp_is_refused_unless_the_configuration_allows_it(staged: Make, outside: Outside) -> None:
    connected = configured(network=True)
    tcp = {"connect": 0, "listen": 0}
    assert refused(connected, staged(connected), outside.wanted) == {**REFUSED, **tcp}


def test_the_seccomp_filter_refuses_what_landlock_does_not_cover(staged: Make) -> None:
    options = {"personality": "0"}
    filtered, unfiltered = configured(), configured(seccomp=False)
    assert refused(filtered, staged(filtered), options) == {"personality": errno.EPERM}
    assert refused(unfiltered, staged(unfiltered), options) == {"personality": 0}


def test_the_scratch_directory_is_writable_and_the_root_is_not(able: Able, staged: Make) -> None:
    target = able("landlock")
    one = staged(target)
    scratch = one.stage.scratch / "landlock" / "new"
    assert refused(target, one, {"create": str(scratch)}) == {"create": 0}
    program = str(one.stage.root / "isobench" / "new")
    assert refused(target, one, {"create": program}) == {"create": errno.EACCES}
    another = one.stage.scratch / "native"
    another.mkdir()
    assert refused(target, one, {"create": str(another / "new")}) == {"create": errno.EACCES}


def test_this_process_is_not_confined(able: Able, staged: Make, outside: Outside) -> None:
    target = able("landlock")
    refused(target, staged(target), outside.wanted)
    assert Path(outside.wanted["read"]).read_text() == "not for inside\n"


@pytest.mark.parametrize("options", [{}, {"network": True}, {"seccomp": False}])
def test_every_configuration_meets_its_expectations(
    options: dict[str, Any], able: Able, staged: Make
) -> None:
    target = configured(**options)
    assert broken(target, staged(target), host_of(able, staged)) == ""


def test_the_session_reports_the_abi_of_landlock(able: Able, staged: Make) -> None:
    target = able("landlock")
    with target.open(staged(target).stage) as session:
        assert isinstance(session, Witness)
        reported = {fact.key: fact.value for fact in session.witness()}
    assert reported["host.landlock.abi"] == ABI


# ---- launchers that do not confine ---------------------------------------------------------------


def host_of(able: Able, staged: Make) -> Environment:
    native = able("native")
    return evidence(native, staged(native))


def evidence(target: Target, staged: Staged) -> Environment:
    nonce = secrets.token_hex(8)
    with target.open(staged.stage) as session:
        done = session.run(
            Command(argv=("_evidence", nonce, str(staged.shop.canary))),
            timeout=TIMEOUT,
        )
    return prove.gather(wire.read(done.stdout, nonce=nonce, iterations=0).facts)


def broken(target: Target, staged: Staged, host: Environment) -> str:
    return prove.unmet(prove.check(target.expectations, host=host, inside=evidence(target, staged)))


CONFINES_NOTHING = """#!{python} -IS
import os, sys
program = sys.argv[sys.argv.index("--") + 1:]
os.execve(program[0], program, dict(os.environ))
"""


def test_a_launcher_that_confines_nothing_breaks_the_expectations(
    able: Able, staged: Make, tmp_path: Path
) -> None:
    target = able("landlock")
    one = staged(target)
    fake = tmp_path / "_confine"
    fake.write_text(CONFINES_NOTHING.format(python=sys.executable))
    fake.chmod(0o755)
    one.stage = replace(one.stage, tools={**one.stage.tools, "_confine": fake})
    unmet = broken(target, one, host_of(able, staged))
    for key in ("host.canary_readable", "security.no_new_privs", "security.seccomp_filters"):
        assert key in unmet
    assert ("net.loopback_errno" in unmet) == (ABI >= 4)


def test_a_launcher_that_cannot_confine_executes_nothing(able: Able, staged: Make) -> None:
    target = able("landlock")
    one = staged(target)
    gone = replace(one.stage, root=one.stage.root / "gone")
    with pytest.raises(SessionError, match=r"gone: errno 2"):
        target.launch(gone, one.command("_startup", "cafe"), timeout=TIMEOUT)  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack, pytest.raises(SessionError, match=r"gone: errno 2"):
        session = stack.enter_context(target.open(gone))
        session.run(one.command("_startup", "cafe"), timeout=TIMEOUT)
    assert one.chunks == []
