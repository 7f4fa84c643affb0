"""Requests to execute a program, as isobench's agent and its guests' first process read them
(workloads/_include/request.h).
"""

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

_SIGNALLED: Final = 128
_MOST_SIGNAL: Final = 64


def message(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return a request as one message; `argv[0]` is a path."""
    variables = [f"{key}={value}" for key, value in environment.items()]
    strings = b"".join(os.fsencode(text) + b"\0" for text in (*argv, *variables))
    return struct.pack("<II", len(argv), len(variables)) + strings


def framed(argv: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return a request for a stream: its length goes before it."""
    whole = message(argv, environment)
    return struct.pack("<I", len(whole)) + whole


NULL: Final = framed((), {})
"""Asks for nothing: what its answer takes is the cost of the channel."""


def exit_code(code: int) -> int:
    """Return minus the signal where the agent's exit code tells of one: 128 + N."""
    signal = code - _SIGNALLED
    return -signal if 0 < signal <= _MOST_SIGNAL else code
