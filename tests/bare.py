"""README's commands on bare machines: fresh Debian roots, as root and as an ordinary user.

    python3 tests/bare.py                    bookworm and trixie, each as root and as a user
    python3 tests/bare.py bookworm user      one root, one user

`nox -s bare` calls it. mmdebstrap makes the roots, of Debian's essential packages, Python, pip and
git. What is tested is the last commit of this checkout: it is cloned in the root as anybody would,
and README's lines are pasted from the README of that clone, in an environment that holds nothing
but what a login shell has and what reaches the package registries. Needs root.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

CHECKOUT: Final = Path(__file__).parents[1]
SUITES: Final = ("bookworm", "trixie")
USERS: Final = ("root", "user")
PACKAGES: Final = "python3,python3-pip,git"
SECTIONS: Final = ("Try it", "Test it")
"""Sections of the README; the first block of commands of each is pasted."""
LIMIT: Final = 3600.0
"""Seconds for one command, which takes six minutes to half an hour on a busy machine."""
TRUSTED: Final = "/etc/ssl/certs/ca-certificates.crt"
CONFIGURATION: Final = ("/etc/pip.conf", "/etc/hosts", "/etc/resolv.conf", TRUSTED)
"""Files of this host by which its programs reach the registries."""
REGISTRIES: Final = re.compile(
    r"(?i)(https?|no|all|ftp)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|GIT_SSL_CAINFO|NODE_EXTRA_CA_CERTS|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|PROXY)"
)
"""Variables that lead to the registries; all others stay outside."""
APART: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
)
"""Gives a command mounts and processes of its own, all of which end with this process."""
ENTER: Final = """
set -e
mount --bind "$1" "$1"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=0755 none "$1/run"
mount -t proc proc "$1/proc"
cd "$1"
mkdir -p old
pivot_root . old
umount --lazy old
rmdir old
shift
# Not exec: as the first process of its PID namespace this shell reaps what others leave.
"$@"
"""
"""Makes a folder the root of a mount namespace. In a chroot the kernel forbids user namespaces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """How one command ended."""

    root: str
    user: str
    command: str
    code: int
    seconds: float
    mebibytes: int
    passed: str = ""
    skipped: str = ""
    failed: str = ""


def commands(readme: str) -> dict[str, str]:
    """Return the first block of shell commands of each section that is pasted."""
    found = {}
    for section in SECTIONS:
        _, _, text = readme.partition(f"\n## {section}\n")
        block = re.search(r"```sh\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
        if block is None:
            sys.exit(f"README.md: no block of commands in the section {section!r}")
        found[section] = block[1].strip()
    return found


def environment(user: str, home: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a login shell has, and those of `variables` that lead to the registries."""
    folders = "/usr/local/bin:/usr/bin:/bin"
    if user == "root":
        folders = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    own = {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "PATH": folders}
    kept = {name: value for name, value in variables.items() if REGISTRIES.fullmatch(name)}
    return {**kept, **own, "LANG": "C.UTF-8", "TERM": "xterm-256color"}


def counts(output: str) -> dict[str, str]:
    """Return how many tests passed, were skipped and failed, from pytest's last line."""
    ends = re.findall(r"^=*.*\d+ \w+.* in [\d.]+s.*$", output, re.MULTILINE)
    found = {word: number for number, word in re.findall(r"(\d+) (\w+)", ends[-1] if ends else "")}
    bad = [f"{number} {word}" for word, number in found.items() if word.startswith(("fail", "err"))]
    return {
        "passed": found.get("passed", ""),
        "skipped": found.get("skipped", ""),
        "failed": ", ".join(bad),
    }


def mebibytes(folder: Path) -> int:
    """Return how much a folder holds."""
    argv = ["du", "--one-file-system", "--summarize", "--block-size=1M", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


def make(suite: str, folder: Path) -> None:
    """Make a root of a Debian suite, from which the registries are reached as from this host."""
    argv = [*APART, "--mount-proc", "mmdebstrap", "--quiet", "--variant=minbase"]
    argv += [f"--include={PACKAGES}", suite, str(folder)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    for path in map(Path, CONFIGURATION):
        if path.exists():
            place = folder / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            shutil.copyfile(path, place)


def call(
    root: Path, user: str, command: str, log: Path, *, folder: str = ".", limit: float = LIMIT
) -> int:
    """Run a command in a root, in a folder of the user's home; return its exit code."""
    home = "/root" if user == "root" else f"/home/{user}"
    variables = environment(user, home, os.environ)
    argv = [
        *(*APART, "sh", "-c", ENTER, "sh", str(root)),
        *("setpriv", "--reuid", user, "--regid", user, "--init-groups"),
        *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
        *("sh", "-c", f"cd && cd {folder} && {command}"),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return 124
        finally:
            process.kill()
            process.wait()


def clone(root: Path, user: str, log: Path) -> None:
    """Give a user, who is made for it, a clone of this checkout's last commit."""
    source = root / "srv" / "isobench.git"
    argv = ["git", "clone", "--quiet", "--bare", "--no-hardlinks", str(CHECKOUT), str(source)]
    trusting = root / "srv" / "gitconfig"  # this checkout may belong to an ordinary user
    trusting.write_text("[safe]\n    directory = *\n")
    subprocess.run(argv, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": str(trusting)})
    add = "true" if user == "root" else f"useradd --create-home --shell /bin/sh {user}"
    # git refuses a repository that belongs to somebody else.
    if call(root, "root", f"{add} && chown -R {user}: /srv/isobench.git", log) or call(
        root, user, "git clone --quiet /srv/isobench.git isobench", log
    ):
        sys.exit(f"no clone can be made in {root}:\n{log.read_text()}")


def pasted(suite: str, user: str, root: Path, logs: Path) -> Iterator[Row]:
    """Paste README's commands in a root; yield how each ended."""
    account = "root" if user == "root" else "tester"
    clone(root, account, logs / f"{suite}-{user}-clone.log")
    home = root / ("root" if user == "root" else f"home/{account}")
    for section, command in commands((home / "isobench" / "README.md").read_text()).items():
        log = logs / f"{suite}-{user}-{section.replace(' ', '-').lower()}.log"
        say(f"{suite}, {user}: {command}")
        before, began = mebibytes(root), time.monotonic()
        code = call(root, account, command, log, folder="isobench")
        seconds, output = time.monotonic() - began, log.read_text(errors="replace")
        if code:
            say("\n".join(output.splitlines()[-60:]))
        yield Row(
            root=suite,
            user=user,
            command=section,
            code=code,
            seconds=seconds,
            mebibytes=mebibytes(root) - before,
            **counts(output),
        )


def table(rows: Sequence[Row]) -> str:
    """Return all that was found, one line a command."""
    names = [field.name for field in dataclasses.fields(Row)]
    lines = [names]
    for row in rows:
        seen = dataclasses.asdict(row) | {"seconds": f"{row.seconds:.0f}"}
        lines.append([str(seen[name]) or "-" for name in names])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """Make a folder, and remove it in any case: a second Ctrl-C does not stop that."""
    place = Path(tempfile.mkdtemp(prefix="isobench-bare-"))
    try:
        yield place
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say(f"removing {place}")
        subprocess.run(["rm", "-rf", "--one-file-system", str(place)], check=False)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


def end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> int:
    """Make the roots, paste the commands, print the table; nothing stays but the logs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="*", choices=[*SUITES, *USERS, []], metavar="WORD")
    parser.add_argument("--logs", type=Path, help="where what the commands print is kept")
    chosen = parser.parse_args(argv)
    if os.geteuid() != 0:
        sys.exit("roots are made and entered by root: sudo nox -s bare")
    if shutil.which("mmdebstrap") is None:
        sys.exit("mmdebstrap is not installed: apt-get install mmdebstrap")
    class_means = [name for name in SUITES if name in chosen.only] or SUITES
    users = [name for name in USERS if name in chosen.only] or USERS
    signal.signal(signal.SIGTERM, end)
    rows: list[Row] = []
    with temporary() as top:
        top.chmod(0o755)
        logs = chosen.logs or top
        logs.mkdir(parents=True, exist_ok=True)
        for suite in class_means:
            say(f"{suite}: a fresh root")
            make(suite, fresh := top / suite)
            for user in users:
                subprocess.run(["cp", "-a", str(fresh), str(root := top / user)], check=True)
                rows.extend(pasted(suite, user, root, logs))
                shutil.rmtree(root)
            shutil.rmtree(fresh)
    say(table(rows))
    return int(any(row.code for row in rows))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
