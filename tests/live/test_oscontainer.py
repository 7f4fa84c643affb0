"""systemd-nspawn and LXC with options, and what only a real start of theirs shows."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from isobench.evidence import prove
from isobench.model import Available, Command, Environment, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins.api import Target, Witness
from isobench.targets.containers import _oscontainer, lxc, nspawn
from isobench.targets.containers.lxc import LxcTarget
from isobench.targets.containers.nspawn import NspawnTarget
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
PATIENCE = seconds(60)
Able = Callable[[str], Target]
Make = Callable[[Target], Staged]

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may do this; run the tests as root"
)


def evidence(said: bytes, nonce: str) -> Environment:
    return prove.gather(wire.read(said, nonce=nonce, iterations=0).facts)


def proved(target: Target, staged: Make, able: Able) -> Environment:
    """Open a session, hold its expectations, and return all that was seen of it."""
    nonce = secrets.token_hex(8)
    native = able("native")
    outside = staged(native)
    argv = ["_evidence", nonce, str(outside.shop.canary)]
    with native.open(outside.stage) as session:
        host = evidence(session.run(Command(argv=tuple(argv)), timeout=PATIENCE).stdout, nonce)
    with target.open(staged(target).stage) as session:
        done = session.run(Command(argv=tuple(argv)), timeout=PATIENCE)
        assert isinstance(session, Witness)
        inside = evidence(done.stdout, nonce)
        seen = prove.gather((*inside.facts.values(), *session.witness()))
    assert done.stderr == b""
    assert prove.unmet(prove.check(target.expectations, host=host, inside=seen)) == ""
    return seen


def links() -> set[str]:
    return {
        path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(nspawn.LINK)
    }


# ---- systemd-nspawn ------------------------------------------------------------------------------


def test_nspawn_with_users_and_a_link_of_its_own(able: Able, staged: Make) -> None:
    able("nspawn")
    before = links()
    seen = proved(NspawnTarget(private_users="pick", network="veth"), staged, able)
    assert "host0" in str(seen.value("net.interfaces")).split()
    assert str(seen.value("user.uid_map")).split()[2] == "65536"
    assert links() <= before


def test_nspawns_filter_is_in_force_unless_it_is_switched_off(able: Able, staged: Make) -> None:
    able("nspawn")
    assert proved(NspawnTarget(), staged, able).value("security.seccomp") == "2"
    assert proved(NspawnTarget(seccomp=False), staged, able).value("security.seccomp") == "0"


def test_the_boot_id_that_is_shown_inside_is_invented_and_the_kernels_is_found(
    able: Able, staged: Make
) -> None:
    able("nspawn")
    seen = proved(NspawnTarget(), staged, able)
    shown, true = seen.value("kernel.boot_id_shown"), seen.value("kernel.boot_id")
    assert shown not in (None, true)
    assert true == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_an_nspawn_that_cannot_start_says_why_wherever_it_is_asked(
    able: Able, staged: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    able("nspawn")
    target = NspawnTarget(network="host")
    wrong = nspawn._Settings(description="wrong", arguments=("--no-such-option",))
    monkeypatch.setitem(nspawn._working, target, wrong)
    one = staged(target)
    with pytest.raises(SessionError, match="no-such-option"):
        target.launch(one.stage, one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)
    with (
        pytest.raises(SessionError, match="no-such-option"),
        target.open(one.stage) as session,
    ):
        session.run(one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)


# ---- LXC -----------------------------------------------------------------------------------------


@as_root
def test_lxcs_limits_are_read_back_from_its_cgroup(able: Able, staged: Make) -> None:
    able("lxc")
    seen = proved(LxcTarget(memory="64MiB", pids=50), staged, able)
    limit = seen.facts["host.limit.memory"]
    assert limit.value == 64 << 20
    assert "lxc.payload.isobench-" in limit.source
    assert seen.value("host.limit.pids") == 50


def test_an_ordinary_users_container_has_his_subordinate_users(able: Able, staged: Make) -> None:
    able("lxc")
    if os.geteuid() == 0:
        pytest.skip("an ordinary user's test, and this is root")
    uid_map = str(proved(LxcTarget(), staged, able).value("user.uid_map")).split()
    assert uid_map[:3] == ["0", str(os.geteuid()), "1"]
    assert len(uid_map) == 6


def test_lxc_without_the_distributions_defaults_has_no_filter(able: Able, staged: Make) -> None:
    able("lxc")
    seen = proved(LxcTarget(hardening="none"), staged, able)
    assert seen.value("security.seccomp") == "0"
    assert str(seen.value("host.container.settings")).startswith("no defaults")


def test_an_lxc_whose_bridge_is_missing_is_unavailable_and_says_so(able: Able) -> None:
    able("lxc")
    answer = LxcTarget(network="no-such-bridge").probe()
    assert isinstance(answer, Unavailable)
    assert answer.hint


def test_an_lxc_that_cannot_start_says_why_wherever_it_is_asked(
    able: Able, staged: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    able("lxc")
    target = LxcTarget(pids=1 << 40)  # no kernel counts that far
    monkeypatch.setitem(lxc._working, target, lxc._Settings(defaults=False, unconfined=True))
    one = staged(target)
    with pytest.raises(SessionError, match=r"pids\.max|limits"):
        target.launch(one.stage, one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)
    with pytest.raises(SessionError, match=r"pids\.max|limits"), target.open(one.stage) as session:
        session.run(one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)


# ---- a tool that only pretends -------------------------------------------------------------------

PRETENDER = """#!{python}
import os, sys
words = sys.argv
root = next(w.partition("=")[2] for w in words if w.startswith("--directory="))
binds = [w.partition("=")[2] for w in words if w.startswith("--bind")]
command = words[len(words) - words[::-1].index("--"):]
script = "".join(f"mount --bind {{s}} {{root}}{{d}};" for s, d in (b.split(":") for b in binds))
script += f"mount -t proc proc {{root}}/proc; exec chroot {{root}} " + '"$@"'
argv = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--fork",
        "sh", "-c", script, "sh", *command]
os.execvp("unshare", argv)
"""


@as_root
def test_something_that_is_called_nspawn_and_makes_namespaces_is_no_nspawn(
    able: Able, staged: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    able("nspawn")
    pretender = tmp_path / "systemd-nspawn"
    pretender.write_text(PRETENDER.format(python=sys.executable))
    pretender.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(nspawn, "_working", {})
    target = NspawnTarget()
    assert isinstance(target.probe(), Available), "it does start programs"
    with pytest.raises(AssertionError, match=r"container\.manager should be 'systemd-nspawn'"):
        proved(target, staged, able)


# ---- the launcher of tools -----------------------------------------------------------------------


@pytest.fixture
def launchers(staged: Make, able: Able) -> Sequence[Sequence[str]]:
    """What starts tools in a run, and what stands in for it in a probe."""
    tool = staged(able("native")).stage.tools["_launch"]
    stand_in = (sys.executable, "-I", "-S", "-c", _oscontainer._LAUNCHER_STAND_IN)
    return ((str(tool), "tool"), stand_in)


@contextlib.contextmanager
def a_cgroup() -> Iterator[Path]:
    parents = [*_oscontainer.cgroups_of("self"), _oscontainer.CGROUPS]
    for parent in parents:
        folder = parent / f"isobench-test-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                yield folder
            finally:
                _oscontainer.remove_cgroup(folder)
            return
    pytest.skip("no cgroup can be made here; run the tests as root")


@as_root
def test_a_tool_starts_in_its_cgroup_and_what_is_covered_is_empty_and_its_own(
    launchers: Sequence[Sequence[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    script = 'echo "$(ls -A "$0")"; touch "$0/mine"; cat /proc/self/cgroup'
    for launcher in launchers:
        with a_cgroup() as cgroup:
            words = ["cgroup", f"{cgroup}/cgroup.procs", "cover", str(tmp_path), "--"]
            done = subprocess.run(
                [*launcher, *words, "/bin/sh", "-c", script, str(tmp_path)],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
        first, _, rest = done.stdout.partition("\n")
        assert first == ""
        assert cgroup.name in rest
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_launcher_of_tools_that_fails_says_what_it_could_not_do(
    launchers: Sequence[Sequence[str]],
) -> None:
    for launcher in launchers:
        words = ["cgroup", "/nowhere/cgroup.procs", "--", "/bin/true"]
        done = subprocess.run(
            [*launcher, *words], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode != 0
        assert "/nowhere/cgroup.procs" in done.stderr
