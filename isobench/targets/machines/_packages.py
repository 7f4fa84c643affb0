"""A client for Debian packages: finds, downloads and unpacks them, and installs nothing.

It runs apt-get and apt-cache with their own lists, status file and cache in a working folder. apt
verifies the signatures of the sources (apt-secure(8)). This needs no privilege, works for any
architecture, and leaves the host's package database as it is.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.plugins.api import Completed
from isobench.targets.shared import processes

FREE_SPACE: Final = "df -h ~/.cache; to use another disk: XDG_CACHE_HOME=/folder/on/that/disk"
"""Hint for a full disk."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
"""Debian's names, by the names that uname(1) prints."""
_TIMEOUT: Final = 900.0
"""Seconds for one command of apt or dpkg-deb."""
_NETWORK: Final = "check the network and the sources of apt: apt-get update"
SIGNED_ONLY: Final = {
    "APT::Get::AllowUnauthenticated": "false",
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
}
"""Settings of apt: only what the key of a source has signed is used, whatever the host's apt.conf
says. These are apt's defaults. A source that the administrator marks as trusted stays trusted.
"""
_HOOKS: Final = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
"""Lists of commands that a host has configured around an update. They refresh caches of the host,
such as those of PackageKit and AppStream.
"""


def missing_tool() -> str:
    """Return the first program that is missing to fetch packages, or an empty string."""
    return next((tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None), "")


class PackageClient:
    """apt and dpkg-deb for one architecture, with all state in one working folder."""

    def __init__(self, machine: str, work: Path) -> None:
        """Create the folders that apt expects.

        `machine` is an ISA as uname(1) prints it; `work` is an existing, empty folder.
        """
        self.architecture = _ARCHITECTURES[machine]
        self._work = work
        # apt expects these folders in a state directory.
        for name in ("lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        # An empty status file: the packages of the host do not count as installed.
        (work / "status").touch()
        settings = {
            **SIGNED_ONLY,
            "APT::Architecture": self.architecture,
            # Without this, apt also fetches the lists of the host's foreign architectures.
            "APT::Architectures": self.architecture,
            # Started by root, apt downloads as the user _apt, who may not enter a private folder.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Dir::State": str(work),
            "Dir::State::lists": str(work / "lists"),
            "Dir::State::status": str(work / "status"),
            "Dir::Cache": str(work / "cache"),
        }
        # Only "#clear" empties a list of apt's, and it is a directive of configuration files: no
        # option -o can do so (apt.conf(5)).
        hooks = work / "no-hooks.conf"
        hooks.write_text("".join(f"#clear APT::Update::{hook};\n" for hook in _HOOKS))
        self._options = [f"-c={hooks}", *(f"-o{key}={value}" for key, value in settings.items())]
        self._failed_source = ""

    def _run(self, tool: str, *words: str) -> Completed:
        """Run a tool of apt. SessionError: it fails."""
        try:
            done = processes.run(
                [tool, *self._options, *words],
                folder=self._work,
                timeout=seconds(_TIMEOUT),
                # The error messages are searched below: LC_ALL=C keeps them in English.
                env=os.environ | processes.tied() | {"LC_ALL": "C"},
            )
        except OSError as error:
            raise SessionError(f"{tool}: {error}", hint="isobench doctor --install qemu") from None
        stderr = done.stderr.decode(errors="replace")
        if done.exit_code != 0:
            errors = [line for line in stderr.splitlines() if line.startswith("E:")]
            what = f"{tool} {next(word for word in words if word[0] != '-')}"
            why = " ".join(errors)[:500] or stderr[-300:] or f"not done after {_TIMEOUT:g} s"
            hint = FREE_SPACE if "No space left" in stderr else _NETWORK
            raise SessionError(f"{what} failed: {why}", hint=hint)
        return done

    def update(self) -> None:
        """Fetch the lists of all sources.

        A source that does not answer is no error here: it may be one that isobench does not need.
        """
        # apt-get exits with 0 although a source failed, and only warns about it.
        lines = processes.text(self._run("apt-get", "-q", "update").stderr).splitlines()
        failed = [line.removeprefix("W: ") for line in lines if "Failed to fetch" in line]
        self._failed_source = failed[0][:300] if failed else ""

    def with_dependencies(self, package: str) -> list[str]:
        """Return a package and everything it depends on; empty if no source has the package.

        Raises SessionError if a list could not be fetched, so that the package may exist.
        """
        kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        try:
            listed = self._run(
                "apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), package
            )
        except SessionError:
            # apt-cache fails in the same way for an unknown package and for a missing list.
            if self._failed_source:
                raise SessionError(
                    f"apt-get update: {self._failed_source}", hint=_NETWORK
                ) from None
            return []
        # Names stand at the beginning of a line. Dependencies are indented, virtual packages are
        # in <>, and "|" marks alternatives.
        lines = listed.stdout.decode(errors="replace").splitlines()
        return [line for line in lines if line and line[0] not in " <|"]

    def unpack(self, packages: Sequence[str]) -> tuple[Path, list[str]]:
        """Download packages and unpack them into one root directory.

        Returns that directory, and each package as "NAME VERSION".
        """
        root = self._work / "root"
        self._run("apt-get", "-q", "download", *packages)
        found = []
        for archive in sorted(self._work.glob("*.deb")):
            name, version = archive.name.split("_")[:2]
            # A file name cannot hold the colon of a version's epoch: apt writes %3a.
            found.append(f"{name} {version.replace('%3a', ':')}")
            _extract(archive, root)
            archive.unlink()
        return root, found


def _extract(archive: Path, root: Path) -> None:
    """Unpack one package; its maintainer scripts are not executed."""
    argv = ["dpkg-deb", "-x", str(archive), str(root)]
    try:
        done = processes.run(argv, timeout=seconds(_TIMEOUT), env=os.environ)
    except OSError as error:
        raise SessionError(f"dpkg-deb: {error}", hint="df -h; isobench clean") from None
    if done.exit_code != 0:
        why = processes.last_line(done.stderr)
        raise SessionError(
            f"{archive.name} cannot be unpacked: {why}", hint="df -h; isobench clean"
        )
