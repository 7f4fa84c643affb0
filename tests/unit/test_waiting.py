"""A program that waits in a session, and what happens when it ends, hangs or floods."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from isobench.model import Command
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins.api import Completed
from isobench.run.waiting import EndedError, LateError, Waiting

DONE = Completed(exit_code=0, stdout=b"", stderr=b"")
SOON = seconds(0.05)
LATER = seconds(20)


def program(answer: Callable[[bytes], bytes]) -> Callable[[Command], Completed]:
    """Return a run of a program that answers each line until it is asked to end."""

    def run(command: Command) -> Completed:
        lines: SimpleQueue[bytes] = SimpleQueue()
        assert command.on_stdin is not None
        command.on_stdin(lines.put)
        command.on_output(b"hello\n")
        while (line := lines.get()) != wire.END:
            command.on_output(answer(line))
        return DONE

    return run


def test_it_answers_line_by_line_and_ends_when_asked() -> None:
    seen: list[bytes] = []
    command = Command(argv=("x",), on_output=lambda chunk, at=None: seen.append(chunk))
    waiting = Waiting(program(lambda line: b"got " + line), command)
    waiting.expect(b"hello", LATER)
    for number in (b"1\n", b"2\n"):
        waiting.send(number)
        waiting.expect(b"got " + number[:-1], LATER)
    assert waiting.end(LATER) == DONE
    assert b"".join(seen) == b"hello\ngot 1\ngot 2\n"


def test_an_answer_in_pieces_is_put_together() -> None:
    def run(command: Command) -> Completed:
        for byte in b'{"warmup_ns":1}\n':
            command.on_output(bytes([byte]))
        return DONE

    Waiting(run, Command(argv=("x",))).expect(wire.WARM, LATER)


def test_a_program_that_does_not_answer_is_late() -> None:
    go_on = threading.Event()

    def run(command: Command) -> Completed:
        del command
        go_on.wait(20)
        return DONE

    waiting = Waiting(run, Command(argv=("x",)))
    with pytest.raises(LateError):
        waiting.expect(b"hello", SOON)
    with pytest.raises(LateError):
        waiting.end(SOON)
    go_on.set()
    assert waiting.end(LATER) == DONE


def test_a_program_that_has_ended_says_so_and_its_result_follows() -> None:
    waiting = Waiting(lambda _: DONE, Command(argv=("x",)))
    with pytest.raises(EndedError):
        waiting.expect(b"hello", LATER)
    with pytest.raises(EndedError):
        waiting.send(b"1\n")
    assert waiting.end(LATER) == DONE


def test_an_error_of_the_session_is_raised_at_the_end() -> None:
    def run(command: Command) -> Completed:
        del command
        raise SessionError("the box is gone")

    waiting = Waiting(run, Command(argv=("x",)))
    with pytest.raises(EndedError):
        waiting.expect(b"hello", LATER)
    with pytest.raises(SessionError, match="the box is gone"):
        waiting.end(LATER)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), SessionError("the guest is gone"), ValueError("a plug-in's bug")]
)
def test_a_write_that_fails_means_that_the_program_ends(error: Exception) -> None:
    def write(data: bytes) -> None:
        del data
        raise error

    def run(command: Command) -> Completed:
        assert command.on_stdin is not None
        command.on_stdin(write)
        command.on_output(b"hello\n")
        return DONE

    waiting = Waiting(run, Command(argv=("x",)))
    waiting.expect(b"hello", LATER)
    with pytest.raises(EndedError):
        waiting.send(b"1\n")


def test_a_flood_of_output_is_not_kept() -> None:
    def run(command: Command) -> Completed:
        for _ in range(64):
            command.on_output(b"x" * 65536)
            command.on_output(b"\n" * 65536)
        return DONE

    waiting = Waiting(run, Command(argv=("x",)))
    waiting.end(LATER)
    kept = 0
    while waiting._lines.get() is not None:
        kept += 1
    assert kept <= wire.MOST_BYTES
