"""QEMU's command line, and a machine that is a small program with QEMU's protocol."""

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from isobench.model.errors import SessionError
from isobench.targets.machines import _instance, _qemu, _serial, qemu
from isobench.targets.machines.qemu import QemuTarget
from isobench.targets.shared import processes

FAKE = Path(__file__).parents[1] / "data" / "machine" / "fake_qemu.py"
SOON = 20.0
ENDS = {"log": 5, "out": 6, "err": 7, "qmp": 8}


def hardware(scenario: str = "", emulator: str = "/usr/bin/qemu-system-x86_64") -> _qemu.Hardware:
    return _qemu.Hardware(
        emulator=emulator,
        machine="q35",
        accelerator="tcg",
        cpu="max",
        vcpus=2,
        memory=512,
        ports=("-serial", "chardev:log", "-serial", "chardev:out", "-serial", "chardev:err"),
        more=(scenario,) if scenario else (),
    )


# ---- the command line ----------------------------------------------------------------------------


def values(argv: list[str], option: str) -> list[str]:
    return [after for name, after in itertools.pairwise(argv) if name == option]


def test_the_command_line_describes_the_hardware() -> None:
    boot = _qemu.Boot(kernel=Path("/k"), initrd=Path("/i"), command_line="console=ttyS0 a=b")
    argv = _qemu.arguments(hardware(), boot, ENDS)
    assert argv[0] == "/usr/bin/qemu-system-x86_64"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    for option, value in {
        "-machine": "q35", "-accel": "tcg", "-cpu": "max", "-smp": "2", "-m": "512",
        "-kernel": "/k", "-initrd": "/i", "-append": "console=ttyS0 a=b", "-display": "none",
        "-mon": "chardev=qmp,mode=control",
    }.items():  # fmt: skip
        assert values(argv, option) == [value]
    assert values(argv, "-chardev") == [f"socket,id={n},fd={fd}" for n, fd in ENDS.items()]
    assert "-S" not in argv
    assert "-incoming" not in argv


def test_only_the_guests_ssh_server_is_reachable_and_only_from_loopback() -> None:
    (network,) = values(_qemu.arguments(hardware(), _qemu.Boot(), ENDS), "-netdev")
    assert network == "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"
    assert values(_qemu.arguments(hardware(), _qemu.Boot(network=False), ENDS), "-netdev") == []


def test_commas_in_the_path_of_a_disk_are_doubled_and_in_that_of_a_kernel_are_not() -> None:
    boot = _qemu.Boot(
        kernel=Path("/a,b/kernel"),
        initrd=Path("/a,b/initrd"),
        disks=(_qemu.Disk(path=Path("/a,b/ü =\"' c/disk")),),
    )
    argv = _qemu.arguments(hardware(), boot, ENDS)
    assert values(argv, "-kernel") == ["/a,b/kernel"]
    assert values(argv, "-initrd") == ["/a,b/initrd"]
    (drive,) = values(argv, "-drive")
    assert "file=/a,,b/ü =\"' c/disk," in drive
    assert "cache=none" in drive


def test_each_disk_is_a_device_in_its_order() -> None:
    disks = (
        _qemu.Disk(path=Path("/a"), format="qcow2", cache="unsafe"),
        _qemu.Disk(path=Path("/b")),
    )
    argv = _qemu.arguments(hardware(), _qemu.Boot(disks=disks), ENDS)
    first, second = values(argv, "-drive")
    assert "file=/a,format=qcow2,cache=unsafe" in first
    assert "file=/b,format=raw,cache=none" in second
    assert [v for v in values(argv, "-device") if v.startswith("virtio-blk")] == [
        "virtio-blk-pci,drive=disk0", "virtio-blk-pci,drive=disk1",
    ]  # fmt: skip


def test_a_halted_machine_and_a_restored_one_start_paused() -> None:
    assert "-S" in _qemu.arguments(hardware(), _qemu.Boot(halted=True), ENDS)
    boot = _qemu.Boot(kernel=Path("/k"), disks=(_qemu.Disk(path=Path("/d")),)).restored_from(31)
    argv = _qemu.arguments(hardware(), boot, ENDS)
    assert "-S" in argv
    assert values(argv, "-incoming") == ["fd:31"]
    assert "snapshot=on" in values(argv, "-drive")[0]


# ---- the machine ---------------------------------------------------------------------------------


class Started:
    """A machine whose QEMU is the fake one, and everything that it passed on."""

    def __init__(self, scenario: str, stack: ExitStack, folder: Path) -> None:
        emulator = folder / f"qemu-{scenario}"
        emulator.write_text(f"#!{sys.executable} -S\n{FAKE.read_text()}")
        emulator.chmod(0o755)
        self.chunks: list[bytes] = []
        self.marks: list[str] = []
        self.machine = stack.enter_context(
            _qemu.started(
                hardware(scenario, str(emulator)),
                _qemu.Boot(),
                on_output=self.chunks.append,
                on_mark=lambda name: self.on_mark(name),  # noqa: PLW0108 - a test puts another in its place
            )
        )

    def on_mark(self, mark: str) -> None:
        self.marks.append(mark)

    def wait(self, mark: str) -> str | None:
        return self.machine.wait_for(mark, deadline=time.monotonic() + SOON)


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(scenario: str, *, negotiate: bool = True) -> Started:
            started = Started(scenario, stack, tmp_path)
            if negotiate:
                started.machine.negotiate()
            return started

        yield begin


def test_marks_are_found_across_the_chunks_that_are_read(start: Start) -> None:
    fake = start("in-pieces")
    assert fake.wait("init") == ""
    assert fake.wait("ready") == ""
    assert fake.wait("exit") == "7"
    assert fake.marks == ["guest.output", "init", "ready", "exit 7"]
    assert fake.machine.log.startswith("\nLinux version 6\n")


def test_waiting_for_a_mark_returns_none_at_the_deadline(start: Start) -> None:
    fake = start("in-pieces")
    assert fake.wait("exit") == "7"
    assert fake.machine.wait_for("ready", deadline=time.monotonic() + 0.05) is None
    assert fake.machine.failure_reason() == ""


def test_a_guest_that_cannot_set_itself_up_is_an_error_with_its_message(start: Start) -> None:
    with pytest.raises(SessionError) as caught:
        start("failed").wait("ready")
    assert "could not set itself up: network: No such device (ENODEV)" in str(caught.value)
    assert "modules" in caught.value.hint
    assert caught.value.log.startswith("isobench: init\n")


@pytest.mark.parametrize("failure", ["network", "network nineteen", "network 99999", "19", ""])
def test_a_failure_without_a_known_errno_is_shown_as_received(failure: str) -> None:
    assert _serial._with_errno_name(failure) == failure


@pytest.mark.parametrize(
    ("scenario", "hint"),
    [("in-pieces", r"boot_timeout = 2\.0"), ("idle", "check in isobench.toml that kernel is for")],
)
def test_the_hint_for_a_slow_guest_names_the_option_to_set(
    scenario: str, hint: str, start: Start
) -> None:
    fake = start(scenario)
    if scenario != "idle":
        fake.wait("exit")
    booted = _instance.Booted(fake.machine, cast("Any", SimpleNamespace(timeout=0.05)))
    with pytest.raises(SessionError, match="did not start within") as caught:
        booted.wait_until_ready()
    assert re.search(hint, caught.value.hint)


@pytest.mark.parametrize(("scenario", "silent"), [("idle", True), ("in-pieces", False)])
def test_a_guest_without_any_output_fails_before_its_timeout(
    scenario: str, silent: bool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serial, "_SILENT_TIMEOUT", 0.05)
    fake = start(scenario)
    if scenario != "idle":
        fake.wait("exit")
    booted = _instance.Booted(fake.machine, cast("Any", SimpleNamespace(timeout=0.2)))
    expected = "the guest printed nothing within 0.05 s" if silent else "did not start within 0.2 s"
    with pytest.raises(SessionError, match=expected):
        booted.wait_until_ready()


@pytest.mark.parametrize("option", ["kernel", "initrd", "modules"])
def test_a_folder_in_place_of_a_file_is_refused_and_vice_versa(option: str, tmp_path: Path) -> None:
    wrong = tmp_path / "file"
    wrong.write_bytes(b"")
    named = str(wrong if option == "modules" else tmp_path)
    options = {"kernel": str(FAKE), option: named}
    target = QemuTarget(**options)
    assert target._misplaced().startswith(f"{option} = {named} is not a ")
    assert QemuTarget()._misplaced() == ""


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("-cpu", "write cpu = …"),
        ("--smp", "write vcpus = …"),
        ("-M", "write machine = …"),
        ("-enable-kvm", "target's name"),
        ("-daemonize", "could not control QEMU"),
        ("--daemonize", "could not control QEMU"),
    ],
)
def test_arguments_that_would_make_evidence_untrue_are_refused(word: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"arguments: .*{text}"):
        QemuTarget(arguments=("-device", "virtio-rng-pci", word, "x"))
    assert QemuTarget(arguments=("-device", "virtio-rng-pci")).arguments


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("machine", "virt,dumpdtb=/tmp/x"),
        ("machine", "dumpdtb=x"),
        ("machine", "-q35"),
        ("cpu", "max,x=/tmp/x"),
        ("cpu", "../max"),
        ("cpu", "max,,avx2"),
    ],
)
def test_a_machine_and_a_cpu_are_names_without_paths(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option} = "):
        QemuTarget(**{option: value})


def test_a_cpu_may_have_features() -> None:
    target = QemuTarget(machine="pc-i440fx-7.2", cpu="host,+avx2,-hle,pmu=off,hv_spinlocks=0x1fff")
    assert target.machine == "pc-i440fx-7.2"


def test_modules_without_a_kernel_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="modules = /lib/modules: set kernel too"):
        QemuTarget(modules="/lib/modules")


def test_a_stopped_guest_is_an_error_with_the_monitors_reason(start: Start) -> None:
    fake = start("stop")
    with pytest.raises(SessionError, match="QEMU has stopped the guest: io-error"):
        fake.wait("ready")
    assert "io-error" in fake.machine.failure_reason()


def test_a_stopped_guest_is_an_error_even_if_the_monitor_does_not_reply(start: Start) -> None:
    fake = start("stopped-and-mute")
    with pytest.raises(SessionError, match="QEMU has stopped the guest: stopped"):
        fake.wait("ready")


def test_a_requested_stop_is_no_error(start: Start) -> None:
    fake = start("stop", negotiate=False)
    fake.machine.negotiate(running=False)
    assert fake.machine.command("query-version")["qemu"]["major"] == 7
    assert fake.machine.failure_reason() == ""


def test_a_panic_ends_the_waiting_and_its_message_is_printable(start: Start) -> None:
    fake = start("panic")
    panic = "the guest panicked: Kernel panic - not syncing: VFS: Unable to mount [31mroot fs"
    with pytest.raises(SessionError) as caught:
        fake.wait("ready")
    assert panic in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "end of the serial console" in str(caught.value)
    assert (
        fake.machine.process.poll() is None
    )  # QEMU itself goes on: so that waiting for its end would not help


def test_the_error_for_a_refused_command_quotes_the_monitor(start: Start) -> None:
    fake = start("idle")
    with pytest.raises(SessionError, match="QEMU refuses device_add: no such device"):
        fake.machine.command("device_add", {"driver": "nothing"})
    assert fake.machine.command("query-status")["status"] == "running"


def test_a_monitor_that_does_not_reply_is_an_error_at_the_timeout(start: Start) -> None:
    fake = start("mute", negotiate=False)
    with pytest.raises(SessionError, match=r"monitor does not answer \(query-version\)"):
        fake.machine.command("query-version", timeout=0.1)


def test_the_forwarded_port_is_read_from_the_monitor(start: Start) -> None:
    assert start("idle").machine.port() == 40123
    with pytest.raises(SessionError, match="forwards no port"):
        start("no-port").machine.port()


def test_the_error_for_refused_arguments_quotes_the_emulator(start: Start) -> None:
    with pytest.raises(SessionError, match=r"exit code 1; .*unsupported machine type"):
        start("refuse")


def test_the_hint_for_a_disk_without_o_direct_sets_the_cache_option(
    start: Start,
) -> None:
    with pytest.raises(SessionError) as caught:
        start("no-direct")
    assert 'cache = "writeback"' in caught.value.hint


def test_an_emulator_that_cannot_be_executed_is_an_error() -> None:
    with (
        pytest.raises(SessionError, match="cannot be executed"),
        _qemu.started(hardware(emulator="/nowhere/qemu"), _qemu.Boot()),
    ):
        pytest.fail("it was executed")


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("vanish", r"exit code 9; qemu-system-fake: something broke; .*isobench: init"),
        ("killed", "killed by signal 9"),
    ],
)
def test_the_error_for_an_emulator_that_ended_has_its_last_line_and_the_console(
    scenario: str, text: str, start: Start
) -> None:
    fake = start(scenario, negotiate=False)
    with pytest.raises(SessionError, match=text):
        fake.machine.negotiate()
        fake.wait("ready")
    assert "QEMU has ended" in fake.machine.failure_reason()
    with pytest.raises(SessionError, match="QEMU has ended"):
        fake.machine.command("query-version")
    with pytest.raises(SessionError, match="accepts no requests"):
        fake.machine.send(b"anything")


def test_a_flood_of_output_is_read_to_its_end_and_kept_in_part(start: Start) -> None:
    fake = start("flood")
    assert fake.wait("exit") == "0"
    out, err = fake.machine.output()
    assert len(out) == len(err) == processes.MAX_OUTPUT
    assert len(fake.machine.log) <= 1 << 16
    assert len(fake.machine._state.marks) <= 256
    assert sum(map(len, fake.chunks)) > 7 << 20  # all of it was passed on


def test_all_output_of_a_program_is_there_when_its_end_is_known(start: Start) -> None:
    for _ in range(5):
        fake = start("answer-and-end")
        assert fake.wait("exit") == "3"
        out, err = fake.machine.output()
        assert (len(out), len(err)) == (150_000, 100_000)
        assert fake.machine.output() == (b"", b"")


def test_garbage_on_the_console_has_no_effect(start: Start) -> None:
    fake = start("garbage")
    assert fake.wait("ready") == ""
    assert fake.machine.command("query-version")["qemu"]["minor"] == 2
    assert all(mark.isprintable() for mark in fake.marks)


def test_a_listener_that_raises_ends_the_waiting(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr("threading.excepthook", raised.append)
    monkeypatch.setattr(_serial, "_QUIT", 0.1)
    fake = start("in-pieces", negotiate=False)
    monkeypatch.setattr(fake, "on_mark", lambda _: 1 / 0)
    fake.machine.negotiate()
    with pytest.raises(SessionError, match="the guest has ended"):
        fake.wait("ready")
    assert raised[0].exc_type is ZeroDivisionError


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_while_it_starts_leaves_no_process(
    begun: bool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_qemu.Machine] = []
    listen = _qemu.Machine.listen

    def interrupted(machine: _qemu.Machine) -> None:
        made.append(machine)
        if begun:
            listen(machine)
        raise KeyboardInterrupt

    monkeypatch.setattr(_qemu.Machine, "listen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("idle")
    (machine,) = made
    assert machine.process.returncode is not None
    assert not machine._thread.is_alive()


def test_closing_leaves_no_process_and_no_thread(start: Start) -> None:
    fake = start("idle")
    machine = fake.machine
    machine.close()
    assert machine.process.returncode is not None
    assert not machine._thread.is_alive()
    assert "killed by signal 9" in machine.failure_reason()


def test_root_makes_qemu_nobody_and_an_ordinary_user_denies_it_to_be_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    most, *_, last = _qemu.confinements()
    assert most[most.index("-runas") + 1] == "65534:65534"
    assert "spawn=deny" in most[most.index("-sandbox") + 1]
    assert last == ()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    most, *_ = _qemu.confinements()
    assert most == (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )


def test_a_sandbox_in_the_users_arguments_is_the_only_one() -> None:
    for confinement in _qemu.confinements(("-sandbox", "off")):
        assert "-sandbox" not in confinement


def test_a_qemu_that_changes_its_user_is_ended_by_a_watcher() -> None:
    assert not hardware().changes_user
    assert replace(hardware(), confinement=("-runas", "65534:65534")).changes_user


def test_qemu_is_confined_as_much_as_its_version_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, ...]] = []

    def halted(_: object, given: _qemu.Hardware) -> str:
        tried.append(given.confinement)
        if "-sandbox" in given.confinement:
            raise SessionError("seccomp support is disabled")
        return "7.2.0"

    target = qemu.QemuTarget()
    monkeypatch.setattr(qemu.QemuTarget, "_halted_with", halted)
    monkeypatch.setattr(qemu.QemuTarget, "_hardware", lambda _: hardware())
    assert target._halted() == "7.2.0"
    assert "-sandbox" in tried[0]
    assert "-sandbox" not in tried[-1]
    assert [*tried] == [*_qemu.confinements()][: len(tried)]


def test_whatever_a_monitor_sends_is_bounded_and_ends_nothing() -> None:
    unstarted: Any = SimpleNamespace(poll=lambda: None)
    machine = _qemu.Machine(unstarted, {}, lambda _: None, lambda _: None)
    machine._replies[7] = None
    deep = b"[" * 100_000
    odd = (b'{"id": []}', b'{"id": {}}', b'{"event": []}', b'{"id": 7, "error": 1}', deep, b"\xff")
    for line in odd:
        machine._handle_other("qmp", line + b"\n")
    for number in range(100, 1000):
        machine._handle_other("qmp", b'{"id": %d, "return": "nobody has asked"}\n' % number)
    for _ in range(40):
        machine._handle_other("qmp", b"x" * (1 << 16))
    assert len(machine._partial_lines["qmp"]) == _qemu._LONGEST_LINE
    assert machine._replies == {7: None}
    machine._handle_other("qmp", b'\n{"id": 7, "return": {"status": "running"}}\n')
    answer = machine._replies[7]
    assert answer is not None
    assert answer.result == {"status": "running"}


@pytest.mark.parametrize("answer", [None, 1, [], {}, {"qemu": 7}, {"qemu": {"major": "seven"}}])
def test_a_monitor_without_a_version_is_an_error_of_the_target(
    answer: object, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = start("idle").machine
    assert machine.version() == "7.2.22"
    reply = _qemu._Message(result=answer)
    monkeypatch.setattr(machine, "_exchange", lambda *_, **__: reply)
    with pytest.raises(SessionError, match="tells no version"):
        machine.version()
    assert machine._status() == ""
