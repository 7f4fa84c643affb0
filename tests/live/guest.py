"""A virtual machine that isobench did not start: QEMU in a separate process, with an SSH server, a
shell and SFTP. `python guest.py FOLDER` runs it until SIGTERM, which shuts it down.

FOLDER holds `account` (an archive, see `account`), `host_key`, `authorized`, `programs` and the
name of a `target`. The port of its SSH server is written to `port`.
"""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from isobench.plugins.registry import Registry
from isobench.targets.machines import _cpio, _guest, _qemu
from isobench.targets.machines._packages import PackageClient
from isobench.targets.shared import agent_request, elf

TARGETS = {"x86_64": "qemu", "aarch64": "qemu-aarch64"}
TIMEOUT = 240.0


def account(machine: str, work: Path) -> bytes:
    """Return the archive of an account with a shell and SFTP, unpacked after the guest's own."""
    work.mkdir()
    apt = PackageClient(machine, work)
    apt.update()
    root, _ = apt.unpack([*apt.with_dependencies("openssh-sftp-server"), "busybox-static"])
    archive = _cpio.Archive()
    for name in ("etc", "bin", "tmp", "sftp", "usr", "usr/lib", "home", "home/user"):
        archive.directory(name, 0o1777 if name == "tmp" else 0o755)
    for name in ("sh", "uname"):
        archive.program(f"bin/{name}", root / "bin" / "busybox")
    files = {path.name: path for path in root.rglob("*") if path.is_file()}
    wanted, done = ["sftp-server"], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in done:
            done.add(name)
            archive.program(f"sftp/{name}", files[name])
            wanted += [
                each.rpartition("/")[2] for each in elf.needed_libraries(files[name].read_bytes())
            ]
    (interpreter,) = [name for name in done if name.startswith("ld-")]
    # With its own libraries: those of the guest's SSH server may be of another version.
    script = f"#!/bin/sh\nexec /sftp/{interpreter} --library-path /sftp /sftp/sftp-server\n"
    archive.file("usr/lib/sftp-server", script.encode(), 0o755)
    archive.file("etc/passwd", b"user:x:0:0:user:/home/user:/bin/sh\n")
    archive.file("etc/shadow", b"user:*:19000:0:99999:7:::\n", 0o600)
    archive.file("etc/shells", b"/bin/sh\n")
    return archive.finished()


def main(folder: Path) -> None:
    emulated: Any = Registry().get((folder / "target").read_text())
    archive = _cpio.Archive()
    for name in ("home", "home/user"):
        archive.directory(name)
    archive.directory("home/user/.ssh", 0o700)
    archive.file("home/user/.ssh/authorized_keys", (folder / "authorized").read_bytes(), 0o600)
    (folder / "who").write_bytes(archive.finished())
    guest = emulated._guest()
    guest = replace(guest, archives=(*guest.archives, folder / "account", folder / "who"))
    programs = folder / "programs"
    made = _guest.stage_archive(
        programs, address="10.0.2.15 24 eth0", host_key=(folder / "host_key").read_bytes()
    )
    _guest.write_initrd(folder / "initrd", guest, made)
    boot = _qemu.Boot(
        kernel=guest.kernel,
        initrd=folder / "initrd",
        command_line=emulated._command_line(),
    )
    # A list, not a threading.Event: the signal may interrupt a holder of the event's lock.
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    with _qemu.started(emulated._hardware(), boot) as machine:
        machine.negotiate()
        (folder / "port.new").write_text(str(machine.port()))
        (folder / "port.new").rename(folder / "port")
        machine.wait_for("ready", deadline=time.monotonic() + TIMEOUT)
        while not stop_signals and not machine.failure_reason():
            time.sleep(0.1)
        machine.shut_down(agent_request.NULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
