"""The target `firejail` without firejail: its arguments, its expectations, and who stands in for
it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Command, Lack, Stage, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import Sha256, seconds
from isobench.plugins import ownership
from isobench.targets.sandboxes import firejail
from isobench.targets.sandboxes.firejail import FirejailTarget
from isobench.targets.shared import processes

TIMEOUT = seconds(20)


def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Replace firejail by a few lines of Python."""
    fake = tmp_path / "bin" / "firejail"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable} -IS\nimport os, sys\n{body}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))


@pytest.fixture
def one(tmp_path: Path) -> Stage:
    (tmp_path / "scratch").mkdir()
    return Stage(
        root=tmp_path / "root",
        digest=Sha256(""),
        scratch=tmp_path / "scratch",
        owner="isobench-abcdef-7-9",
    )


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return monkeypatch


# ---- replacements for firejail -------------------------------------------------------------------

EXECUTES = """
at = sys.argv.index("--") + 1 if "--" in sys.argv else 0
if at:
    os.execv(sys.argv[at], sys.argv[at:])
print("firejail version 9.9")
"""
REFUSES = "sys.exit('Error: {}')"


def refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Unavailable:
    put(tmp_path, monkeypatch, body)
    answer = FirejailTarget().probe()
    assert isinstance(answer, Unavailable)
    return answer


def test_the_probe_detects_a_firejail_that_makes_no_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = refusal(monkeypatch, tmp_path, EXECUTES)
    assert "without a sandbox" in answer.what
    assert answer.hint


def test_the_error_for_a_firejail_that_fails_has_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = refusal(monkeypatch, tmp_path, REFUSES.format("no such option"))
    assert (answer.lack, answer.what) == (Lack.RUNTIME, "Error: no such option")


def test_a_user_without_a_login_shell_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "sys.stderr.write('This account is currently not available.'); sys.exit(1)"
    answer = refusal(monkeypatch, tmp_path, script)
    assert answer.lack is Lack.PERMISSION
    assert "chsh" in answer.hint


def test_without_firejail_the_hint_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = FirejailTarget().probe()
    assert isinstance(answer, Unavailable)
    assert answer.hint == "isobench doctor --install firejail"


def test_an_error_of_firejail_is_not_taken_for_output_of_the_payload(
    one: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, REFUSES.format("--nonsense is invalid"))
    target = FirejailTarget(arguments=("--nonsense",))
    with pytest.raises(SessionError, match="--nonsense is invalid"):
        target.launch(one, Command(argv=("payload",)), timeout=TIMEOUT)
    with pytest.raises(SessionError, match="--nonsense is invalid"), target.open(one) as session:
        session.run(Command(argv=("payload",)), timeout=TIMEOUT)


def test_a_failing_payload_is_no_error_of_the_session(
    one: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, "print('out', flush=True); sys.exit('Error: mine')")
    done = FirejailTarget().launch(one, Command(argv=("payload",)), timeout=TIMEOUT)
    assert (done.exit_code, done.stdout) == (1, b"out\n")


# ---- arguments and expectations ------------------------------------------------------------------


def arguments(one: Stage, **options: Any) -> list[str]:
    return FirejailTarget(**options)._prefix(one)


def expectationd(**options: Any) -> set[str]:
    return {expectation.key for expectation in FirejailTarget(**options).expectations}


def test_the_stage_is_visible_and_nothing_else(one: Stage) -> None:
    words = arguments(one)
    root = one.root.resolve()
    assert {f"--whitelist={root}", f"--read-only={root}"} <= set(words)
    assert f"--whitelist={one.scratch.resolve()}/firejail" in words
    assert "--noprofile" in words
    assert words[-1] == "--"


@pytest.mark.parametrize("home", ["", "elsewhere"])
def test_the_home_directory_is_hidden_wherever_the_stage_lies(
    home: str, one: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firejail, "_home", (tmp_path / home).resolve)
    assert ("--private" in arguments(one)) is bool(home)


def test_a_user_who_is_not_in_the_database_has_no_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4000000000)
    assert firejail._home() is None


def test_every_sandbox_has_a_unique_name_with_its_owner(one: Stage) -> None:
    first, second = (
        next(word for word in arguments(one) if word.startswith("--name=")) for _ in range(2)
    )
    assert first != second
    assert first.rpartition("-")[0] == f"--name={one.owner}"


def test_noroot_gives_a_user_namespace_to_ordinary_users_only(
    user: pytest.MonkeyPatch, one: Stage
) -> None:
    assert "--noroot" in arguments(one)
    assert "ns.user" in expectationd()
    assert "--noroot" not in arguments(one, noroot=False)
    assert "ns.user" not in expectationd(noroot=False)
    user.setattr(os, "geteuid", lambda: 0)
    assert "--noroot" not in arguments(one)
    assert "ns.user" not in expectationd()


def test_a_restriction_that_is_left_out_is_not_expected(one: Stage) -> None:
    assert "--seccomp" in arguments(one)
    assert {"security.seccomp", "security.seccomp_filters"} <= expectationd()
    assert "--seccomp" not in arguments(one, seccomp=False)
    assert not {"security.seccomp", "security.seccomp_filters"} & expectationd(seccomp=False)


def test_further_arguments_precede_the_program(one: Stage) -> None:
    assert arguments(one, arguments=("--apparmor",))[-2:] == ["--apparmor", "--"]


# ---- leftovers of killed runs --------------------------------------------------------------------

LISTED = """7:me:isobench-abcdef-7-9-0a:firejail --name=isobench-abcdef-7-9-0a -- x
8:me::firejail --name=isobench-none -- y
9:me:browser:firejail a:isobench-b-1-1-1:c
10:me:isobench-abcdef-10-9-0b:firejail z"""


STARTED = [(pid, [f"--name=isobench-abcdef-{pid}-9-0{end}"]) for pid, end in ((7, "a"), (10, "b"))]


def swept(
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    started: Sequence[tuple[int, Sequence[str]]] = STARTED,
) -> tuple[list[int], list[str]]:
    ended: list[int] = []
    monkeypatch.setattr(processes, "output_of", lambda _: LISTED)
    monkeypatch.setattr(processes, "own", lambda _: started)
    monkeypatch.setattr(processes, "terminate", lambda pid: ended.append(pid) or error)
    found = FirejailTarget().sweep(lambda owner: owner != "isobench-abcdef-7-9", cached=False)
    removed = [*map(str, found)]
    return ended, list(removed)


def test_only_sandboxes_of_dead_runs_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert swept(monkeypatch, "") == ([7], ["sandbox isobench-abcdef-7-9-0a"])


@pytest.mark.parametrize(
    "started", [[], [(7, ["--name=isobench-abcdef-7-9-0b"])], [(7, [])], [(8, STARTED[0][1])]]
)
def test_a_line_that_is_no_sandbox_of_this_user_ends_nothing(
    started: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments of any process can have a newline, and then a line like one of firejail."""
    assert swept(monkeypatch, "", started) == ([], [])


def test_a_sandbox_that_could_not_be_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert swept(monkeypatch, "not yours")[1] == [
        "sandbox isobench-abcdef-7-9-0a: not removed: not yours"
    ]


def test_a_sandbox_of_this_process_is_not_swept() -> None:
    assert ownership.alive(firejail._name(ownership.mine()).rpartition("-")[0])
