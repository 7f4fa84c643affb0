"""Distrobox: a container that shares the home, the network and the processes of the host.

`distrobox create` makes a box and `distrobox enter` executes programs in it, on rootless Podman:
distrobox refuses root.

`enter` passes its command through `eval` of a shell, which would expand arguments. So the command
is always isobench's agent, and the program to run arrives through the agent's standard input.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.config import cache
from isobench.evidence import cpu_share
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    OnStdin,
    Relation,
    Stage,
    Technology,
    Unavailable,
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed, Startable
from isobench.targets.containers import _podman
from isobench.targets.shared import agent_request, oci, prefixes, processes

_REPOSITORY: Final = "localhost/isobench/box"
_SETTING_UP: Final = seconds(300)
"""Time limit of creating a box, and of its first start, in which distrobox sets it up."""
_TRYING: Final = seconds(45)
"""The same while a probe tries one, which must itself end within a minute (`guard.PROBE_LIMIT`)."""
_KILL_SECONDS: Final = 10.0
"""Seconds in which the agent kills the program and its descendants after it is hung up."""
_REQUIRED: Final = (
    *("bc", "chpasswd", "curl", "diff", "find", "findmnt", "less", "lsof", "mount", "passwd"),
    *("pinentry", "sudo", "time", "useradd", "usermod", "wget"),
)
"""Commands without which distrobox 1.4 installs packages when a box is first entered."""
_STUB: Final = b"#!/bin/sh\nexit 0\n"
_FAILING_STUB: Final = b"#!/bin/sh\nexit 1\n"
_OWN_FAILURE: Final = 125
_INSTALL: Final = "isobench doctor --install distrobox"


def _environment(settings: oci.Settings) -> dict[str, str]:
    """Return the few variables of this user's environment that distrobox and Podman need."""
    # distrobox passes every variable on into the box.
    kept = ("HOME", "PATH", "USER", "LOGNAME", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    found |= {name: value for name, value in os.environ.items() if name.startswith("XDG_")}
    found |= {"SHELL": "/bin/sh", "DBX_CONTAINER_MANAGER": "podman"}
    if settings != oci.Settings() and "CONTAINERS_CONF" not in found:
        found["CONTAINERS_CONF"] = str(_configuration(settings))
    return found


def _configuration(settings: oci.Settings) -> Path:
    """Write a containers.conf with Podman's settings; return its path."""
    # distrobox calls podman without any option for its settings.
    limits = ", ".join(f'"{name}={value}:{value}"' for name, value in oci.LIMITS)
    lines = [
        "[engine]",
        f'runtime = "{settings.runtime}"' if settings.runtime else "",
        f'cgroup_manager = "{settings.cgroup_manager}"' if settings.cgroup_manager else "",
        "[containers]",
        f"default_ulimits = [{limits}]" if settings.limits else "",
        # `enter` follows the start in the box's log. Podman's default, journald, may not run.
        'log_driver = "k8s-file"',
    ]
    path = _podman.settings_cache().with_name("distrobox-containers.conf")
    # Another isobench may be reading the file: a rename replaces it in one step.
    cache.replace(path, "".join(f"{line}\n" for line in lines if line).encode())
    return path


# ---- the image -----------------------------------------------------------------------------------


def _busybox() -> Path | None:
    """Return the path of a static busybox, which is all that a box needs; or None."""
    found = shutil.which("busybox", path=f"/bin:/usr/bin:{os.environ.get('PATH', '')}")
    return None if found is None else Path(found)


def _archive(busybox: Path) -> bytes:
    """Return a tar of a root directory: busybox under all its names, stubs for other commands."""
    commands = (processes.output_of([str(busybox), "--list"]) or "").split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, content: bytes, mode: int) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))

        for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        add("bin/busybox", busybox.read_bytes(), 0o755)
        # find, mount and passwd must work. For the other required commands a stub that succeeds is
        # enough.
        for name in sorted({*commands} - {"busybox", *_REQUIRED} | {"find", "mount", "passwd"}):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in _REQUIRED:
            if name not in ("find", "mount", "passwd"):
                # findmnt must find nothing: distrobox unmounts a mount point that it finds.
                add(f"bin/{name}", _FAILING_STUB if name == "findmnt" else _STUB, 0o755)
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        add("etc/group", b"root:x:0:\n", 0o644)
        add("etc/shadow", b"root:*:19000:0:99999:7:::\n", 0o600)
    return buffer.getvalue()


def _own_image() -> str:
    """Import isobench's image unless Podman has it; return its name. SessionError: no busybox."""
    busybox = _busybox()
    if busybox is None:
        raise SessionError("busybox is not installed", hint=_INSTALL)
    archive = _archive(busybox)
    image = f"{_REPOSITORY}:{hashlib.sha256(archive).hexdigest()[:16]}"
    if _podman.run("image", "exists", image).exit_code != 0:
        with ownership.temporary_file(archive, "image.tar") as file:
            _podman.checked("import", "--quiet", "--change", oci.MARK, str(file), image)
    return image


# ---- boxes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """A box by its name, and the environment in which distrobox and Podman run."""

    name: str
    environment: Mapping[str, str]

    def call(
        self, argv: Sequence[str], *, timeout: Nanoseconds, env: Mapping[str, str] | None = None
    ) -> Completed:
        try:
            return processes.run(argv, timeout=timeout, env=env or self.environment)
        except OSError as error:
            raise SessionError(f"{argv[0]} cannot be executed: {error}") from None

    def enter(
        self,
        stage: Stage,
        request: bytes,
        *,
        timeout: Nanoseconds,
        on_output: Callable[[bytes], None],
        on_stdin: OnStdin | None = None,
    ) -> Completed:
        """Enter the box and let the agent run a request. SessionError: the box is not entered."""
        agent = _path_inside(stage.root / "isobench" / "_agent")
        argv = ["distrobox", "enter", "--no-workdir", "--name", self.name, "--", agent, "once"]
        done = _run_agent(
            argv,
            request,
            timeout=timeout,
            env=self.enter_environment,
            on_output=on_output,
            on_stdin=on_stdin,
        )
        if done.exit_code == _OWN_FAILURE or (done.exit_code and b"Error:" in done.stderr):
            raise SessionError(f"distrobox enter: {processes.last_line(done.stderr)}")
        return done

    @property
    def enter_environment(self) -> Mapping[str, str]:
        """The environment of `distrobox enter`, with a separate home for each box.

        Inside, the box keeps the home with which it was created.
        """
        # An `enter` that ends deletes ~/.cache/.*.fifo of all boxes (distrobox 1.4.2), the pipe of
        # another `enter` that is setting up its box included. With one home, two sessions side by
        # side failed in 1 of 8 rounds.
        home, real = _home(self.name), Path.home()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = home / ".distroboxrc"
        if (real / settings.name).exists() and not settings.exists():
            settings.symlink_to(real / settings.name)
        # Podman's settings and images stay those of the real home.
        usual = {"XDG_CONFIG_HOME": f"{real}/.config", "XDG_DATA_HOME": f"{real}/.local/share"}
        return {**usual, **self.environment, "HOME": str(home)}

    def create(self, image: str, owner: str) -> None:
        labels = " ".join(_podman.pairs("--label", oci.labels(owner)))
        argv = ["distrobox", "create", "--yes", "--no-entry", "--image", image, "--name", self.name]
        done = self.call([*argv, "--additional-flags", labels], timeout=_SETTING_UP)
        if done.exit_code != 0:
            raise SessionError(f"distrobox create: {processes.last_line(done.stderr)}")

    def stop(self) -> None:
        """Stop the box, and kill its processes."""
        children = self._children()  # listed first: orphans would get another parent
        self.call(["podman", "stop", "--time", "0", self.name], timeout=_podman.CALL)
        self._end(children)

    def remove(self) -> str:
        """Remove the box, its processes, and the home of `enter`; return why the box stays, or an
        empty string.
        """
        children = self._children()
        failure = _podman.remove(self.name)
        self._end(children)
        ownership.remove_own(_home(self.name))
        return failure

    def _children(self) -> list[int]:
        """Return the numbers of the box's processes."""
        # A box has no PID namespace of its own, so that the kernel does not end them with the first
        # one. They descend from the container's monitor, which also adopts orphans. It is found by
        # its own arguments: a number that Podman reports could be anybody's.
        return [
            number
            for pid, words in processes.own("conmon")
            if ("-n", self.name) in itertools.pairwise(words)
            for number in processes.process_tree(pid)[1:]
        ]

    def _end(self, pids: Sequence[int]) -> None:
        """Kill processes of the box."""
        # They run as this user's subordinate ids. This user may kill them only inside the user
        # namespace that maps these ids, which `podman unshare` enters.
        if pids:
            with contextlib.suppress(SessionError):
                _podman.run("unshare", "kill", "-KILL", *map(str, pids))


def _home(name: str) -> Path:
    return Path.home() / ".cache" / f".{name}.home"


def _path_inside(path: Path) -> str:
    """Return the path inside a box of a path of the host."""
    # distrobox mounts home and /tmp at their own paths, and the whole root under /run/host.
    same = (Path.home(), Path("/tmp"))  # noqa: S108 - a folder that every box shares
    return str(path) if any(path.is_relative_to(top) for top in same) else f"/run/host{path}"


def _run_agent(
    argv: Sequence[str],
    request: bytes,
    *,
    timeout: Nanoseconds,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None],
    on_stdin: OnStdin | None = None,
) -> Completed:
    """Run a command that executes the agent, send a request, and return the agent's result.

    Standard input stays open while the program runs: the agent kills it when that ends.
    """
    deadline = time.monotonic() + timeout / SECOND
    try:
        process = processes.start(argv, env=env, stdin=subprocess.PIPE)
    except OSError as error:
        raise SessionError(f"{argv[0]} cannot be executed: {error}") from None
    code, out, err = _exchange(process, request, deadline, on_output, on_stdin)
    known = None if code is None else agent_request.exit_code(code)
    return Completed(exit_code=known, stdout=out, stderr=err)


def _exchange(
    process: subprocess.Popen[bytes],
    request: bytes,
    deadline: float,
    on_output: Callable[[bytes], None],
    on_stdin: OnStdin | None,
) -> tuple[int | None, bytes, bytes]:
    """Return the exit code, None at the deadline, and both streams; end the process anyway."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    streams = (process.stdout, process.stderr)
    listener = processes.Listener(streams[0].fileno(), streams[1].fileno(), on_output)
    code: int | None = None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(request)
            process.stdin.flush()
        if on_stdin is not None:
            on_stdin(processes.writer(process.stdin))
        if listener.listen(deadline):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        # Only the agent can end the program, which is no descendant of `process`. So it gets time
        # before the process is killed; the streams end when it is done.
        if code is None:
            listener.listen(time.monotonic() + _KILL_SECONDS)
            processes.end(process)
        listener.close()
        for stream in streams:
            stream.close()
    return code, *listener.output


# ---- the target ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DistroboxTarget:
    """A box that shares the home, the network and the processes of the host."""

    name: ClassVar[TargetName] = TargetName("distrobox")
    technology: ClassVar[Technology] = Technology.CONTAINERIZATION
    abi: ClassVar[Abi | None] = None
    # The programs of an image set up the box, which has the user's home.
    executes: ClassVar[Sequence[str]] = ("image",)
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        *(Expectation(key=f"ns.{own}", relation=Relation.UNLIKE_HOST) for own in ("mnt", "user")),
        # Distrobox's integration with the host: these namespaces are shared.
        *(
            Expectation(key=f"ns.{shared}", relation=Relation.SAME_AS_HOST)
            for shared in ("ipc", "net", "pid")
        ),
        Expectation(key="host.home_shared", relation=Relation.EQUALS, value=True),
        Expectation(key="host.box.manager", relation=Relation.EQUALS, value="distrobox"),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "a box is created from a cached image and entered for the first time, when"
        " distrobox sets it up",
        "warm": "a box that is set up and stopped is entered",
        "exec": "a running box is entered",
    }

    image: str = ""
    """An image that Podman has. A command that distrobox needs and that the image lacks is
    installed in each new box. Empty: a small image that isobench makes from busybox.
    """

    def __post_init__(self) -> None:
        """Check the options. ValueError: the image has no name of an image."""
        oci.check_image(self.image)

    def probe(self) -> Availability:
        """Create a box, enter it and remove it. Once that has worked, only look for the tools."""
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="distrobox needs Linux")
        for tool in ("distrobox", "podman"):
            if shutil.which(tool) is None:
                return Unavailable(lack=Lack.TOOL, what=tool, hint=_INSTALL)
        if os.geteuid() == 0:
            return Unavailable(
                lack=Lack.PERMISSION,
                what="distrobox refuses to be run by root",
                hint="run isobench as an ordinary user: isobench run --targets distrobox",
            )
        if not self.image and _busybox() is None:
            return Unavailable(lack=Lack.TOOL, what="busybox", hint=_INSTALL)
        version = (processes.output_of(["distrobox", "version"]) or "").removeprefix("distrobox: ")
        podman = (processes.output_of(["podman", "--version"]) or "").removeprefix(
            "podman version "
        )
        try:
            self._check_box(f"{version} {podman} {self.image}")
        except SessionError as error:
            return Unavailable(
                lack=Lack.RUNTIME, what=str(error), hint=error.hint or "distrobox create --help"
            )
        return Available(version=f"distrobox {version}, Podman {podman}, rootless")

    def _check_box(self, versions: str) -> None:
        """Run the probe program in a new box, unless that has worked with the same versions.

        SessionError: the box does not work.
        """
        # Setting up a box takes seconds, too long for every listing of targets.
        worked = _podman.settings_cache().with_name("distrobox-worked")
        with contextlib.suppress(OSError):
            if worked.read_text() == versions:
                return
        with prefixes.probe_root() as root, self._created(ownership.mine(), self._image()) as box:
            program = _path_inside(root / "answer")
            argv = ["distrobox", "enter", "--no-workdir", "--name", box.name, "--", program]
            done = box.call(argv, timeout=_TRYING, env=box.enter_environment)
        if done.exit_code is None:
            # It waits without end for a first process that hangs, and says nothing of it.
            raise SessionError(
                f"no box can be entered: distrobox did not set one up within"
                f" {_TRYING / SECOND:g} s",
                hint="try again when the machine is less busy",
            )
        if not prefixes.probe_answered(done):
            raise SessionError(f"no box can be entered: {processes.last_line(done.stderr)}")
        with contextlib.suppress(OSError):
            cache.replace(worked, versions.encode())

    def _image(self) -> str:
        if not self.image:
            return _own_image()
        if _podman.run("image", "exists", self.image).exit_code != 0:
            raise SessionError(
                f"Podman has no image {self.image}", hint=f"podman pull {commands.path(self.image)}"
            )
        return self.image

    @contextlib.contextmanager
    def _created(self, owner: str, image: str) -> Iterator[_Box]:
        """Create a box, which does not start it; remove it at the end."""
        settings = _podman.working_settings(_podman.Options())
        box = _Box(name=oci.new_name(owner), environment=_environment(settings))
        with oci.removed(f"box {box.name}", box.remove):
            box.create(image, owner)
            yield box

    @contextlib.contextmanager
    def _set_up(self, stage: Stage) -> Iterator[_Box]:
        """Create a box and let it set itself up, in its first start."""
        with self._created(stage.owner, self._image()) as box:
            done = box.enter(
                stage, agent_request.NULL, timeout=_SETTING_UP, on_output=lambda _: None
            )
            if done.exit_code != 0:
                error = processes.last_line(done.stderr)
                raise SessionError(f"the box does not start: {error}")
            yield box

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Create and start a box, which is entered for every program."""
        with self._set_up(stage) as box:
            yield _Session(box=box, stage=stage)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Create a box and enter it for the first time."""
        # Found before the clock starts: what isobench prepares is no part of a start.
        _podman.working_settings(_podman.Options())
        image = self._image()
        command.on_phase(BEGIN)
        with self._created(stage.owner, image) as box:
            command.on_phase("engine.created")
            return _Session(box=box, stage=stage).run(command, timeout=timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Keep a box that is set up and stopped."""
        with self._set_up(stage) as box:
            yield _Stopped(box=box, stage=stage, command=command)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the boxes of runs that have died, and with `cached` the image."""
        if (
            shutil.which("podman") is None
            or os.geteuid() == 0
            or not _podman.settings_cache().exists()
        ):
            return []
        removed = _podman.sweep(alive, images=cached)
        for home in Path.home().glob(".cache/.isobench-*-*-*-*.home"):
            if not alive(home.stem[1:].rpartition("-")[0]):
                removed.append(ownership.removed_folder(home))
        for planted in Path.home().glob(".isobench-*"):
            owner = ownership.owner_of(planted.name[1:])
            if owner and not alive(owner) and planted.is_file():
                planted.unlink(missing_ok=True)
                removed.append(Leftover(what=f"file {planted}"))
        return removed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    box: _Box
    stage: Stage
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        scratch = processes.private_scratch(self.stage.scratch, "distrobox")
        argv = [_path_inside(self.stage.root / "isobench" / command.argv[0]), *command.argv[1:]]
        request = agent_request.framed(argv, command.environ(_path_inside(scratch)))
        return self.box.enter(
            self.stage,
            request,
            timeout=timeout,
            on_output=command.on_output,
            on_stdin=command.on_stdin,
        )

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Enter the box and send the null request."""
        return self.box.enter(
            self.stage, agent_request.NULL, timeout=timeout, on_output=lambda _: None
        )

    def witness(self) -> Iterable[Evidence]:
        """Yield what Podman shows of the box, and whether the box shares the host's home."""
        found = _podman.inspected(self.box.name)
        facts = {
            "host.box.manager": (found.config.labels or {}).get("manager"),
            "host.engine.runtime": found.runtime,
            "host.engine.network": found.host_config.network_mode,
        }
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source="podman inspect")
        yield from cpu_share.evidence(found.state.pid)
        yield Evidence(key="host.home_shared", value=self._home_shared(), source="a file in $HOME")

    def _home_shared(self) -> bool:
        """Create a file in the home, and let the evidence payload read it inside the box."""
        with tempfile.NamedTemporaryFile(
            prefix=f".{ownership.mine()}-", dir=Path.home()
        ) as planted:
            program = _path_inside(self.stage.root / "isobench" / "_evidence")
            argv = [program, "home", planted.name]
            # The payload demands a scratch directory, but writes nothing here.
            request = agent_request.framed(argv, {"ISOBENCH_SCRATCH": "/tmp"})  # noqa: S108
            done = self.box.enter(
                self.stage, request, timeout=seconds(60), on_output=lambda _: None
            )
        for line in done.stdout.splitlines():
            with contextlib.suppress(ValueError):
                fact = json.loads(line)
                if isinstance(fact, dict) and fact.get("fact") == "host.canary_readable":
                    return fact.get("value") is True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    box: _Box
    stage: Stage
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Stop the box, which is no part of a start, and then enter it."""
        self.box.stop()
        self.command.on_phase(BEGIN)
        return _Session(box=self.box, stage=self.stage).run(self.command, timeout=timeout)
