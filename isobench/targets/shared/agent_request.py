"""Encode requests to execute a program, in the format of workloads/_include/request.h.

isobench's agent and the first process of its guests read these requests.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

_SIGNAL_BASE: Final = 128
_MAX_SIGNAL: Final = 64  # Linux: SIGRTMAX, signal(7)


def message(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return a request as one message; `argv[0]` is the path of the program inside."""
    variables = [f"{key}={value}" for key, value in environment.items()]
    strings = b"".join(os.fsencode(text) + b"\0" for text in (*argv, *variables))
    # Little-endian whatever the host is: every ISA that has payloads is.
    return struct.pack("<II", len(argv), len(variables)) + strings


def framed(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return a request for a byte stream: the message after its length (32 bits)."""
    whole = message(argv, environment)
    return struct.pack("<I", len(whole)) + whole


def input_line(data: bytes) -> bytes:
    """Return the request to pass a line on to the standard input of the program that runs."""
    strings = b"input\0" + data + b"\0"
    whole = struct.pack("<II", 0, 2) + strings
    return struct.pack("<I", len(whole)) + whole


NULL: Final = framed((), {})
"""The request that starts no program. The time until its answer is the cost of the channel."""


def exit_code(code: int) -> int:
    """Return a program's exit code, or minus the signal that killed it.

    The agent reports signal N as exit code 128 + N, as shells do.
    """
    signal = code - _SIGNAL_BASE
    return -signal if 0 < signal <= _MAX_SIGNAL else code
