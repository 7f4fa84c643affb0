"""Machines that SSH reaches: an sshd in a network namespace of the tests, and a guest of QEMU that
is addressed as a plain host.

The sshd runs on the kernel of the tests, in its own PID namespace, and cannot see the folder of the
runs: isobench may call it a sandbox, and must not call it a virtual machine.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.evidence import prove
from isobench.model import Abi, Available, Command, Environment, Lack, Unavailable, host_abi
from isobench.model.errors import NotApplicableError, SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins import ownership
from isobench.plugins.api import Channel, Preparer, Sweeper, Target, Witness
from isobench.plugins.registry import Registry
from isobench.targets.machines import _ssh, _ssh_host
from tests import waiting
from tests.conftest import PROGRAM, SOURCE, Staged
from tests.contract import test_targets as contract
from tests.live import guest
from tests.live.conftest import Command as Program

pytestmark = pytest.mark.live
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
TIMEOUT = seconds(60)
Make = Callable[[Target], Staged]

SETTINGS = """\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
UseDNS no
LogLevel ERROR
{more}
"""


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)


def new_key(path: Path) -> str:
    """Make a key pair; return its public half."""
    path.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path))
    return Path(f"{path}.pub").read_text().strip()


@dataclass
class Host:
    """An account behind an sshd, and the ~/.ssh of whoever logs in."""

    folder: Path
    home: Path
    space: str
    address: str
    port: int = 2222
    more: str = "Subsystem sftp internal-sftp"
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def remote(self) -> Path:
        """Where stages are put there."""
        return self.folder / "remote"

    def prepare(self) -> None:
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.remote.mkdir()
        host_key = new_key(self.folder / "host_key")
        (self.folder / "authorized").write_text(new_key(self.home / ".ssh" / "id_ed25519") + "\n")
        self.know(host_key)
        self.configure("")
        (self.folder / "start").write_text(
            f"#!/bin/sh\n{self._shell_command()} & echo $! > {self.folder}/machine.pid\n"
        )
        (self.folder / "stop").write_text(
            f"#!/bin/sh\necho stop >> {self.folder}/stops\n"
            f"kill -9 $(cat {self.folder}/machine.pid)\n"
        )
        (self.folder / "status").write_text(
            f"#!/bin/sh\n[ -s {self.folder}/machine.pid ]"
            f" && kill -0 $(cat {self.folder}/machine.pid)\n"
        )
        for name in ("start", "stop", "status"):
            (self.folder / name).chmod(0o755)

    def know(self, key: str) -> None:
        text = f"[{self.address}]:{self.port} {' '.join(key.split()[:2])}\n"
        (self.home / ".ssh" / "known_hosts").write_text(text)

    def configure(self, more: str) -> None:
        (self.home / ".ssh" / "config").write_text(
            f"Host box\n  HostName {self.address}\n  Port {self.port}\n  User root\n{more}\n"
        )

    def _shell_command(self) -> str:
        """What runs it, for a shell."""
        (self.folder / "sshd_config").write_text(
            SETTINGS.format(
                address=self.address, port=self.port, folder=self.folder, more=self.more
            )
        )
        cache = os.environ["XDG_CACHE_HOME"]
        inner = f"mount -t tmpfs none {cache} && exec {SSHD} -D -e -f {self.folder}/sshd_config"
        return (
            f"exec setsid ip netns exec {self.space} unshare --pid --fork --kill-child"
            f" --mount-proc sh -c '{inner}' >{self.folder}/log 2>&1 </dev/null"
        )

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", self._shell_command()])
        self.started.append(process)
        end = time.monotonic() + 20
        while not (self.folder / "sshd.pid").exists():
            assert process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        return process

    def stop(self) -> None:
        for process in self.started:
            waiting.killed(process)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "machine.pid").read_text()), signal.SIGKILL)
        (self.folder / "sshd.pid").unlink(missing_ok=True)

    @property
    def life(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in ("start", "stop", "status")}

    def target(self, **options: Any) -> Target:
        given = {"host": "box", "class": "sandbox", "directory": str(self.remote), **options}
        return Registry({"box": {"kind": "ssh", **given}}).get("box")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.remote.iterdir())


@pytest.fixture
def host_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """An account whose sshd does not run yet."""
    lacking = [name for name in ("ip", "unshare", "ssh-keygen") if not shutil.which(name)]
    if SSHD is None or lacking or os.geteuid() != 0:
        missing = [*lacking, *(["sshd"] if SSHD is None else [])]
        why = f"{', '.join(missing)} missing" if missing else "this is an ordinary user"
        pytest.skip(
            f"a network namespace with an sshd in it takes root, iproute2 and OpenSSH: {why}"
        )
    number = secrets.randbelow(1 << 14)
    space, mine, theirs = f"ibt-{number}", f"ibt{number}a", f"ibt{number}b"
    near, far = f"198.18.{number >> 6}.{(number & 63) * 4 + 1}", ""
    far = near.rpartition(".")[0] + f".{(number & 63) * 4 + 2}"
    Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
    try:
        try:
            run("ip", "netns", "add", space)
            run("ip", "link", "add", mine, "type", "veth", "peer", "name", theirs, "netns", space)
            run("ip", "address", "add", f"{near}/30", "dev", mine)
            run("ip", "link", "set", mine, "up")
            run("ip", "-n", space, "address", "add", f"{far}/30", "dev", theirs)
            run("ip", "-n", space, "link", "set", theirs, "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {str(error.stderr).strip()}")
        found = Host(folder=tmp_path / "host", home=tmp_path / "home", space=space, address=far)
        found.folder.mkdir()
        monkeypatch.setenv("HOME", str(found.home))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        found.prepare()
        yield found
        found.stop()
    finally:
        subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", mine], check=False, capture_output=True)


@pytest.fixture
def box(host_off: Host) -> Host:
    host_off.start()
    return host_off


# ---- the contract of all targets -----------------------------------------------------------------


@pytest.fixture
def name() -> str:
    return "ssh"


@pytest.fixture
def target(box: Host) -> Target:
    found = box.target()
    assert isinstance(found.probe(), Available), found.probe()
    return found


one, host = contract.one, contract.host
test_arguments_arrive_as_sent = contract.test_arguments_arrive_as_sent
test_variables_arrive = contract.test_variables_arrive_without_those_of_the_host
test_a_failing_command = contract.test_a_failing_command_is_a_result_with_both_streams
test_the_time_limit = contract.test_the_time_limit_leaves_no_process_behind
test_processes_are_seen = contract.test_processes_are_seen_from_inside
test_a_clean_run = contract.test_a_clean_run_prints_nothing_on_standard_error
test_output_is_handed_on = contract.test_output_is_passed_on_while_the_program_runs
test_expectations_are_shown = contract.test_the_evidence_meets_the_expectations
test_natives_expectations_are_broken = (
    contract.test_every_isolation_contradicts_natives_expectations
)
test_every_other_workload = contract.test_every_other_workload_runs_and_answers
test_nothing_in_scratch = contract.test_nothing_is_left_in_the_scratch_directory
test_two_sessions = contract.test_two_sessions_are_open_at_the_same_time
test_evidence_after_a_start = contract.test_a_process_whose_start_was_timed_becomes_the_evidence
test_nothing_is_left = contract.test_nothing_is_left_after_an_interrupted_session


# ---- SSH itself ----------------------------------------------------------------------------------


def unavailable(target: Target) -> Unavailable:
    answer = target.probe()
    assert isinstance(answer, Unavailable), answer
    assert answer.hint
    return answer


def test_a_session_is_a_channel_with_a_cost_and_a_witness(target: Target, one: Staged) -> None:
    with target.open(one.stage) as session:
        assert isinstance(session, Channel)
        assert session.null(timeout=TIMEOUT).exit_code == 0
        assert isinstance(session, Witness)
        facts = {fact.key: fact.value for fact in session.witness()}
    assert str(facts["host.ssh_server"]).startswith("OpenSSH")
    assert one.marks == ["ssh", "stage"]


def test_the_stage_is_copied_for_a_session_and_removed_after_it(
    box: Host, target: Target, one: Staged
) -> None:
    with target.open(one.stage):
        (folder,) = box.left()
        assert folder.startswith(one.stage.owner)
        assert (box.remote / folder).stat().st_mode & 0o777 == 0o700
        there = sorted(path.name for path in (box.remote / folder / "isobench").iterdir())
        assert there == sorted(path.name for path in (one.stage.root / "isobench").iterdir())
    assert box.left() == []


def test_a_class_that_the_evidence_contradicts_is_unproven(
    box: Host, one: Staged, host: Environment
) -> None:
    """The sshd shares the kernel: it is no virtual machine, whatever class is configured."""
    claimed = box.target(**{"class": "virtualization"})
    with claimed.open(one.stage) as session:
        inside = contract.evidence(
            lambda argv: session.run(one.command(*argv), timeout=TIMEOUT).stdout, one
        )
    broken = prove.unmet(prove.check(claimed.expectations, host=host, inside=inside))
    assert "kernel.boot_id should be unlike the host's" in broken


def test_a_wrong_preset_is_unproven(box: Host, one: Staged, host: Environment) -> None:
    claimed = box.target(
        preset="virtualbox", machine="debian", **box.life, **{"class": "virtualization"}
    )
    expectations = {expectation.key: expectation for expectation in claimed.expectations}
    with box.target().open(one.stage) as session:
        inside = contract.evidence(
            lambda argv: session.run(one.command(*argv), timeout=TIMEOUT).stdout, one
        )
    (check,) = prove.check([expectations["machine.product"]], host=host, inside=inside)
    assert not check.met


def test_an_unknown_host_key_is_refused(box: Host, target: Target) -> None:
    (box.home / ".ssh" / "known_hosts").write_text("")
    answer = unavailable(box.target())
    assert "not known" in answer.what
    assert f"ssh -p {box.port} root@box once" in answer.hint


def test_another_host_key_than_the_known_one_is_refused(box: Host, tmp_path: Path) -> None:
    box.know(new_key(tmp_path / "another"))
    assert "is not the one in known_hosts" in unavailable(box.target()).what


def test_a_revoked_host_key_is_refused(box: Host, target: Target) -> None:
    known = box.home / ".ssh" / "known_hosts"
    key = " ".join(known.read_text().split()[1:3])
    known.write_text(known.read_text() + f"@revoked * {key}\n")
    assert "revoked" in unavailable(box.target()).what


def test_a_key_that_the_host_does_not_accept_is_an_error(box: Host) -> None:
    new_key(box.home / ".ssh" / "id_ed25519")
    answer = unavailable(box.target())
    assert answer.lack is Lack.SERVICE
    assert "none of the keys" in answer.what


def test_the_configured_key_is_the_one_that_is_used(box: Host, tmp_path: Path) -> None:
    shutil.move(box.home / ".ssh" / "id_ed25519", tmp_path / "mine")
    assert isinstance(box.target(key=str(tmp_path / "mine")).probe(), Available)
    box.configure(f"  IdentityFile {tmp_path}/mine\n  IdentitiesOnly yes")
    assert isinstance(box.target().probe(), Available)


def test_a_key_of_the_ssh_agent_is_accepted(
    box: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        key = box.home / ".ssh" / "id_ed25519"
        run("ssh-add", "-q", str(key))
        key.unlink()
        assert isinstance(box.target().probe(), Available)
        run("ssh-add", "-q", "-D")
        assert "key" in unavailable(box.target()).what
    finally:
        waiting.killed(agent)


@pytest.mark.parametrize("way", ["jump", "command", "include", "alias"])
def test_the_users_configuration_of_ssh_is_followed(box: Host, one: Staged, way: str) -> None:
    ssh = box.home / ".ssh"
    listed = (ssh / "known_hosts").read_text()
    direct = f"  HostName {box.address}\n  Port {box.port}\n  User root\n"
    relay = f"nsenter --net=/run/netns/{box.space} {sys.executable} {box.folder}/relay %h %p"
    ways = {
        "jump": f"Host *\n  ProxyJump gate\nHost gate\n{direct}Host box\n{direct}",
        "command": f"Host box\n{direct}  ProxyCommand {relay}\n",
        "include": "Include more/*\n",
        "alias": f"Host box\n{direct}  HostKeyAlias known-as\n",
    }
    (ssh / "more").mkdir()
    (ssh / "more" / "box").write_text(f"Host box\n{direct}")
    (box.folder / "relay").write_text(RELAY)
    if way == "alias":
        (ssh / "known_hosts").write_text(listed.replace(listed.split()[0], "known-as"))
    (ssh / "config").write_text(ways[way])
    with box.target().open(one.stage) as session:
        assert session.run(one.command(PROGRAM, "end", "3"), timeout=TIMEOUT).exit_code == 3
    assert box.left() == []


RELAY = """
import socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while chunk := link.recv(65536):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
threading.Thread(target=back, daemon=True).start()
while chunk := sys.stdin.buffer.raw.read(65536):
    link.sendall(chunk)
"""


def test_a_host_that_does_not_answer_gives_the_ssh_command_as_hint(host_off: Host) -> None:
    answer = unavailable(host_off.target())
    assert (answer.lack, answer.hint) == (Lack.SERVICE, f"ssh -p {host_off.port} root@box")


def test_a_server_without_sftp_is_an_error_with_a_hint(host_off: Host) -> None:
    host_off.more = ""
    host_off.start()
    answer = unavailable(host_off.target())
    assert "no SFTP" in answer.what
    assert "Subsystem sftp" in answer.hint


def test_the_error_for_a_missing_folder_has_its_path(box: Host) -> None:
    answer = unavailable(box.target(directory="/no/such"))
    assert "/no/such" in answer.what
    assert "directory" in answer.hint


def test_a_folder_mounted_noexec_is_an_error_with_a_hint(box: Host, one: Staged) -> None:
    run("nsenter", "--target", str(first_process(box).pid), "--mount", "mount", "-t", "tmpfs",
        "-o", "noexec", "none", str(box.remote))  # fmt: skip
    opening = box.target().open(one.stage)
    with pytest.raises(SessionError, match="no program can be executed") as caught, opening:
        pass
    assert "directory" in caught.value.hint


def first_process(box: Host) -> psutil.Process:
    """The sshd that is the first process there, as this side sees it."""
    (child,) = psutil.Process(box.started[-1].pid).children()
    return child


def test_a_connection_that_is_lost_ends_the_session_and_its_processes(
    box: Host, target: Target, one: Staged
) -> None:
    token = secrets.token_hex(8)
    with (
        pytest.raises(SessionError, match=r"the folder .* stays on box: the connection is lost"),
        target.open(one.stage) as session,
    ):

        def cut() -> None:
            end = time.monotonic() + 30
            while len(contract.processes_with(token)) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            for process in first_process(box).children():
                process.kill()

        cutting = threading.Thread(target=cut)
        cutting.start()
        with pytest.raises(SessionError, match="lost"):
            session.run(one.command(PROGRAM, "linger", token), timeout=TIMEOUT)
        cutting.join(waiting.PATIENCE)
    assert contract.gone(token)
    assert len(box.left()) == 1, "the way to the folder was lost as well"
    with target.open(one.stage) as session:
        assert len(box.left()) == 1, "the next session removes it, and has its own"
        assert session.run(one.command(PROGRAM, "end", "0"), timeout=TIMEOUT).exit_code == 0
    assert box.left() == []


# ---- a machine that is started and stopped -------------------------------------------------------


def stops(box: Host) -> int:
    path = box.folder / "stops"
    return len(path.read_text().splitlines()) if path.exists() else 0


def notes() -> list[Path]:
    return list((Path(os.environ["XDG_CACHE_HOME"]) / "isobench" / "machines").glob("*.json"))


def test_probing_starts_nothing(host_off: Host) -> None:
    target = host_off.target(**host_off.life)
    answer = target.probe()
    assert isinstance(answer, Available)
    assert "does not run" in answer.version
    assert not (host_off.folder / "machine.pid").exists()


def test_a_machine_is_started_for_a_session_and_stopped_after_it(
    host_off: Host, staged: Make
) -> None:
    target = host_off.target(**host_off.life)
    one = staged(target)
    for round_ in (1, 2):
        with target.open(one.stage) as session:
            assert session.run(one.command(PROGRAM, "end", "3"), timeout=TIMEOUT).exit_code == 3
            assert len(notes()) == 1
            assert stops(host_off) == round_ - 1
        assert stops(host_off) == round_
        assert notes() == []
        phases = ["machine.started", "ssh", "stage", "shutdown.asked", "machine.gone"]
        assert one.marks == phases * round_
    assert host_off.left() == []


def test_a_machine_that_ran_before_is_not_stopped(host_off: Host, staged: Make) -> None:
    target = host_off.target(**host_off.life)
    run(host_off.life["start"])
    one = staged(target)
    with target.open(one.stage) as session:
        assert session.run(one.command(PROGRAM, "end", "3"), timeout=TIMEOUT).exit_code == 3
    assert (stops(host_off), notes()) == (0, [])
    with pytest.raises(SessionError, match="is running"):
        target.launch(one.stage, one.command("_startup", "cafe"), timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert stops(host_off) == 0


def test_two_sessions_share_one_machine(host_off: Host, staged: Make) -> None:
    target = host_off.target(**host_off.life)
    one = staged(target)
    with target.open(one.stage) as first:
        with target.open(one.stage) as second:
            assert second.run(one.command(PROGRAM, "end", "4"), timeout=TIMEOUT).exit_code == 4
        assert stops(host_off) == 0
        assert first.run(one.command(PROGRAM, "end", "3"), timeout=TIMEOUT).exit_code == 3
    assert stops(host_off) == 1


def test_a_launch_starts_the_machine_and_shuts_it_down(host_off: Host, staged: Make) -> None:
    target = host_off.target(**host_off.life)
    one = staged(target)
    done = target.launch(one.stage, one.command("_startup", "cafe"), timeout=TIMEOUT)  # type: ignore[attr-defined]
    assert done.exit_code == 0
    assert wire.hello("cafe") in b"".join(one.chunks)
    assert one.marks == [
        *("begin", "machine.started", "ssh", "stage", "shutdown.asked", "machine.gone"),
    ]
    assert (stops(host_off), notes(), host_off.left()) == (1, [], [])


def test_without_start_and_stop_commands_nothing_can_be_launched(
    target: Target, one: Staged
) -> None:
    with pytest.raises(NotApplicableError):
        target.launch(one.stage, one.command("_startup", "cafe"), timeout=TIMEOUT)  # type: ignore[attr-defined]


def test_a_machine_that_does_not_start_is_an_error_and_nothing_is_stopped(
    host_off: Host, staged: Make
) -> None:
    target = host_off.target(**host_off.life | {"start": "/bin/false"})
    opening = target.open(staged(target).stage)
    with pytest.raises(SessionError, match="cannot be started: /bin/false"), opening:
        pass
    assert (stops(host_off), notes()) == (0, [])


def test_a_machine_that_a_failing_start_command_has_started_is_stopped(
    host_off: Host, staged: Make
) -> None:
    start = f"sh -c '{host_off.folder}/start; exit 1'"
    target = host_off.target(**host_off.life | {"start": start})
    opening = target.open(staged(target).stage)
    with pytest.raises(SessionError, match="cannot be started: sh"), opening:
        pass
    assert (stops(host_off), notes()) == (1, [])


def test_a_machine_that_never_answers_is_an_error_and_is_stopped(
    host_off: Host, staged: Make
) -> None:
    target = host_off.target(**host_off.life, start_timeout=1.0, port=2)
    opening = target.open(staged(target).stage)
    with pytest.raises(SessionError, match=r"198\.18\."), opening:
        pass
    assert (stops(host_off), notes()) == (1, [])


KILLED = """
import json, sys, time
from pathlib import Path
from isobench.workloads import loader
from isobench.model import Command, host_abi
from isobench.payload import build, stage
from isobench.plugins.registry import Registry
from isobench.targets.machines import _ssh, _ssh_host
from isobench.model.units import seconds
target = Registry({"box": json.loads(sys.argv[1])}).get("box")
host = host_abi()
programs = build.programs([]) | {"contract": (Path(sys.argv[2]), False)}
with stage.workshop(build.build_all(programs, [host], host=host)) as shop:
    made = shop.stage(host)
    with target.open(made) as session:
        print("open", flush=True)
        session.run(Command(argv=("contract", "linger", sys.argv[3])), timeout=seconds(600))
"""


@pytest.fixture
def killed(host_off: Host) -> Callable[[Mapping[str, str]], str]:
    """Return a function that kills an isobench in the middle of a session; it returns what its
    payload had among its arguments.
    """

    def kill(life: Mapping[str, str]) -> str:
        options = {"kind": "ssh", "host": "box", "class": "sandbox", **life}
        options |= {"directory": str(host_off.remote)}
        token = secrets.token_hex(8)
        doomed = subprocess.Popen(
            [sys.executable, "-c", KILLED, json.dumps(options), str(SOURCE), token],
            stdout=subprocess.PIPE,
        )
        try:
            assert waiting.line(doomed, 300) == "open"
        finally:
            waiting.killed(doomed)
        return token

    return kill


def test_after_kill_9_the_next_start_stops_the_machine(
    host_off: Host, killed: Callable[[Mapping[str, str]], str]
) -> None:
    token = killed(host_off.life)
    assert (stops(host_off), len(notes())) == (0, 1)
    # A note counts although the configuration no longer has the target.
    bare = Registry().get("ssh")
    assert isinstance(bare, Sweeper)
    (left,) = bare.sweep(ownership.alive, cached=False)
    assert str(left).startswith("machine (")
    assert (stops(host_off), notes()) == (1, [])
    assert contract.gone(token)


def test_after_kill_9_the_next_session_removes_the_folder(
    host_off: Host, killed: Callable[[Mapping[str, str]], str], staged: Make
) -> None:
    host_off.start()
    killed({})
    (folder,) = host_off.left()
    foreign = host_off.remote / "isobench-0a1b2c-1-2-abc"  # of another machine's isobench
    foreign.mkdir()
    target = host_off.target()
    with target.open(staged(target).stage):
        assert folder not in host_off.left()
        assert foreign.name in host_off.left()


def test_machines_of_living_runs_are_not_stopped(host_off: Host, staged: Make) -> None:
    target = host_off.target(**host_off.life)
    assert isinstance(target, Sweeper)
    with target.open(staged(target).stage) as session:
        assert target.sweep(ownership.alive, cached=False) == []
        assert (
            session.run(
                Command(argv=(PROGRAM, "end", "3")),
                timeout=TIMEOUT,
            ).exit_code
            == 3
        )


# ---- whole runs ----------------------------------------------------------------------------------


def test_a_whole_run_starts_the_machine_again_and_again(host_off: Host, isobench: Program) -> None:
    config = isobench.folder / "isobench.toml"
    options = {"kind": "ssh", "host": "box", "class": "sandbox", "directory": str(host_off.remote)}
    lines = [f'{key} = "{value}"' for key, value in (options | host_off.life).items()]
    config.write_text("\n".join(["[targets.box]", *lines]))
    ran = isobench("run", *SHORT, "-t", "box", "-w", "cpu.sieve,syscall.getppid,startup")
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert summary["gaps"] == []
    measured = {cell["workload"] for cell in summary["cells"] if cell["target"] == "box"}
    assert {"cpu.sieve", "syscall.getppid", "startup.cold", "startup.warm"} <= measured
    assert (host_off.left(), notes()) == ([], [])
    assert stops(host_off) > 3


def test_a_run_that_cannot_stop_a_machine_reports_it_and_fails(
    host_off: Host, isobench: Program
) -> None:
    config = isobench.folder / "isobench.toml"
    options = {"kind": "ssh", "host": "box", "class": "sandbox", "directory": str(host_off.remote)}
    life = host_off.life | {"stop": "/bin/true"}
    lines = [f'{key} = "{value}"' for key, value in (options | life).items()]
    config.write_text("\n".join(["[targets.box]", "stop_timeout = 0.5", *lines]))
    ran = isobench("run", *SHORT, "-t", "box", "-w", "cpu.sieve")
    assert ran.code == 6, ran.said
    summary = ran.summary()
    (gap,) = summary["gaps"]
    assert (gap["target"], gap["workload"], gap["cause"]) == ("box", "session", "failed")
    assert "still runs 0.5 s after its stop command" in gap["detail"]
    assert "still runs 0.5 s after its stop command" in " ".join(ran.said.split())
    assert [c["target"] for c in summary["cells"] if c["workload"] == "cpu.sieve"] == [
        "box",
        "native#2",
    ]
    # The next run tries again because of the note, and reports that it failed.
    (note,) = notes()
    again = isobench("run", *SHORT, "-t", "native", "-w", "cpu.sieve")
    assert "machine that isobench started" in " ".join(again.said.split())
    assert "not removed:" in " ".join(again.said.split())
    note.unlink()


def test_a_whole_run_without_a_life_cycle_leaves_starts_out(box: Host, isobench: Program) -> None:
    config = isobench.folder / "isobench.toml"
    options = {"kind": "ssh", "host": "box", "class": "sandbox", "directory": str(box.remote)}
    lines = [f'{key} = "{value}"' for key, value in options.items()]
    config.write_text("\n".join(["[targets.box]", *lines]))
    ran = isobench("run", *SHORT, "-t", "box", "-w", "cpu.sieve,startup.cold,startup.exec")
    assert ran.code == 0, ran.said
    (gap,) = ran.summary()["gaps"]
    assert (gap["cause"], gap["workload"]) == ("not-applicable", "startup.cold")
    assert box.left() == []


# ---- a guest of QEMU as a plain host -------------------------------------------------------------


@dataclass
class Guest:
    """A virtual machine with external start and stop commands."""

    folder: Path
    home: Path
    machine: str

    def prepare(self, programs: Path) -> None:
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.folder.mkdir()
        (self.folder / "target").write_text(guest.TARGETS[self.machine])
        host_key = _ssh.new_key()
        (self.folder / "host_key").write_bytes(host_key.dropbear)
        (self.folder / "authorized").write_text(new_key(self.home / ".ssh" / "id_ed25519") + "\n")
        (self.folder / "account").write_bytes(guest.account(self.machine, self.folder / "apt"))
        shutil.copytree(programs, self.folder / "programs")
        (self.home / ".ssh" / "known_hosts").write_text(f"my-guest {host_key.line}\n")
        (self.folder / "relay").write_text(RELAY)
        # QEMU picks another port at each start.
        relay = f"{sys.executable} {self.folder}/relay 127.0.0.1 $(cat {self.folder}/port)"
        (self.home / ".ssh" / "config").write_text(
            f"Host my-guest\n  User user\n  HostKeyAlias my-guest\n  ProxyCommand {relay}\n"
        )
        pid = f"{self.folder}/pid"
        run_it = f"{sys.executable} {guest.__file__} {self.folder}"
        for name, script in {
            "start": f"rm -f {self.folder}/port\n"
            f"setsid {run_it} >{self.folder}/log 2>&1 </dev/null &\necho $! >{pid}",
            "stop": f"kill -TERM $(cat {pid})",
            "status": f"[ -s {pid} ] && kill -0 $(cat {pid}) 2>/dev/null",
        }.items():
            path = self.folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    @property
    def life(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in ("start", "stop", "status")}

    def is_running(self) -> bool:
        return subprocess.run([self.folder / "status"], check=False).returncode == 0

    def toml(self, **options: str) -> str:
        given = {"kind": "ssh", "host": "my-guest", "class": "emulation", **options}
        return "\n".join(["[targets.my-guest]", *(f'{k} = "{v}"' for k, v in given.items())])


@pytest.fixture
def my_guest(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    able: Callable[[str], Target],
    staged: Make,
) -> Iterator[Guest]:
    """A guest of this host's ISA, unless the test asks for another one; it does not run yet."""
    home = host_abi()
    assert home is not None
    machine = getattr(request, "param", home.machine)
    if machine not in guest.TARGETS:
        pytest.skip(f"isobench has no guest for {machine}")
    emulated = able(guest.TARGETS[machine])
    assert isinstance(emulated, Preparer)
    emulated.prepare(lambda _: None)
    found = Guest(folder=tmp_path / "guest", home=tmp_path / "home", machine=machine)
    found.prepare(staged(emulated).stage.root / "isobench")
    monkeypatch.setenv("HOME", str(found.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    try:
        yield found
    finally:
        subprocess.run([found.folder / "stop"], check=False, capture_output=True)
        end = time.monotonic() + 30
        while found.is_running() and time.monotonic() < end:
            time.sleep(0.1)


SHORT = ("--quick", "-r", "2", "--min-time", "0.004s")
"""Two blocks are enough: facts are tested, not figures."""
X86_ONLY = pytest.mark.skipif(
    host_abi() is not Abi.ELF_X86_64,
    reason="only CPUID distinguishes a translator from a hypervisor",
)


@X86_ONLY
def test_a_running_guest_is_measured_as_a_plain_host(my_guest: Guest, isobench: Program) -> None:
    subprocess.run([my_guest.folder / "start"], check=True)
    to = _ssh_host.address("my-guest")
    with _ssh_host.link(to, retry_for=240) as link:
        assert link.execute("uname -m") == (0, "x86_64")
    (isobench.folder / "isobench.toml").write_text(my_guest.toml())
    ran = isobench(
        *("run", *SHORT, "-t", "my-guest", "-w", "cpu.sieve,syscall.getppid,startup"),
    )
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert {gap["workload"]: gap["cause"] for gap in summary["gaps"]} == {
        "startup.cold": "not-applicable",
        "startup.warm": "not-applicable",
    }
    measured = {cell["workload"] for cell in summary["cells"] if cell["target"] == "my-guest"}
    assert {"cpu.sieve", "syscall.getppid", "startup.exec"} <= measured
    with _ssh_host.link(to) as link:
        assert link.execute("cd /tmp && echo isobench-*") == (0, "isobench-*"), (
            "nothing is left there"
        )
    # A guest that QEMU translates is no virtual machine, whatever class is configured.
    (isobench.folder / "isobench.toml").write_text(my_guest.toml(**{"class": "virtualization"}))
    ran = isobench("run", *SHORT, "-t", "my-guest", "-w", "cpu.sieve")
    (gap,) = [gap for gap in ran.summary()["gaps"] if gap["workload"] == "cpu.sieve"]
    assert gap["cause"] == "unproven"
    assert "cpu.hypervisor should be other than 'TCGTCGTCGTCG'" in gap["detail"]
    assert my_guest.is_running(), "it ran before"


@X86_ONLY
@pytest.mark.timeout(1800)
def test_a_guest_that_is_started_is_timed_until_its_nonce(
    my_guest: Guest, isobench: Program
) -> None:
    (isobench.folder / "isobench.toml").write_text(my_guest.toml(**my_guest.life))
    ran = isobench(*("run", *SHORT, "-t", "my-guest", "-w", "cpu.sieve,startup.cold"), timeout=550)
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert summary["gaps"] == []
    measured = {cell["workload"] for cell in summary["cells"] if cell["target"] == "my-guest"}
    assert measured == {"cpu.sieve", "startup.cold"}
    assert not my_guest.is_running()
    assert notes() == []


@pytest.mark.parametrize("my_guest", ["aarch64"], indirect=True)
def test_a_guest_of_a_foreign_isa_is_found_and_gets_its_payloads(
    my_guest: Guest, isobench: Program
) -> None:
    subprocess.run([my_guest.folder / "start"], check=True)
    with _ssh_host.link(_ssh_host.address("my-guest"), retry_for=240):
        pass
    config = isobench.folder / "isobench.toml"
    config.write_text(my_guest.toml())
    # No instruction of that ISA shows whether it is emulated.
    ran = isobench("run", *SHORT, "-t", "my-guest", "-w", "cpu.sieve")
    assert ran.code == 3
    assert "expect" in ran.err
    config.write_text(my_guest.toml() + '\nexpect = { "machine.model" = "linux,dummy-virt" }\n')
    ran = isobench("run", *SHORT, "-t", "my-guest", "-w", "cpu.sieve,cpu.sha256")
    assert ran.code == 0, ran.said
    assert ran.summary()["gaps"] == []
    state = json.loads((ran.latest / "state" / "my-guest-pre.json").read_text())
    assert state["abi"] == "aarch64-linux"
    facts = {fact["key"]: fact["value"] for fact in state["facts"]}
    assert facts["payload.machine"] == "aarch64"
    assert "aarch64" in state["version"]
