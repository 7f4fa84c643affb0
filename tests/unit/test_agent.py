"""The agent at the far end of a connection: requests as Python writes them, as C reads them.

It is built for this machine and spoken to over pipes, as an SSH server would.
"""

import contextlib
import json
import os
import secrets
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from isobench.model import host_abi
from isobench.payload import build
from isobench.targets.machines import _ssh
from isobench.targets.shared import agent_request
from tests import waiting
from tests.conftest import PROGRAM, SOURCE

AWKWARD = ("two words", "'quotes\"", "$HOME", "*", "-x", "é", "", "a\\b", "semi;colon", "new\nline")
MOST = 32768
"""Bytes of the longest message, the NUL behind it not counted (request.h)."""


@pytest.fixture(scope="module")
def programs() -> Mapping[str, Path]:
    host = host_abi()
    assert host is not None
    wanted = {name: build.programs([])[name] for name in ("_agent",)}
    built = build.build_all(wanted | {PROGRAM: (SOURCE, False)}, [host], host=host)
    return {payload.program: payload.path for payload in built}


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(programs: Mapping[str, Path]) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [programs["_agent"], *(words or ("once",))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"SECRET": "the agent's own"},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        waiting.killed(process)


Ask = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def ask(start: Start) -> Ask:
    """Return a function that sends bytes, keeps the stream open, and returns how it ended."""

    def send(message: bytes, *words: str) -> tuple[int, bytes, bytes]:
        process = start(*words)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(message)
            process.stdin.flush()
        # Its standard input stays open: an end of it says that the asker is gone.
        out, err = waiting.outputs(process)
        return process.wait(20), out, err

    return send


def contract(
    programs: Mapping[str, Path], *words: str, environment: Mapping[str, str] | None = None
) -> bytes:
    return agent_request.framed([str(programs[PROGRAM]), *words], environment or {})


def unquoted(stdout: bytes) -> list[str]:
    return [json.loads(line).encode("latin-1").decode() for line in stdout.splitlines()]


def test_arguments_arrive_as_sent(ask: Ask, programs: Mapping[str, Path]) -> None:
    code, out, err = ask(contract(programs, "say", *AWKWARD))
    assert (code, unquoted(out), err) == (0, list(AWKWARD), b"")


def test_as_a_login_shell_it_looks_at_no_command(ask: Ask, programs: Mapping[str, Path]) -> None:
    code, out, _ = ask(contract(programs, "say", "hello"), "-c", "rm -rf nothing; exit 9")
    assert (code, unquoted(out)) == (0, ["hello"])


def test_as_many_arguments_and_variables_as_there_may_be(
    ask: Ask, programs: Mapping[str, Path]
) -> None:
    many = [f"number {n}" for n in range(255)]
    variables = {f"V{n}": "x" for n in range(255)}
    code, out, _ = ask(contract(programs, "say", *many[:253], environment=variables))
    assert (code, unquoted(out)) == (0, many[:253])


def test_the_environment_is_what_was_sent_and_nothing_of_the_agents(
    ask: Ask, programs: Mapping[str, Path]
) -> None:
    sent = {"ISOBENCH_BLOCK": "with = and spaces é", "EMPTY": ""}
    for name, value in {**sent, "SECRET": None, "PATH": None}.items():
        _, out, _ = ask(contract(programs, "see", name, environment=sent))
        assert unquoted(out.replace(b"null", b'"\\u0000"')) == ["\0" if value is None else value]


@pytest.mark.parametrize("code", [0, 1, 42, 127, 255])
def test_exit_codes_come_back_with_both_streams(
    code: int, ask: Ask, programs: Mapping[str, Path]
) -> None:
    assert ask(contract(programs, "end", str(code))) == (code, b"out\n", b"err\n")


def test_a_signal_is_told_as_shells_tell_it(start: Start, programs: Mapping[str, Path]) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        process = start()
        token = secrets.token_hex(8)
        send(process, contract(programs, "linger", token))
        # Looked for before one of them is killed: the other one goes with it.
        (child,) = [found for found in wait_for(token, 2) if found.ppid() == process.pid]
        child.send_signal(number)
        assert process.wait(20) == 128 + number
        assert agent_request.exit_code(process.returncode) == -number
        assert wait_for(token, 0) == []


def test_a_program_that_is_none_is_127(ask: Ask) -> None:
    assert ask(agent_request.framed(["/nowhere/program"], {}))[0] == 127


def test_the_null_request_leaves_at_once(ask: Ask) -> None:
    assert ask(agent_request.NULL) == (0, b"", b"")


def test_the_program_reads_nothing_of_the_agents_input(
    ask: Ask, programs: Mapping[str, Path]
) -> None:
    code, out, _ = ask(agent_request.framed(["/bin/cat"], {}) + b"meant for nobody")
    assert (code, out) == (0, b"")


def send(process: subprocess.Popen[bytes], message: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(message)
    process.stdin.flush()


def wait_for(token: str, count: int) -> Sequence[psutil.Process]:
    """Wait until so many processes have a word among their arguments."""
    end = time.monotonic() + 20
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and token in process.cmdline():
                    found.append(process)
        if len(found) == count:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_when_the_asker_is_gone_everything_it_started_dies(
    start: Start, programs: Mapping[str, Path]
) -> None:
    process, token = start(), secrets.token_hex(8)
    # A shell in between, and children that have left their session: grandchildren, orphans.
    linger = f"{programs[PROGRAM]} linger {token}"
    script = f"setsid {linger} & (setsid {linger} &) ; {linger}"
    send(process, agent_request.framed(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}))
    wait_for(token, 6)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 137
    assert wait_for(token, 0) == []


def test_orphans_of_a_program_that_has_ended_die_with_it(
    ask: Ask, programs: Mapping[str, Path]
) -> None:
    token = secrets.token_hex(8)
    linger = f"{programs[PROGRAM]} linger {token}"
    script = f"setsid {linger} >/dev/null 2>&1 & exit 5"
    code, _, _ = ask(agent_request.framed(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]}))
    assert code == 5
    assert wait_for(token, 0) == []


def framed(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def counts(arguments: int, variables: int) -> bytes:
    return struct.pack("<II", arguments, variables)


@pytest.mark.parametrize(
    "message",
    [
        framed(b""),
        framed(b"1234567"),
        framed(counts(1, 0)),  # and no string
        framed(counts(3, 0) + b"/bin/echo\0two\0"),  # one is missing
        framed(counts(1, 2) + b"/bin/echo\0A=1\0"),
        framed(counts(501, 0) + b"/bin/echo\0" * 501),
        framed(counts(1, 501) + b"/bin/echo\0" + b"A=1\0" * 501),
        framed(counts(300, 300) + b"/bin/echo\0" * 600),
        framed(counts(0xFFFFFFFF, 0xFFFFFFFF) + b"/bin/echo\0"),
        framed(counts(0x80000000, 0x80000000) + b"/bin/echo\0"),
        struct.pack("<I", MOST + 1),
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 70000,
        b"SSH-2.0-garbage\r\n" + bytes(range(256)),
    ],
)
def test_a_request_that_is_none_is_refused_and_executes_nothing(message: bytes, ask: Ask) -> None:
    code, out, err = ask(message)
    assert (code, out, err) == (125, b"", b"")


def test_an_input_that_ends_within_a_request_is_refused(start: Start) -> None:
    whole = framed(counts(1, 0) + b"/bin/echo\0")
    for length in range(len(whole)):
        out, err = (process := start()).communicate(whole[:length], timeout=20)
        assert (process.returncode, out, err) == (125, b"", b"")


def test_the_longest_request_is_taken_and_one_byte_more_is_not(
    ask: Ask, programs: Mapping[str, Path]
) -> None:
    rest = MOST - len(contract(programs, "say", "")) + 4
    code, out, _ = ask(contract(programs, "say", "x" * rest))
    assert (code, len(out)) == (0, rest + 3)
    assert ask(contract(programs, "say", "x" * (rest + 1)))[0] == 125


def test_a_message_whose_last_string_does_not_end_is_bounded(ask: Ask) -> None:
    code, out, _ = ask(framed(counts(2, 0) + b"/bin/echo\0unended"))
    assert (code, out) == (0, b"unended\n")


# ---- keys ----------------------------------------------------------------------------------------


def test_a_key_reads_as_dropbear_wants_it_and_as_openssh_does() -> None:
    key = _ssh.new_key()
    parts, rest = [], key.dropbear
    while rest:
        (length,) = struct.unpack_from(">I", rest)
        parts.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    kind, both = parts
    assert kind == b"ssh-ed25519"
    assert len(both) == 64
    assert both[:32] == key.seed
    assert both[32:] == key.private.asbytes()[-32:]
    assert key.line.startswith("ssh-ed25519 AAAA")
    assert "\n" not in key.line
    assert key.pem.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert _ssh.new_key().seed != key.seed


@pytest.mark.parametrize(
    ("told", "meant"), [(0, 0), (1, 1), (127, 127), (128, 128), (137, -9), (143, -15), (255, 255)]
)
def test_an_exit_code_above_128_is_a_signal(told: int, meant: int) -> None:
    assert agent_request.exit_code(told) == meant
