"""Files of JSON lines. A crash may have cut off their last line."""


def complete_lines(data: bytes) -> bytes:
    """Return the data without a last line that has no line end."""
    return data[: data.rfind(b"\n") + 1]
