"""Files of JSON lines, in batches. A crash may have cut off their last line."""

from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

LONGEST_LINE: Final = 1 << 20
"""Bytes. A line of isobench's has some hundred; a longer one than this is damaged."""
_BATCH: Final = 4 << 20
END_OF_WRITE: Final = b" \n"
"""The end of the last of the lines that were written together, such as those of a visit. JSON
allows the space, and no other line ends so.
"""
# What stands in place of a line that is too long. No JSON begins so.
TOO_LONG: Final = b"\0too long"


class Batch(NamedTuple):
    """Some complete lines of a file."""

    first: int
    """The number of the first line, from 1."""
    data: bytes
    size: int
    """How many lines they are."""

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its number."""
        # Only a line feed ends a line: bytes.splitlines() would also split at a carriage return.
        yield from enumerate(self.data.split(b"\n")[:-1], self.first)


def complete_lines(data: bytes) -> bytes:
    """Return the data without a last line that has no line end."""
    return data[: data.rfind(b"\n") + 1]


def end_of_lines(file: BinaryIO, size: int) -> int:
    """Return where the last complete line ends in a file of so many bytes."""
    at = size
    while at > 0:
        start = max(0, at - LONGEST_LINE)
        file.seek(start)
        whole = complete_lines(file.read(at - start))
        if whole:
            return start + len(whole)
        at = start
    return 0


def end_of_writes(file: BinaryIO, size: int) -> int:
    """Return where the last complete write ends in a file of so many bytes; without any, its last
    complete line.
    """
    at = size
    while at > 0:
        start = max(0, at - LONGEST_LINE)
        file.seek(start)
        # The mark may lie across the end of the piece.
        found = file.read(at - start + len(END_OF_WRITE) - 1).rfind(END_OF_WRITE)
        if found >= 0:
            return start + found + len(END_OF_WRITE)
        at = start
    return end_of_lines(file, size)


def batches(stream: BinaryIO, *, first: int = 1) -> Iterator[Batch]:
    """Yield the complete lines of a stream in batches of a few MiB. `first` is the number of its
    first line.

    A last line without a line end is left out. A line of more than LONGEST_LINE bytes becomes one
    that is no JSON: whatever the stream holds, little of it is in memory at a time.
    """
    number, rest = first, b""
    while piece := stream.read(_BATCH):
        data = rest + piece
        whole = complete_lines(data)
        rest = data[len(whole) :]
        if len(rest) > LONGEST_LINE:
            rest = TOO_LONG
        if whole:
            size = whole.count(b"\n")
            yield Batch(first=number, data=whole, size=size)
            number += size
