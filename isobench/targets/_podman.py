"""Podman's command line, for every target that stands on it: calls, settings that work here, the
removal of what isobench has made.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from isobench import owner, places
from isobench.errors import SessionError
from isobench.model import host_abi
from isobench.plugin import Completed
from isobench.targets import _elf, _oci, _prefix, _process
from isobench.units import Nanoseconds, seconds

CALL: Final = seconds(120)
"""Time limit of a command of Podman's that should take a second."""
_working: dict[_oci.Engine, _oci.Settings] = {}


def run(*arguments: str, timeout: Nanoseconds = CALL) -> Completed:
    """Run podman; SessionError when it cannot be executed at all."""
    try:
        return _process.run(["podman", *arguments], timeout=timeout, env=os.environ)
    except OSError as error:
        raise SessionError(f"podman cannot be executed: {error}") from None


def must(*arguments: str, timeout: Nanoseconds = CALL) -> bytes:
    """Run podman and return what it says; SessionError when it fails."""
    done = run(*arguments, timeout=timeout)
    if done.exit_code != 0:
        raise SessionError(f"podman {arguments[0]}: {_process.last_line(done.stderr)}")
    return done.stdout


def info() -> Mapping[str, Any]:
    """Return what `podman info` says."""
    loaded: Mapping[str, Any] = json.loads(must("info", "--format", "json", timeout=seconds(60)))
    return loaded


def pairs(option: str, values: Mapping[str, str]) -> Iterator[str]:
    """Yield an option before each KEY=VALUE."""
    for key, value in values.items():
        yield option
        yield f"{key}={value}"


def before_the_verb(settings: _oci.Settings) -> list[str]:
    """Return the settings that are options of podman itself."""
    manager = [f"--cgroup-manager={settings.cgroup_manager}"] if settings.cgroup_manager else []
    return [*manager, *(["--runtime", settings.runtime] if settings.runtime else [])]


def options(engine: _oci.Engine, settings: _oci.Settings) -> list[str]:
    """Return the options of a container."""
    words = ["--network", engine.network]
    if settings.limits:
        for name, value in _oci.LIMITS:
            words += ["--ulimit", f"{name}={value}:{value}"]
    for option in engine.security_opt:
        words += ["--security-opt", option]
    if engine.memory:
        words += ["--memory", engine.memory]
    return words


def remove(name: str) -> None:
    """Remove a container with its anonymous volumes."""
    with contextlib.suppress(SessionError):
        run("rm", "--force", "--time", "0", "--volumes", "--ignore", name)


def memory() -> Path:
    """Return the file that remembers which settings worked: it is there once a container has been
    started.
    """
    return places.cache() / "podman-settings.json"


def working(engine: _oci.Engine) -> _oci.Settings:
    """Return settings with which a container starts; SessionError when none do.

    What worked last time is tried first: on a host where Podman's defaults fail, the search costs
    seconds.
    """
    if engine in _working:
        return _working[engine]
    if host_abi() is None:
        raise SessionError("no payloads for this host", hint="use Linux on x86_64 or aarch64")
    runtimes = [engine.runtime] if engine.runtime else ["", *filter(shutil.which, ("crun", "runc"))]
    rungs = itertools.chain(_remembered(), _oci.ladder(runtimes, ("", "cgroupfs")))
    complaints: list[str] = []
    with _prefix.probe_root("run", "etc") as root:
        for settings in rungs:
            if engine.runtime and settings.runtime != engine.runtime:
                continue
            said = _trial(engine, settings, root)
            if not said:
                _working[engine] = settings
                _remember(settings)
                return settings
            complaints.append(said)
    raise SessionError(
        f"podman is there, but no container starts: {complaints[0]}", hint=_hint(complaints[0])
    )


def _trial(engine: _oci.Engine, settings: _oci.Settings, root: Path) -> str:
    """Return why no container starts with these settings, or nothing when one did and answered."""
    done = run(
        *(*before_the_verb(settings), "run", "--rm", *options(engine, settings)),
        *pairs("--label", _oci.labels(owner.mine())),
        *("--rootfs", str(root), "/answer"),
        timeout=seconds(60),
    )
    if done.exit_code == 0 and done.stdout == _elf.ANSWER:
        return ""
    return _process.last_line(done.stderr)


def _remembered() -> Iterator[_oci.Settings]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        yield _oci.Settings(**json.loads(memory().read_text()))


def _remember(settings: _oci.Settings) -> None:
    with contextlib.suppress(OSError):
        memory().parent.mkdir(parents=True, exist_ok=True)
        values = {
            "runtime": settings.runtime,
            "cgroup_manager": settings.cgroup_manager,
            "limits": settings.limits,
        }
        memory().write_text(json.dumps(values))


def _hint(said: str) -> str:
    if "newuidmap" in said or "subuid" in said:
        return (
            "isobench doctor --install podman;"
            " sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        )
    if "cgroup" in said:
        return (
            "isobench doctor --install podman (it brings runc, which also runs on hybrid cgroups)"
        )
    return "podman run --rm --network none --rootfs / true, to see what it says"


def sweep_containers(alive: Callable[[str], bool], *, label: str = _oci.LABEL) -> list[str]:
    """Remove containers with this label whose run has died; a line for each. SessionError or
    ValueError: Podman does not answer.
    """
    removed = []
    said = must("ps", "--all", "--filter", f"label={label}", "--format", "json")
    for found in json.loads(said or b"[]") or ():
        if not alive((found.get("Labels") or {}).get(_oci.OWNER_LABEL, "")):
            remove(found["Id"])
            removed.append(f"podman container {found['Id'][:12]}")
    return removed


def sweep_images(*, label: str = _oci.LABEL) -> list[str]:
    """Remove images with this label; a line for each. Errors as `sweep_containers`."""
    removed = []
    said = must("images", "--filter", f"label={label}", "--format", "json")
    for image in json.loads(said or b"[]") or ():
        must("rmi", image["Id"])
        names = ", ".join(image.get("Names") or [image["Id"][:12]])
        removed.append(f"podman image {names}")
    return removed
