"""Claims, configuration and logs: each read has a bound, each mistake a file, a line and a hint."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench import claims
from isobench.claims import patterns
from isobench.claims.condition import holds
from isobench.config import bounded, file
from isobench.config.toml import Source
from isobench.model.cleaning import cleaned
from isobench.model.errors import UsageError
from isobench.storage import lines, lock, writer
from isobench.workloads import loader

CLAIM = '[[claims]]\nid = "mine"\nquote = "q"\nkind = "order"\ntargets = ["docker"]\n'
READERS: dict[str, Callable[[Path], object]] = {
    "claims": claims.load_file,
    "configuration": file.find,
    "workload": loader.read,
}


@pytest.fixture(params=READERS.values(), ids=READERS.keys())
def read(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """What reads a TOML file that somebody names."""
    found: Callable[[Path], object] = request.param
    return found


def refused(read: Callable[[Path], object], path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.hint
    return caught.value


# ---- size and kind -------------------------------------------------------------------------------


def test_a_device_that_never_ends_is_refused(read: Callable[[Path], object]) -> None:
    assert "not a regular file" in str(refused(read, Path("/dev/zero")))


def test_a_file_of_a_terabyte_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    with path.open("wb") as made:
        made.truncate(1 << 40)
    assert "longer than 1 MiB" in str(refused(read, path))


def test_a_folder_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    assert "not a regular file" in str(refused(read, tmp_path))


def test_a_pipe_of_a_shell_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_text, args=(CLAIM,))
    thread.start()  # opening the pipe waits for the reader
    found = claims.load_file(path)
    thread.join()
    assert [one.id for one in found] == ["mine"]


def test_a_pipe_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_PATIENCE", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    message = str(refused(claims.load_file, path))
    os.close(held)
    assert "its end did not come" in message


def test_a_pipe_that_never_ends_is_refused_at_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", f"exec cat /dev/zero >{path}"]) as endless:
        with path.open("rb"):  # until both ends are open
            assert "longer than 1 MiB" in str(refused(claims.load_file, path))
        endless.kill()


# ---- content -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a." * 100 + "b = 1", "x = " + "[" * 5000, "x = " + "{a=" * 5000, "x = " + "9" * 5000,
        "x = 0x" + "f" * 5000, "x = 9223372036854775808", "[a" + ".b" * 100 + "]",
        '"\\""."a\'". ' * 100 + "b = 1", "[" + "'\"'." * 100 + "b]",
        "x = {" + "a .\t" * 100 + "b = 1}",
        "\x1b[2J = 1", '"\\u001b[2J" = 1', '"' + " - at `$" * 20_000 + '" = 1',
    ],
)  # fmt: skip
def test_hostile_toml_is_refused_in_printable_words(
    text: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    error = refused(read, path)
    assert len(str(error)) < 10_000
    for said in (str(error), error.hint):
        assert said == cleaned(said, longest=None)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "x = 1 # it's\n",
        'x = """a"b\\"""c"""\n',
        "x = '''it's'''\n",
        'x = "\\""\n',
        "x = '\"'\n",
    ],
)
def test_a_key_of_thousands_of_parts_is_refused_before_tomllib_sees_it(
    before: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(before + r'"\"".' * 5000 + "a = 1\n")
    assert "a key has more than 50 parts" in str(refused(read, path))


def test_a_line_that_looks_like_a_long_key_takes_no_time() -> None:
    text = "x = \"\"\" '''\n" + "a." * 500_000 + '\n"""\n[run]\nseed = 1\n'
    assert Source(origin="x.toml", text=text).place("nothing") == "x.toml"


@pytest.mark.parametrize(
    "value",
    [
        '"' + "a." * 100 + '"', "'" + "a." * 100 + "'", '"""\n' + "a." * 100 + '\n"""',
        "'''" + "a." * 100 + "'''''", "[" + "1.5, " * 100 + "]", "1 # " + "a." * 100,
        '"\\"' + "a." * 100 + '"', '"""\\"""' + "a." * 100 + '"""""',
    ],
)  # fmt: skip
def test_dots_elsewhere_than_in_keys_are_no_parts_of_one(value: str) -> None:
    Source(origin="x.toml", text=f"a.b = {value}\nc = 1\n").document()


@pytest.mark.parametrize(
    "key",
    [
        "targets",
        "workloads",
        "limits",
        "evidence",
        "when",
        "needs",
        "technology",
        "margin",
        "kind",
        "metric",
        "reference",
        "quantile",
    ],
)
@pytest.mark.parametrize("value", ["5", "[5]", "{a = 1}", "true", "1979-05-27", "inf", "[[]]"])
@pytest.mark.parametrize("place", ["outside", "assert"])
def test_a_wrong_type_in_a_claim_is_refused_with_file_line_and_key(
    key: str, value: str, place: str
) -> None:
    body = f"{key} = {value}" if place == "outside" else f"assert = {{ {key} = {value} }}"
    with pytest.raises(UsageError) as caught:
        claims.load(f'[[claims]]\nid = "mine"\n{body}\n', origin="mine.toml")
    assert str(caught.value).startswith("mine.toml:")
    assert caught.value.hint


def test_targets_of_a_number_are_refused_with_their_line() -> None:
    with pytest.raises(UsageError, match=r"mine\.toml:3: claim mine: targets") as caught:
        claims.load('[[claims]]\nid = "mine"\ntargets = 5\n', origin="mine.toml")
    assert caught.value.hint


def test_claims_beyond_the_bound_are_refused() -> None:
    text = "".join(CLAIM.replace("mine", f"c{number}") for number in range(1001))
    with pytest.raises(UsageError, match="1000 are the most"):
        claims.load(text, origin="mine.toml")


def test_the_text_of_a_claim_is_cleaned_where_it_enters() -> None:
    (claim,) = claims.load(CLAIM.replace('"q"', '"\\u001b[2Jred"'), origin="mine.toml")
    assert claim.quote == r"\x1b[2Jred"


# ---- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|a)*$", "(.*a){20}", "^(([a-z])+.)+[A-Z]$"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    assert not holds(f"workload =~ '{pattern}$X'", {"workload": "a" * 10_000 + "!"})


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=a)", "(?<!a)b", "(", "a{1000}{1000}", "a" * 1001]
)
def test_a_pattern_out_of_the_language_is_refused_with_its_reason(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        patterns.check(pattern)
    with pytest.raises(UsageError, match="invalid regular expression"):
        claims.load(CLAIM + f"when = \"workload =~ '{pattern}'\"".replace("\\", "\\\\"), origin="x")


def test_patterns_find_what_they_found_before() -> None:
    assert patterns.found(r"^cpu\.", "cpu.sieve")
    assert patterns.found("(?i)SIEVE", "cpu.sieve")
    assert not patterns.found(r"\d", "cpu.sieve")
    assert patterns.found("ü", "für")


# ---- what is written -----------------------------------------------------------------------------


def test_a_log_is_printable_and_keeps_its_lines(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.log("box", b"\x1b]0;title\x07one\r\ntwo\tx\n\xff\xe2\x80\xaethree\r\n")
    folder.close()
    shown = (tmp_path / "logs" / "box.log").read_text()
    assert shown == "\\x1b]0;title\\x07one\ntwo\tx\n\\xff\\u202ethree\n"


def test_a_log_of_escapes_stays_within_its_limit(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.log("box", b"\x1b" * writer.MOST_LOG)
    folder.close()
    assert (tmp_path / "logs" / "box.log").stat().st_size <= writer.MOST_LOG + 1


@pytest.mark.parametrize("tail", [b"", b"half a line", b"x" * (3 * lines.LONGEST_LINE)])
def test_a_line_that_a_crash_cut_off_is_dropped_whatever_its_length(
    tail: bytes, tmp_path: Path
) -> None:
    (tmp_path / lock.RECORDS).write_bytes(b'{"kind":"later"}\n' + tail)
    writer.RunFolder(tmp_path).close()
    assert (tmp_path / lock.RECORDS).read_bytes() == b'{"kind":"later"}\n'


def test_a_pipe_in_place_of_records_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / lock.RECORDS)
    assert lock.writer_of(tmp_path) == ""
