"""Paths of the shipped data, the cache, the configuration and the runs. No other code computes
them.
"""

import os
import sys
from pathlib import Path
from typing import Final

from isobench.model.errors import UsageError

_PACKAGE: Final = Path(__file__).resolve().parents[1]


def shared(name: str) -> Path:
    """Return a shipped folder ("workloads", "reports"): that of the checkout, else the copy in the
    wheel.
    """
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return _PACKAGE / "_shared" / name


def payloads() -> Path | None:
    """Return the folder of the programs that were built with the wheel, or None.

    An editable install has them in site-packages, while the package itself is the checkout.
    """
    parts = Path("isobench", "_shared", "payloads")
    places = [_PACKAGE.parent, *(Path(entry) for entry in sys.path if entry)]
    return next((p / parts for p in places if (p / parts / "manifest.json").is_file()), None)


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # "All paths set in these environment variables must be absolute": relative ones are ignored.
    # https://specifications.freedesktop.org/basedir-spec/latest/#variables
    if value.startswith("/"):
        return Path(value)
    try:
        return Path.home() / default
    except RuntimeError:  # as in a container whose user has no name
        raise UsageError(
            f"this user has no home folder for {default}",
            hint=f"set HOME or {variable} to a folder",
        ) from None


def cache() -> Path:
    """Return the cache folder: payloads, stages, guests, results of probes. `isobench clean`
    removes it.
    """
    return _xdg("XDG_CACHE_HOME", ".cache") / "isobench"


def history() -> Path:
    """Return the folder of the user's history of runs."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "isobench" / "history"


def user_configuration() -> Path:
    """Return the user's own configuration file; it need not exist."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "isobench" / "config.toml"


def results() -> Path:
    """Return where runs are written: ISOBENCH_RESULTS_DIR, or isobench-results in the working
    directory.
    """
    return Path(os.environ.get("ISOBENCH_RESULTS_DIR") or "isobench-results")
