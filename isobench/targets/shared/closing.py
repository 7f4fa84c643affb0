"""Closes what a context has opened, when that may fail as well."""

import contextlib
from collections.abc import Callable, Iterator

from isobench.model.errors import SessionError


@contextlib.contextmanager
def closed_at_end(close: Callable[[BaseException | None], None]) -> Iterator[None]:
    """Call `close` at the end, with the error that has ended the context, or None.

    SessionError: `close` raises it, and the error before, if there was one, is a SessionError too:
    that comes first in it. After Ctrl-C and other errors nothing is raised in their place: the
    sweep at the end of the run names what stays.
    """
    first: BaseException | None = None
    try:
        yield
    except BaseException as error:
        first = error
        raise
    finally:
        try:
            close(first)
        except SessionError as second:
            if first is None:
                raise
            if isinstance(first, SessionError):
                raise SessionError(
                    f"{first}; and {second}", hint=first.hint or second.hint, log=first.log
                ) from None
