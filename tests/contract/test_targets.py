"""The behaviour that every target with an entry point must have. Each of them is tested."""

import contextlib
import errno
import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from isobench.evidence import host as this_host
from isobench.evidence import prove
from isobench.model import (
    Available,
    BlockHealth,
    Cause,
    Command,
    Environment,
    Gap,
    Need,
    Record,
    Relation,
    Resource,
    Unavailable,
    Visit,
    Work,
)
from isobench.model.errors import SessionError
from isobench.model.units import TargetName, WorkloadName, seconds
from isobench.payload import stage, wire
from isobench.plugins import ownership
from isobench.plugins.api import (
    Explains,
    Lacks,
    Launcher,
    Limiter,
    NullSpawner,
    Preparer,
    Restarter,
    Session,
    Sweeper,
    Target,
    Witness,
)
from isobench.plugins.registry import Registry
from isobench.run import limit_tests
from isobench.run.measure import Runner
from isobench.run.rounds import is_interactive
from isobench.run.waiting import EndedError, Waiting
from isobench.targets.containers import _kubernetes
from isobench.workloads import loader
from tests.conftest import PROGRAM, SOURCE, Staged
from tests.distributions import under_test

pytestmark = pytest.mark.live
PATIENCE = seconds(60)
SIEVE = WorkloadName("cpu.sieve")
AWKWARD = ("two words", "'quotes\"", "$HOME", "*", "-x", "é", "", "a\\b", "semi;colon", "new\nline")

Able = Callable[[str], Target]
Make = Callable[[Target], Staged]


class Silent:
    """A sink that drops all records."""

    def write(self, record: Record) -> None: ...
    def sync(self) -> None: ...
    def log(self, name: str, text: bytes) -> None: ...
    def health(self, health: BlockHealth, *, valid: bool) -> None: ...


@pytest.fixture(params=under_test())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def having(ability: type) -> list[str]:
    """Return the targets that have an ability. The others are not part of the test: no skips."""
    every = Registry()
    return [name for name in under_test() if isinstance(every.get(name), ability)]


@pytest.fixture
def target(name: str, able: Able) -> Target:
    return able(name)


@pytest.fixture
def one(target: Target, staged: Make) -> Staged:
    return staged(target)


@contextlib.contextmanager
def opened(target: Target, staged: Staged) -> Iterator[Session]:
    with target.open(staged.stage) as session:
        yield session


def processes_with(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if token in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def gone(token: str, patience: float = 10) -> bool:
    end = time.monotonic() + patience
    while processes_with(token):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def hidden(target: Target) -> bool:
    """Return whether the host cannot see processes inside: the instance has its own kernel."""
    own_kernel = {
        ("kernel.boot_id", Relation.UNLIKE_HOST),
        ("kernel.version", Relation.UNLIKE_HOST),
    }
    return bool(
        own_kernel
        & {(expectation.key, expectation.relation) for expectation in target.expectations}
    )


def lacking(target: Target, need: Need) -> bool:
    """Return whether programs of the target's ABI can never have what a workload needs."""
    return target.abi is not None and need in target.abi.lacks


def offered_not(target: Target) -> Mapping[Need, str]:
    """What the target itself says that its sessions cannot offer."""
    return target.lacks if isinstance(target, Lacks) else {}


def answered(target: Target, one: Staged, workload: str, iterations: int) -> wire.Reply | None:
    """Run a workload with the loops of its known answer, and return its reply.

    Where the ABI lacks what the workload needs, the payload must fail with ENOSYS; then None is
    returned. A workload that needs what the target itself says it lacks is not run.
    """
    known = loader.find()[WorkloadName(workload)]
    assert known.answer is not None
    if known.lack(offered_not(target)):
        return None
    argv = [workload, "cafe", str(iterations), str(known.answer.loops)]
    with opened(target, one) as session:
        done = session.run(one.command(*argv), timeout=PATIENCE)
    if not known.lack(one.abi.lacks):
        reply = wire.read(done.stdout, nonce="cafe", iterations=iterations)
        assert (reply.check, reply.steady) == (known.answer.check, True)
        return reply
    with pytest.raises(wire.WireError, match=rf"errno {errno.ENOSYS}\b"):
        wire.read(done.stdout, nonce="cafe", iterations=iterations)
    assert done.exit_code not in (0, None)
    return None


def instances_of(pid: int) -> list[str]:
    """Return the processes and containers that an isobench with this process number has started."""
    found = []
    for engine in ("docker", "podman"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                [engine, "ps", "-a", "--filter", "label=isobench.owner", "--format", "{{.Labels}}"],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            found += [
                f"{engine} {line}" for line in listed.stdout.splitlines() if f"-{pid}-" in line
            ]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if f"-{pid}-" in process.environ().get("ISOBENCH_TIED", ""):
                found.append(f"{process.pid} {process.name()}")
    return found


def unquoted(stdout: bytes) -> list[str]:
    """Return the texts in a payload's output, which has every byte outside ASCII as \\u00XX."""
    return [json.loads(line).encode("latin-1").decode() for line in stdout.splitlines()]


PROBE = """
import json, sys
from isobench.model import Available
from isobench.plugins.registry import Registry
answer = Registry().get(sys.argv[1]).probe()
able = isinstance(answer, Available)
print(json.dumps([able, getattr(answer, "what", ""), getattr(answer, "hint", "")]))
"""


def test_probe_answers_even_when_every_tool_is_gone(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, name],
        env={**os.environ, "PATH": "/nowhere", "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    available, what, hint = json.loads(done.stdout)
    assert available or (what and hint)


def test_its_name_is_that_of_its_entry_point(name: str) -> None:
    assert Registry().get(name).name == name


@pytest.mark.parametrize("name", having(Explains), indirect=True)
def test_it_explains_its_start_up_times(name: str) -> None:
    target = Registry().get(name)
    assert isinstance(target, Explains)
    assert set(target.starts) == {"cold", "warm", "exec"}


def test_an_unavailable_target_has_a_hint(name: str) -> None:
    answer = Registry().get(name).probe()
    match answer:
        case Available():
            assert answer.version
        case Unavailable():
            assert answer.what
            assert answer.hint


def test_arguments_arrive_as_sent(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        done = session.run(one.command(PROGRAM, "say", *AWKWARD), timeout=PATIENCE)
    assert unquoted(done.stdout) == list(AWKWARD)
    assert done.exit_code == 0


def test_variables_arrive_without_those_of_the_host(
    target: Target, one: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "not for inside")
    with opened(target, one) as session:
        for value in ("first", "second, with = and spaces"):
            one.variables["ISOBENCH_BLOCK"] = value  # a live view: read at each run
            done = session.run(one.command(PROGRAM, "see", "ISOBENCH_BLOCK"), timeout=PATIENCE)
            assert unquoted(done.stdout) == [value]
        done = session.run(one.command(PROGRAM, "see", "HOST_SECRET"), timeout=PATIENCE)
    assert done.stdout.strip() == b"null"


PROXIES = ("http_proxy", "HTTPS_PROXY", "ftp_proxy", "no_proxy", "ALL_PROXY")


def test_no_proxy_of_the_user_reaches_a_program(
    target: Target, one: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(target, Preparer):
        target.prepare(print)  # a download goes through the user's own proxy
    for name in PROXIES:
        monkeypatch.setenv(name, "http://me:hunter22@proxy.example:3128")
    with opened(target, one) as session:
        for name in PROXIES:
            done = session.run(one.command(PROGRAM, "see", name), timeout=PATIENCE)
            assert (name, done.stdout.strip()) == (name, b"null")
    if isinstance(target, Launcher):
        done = target.launch(one.stage, one.command(PROGRAM, "see", PROXIES[0]), timeout=PATIENCE)
        assert done.stdout.strip() == b"null"
    if isinstance(target, Restarter):
        with target.stopped(one.stage, one.command(PROGRAM, "see", PROXIES[0])) as stopped:
            assert stopped.start(timeout=PATIENCE).stdout.strip() == b"null"


def test_a_failing_command_is_a_result_with_both_streams(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        done = session.run(one.command(PROGRAM, "end", "42"), timeout=PATIENCE)
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (42, b"out\n", b"err")


def test_the_time_limit_leaves_no_process_behind(target: Target, one: Staged) -> None:
    token = secrets.token_hex(8)
    with opened(target, one) as session:
        done = session.run(one.command(PROGRAM, "linger", token), timeout=seconds(1.5))
        assert done.exit_code is None
        # Processes that are invisible on the host are looked for inside. Where the time limit ends
        # the whole instance, the session is over.
        with contextlib.suppress(SessionError):
            assert (
                session.run(one.command(PROGRAM, "find", token), timeout=PATIENCE).stdout == b"0\n"
            )
    assert gone(token), processes_with(token)


def test_processes_are_seen_from_inside(target: Target, one: Staged) -> None:
    """The negative control of the test above: a process that runs is found."""
    token = secrets.token_hex(8)
    if lacking(target, Need.PROCESSES):  # invisible inside, but visible on the host
        with opened(target, one) as session, ThreadPoolExecutor(1) as pool:
            ended = pool.submit(
                session.run, one.command(PROGRAM, "linger", token), timeout=seconds(5)
            )
            while not processes_with(token):
                assert not ended.done(), ended.result()
                time.sleep(0.02)
        return
    found: list[bytes] = []
    with opened(target, one) as session:
        found.append(session.run(one.command(PROGRAM, "find", token), timeout=PATIENCE).stdout)
        found.append(
            session.run(one.command(PROGRAM, "linger-and-find", token), timeout=PATIENCE).stdout
        )
    assert found == [b"0\n", b"1\n"]


def test_a_clean_run_prints_nothing_on_standard_error(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        done = session.run(one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)
    assert done.stderr == b""


def test_output_is_passed_on_while_the_program_runs(target: Target, one: Staged) -> None:
    nonce = secrets.token_hex(8)
    arrived_at: list[float] = []

    def listen(chunk: bytes) -> None:
        arrived_at.append(time.monotonic())

    one.on_chunk = listen
    with opened(target, one) as session:
        done = session.run(one.command(PROGRAM, "wait", nonce), timeout=PATIENCE)
    # The program ends a second after its output. Output that is passed on only at the end would
    # arrive at once with it; noise cannot make the difference smaller.
    assert time.monotonic() - arrived_at[0] > 0.5
    assert done.stdout == nonce.encode()
    assert b"".join(one.chunks) == done.stdout


def test_a_payload_waits_in_a_session_and_answers_line_by_line(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        assert is_interactive(session), "no target of this project starts a program for each turn"
        nonce = secrets.token_hex(8)
        waiting = Waiting(
            lambda command: session.run(command, timeout=PATIENCE),
            one.command("cpu.sieve", nonce, "ask", "40"),
        )
        waiting.expect(wire.WARM, PATIENCE)
        for loops, untimed in ((20, 10), (40, 0), (1, 40), (20, 0)):
            waiting.send(wire.request(loops, untimed))
            waiting.expect(wire.ITERATION, PATIENCE)
        done = waiting.end(PATIENCE)
        assert done.exit_code == 0
        reply = wire.read(done.stdout, nonce=nonce, iterations=4)
        assert [each.loops for each in reply.iterations] == [20, 40, 1, 20]
        checks = [each.check for each in reply.iterations]
        answer = loader.find()[SIEVE].answer
        assert answer is not None
        assert (answer.loops, answer.check) == (20, checks[0])
        assert checks[0] == checks[3]
        assert len(set(checks)) == 3
        # The session serves further programs.
        assert session.run(one.command(PROGRAM, "end", "3"), timeout=PATIENCE).exit_code == 3


def test_a_program_that_waits_and_is_not_asked_is_ended_at_its_time_limit(
    target: Target, one: Staged
) -> None:
    with opened(target, one) as session:
        waiting = Waiting(
            lambda command: session.run(command, timeout=seconds(2)),
            one.command("cpu.sieve", secrets.token_hex(8), "ask", "1"),
        )
        waiting.expect(wire.WARM, PATIENCE)
        with pytest.raises(EndedError):
            waiting.expect(wire.ITERATION, PATIENCE)
        assert waiting.end(PATIENCE).exit_code is None


def test_without_requests_standard_input_is_empty(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        done = session.run(one.command("cpu.sieve", "nonce", "ask", "1"), timeout=PATIENCE)
    # The payload reads the end of its input at once, and ends in order.
    assert done.exit_code == 0
    assert wire.read(done.stdout, nonce="nonce", iterations=0).check


def evidence(run: Callable[[list[str]], bytes], staged: Staged) -> Environment:
    nonce = secrets.token_hex(8)
    output = run(["_evidence", nonce, str(staged.shop.canary)])
    return prove.gather(wire.read(output, nonce=nonce, iterations=0).facts)


@pytest.fixture
def host(able: Able, staged: Make) -> Environment:
    native = able("native")
    with native.open((outside := staged(native)).stage) as session:
        return evidence(
            lambda argv: session.run(Command(argv=tuple(argv)), timeout=PATIENCE).stdout, outside
        )


def test_the_evidence_meets_the_expectations(
    target: Target, one: Staged, host: Environment
) -> None:
    assert target.expectations
    with opened(target, one) as session:
        inside = evidence(
            lambda argv: session.run(one.command(*argv), timeout=PATIENCE).stdout, one
        )
        if isinstance(session, Witness):
            inside = prove.gather((*inside.facts.values(), *session.witness()))
    # Facts that cannot be read inside are present as well, with the value unknown.
    assert {"kernel.boot_id", "machine", "host.canary_readable"} <= set(inside.facts)
    assert prove.unmet(prove.check(target.expectations, host=host, inside=inside)) == ""


@pytest.mark.parametrize("name", having(Launcher), indirect=True)
def test_a_launched_instance_meets_the_same_expectations(
    target: Target, one: Staged, host: Environment
) -> None:
    assert isinstance(target, Launcher)
    inside = evidence(
        lambda argv: target.launch(one.stage, one.command(*argv), timeout=PATIENCE).stdout, one
    )
    expectations = prove.from_inside(target.expectations, inside)
    assert prove.unmet(prove.check(expectations, host=host, inside=inside)) == ""


def test_every_isolation_contradicts_natives_expectations(
    name: str, target: Target, one: Staged, host: Environment, able: Able
) -> None:
    """The negative control: evidence that cannot tell inside from outside proves nothing."""
    with opened(target, one) as session:
        inside = evidence(
            lambda argv: session.run(one.command(*argv), timeout=PATIENCE).stdout, one
        )
    broken = prove.unmet(prove.check(able("native").expectations, host=host, inside=inside))
    assert bool(broken) == (name != "native")


@pytest.mark.parametrize("workload", ["cpu.sieve", "cpu.sha256", "cpu.matmul", "cpu.threads"])
def test_checksums_equal_the_expected_ones(target: Target, one: Staged, workload: str) -> None:
    answered(target, one, workload, iterations=1)


@pytest.mark.parametrize(
    "workload",
    [
        "io.seq-write", "io.seq-read", "io.fsync", "io.metadata",
        "syscall.getppid", "syscall.yield", "syscall.open-close", "syscall.fork-exec",
    ],
)  # fmt: skip
def test_every_other_workload_runs_and_answers(target: Target, one: Staged, workload: str) -> None:
    reply = answered(target, one, workload, iterations=2)
    assert reply is None or all(iteration.nanoseconds > 0 for iteration in reply.iterations)


def test_what_its_programs_cannot_do_is_a_gap_and_no_failure(target: Target, one: Staged) -> None:
    known = loader.find()
    runner = Runner(
        targets={target.name: target}, workloads=known, workshop=one.shop, host_abi=one.abi,
        sink=Silent(), run_id="contract",
    )  # fmt: skip
    for name, workload in known.items():
        if not (reason := workload.lack(one.abi.lacks, offered_not(target), this_host.lacks())):
            continue
        visit = Visit(block=1, target=target.name, workload=name)
        (gap,) = runner.visit(visit, Work(workload=name, loops=1, iterations=1), None)
        assert isinstance(gap, Gap)
        assert (gap.cause, gap.detail) == (Cause.NOT_APPLICABLE, reason)


@pytest.mark.parametrize("name", having(Limiter))
def test_the_limits_that_a_target_can_set_hold(
    target: Target, one: Staged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert isinstance(target, Limiter)
    native = Registry().get(TargetName("native"))
    runner = Runner(
        targets={native.name: native, target.name: target}, workloads={}, workshop=one.shop,
        host_abi=one.abi, sink=Silent(), run_id="contract",
    )  # fmt: skip
    context = runner.context(Visit(block=0, target=native.name, workload=WorkloadName("")))
    with native.open(runner.stage(native)) as session:
        runner.prover.prove_session(context, session)
    without = limit_tests.run_natively(runner, native.name)
    checks = limit_tests.check_limits(runner, target.name, without)
    assert [check.resource for check in checks] == [r for r in Resource if r in target.limitable]
    for check in checks:
        # On a busy machine even native may get less than the limit: then nothing is decided.
        undecided = check.held is None and check.why.startswith("natively")
        assert check.held or undecided, check
    # Podman's conmon writes a file into its working directory when memory has run out.
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", under_test(("namespaces", "docker", "podman")))
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an ordinary user's cgroups differ")
def test_root_can_limit_processors_memory_and_processes(target: Target) -> None:
    assert isinstance(target, Limiter)
    assert {Resource.CPU, Resource.MEMORY, Resource.PROCESSES} <= set(target.limitable)


def test_nothing_is_left_in_the_scratch_directory(target: Target, one: Staged) -> None:
    with opened(target, one) as session:
        for workload in ("io.seq-write", "io.seq-read", "io.fsync", "io.metadata"):
            session.run(one.command(workload, "cafe", "1", "2"), timeout=PATIENCE)
    assert [path for path in one.shop.scratch.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", having(NullSpawner), indirect=True)
def test_null_spawns_leave_the_directory_of_payloads_as_it_is(target: Target, one: Staged) -> None:
    # A directory with a file more for each start takes longer to search: io.metadata would show it.
    assert isinstance(target, NullSpawner)
    with opened(target, one) as session:
        session.run(one.command("io.metadata", "cafe", "1", "2"), timeout=PATIENCE)
        (places,) = [path for path in one.shop.scratch.iterdir() if path.is_dir()]
        done = target.null(one.stage, one.command("null"), timeout=PATIENCE)
        assert done.exit_code == 0
        assert list(places.iterdir()) == []


def test_two_sessions_are_open_at_the_same_time(target: Target, one: Staged) -> None:
    barrier = threading.Barrier(2, timeout=120)
    ended: list[int | None] = []

    def work() -> None:
        with target.open(one.stage) as session:
            barrier.wait()
            ended.append(session.run(one.command(PROGRAM, "end", "7"), timeout=PATIENCE).exit_code)
            barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert ended == [7, 7]


@pytest.mark.parametrize("name", having(Launcher), indirect=True)
def test_a_launched_instance_answers_and_is_gone(target: Target, one: Staged) -> None:
    assert isinstance(target, Launcher)
    nonce = secrets.token_hex(8)
    done = target.launch(one.stage, one.command("_startup", nonce), timeout=PATIENCE)
    assert done.exit_code == 0
    assert wire.hello(nonce) in done.stdout
    assert wire.hello(nonce) in b"".join(one.chunks)
    token = secrets.token_hex(8)
    done = target.launch(one.stage, one.command(PROGRAM, "linger", token), timeout=seconds(2))
    assert done.exit_code is None
    assert gone(token)


@pytest.mark.parametrize("name", having(Restarter), indirect=True)
def test_a_stopped_instance_starts_again_and_again(target: Target, one: Staged) -> None:
    assert isinstance(target, Restarter)
    nonce = secrets.token_hex(8)
    with target.stopped(one.stage, one.command("_startup", nonce)) as instance:
        for _ in range(3):
            one.chunks.clear()
            assert instance.start(timeout=PATIENCE).exit_code == 0
            assert wire.hello(nonce) in b"".join(one.chunks)


def test_a_process_whose_start_was_timed_becomes_the_evidence(target: Target, one: Staged) -> None:
    first, second = secrets.token_hex(8), secrets.token_hex(8)
    with opened(target, one) as session:
        argv = ["_startup", first, "_evidence", second, str(one.shop.canary)]
        done = session.run(one.command(*argv), timeout=PATIENCE)
        if lacking(target, Need.PROCESSES):  # it has no execve, and fails after its first line
            assert done.stdout.startswith(wire.hello(first))
            assert done.exit_code not in (0, None)
            return
        assert done.exit_code == 0, done.stderr
        hello, _, rest = done.stdout.partition(b"\n")
        assert hello.startswith(wire.hello(first))
        facts = {fact.key for fact in wire.read(rest, nonce=second, iterations=0).facts}
        assert {"kernel.boot_id", "host.canary_readable"} <= facts
        # 127, or the exit code of the emulator that should have executed it.
        refused = session.run(one.command("_startup", first, "nowhere"), timeout=PATIENCE)
        assert refused.exit_code not in (0, None)


def named_after(owner_: str) -> set[str]:
    """Return every cgroup and every file of a container manager with a run's name in its path."""
    kept = [
        *(Path("/run/lxc"), Path("/var/lib/lxc"), Path("/var/cache/lxc")),
        *(Path("/run/systemd/nspawn"), Path("/run/systemd/machines"), Path("/var/lib/machines")),
    ]
    # Unlike a glob, a walk passes over cgroups that other tests remove meanwhile.
    return {
        os.path.join(folder, name)  # noqa: PTH118 - as os.walk has it
        for place in (Path("/sys/fs/cgroup"), *kept)
        for folder, folders, files in os.walk(place)
        for name in (*folders, *files)
        if owner_ in name
    }


def leftovers() -> set[str]:
    """Return everything of this process that an engine or the kernel may still hold."""
    found = named_after(ownership.mine())
    found |= {
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if ownership.mine() in line
    }
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("ISOBENCH_TIED") == ownership.mine():
                found.add(f"process {process.pid} {process.name()}")
    for engine in ("docker", "podman"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                [engine, "ps", "-a", "-q", "--filter", f"label=isobench.owner={ownership.mine()}"],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            found |= {f"{engine} {line}" for line in listed.stdout.split()}
    return found | pods()


def pods() -> set[str]:
    """Return this process's pods in the cluster of KUBECONFIG, if there is one."""
    if "KUBECONFIG" not in os.environ or not _kubernetes.installed():
        return set()
    where = _kubernetes.Location(kubeconfig=_kubernetes.kubeconfig(), context="", namespace="")
    with contextlib.suppress(SessionError):
        found = _kubernetes.connect(where).pods(f"isobench.owner={ownership.mine()}")
        return {f"pod {pod['metadata']['name']}" for pod in found}
    return set()


def test_nothing_is_left_after_an_interrupted_session(target: Target, one: Staged) -> None:
    before = leftovers()  # a mount of another program may have such a name as well
    with pytest.raises(KeyboardInterrupt), opened(target, one) as session:
        session.run(one.command(PROGRAM, "say", "hello"), timeout=PATIENCE)
        raise KeyboardInterrupt
    assert leftovers() - before == set()


KILLED = """
import sys, secrets
from pathlib import Path
from isobench.workloads import loader
from isobench.model import Command, host_abi
from isobench.payload import build, stage
from isobench.plugins.registry import Registry
from isobench.model.units import seconds
target = Registry().get(sys.argv[1])
host = host_abi()
programs = build.programs([]) | {"contract": (Path(sys.argv[3]), False)}
payloads = build.build_all(programs, [target.abi or host], host=host)
with stage.workshop(payloads) as shop:
    made = shop.stage(target.abi or host)
    announce = lambda *_, **__: print("printed", flush=True)
    with target.open(made) as session:
        command = Command(argv=("contract", "wait", "x", "y"), on_output=announce)
        session.run(command, timeout=seconds(60))
        session.run(Command(argv=("contract", "linger", sys.argv[2])), timeout=seconds(600))
"""


def line_within(patience: float, process: "subprocess.Popen[bytes]") -> bytes:
    """Return a process's first line, incomplete if it ends or after `patience` seconds."""
    assert process.stdout is not None
    end, output = time.monotonic() + patience, b""
    while not output.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        byte = os.read(process.stdout.fileno(), 1) if ready else b""
        if not byte:
            break
        output += byte
    return output


def test_after_kill_9_the_next_start_removes_everything(name: str, target: Target) -> None:
    token = secrets.token_hex(8)
    doomed = subprocess.Popen(
        [sys.executable, "-c", KILLED, name, token, str(SOURCE)], stdout=subprocess.PIPE
    )
    try:
        assert line_within(120, doomed) == b"printed\n"
        end = time.monotonic() + 30
        # The killed process itself has the token among its arguments, and where the program can
        # fork, it has a child.
        wanted = 2 if lacking(target, Need.PROCESSES) else 3
        while not hidden(target) and len(processes_with(token)) < wanted:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not hidden(target) or instances_of(doomed.pid)
    finally:
        doomed.kill()
        doomed.wait()
        doomed.stdout.close()  # type: ignore[union-attr]
    stage.sweep(ownership.alive)
    if isinstance(target, Sweeper):
        removed = target.sweep(ownership.alive, cached=False)
        assert [one for one in removed if one.failure] == []
    assert gone(token), [process.cmdline() for process in processes_with(token)]
    assert instances_of(doomed.pid) == []
    runs = Path(os.environ["XDG_CACHE_HOME"]) / "isobench" / "runs"
    assert [path for path in runs.glob("*") if f"-{doomed.pid}-" in path.name] == []
    assert named_after(f"isobench-*-{doomed.pid}-") == set()


@pytest.mark.parametrize("name", having(Sweeper), indirect=True)
def test_what_belongs_to_living_runs_is_left_alone(target: Target, one: Staged) -> None:
    assert isinstance(target, Sweeper)
    with opened(target, one) as session:
        target.sweep(ownership.alive, cached=False)
        assert session.run(one.command(PROGRAM, "end", "3"), timeout=PATIENCE).exit_code == 3
