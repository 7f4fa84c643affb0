"""The `ssh` kind without a machine: options, command lines of presets, ~/.ssh/config."""

import base64
import contextlib
import errno
import fcntl
import itertools
import json
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isobench.evidence import prove
from isobench.model import Abi, Available, Evidence, Fact, Lack, Technology, Unavailable
from isobench.model.errors import SessionError, UsageError
from isobench.payload import stage
from isobench.plugins import deadlines, ownership
from isobench.plugins.api import Exclusive, Launcher, Restarter
from isobench.plugins.registry import Registry
from isobench.targets.machines import _machine, _ssh, _ssh_host, ssh
from isobench.targets.shared import closing, processes

STOPPED = {"start": "/bin/true", "stop": "/bin/true", "status": "/bin/false"}


def made(**options: Any) -> Any:
    return Registry({"box": {"kind": "ssh", "host": "box", **options}}).get("box")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_ssh_host, "_CONFIGURATION", ("~/.ssh/config", "/nowhere"))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


# ---- options -------------------------------------------------------------------------------------


def test_without_configuration_the_hint_shows_what_to_write() -> None:
    answer = Registry().get("ssh").probe()
    assert isinstance(answer, Unavailable)
    assert all(word in answer.hint for word in ("[targets.", 'kind = "ssh"', "host ="))


def test_a_command_is_a_list_and_a_string_is_split_as_by_a_shell() -> None:
    for start in ("up 'the box' $HOME;ls", ["up", "the box", "$HOME;ls"]):
        assert made(start=start, stop="down")._cycle.start == ("up", "the box", "$HOME;ls")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"directory": "tmp"}, "directory"),
        ({"directory": "/a b"}, "directory"),
        ({"directory": "/a;b"}, "directory"),
        ({"directory": "/a/../b"}, "directory"),
        ({"host": "-oProxyCommand=x"}, "host"),
        ({"host": "a b"}, "host"),
        ({"preset": "libvirt"}, "machine"),
        ({"machine": "debian"}, "preset"),
        ({"preset": "parallels", "machine": "x"}, "parallels"),
        ({"start": "up"}, "start and stop"),
        ({"status": "is-up"}, "start and stop"),
        ({"start": "up 'x", "stop": "down"}, "quotation"),
        ({"start_timeout": 0.0}, "start_timeout"),
        ({"class": "native"}, "native"),
        ({"port": 99999}, "port = 99999"),
        ({"port": -1}, "port = -1"),
        (
            {"expect": {"machine.vendr": "QEMU"}},
            r'no fact "machine.vendr"; use machine.vendor',
        ),
        ({"expect": {"colour": 1}}, r"no fact .*machine.vendor"),
        ({"isa": "sparc"}, "sparc"),
        ({"preset": "libvirt", "machine": "-x"}, "machine"),
    ],
)
def test_an_invalid_option_is_refused_with_its_table(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        made(**options)
    assert "[targets.box]" in str(caught.value)


def test_the_class_is_that_of_the_preset_unless_it_is_configured() -> None:
    assert made().technology is Technology.VIRTUALIZATION
    assert made(preset="wsl-1", machine="d").technology is Technology.TRANSLATION
    given = made(preset="libvirt", machine="d", **{"class": "emulation"})
    assert given.technology is Technology.EMULATION


def test_only_a_machine_with_start_and_stop_commands_is_started() -> None:
    for target, expected in ((made(), False), (made(**STOPPED), True)):
        assert isinstance(target, Exclusive)
        assert target.exclusive is expected
        assert isinstance(target, Launcher)
        assert not isinstance(target, Restarter)
        assert ("not measured" in target.starts["cold"]) is not expected


def test_a_machine_that_does_not_run_is_not_started_by_the_probe(tmp_path: Path) -> None:
    target = made(**STOPPED | {"start": f"touch {tmp_path}/started"})
    assert isinstance(target.probe(), Available)
    assert not (tmp_path / "started").exists()


def test_a_missing_tool_is_named() -> None:
    answer = made(preset="esxi", machine="debian", tool="/no/govc").probe()
    assert answer == Unavailable(lack=Lack.TOOL, what="/no/govc", hint=answer.hint)


def test_the_isa_is_this_hosts_until_it_is_known() -> None:
    assert made().abi is None
    assert made(isa="riscv64").abi is Abi.ELF_RISCV64


# ---- expectations --------------------------------------------------------------------------------

X86: dict[str, Fact] = {
    "kernel.boot_id": "inside",
    "kernel.version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1",
    "machine": "x86_64",
    "cpu.hypervisor_bit": True,
    "cpu.hypervisor": "KVMKVMKVM",
    "cpu.vendor": "GenuineIntel",
    "host.canary_readable": False,
}
HARDWARE = {"cpu.hypervisor_bit": False, "cpu.hypervisor": ""}
VMWARE = {"cpu.hypervisor": "VMwareVMware"}
VBOX = {"machine.product": "VirtualBox"}
HYPER_V: dict[str, Fact] = {
    "cpu.hypervisor": "Microsoft Hv",
    "machine.vendor": "Microsoft Corporation",
    "machine.product": "Virtual Machine",
}
WSL_2 = {"cpu.hypervisor": "Microsoft Hv", "kernel.release": "5.15.90.1-microsoft-standard-WSL2"}
WSL_1 = {"kernel.release": "4.4.0-19041-Microsoft"} | HARDWARE
TCG = {"cpu.hypervisor": "TCGTCGTCGTCG"}
GVISOR = {"kernel.version": "#1 SMP Sun Jan 10 15:06:54 PST 2016"}  # so does it
UML = {"cpu.vendor": "User Mode Linux"}  # CPUID shows the hypervisor of its host


@pytest.mark.parametrize(
    ("options", "facts", "kept"),
    [
        ({}, {}, True),
        ({}, HARDWARE, False),
        ({}, TCG, False),
        ({}, {"cpu.hypervisor": ""}, False),
        ({}, UML, False),
        ({}, GVISOR, False),
        ({"preset": "libvirt"}, GVISOR, False),
        ({"class": "paravirtual"}, UML, True),
        ({"class": "paravirtual"}, UML | {"kernel.boot_id": "outside"}, False),
        ({}, {"kernel.boot_id": "outside"}, False),
        ({}, {"host.canary_readable": True}, False),
        ({"class": "emulation"}, TCG, True),
        ({"class": "emulation"}, {}, False),
        ({"class": "emulation"}, HARDWARE, False),
        ({"preset": "libvirt"}, {}, True),
        ({"preset": "libvirt"}, TCG, False),
        ({"preset": "libvirt"}, {"cpu.hypervisor": ""}, False),
        ({"preset": "libvirt", "class": "emulation"}, TCG, True),
        ({"preset": "esxi"}, VMWARE, True),
        ({"preset": "vsphere"}, {}, False),
        ({"preset": "vmware-workstation"}, VMWARE, True),
        ({"preset": "vmware-workstation"}, HYPER_V, False),
        ({"preset": "virtualbox"}, VBOX, True),
        ({"preset": "virtualbox"}, {}, False),
        ({"preset": "hyper-v"}, HYPER_V, True),
        ({"preset": "hyper-v"}, WSL_2, False),
        ({"preset": "wsl"}, WSL_2, True),
        ({"preset": "wsl"}, WSL_1, False),
        ({"preset": "wsl"}, HYPER_V, False),
        ({"preset": "wsl-1"}, WSL_1, True),
        ({"preset": "wsl-1"}, WSL_2, False),
        ({"class": "sandbox"}, {"ns.pid": "pid:[2]", "kernel.boot_id": "outside"}, True),
        ({"class": "sandbox"}, {"ns.pid": "pid:[1]"}, False),
        ({"expect": {"machine.product": "KVM Server"}}, {}, False),
        ({"expect": {"machine.product": "KVM Server"}}, {"machine.product": "KVM Server"}, True),
    ],
)
def test_evidence_that_contradicts_class_or_preset_breaks_an_expectation(
    options: dict[str, Any], facts: dict[str, Fact], kept: bool
) -> None:
    preset = options.get("preset")
    machine = "/vm/d.vmx" if preset == "vmware-workstation" else "d"
    more = {"machine": machine} if preset else {}
    target = made(isa="x86_64", **options, **more)
    outside = prove.gather(evidence({"kernel.boot_id": "outside", "ns.pid": "pid:[1]"}))
    inside = prove.gather(evidence(X86 | facts))
    assert (
        prove.unmet(prove.check(target.expectations, host=outside, inside=inside)) == ""
    ) is kept


@pytest.mark.parametrize(
    ("options", "facts", "hint"),
    [
        ({}, HARDWARE, 'class = "virtualization"'),
        ({"preset": "virtualbox", "machine": "d"}, {}, 'preset = "virtualbox"'),
        ({"expect": {"machine.product": "KVM Server"}}, {}, "expect"),
        ({}, {"machine": "aarch64"}, 'isa = "x86_64"'),
    ],
)
def test_a_broken_expectation_names_the_option_that_is_contradicted(
    options: dict[str, Any], facts: dict[str, Fact], hint: str
) -> None:
    outside = prove.gather(evidence({"kernel.boot_id": "outside"}))
    inside = prove.gather(evidence(X86 | facts))
    checks = prove.check(made(isa="x86_64", **options).expectations, host=outside, inside=inside)
    assert prove.hints(checks) == f"fix {hint} in isobench.toml: facts of box contradict it"


def test_every_fact_can_be_expected() -> None:
    keys = ("ns.pid", "machine", "cpu.hypervisor_bit", "host.ssh_server", "kernel.release")
    assert set(made(expect=dict.fromkeys(keys, "x")).expect) == set(keys)


def evidence(facts: dict[str, Fact]) -> list[Any]:
    return [Evidence(key=key, value=value, source="") for key, value in facts.items()]


def test_without_cpuid_an_expectation_about_the_firmware_is_required() -> None:
    silent = made(isa="aarch64", **STOPPED).probe()
    assert isinstance(silent, Unavailable)
    assert "expect" in silent.hint
    stated = made(isa="aarch64", expect={"machine.model": "linux,dummy-virt"}, **STOPPED).probe()
    assert isinstance(stated, Available)


# ---- presets -------------------------------------------------------------------------------------

VMX = "/home/me/vm ware/d.vmx"
POWERSHELL = ("powershell.exe", "-NoProfile", "-NonInteractive", "-EncodedCommand")
WORDS = {
    "libvirt": (
        ("virsh", "start", "--domain", "d e"),
        ("virsh", "shutdown", "--domain", "d e"),
        ("virsh", "domstate", "--domain", "d e"),
    ),
    "esxi": (
        ("govc", "vm.power", "-on", "d e"),
        ("govc", "vm.power", "-s", "d e"),
        ("govc", "vm.info", "d e"),
    ),
    "vsphere": (
        ("govc", "vm.power", "-on", "d e"),
        ("govc", "vm.power", "-s", "d e"),
        ("govc", "vm.info", "d e"),
    ),
    "vmware-workstation": (
        ("vmrun", "-T", "ws", "start", VMX, "nogui"),
        ("vmrun", "-T", "ws", "stop", VMX, "soft"),
        ("vmrun", "-T", "ws", "list"),
    ),
    "virtualbox": (
        ("VBoxManage", "startvm", "d e", "--type", "headless"),
        ("VBoxManage", "controlvm", "d e", "acpipowerbutton"),
        ("VBoxManage", "showvminfo", "d e", "--machinereadable"),
    ),
    "hyper-v": (
        (*POWERSHELL, "Start-VM -Name 'd e'"),
        (*POWERSHELL, "Stop-VM -Name 'd e' -Confirm:$false"),
        (*POWERSHELL, "[string](Get-VM -Name 'd e').State"),
    ),
    "wsl": (
        (
            *("wsl.exe", "--distribution", "d", "--user", "root", "--exec"),
            *("/usr/bin/setsid", "--fork", "/usr/bin/sleep", "infinity"),
        ),
        ("wsl.exe", "--terminate", "d"),
        ("wsl.exe", "--list", "--running", "--quiet"),
    ),
}
WORDS["wsl-1"] = WORDS["wsl"]
NAMED = {"vmware-workstation": VMX, "wsl": "d", "wsl-1": "d"}


def readable(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words, PowerShell's script decoded and without its preamble."""
    if "-EncodedCommand" not in words:
        return words
    script = base64.b64decode(words[-1]).decode("utf-16-le")
    preamble, _, rest = script.partition("; ")
    assert preamble == "$ErrorActionPreference = 'Stop'"
    return (*words[:-1], rest)


@pytest.mark.parametrize("name", list(_machine.PRESETS))
def test_each_preset_has_exactly_these_commands(name: str) -> None:
    cycle = _machine.from_preset(name, NAMED.get(name, "d e"))
    commands = tuple(readable(words) for words in (cycle.start, cycle.stop, cycle.status))
    assert commands == WORDS[name]


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("libvirt", "--all"),
        ("libvirt", ""),
        ("esxi", "-x"),
        ("vmware-workstation", "d"),
        ("vmware-workstation", "/a\nb.vmx"),
        ("virtualbox", "-x"),
        ("hyper-v", "*"),
        ("hyper-v", "a'; Remove-Item x; '"),
        ("hyper-v", "a\u2019b"),
        ("wsl", "a b"),
        ("wsl", "a;b"),
    ],
)
def test_a_name_that_a_tool_could_take_for_something_else_is_refused(
    name: str, machine: str
) -> None:
    with pytest.raises(ValueError, match="machine"):
        _machine.from_preset(name, machine)


def test_a_configured_tool_replaces_the_presets() -> None:
    tool = ("virsh", "-c", "qemu:///system")
    assert _machine.from_preset("libvirt", "d", tool).stop == (*tool, "shutdown", "--domain", "d")


def test_a_name_sent_over_ssh_must_be_one_plain_word() -> None:
    tool = ("ssh", "hypervisor", "virsh")
    with pytest.raises(ValueError, match="machine"):
        _machine.from_preset("libvirt", "d $(reboot)", tool)
    assert _machine.from_preset("libvirt", "d", tool).start[-1] == "d"


OUTPUTS = {
    "libvirt": ("running\n\n", "shut off\n\n"),
    "esxi": ("  Power state:  poweredOn\n", "  Power state:  poweredOff\n"),
    "vsphere": ("  Power state:  poweredOn\n", "  Power state:  poweredOff\n"),
    "vmware-workstation": (f"Total running VMs: 1\n{VMX}\n", "Total running VMs: 1\n/other.vmx\n"),
    "virtualbox": ('name="d"\nVMState="running"\n', 'name="running"\nVMState="poweroff"\n'),
    "hyper-v": ("Running\r\n", "Off\r\n"),
    "wsl": ("other\r\nd\r\n", "debian\r\n"),
    "wsl-1": ("d\r\n", ""),
}


@pytest.mark.parametrize("name", list(_machine.PRESETS))
@pytest.mark.parametrize("wide", [False, True])
def test_the_status_output_of_each_tool_is_understood(
    name: str, wide: bool, tmp_path: Path
) -> None:
    cycle = _machine.from_preset(name, NAMED.get(name, "d e"))
    for text, runs in zip(OUTPUTS[name], (True, False), strict=True):
        (tmp_path / "output").write_bytes(text.encode("utf-16-le" if wide else "utf-8"))
        status = _machine.LifeCycle(
            start=(),
            stop=(),
            status=("cat", str(tmp_path / "output")),
            running_pattern=cycle.running_pattern,
            off_pattern=cycle.off_pattern,
        )
        assert _machine._is_running(status) is runs


BETWEEN = {
    "libvirt": ("paused\n\n", "in shutdown\n\n", "crashed\n\n", "laufend\n\n", ""),
    "esxi": ("  Power state:  suspended\n  Boot time: x\n", ""),
    "vsphere": ("  Power state:  suspended\n", ""),
    "vmware-workstation": ("",),
    "virtualbox": ('VMState="paused"\n', 'VMState="saved"\n', 'VMState="stopping"\n', ""),
    "hyper-v": ("Paused\r\n", "Saved\r\n", ""),
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BETWEEN.items() for text in texts]
)
def test_a_state_that_is_neither_running_nor_off_is_an_error_that_shows_it(
    name: str, text: str, tmp_path: Path
) -> None:
    fake = status(tmp_path, text)
    cycle = replace(_machine.from_preset(name, NAMED.get(name, "d e")), status=(fake,))
    with pytest.raises(_machine.StateError, match="neither runs nor is off") as caught:
        _machine._is_running(cycle)
    assert text.strip().partition("\n")[0] in str(caught.value)


def status(folder: Path, text: str, code: int = 0) -> str:
    """A status command with this output and exit code."""
    fake = folder / "status"
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
    fake.chmod(0o755)
    return str(fake)


@pytest.mark.parametrize("name", list(_machine.PRESETS))
@pytest.mark.parametrize("code", [1, 127])
def test_a_tool_that_fails_knows_nothing_about_the_machine(
    name: str, code: int, tmp_path: Path
) -> None:
    for text in (*OUTPUTS[name], "error: failed to connect to the hypervisor\n"):
        fake = status(tmp_path, text, code)
        cycle = replace(_machine.from_preset(name, NAMED.get(name, "d e")), status=(fake,))
        with pytest.raises(_machine.StateError, match="not known"):
            _machine._is_running(cycle)


def test_the_output_of_a_tool_is_in_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    words = ("sh", "-c", 'test "$LC_ALL$LANGUAGE" = C.UTF-8 && echo running')
    cycle = replace(_machine.from_preset("libvirt", "d"), status=words)
    assert _machine._is_running(cycle)


@pytest.mark.parametrize("code", [1, 2, 125, 255])
def test_the_users_own_status_command_shows_a_machine_that_is_off_by_any_exit_code(
    code: int,
) -> None:
    cycle = _machine.LifeCycle(start=(), stop=(), status=("sh", "-c", f"exit {code}"))
    assert not _machine._is_running(cycle)


@pytest.mark.parametrize(
    "words", [("/no/such",), ("sh", "-c", "/no/such"), ("sh", "-c", "kill -9 $$")]
)
def test_the_users_own_status_command_that_is_not_executed_shows_nothing(
    words: tuple[str, ...],
) -> None:
    cycle = _machine.LifeCycle(start=(), stop=(), status=words)
    with pytest.raises(_machine.StateError, match="not known"):
        _machine._is_running(cycle)


def test_a_status_command_by_ssh_that_reaches_no_host_shows_nothing(tmp_path: Path) -> None:
    (tmp_path / "ssh").symlink_to(status(tmp_path, "", 255))
    cycle = _machine.LifeCycle(start=(), stop=(), status=(str(tmp_path / "ssh"), "host", "is-up"))
    with pytest.raises(_machine.StateError, match="not known"):
        _machine._is_running(cycle)


def virsh(folder: Path, state: str, *, code: int = 0, already: str = "") -> Path:
    """A fake virsh whose domain is in this state; `already`: the state after a start that fails."""
    (folder / "state").write_text(state + "\n")
    tool = folder / "virsh"
    tool.write_text(
        f"#!/bin/sh\necho $1 >> {folder}/calls\ncase $1 in\n"
        f"domstate) cat {folder}/state; exit {code};;\n"
        f"start) [ -z '{already}' ] || echo '{already}' > {folder}/state\n"
        f"  echo 'error: Domain is already active'; exit 1;;\n"
        f"shutdown) echo 'shut off' > {folder}/state;;\nesac\n"
    )
    tool.chmod(0o755)
    return tool


def calls(folder: Path) -> list[str]:
    """What the fake virsh was asked to do, apart from its state."""
    return [word for word in (folder / "calls").read_text().split() if word != "domstate"]


@pytest.mark.parametrize(
    ("state", "code", "why"),
    [("paused", 0, "neither runs nor is off.*'paused'"), ("error: no", 1, "not known.*error: no")],
)
@pytest.mark.parametrize("begin", ["", "begin"])
def test_a_machine_that_may_be_somebody_elses_is_neither_started_nor_stopped(
    state: str, code: int, why: str, begin: str, tmp_path: Path
) -> None:
    tool = virsh(tmp_path, state, code=code)
    target = made(preset="libvirt", machine="d", tool=str(tool))
    answer = target.probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.SERVICE
    assert "by hand" in answer.hint
    with (
        pytest.raises(SessionError, match=why),
        target._life.keep_running(lambda _: None, begin=begin),
    ):
        pass
    assert (calls(tmp_path), notes()) == ([], [])


@pytest.mark.parametrize(
    ("after", "asked", "more"),
    [
        ("shut off", ["start"], ""),
        ("paused", ["start"], "it stays as it is"),
        ("running", ["start", "shutdown"], ""),
    ],
)
def test_a_start_that_fails_is_undone_only_if_the_machine_runs_then(
    after: str, asked: list[str], more: str, tmp_path: Path
) -> None:
    tool = virsh(tmp_path, "shut off", already=after)
    life = made(preset="libvirt", machine="d", tool=str(tool))._life
    with (
        pytest.raises(SessionError, match=f"cannot be started.*{more}"),
        life.keep_running(lambda _: None),
    ):
        pass
    assert (calls(tmp_path), notes()) == (asked, [])


def test_without_a_status_command_a_start_that_fails_is_not_undone(tmp_path: Path) -> None:
    box = machine(tmp_path / "state")
    cycle = replace(box.cycle, start=("false",), stop=("touch", f"{tmp_path}/stopped"), status=())
    with (
        pytest.raises(SessionError, match="it stays as it is"),
        replace(box, cycle=cycle).keep_running(lambda _: None),
    ):
        pass
    assert not (tmp_path / "stopped").exists()
    assert notes() == []


def test_a_start_that_fails_and_cannot_be_undone_keeps_the_note(tmp_path: Path) -> None:
    state = tmp_path / "state"
    box = machine(state)
    cycle = replace(box.cycle, start=("sh", "-c", f"touch {state}; exit 1"), stop=("false",))
    with (
        pytest.raises(SessionError, match=r"cannot be started.*cannot be stopped"),
        replace(box, cycle=cycle).keep_running(lambda _: None),
    ):
        pass
    assert len(notes()) == 1


def test_a_machine_whose_state_is_unknown_for_a_while_is_waited_for(tmp_path: Path) -> None:
    box = machine(tmp_path / "state")
    answers: Iterator[bool | None] = iter([None, True, None, False])

    def is_running() -> bool:
        answer = next(answers)
        if answer is None:
            raise _machine.StateError("in shutdown")
        return answer

    assert _machine._wait_until_off(is_running, box.stop_timeout) == ""
    assert [*answers] == []


# ---- commands and notes --------------------------------------------------------------------------


def test_a_command_ends_at_its_time_limit_and_background_processes_run_on() -> None:
    assert _machine.execute(["sleep", "60"], timeout=0.1)[0] is None
    assert _machine.execute(["sh", "-c", "sleep 5 & echo on"], timeout=4) == (0, "on")
    assert _machine.execute(["/no/such"], timeout=1)[0] == 127


def test_a_command_ends_with_the_call_that_waits_for_it() -> None:
    with deadlines.watched(60) as call:
        threading.Timer(0.2, call.cancel).start()
        code, _ = _machine.execute(["sleep", "600"], timeout=500)
    assert code is None


def test_a_machine_whose_start_is_not_undone_in_time_keeps_its_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([(None, "too late"), (None, "too late, too")])
    states = iter([False, True])
    box = machine(tmp_path / "state")
    monkeypatch.setattr(box, "is_running", lambda: next(states))
    monkeypatch.setattr(_machine, "execute", lambda *_, **__: next(answers))
    both = "cannot be started.*cannot be stopped"
    with pytest.raises(SessionError, match=both), box.keep_running(lambda _: None):
        pass
    assert len(notes()) == 1


def notes() -> list[Path]:
    return [*_machine._notes().glob("*.json")]


def machine(state: Path) -> _machine.Machine:
    """A machine that is a file: it runs while the file exists."""
    return _machine.Machine(
        cycle=_machine.LifeCycle(
            start=("touch", str(state)), stop=("rm", str(state)), status=("test", "-e", str(state))
        ),
        is_reachable=state.exists,
        start_timeout=5,
        stop_timeout=5,
    )


def test_a_machine_is_locked_while_it_is_used_and_unlocked_afterwards(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first, second = machine(state), machine(state)
    with first.keep_running(lambda _: None):
        with first.keep_running(lambda _: None):  # sessions of one target share it
            assert state.exists()
        with (
            pytest.raises(SessionError, match="another isobench"),
            second.keep_running(lambda _: None),
        ):
            pass
        assert state.exists()
    assert not state.exists()
    with second.keep_running(lambda _: None):
        assert state.exists()
    assert not state.exists()


def stubborn(state: Path) -> _machine.Machine:
    """A machine that starts and cannot be stopped."""
    made = machine(state)
    return replace(made, cycle=replace(made.cycle, stop=("false",)))


def test_the_first_error_comes_first_if_the_machine_cannot_be_stopped_either(
    tmp_path: Path,
) -> None:
    box = stubborn(tmp_path / "state")
    both = "lost; and the machine cannot be stopped"
    with pytest.raises(SessionError, match=both) as caught, box.keep_running(lambda _: None):
        raise SessionError("the connection is lost", hint="check the cable")
    assert caught.value.hint == "check the cable"
    with (
        pytest.raises(SessionError, match=r"^the machine cannot be"),
        box.keep_running(lambda _: None),
    ):
        pass


def test_ctrl_c_is_not_replaced_by_the_error_of_a_machine_that_cannot_be_stopped(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        stubborn(tmp_path / "state").keep_running(lambda _: None),
    ):
        raise KeyboardInterrupt


def test_a_machine_that_did_not_stop_and_one_of_the_user_give_different_errors(
    tmp_path: Path,
) -> None:
    box = stubborn(tmp_path / "state")
    with pytest.raises(SessionError, match="cannot be stopped"), box.keep_running(lambda _: None):
        pass
    ours = "could not be stopped after its last use"
    with pytest.raises(SessionError, match=ours), box.keep_running(lambda _: None, begin="begin"):
        pass
    foreign = machine(tmp_path / "other")
    (tmp_path / "other").touch()
    running = pytest.raises(SessionError, match="is running")
    with running as caught, foreign.keep_running(lambda _: None, begin="begin"):
        pass
    assert "only machines that it has started" in caught.value.hint


def test_a_machine_that_cannot_be_started_is_unlocked(tmp_path: Path) -> None:
    broken = machine(tmp_path / "nowhere" / "state")
    for _ in range(2):
        with (
            pytest.raises(SessionError, match="cannot be started"),
            broken.keep_running(lambda _: None),
        ):
            pass


@pytest.mark.parametrize(
    ("stop", "status", "line", "kept"),
    [
        ("/bin/true", (), "machine (", False),
        ("/bin/true", ("/bin/false",), "note of a machine that no longer runs", False),
        ("/bin/false", ("/bin/true",), "machine that isobench started", True),
        ("/bin/true", ("/bin/true",), "machine that isobench started", True),
    ],
)
def test_machines_of_dead_runs_are_stopped_and_those_of_living_runs_are_not(
    stop: str, status: tuple[str, ...], line: str, kept: bool
) -> None:
    path = _machine._write(_machine.LifeCycle(start=("x",), stop=(stop,), status=status), 0.5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _machine.sweep(lambda _: True) == []
    (left,) = map(str, _machine.sweep(lambda _: False))
    assert line in left
    assert path.exists() is kept
    assert _machine.sweep(lambda _: False) == []  # of another target of this kind


@pytest.mark.parametrize(("state", "code"), [("error: no", 1), ("paused", 0)])
def test_the_note_of_a_machine_whose_state_is_not_known_stays(
    state: str, code: int, tmp_path: Path
) -> None:
    tool = virsh(tmp_path, state, code=code)
    path = _machine._write(_machine.from_preset("libvirt", "d", (str(tool),)), 0.5)
    (left,) = _machine.sweep(lambda _: False)
    assert left.failure
    assert state in left.failure
    assert "by hand" in left.failure
    assert path.exists()
    assert calls(tmp_path) == []


def test_the_note_of_a_machine_whose_status_command_is_gone_stays(tmp_path: Path) -> None:
    cycle = _machine.LifeCycle(start=("x",), stop=("true",), status=(str(tmp_path / "gone"),))
    path = _machine._write(cycle, 0.5)
    (left,) = _machine.sweep(lambda _: False)
    assert "not known" in left.failure
    assert path.exists()


def test_a_machine_that_a_living_isobench_uses_is_not_swept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    user = machine(state)
    path = _machine._write(user.cycle, 5)
    path = path.rename(path.with_name("of-the-dead.json"))
    note = json.loads(path.read_bytes())
    path.write_text(json.dumps(note | {"owner": "isobench-of-the-dead"}))
    with user.keep_running(lambda _: None):
        assert _machine.sweep(lambda _: False) == []
        assert (state.exists(), path.exists()) == (True, True)
    assert state.exists()  # it ran before
    (left,) = _machine.sweep(lambda _: False)
    assert left.what.startswith("machine (")
    assert (state.exists(), path.exists()) == (False, False)


def test_an_interrupted_isobench_sweeps_what_its_own_thread_still_holds(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with machine(state).keep_running(lambda _: None):
        _machine.sweep(lambda whose: whose != ownership.mine())
        assert (state.exists(), notes()) == (False, [])
        state.touch()  # for the stop command


def test_a_machine_is_not_stopped_after_a_boot_of_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.touch()  # whoever started it
    monkeypatch.setattr(ownership, "boot_id", lambda: "before")
    path = _machine._write(machine(state).cycle, 5)
    monkeypatch.setattr(ownership, "boot_id", lambda: "now")
    (left,) = _machine.sweep(lambda _: False)
    assert "before this host was booted" in left.what
    assert (left.failure, state.exists(), path.exists()) == ("", True, False)


@pytest.mark.parametrize("boot", ["", "now"])
def test_a_machine_of_this_boot_or_of_an_unknown_one_is_stopped(
    boot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.touch()
    monkeypatch.setattr(ownership, "boot_id", lambda: boot)
    path = _machine._write(machine(state).cycle, 5)
    monkeypatch.setattr(ownership, "boot_id", lambda: "now")
    _machine.sweep(lambda _: False)
    assert not state.exists()
    assert not path.exists()


def test_the_note_of_a_machine_that_runs_on_stays_when_the_cache_is_removed() -> None:
    cycle = _machine.LifeCycle(start=("x",), stop=("false",), status=("true",))
    path = _machine._write(cycle, 0.5)
    (left,) = _machine.sweep(lambda _: False)
    assert left.failure
    stage.remove_cache()
    assert path.exists()


# ---- ~/.ssh/config -------------------------------------------------------------------------------


@pytest.fixture
def config(home: Path) -> Callable[[str], None]:
    return lambda text: (home / ".ssh" / "config").write_text(text) and None


def test_a_host_without_configuration_is_reached_by_its_name(home: Path) -> None:
    to = _ssh_host.address("10.0.0.7")
    assert (to.name, to.port, to.keys, to.jumps, to.command) == ("10.0.0.7", 22, (), (), "")
    assert home / ".ssh" / "known_hosts" in to.known_hosts


def key_file(path: Path, password: bytes = b"") -> Path:
    kind = serialization.BestAvailableEncryption(password) if password else None
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        kind or serialization.NoEncryption(),
    )
    path.write_bytes(text)
    return path


def test_the_command_in_a_hint_makes_the_same_login(home: Path) -> None:
    key = key_file(home / "my key")
    to = _ssh_host.address("127.0.0.1", user="me", port=1, key=str(key))
    assert _ssh_host.login_command(to) == f"ssh -p 1 -i '{key}' me@127.0.0.1"
    target = made(host="127.0.0.1", user="me", port=1, key=str(key))
    assert target.probe().hint == _ssh_host.login_command(to)


def test_the_error_for_a_missing_key_has_its_path(home: Path) -> None:
    answer = made(key="/no/key").probe()
    assert isinstance(answer, Unavailable)
    assert "/no/key" in answer.what
    assert "key" in answer.hint


@pytest.mark.parametrize(
    ("error", "password", "text"),
    [
        (paramiko.SSHException("not a valid OPENSSH private key file"), None, "no private key"),
        (paramiko.PasswordRequiredException("Private key file is encrypted"), b"x", "encrypted"),
    ],
)
def test_the_error_for_an_unusable_key_has_its_path_and_the_problem(
    error: Exception, password: bytes | None, text: str, home: Path
) -> None:
    path = home / "key"
    path.write_text("root:x:0:0\n") if password is None else key_file(path, password)
    found = _ssh_host._login_error(_ssh_host.address("box", key=str(path)), error)
    assert str(path) in str(found)
    assert text in str(found)
    assert not isinstance(found, _ssh_host.UnreachableError | _ssh_host.RefusedError)
    assert "none of the keys" not in str(found)
    assert ("ssh-add" in found.hint) is bool(password)


def test_a_valid_key_that_the_server_refuses_gives_the_servers_message(home: Path) -> None:
    to = _ssh_host.address("box", user="me", key=str(key_file(home / "key")))
    error = _ssh_host._login_error(to, paramiko.AuthenticationException("go away"))
    assert isinstance(error, _ssh_host.RefusedError)
    assert "accepts none of the keys for me: go away" in str(error)
    assert f"-i {home}/key me@box" in error.hint


def test_options_take_precedence_over_the_configuration_of_ssh(
    home: Path, config: Callable[[str], None]
) -> None:
    config(
        "Host box\n HostName Box.Example\n Port 2200\n User me\n IdentityFile ~/k\n"
        " IdentitiesOnly yes\n UserKnownHostsFile ~/mine\n ProxyCommand relay %h %p\n"
    )
    to = _ssh_host.address("box")
    assert (to.name, to.port, to.user) == ("Box.Example", 2200, "me")
    assert (to.keys, to.only_these_keys) == ((home / "k",), True)
    assert to.known_hosts[0] == home / "mine"
    assert to.command == "relay Box.Example 2200"
    assert to.listed_as == "[box.example]:2200"
    (home / "k2").touch()
    other = _ssh_host.address("box", user="root", port=22, key="~/k2")
    assert (other.user, other.port, other.keys) == ("root", 22, (home / "k2",))
    assert other.listed_as == "box.example"


def test_included_files_count_where_they_are_named(
    home: Path, config: Callable[[str], None]
) -> None:
    config("Include conf.d/*\nHost box\n User late\n")
    (home / ".ssh" / "conf.d").mkdir()
    (home / ".ssh" / "conf.d" / "a").write_text("Host box\n User early\nInclude conf.d/a\n")
    assert _ssh_host.address("box").user == "early"


def test_a_jump_host_is_not_reached_through_itself(config: Callable[[str], None]) -> None:
    config("Host *\n ProxyJump me@gate:2222\n")
    assert _ssh_host.address("box").jumps == ("me@gate:2222",)
    assert _ssh_host.address("gate").jumps == ()


@pytest.mark.parametrize("none", ["ProxyJump none", "ProxyCommand none"])
def test_proxyjump_none_and_proxycommand_none_mean_a_direct_connection(
    none: str, config: Callable[[str], None]
) -> None:
    config(f"Host box\n {none}\nHost *\n ProxyCommand relay\n")
    to = _ssh_host.address("box")
    assert (to.jumps, to.command) == ((), "")


def test_an_alias_of_a_host_key_has_no_port(config: Callable[[str], None]) -> None:
    config("Host box\n Port 2200\n HostKeyAlias the-box\n")
    assert _ssh_host.address("box").listed_as == "the-box"


def test_a_helper_that_a_proxy_command_leaves_is_not_marked_as_isobenchs() -> None:
    """Other sessions of the user may share it, and a sweep would end it."""
    with contextlib.ExitStack() as stack:
        link = _ssh_host._through_command("sh -c 'printenv ISOBENCH_TIED; echo end'", stack)
        link.settimeout(60)
        assert link.makefile().readline() == "end\n"
    assert "ISOBENCH_TIED" in processes.tied()


def test_a_proxy_command_may_print_errors_without_end_and_the_last_line_is_shown() -> None:
    more = "yes error | head -n 50000 >&2; echo end; echo no route >&2"
    with contextlib.ExitStack() as stack:
        link = _ssh_host._through_command(f"sh -c '{more}'", stack)
        link.settimeout(60)
        assert link.makefile().readline() == "end\n"
        link.errors._thread.join(60)
        why = _ssh_host._why(EOFError(), link)
    assert why == "EOFError: the ProxyCommand printed 'no route'"


def test_a_helper_that_holds_the_standard_error_of_a_proxy_command_ends_no_later() -> None:
    with contextlib.ExitStack() as stack:
        link = _ssh_host._through_command("sh -c '(setsid sleep 5 &); echo end'", stack)
        link.settimeout(60)
        assert link.makefile().readline() == "end\n"
    assert not link.errors._thread.is_alive()


def test_a_banner_is_awaited_whatever_the_number_of_its_socket() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2048:
        pytest.skip("no numbers above 1023 here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    kept: list[int] = []
    try:
        # select(2) takes none above 1023.
        kept += [fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, number) for number in range(3, 1024)]
        with socket.create_server(("127.0.0.1", 0)) as server:

            def greet() -> None:
                with server.accept()[0] as there:
                    there.sendall(b"SSH-2.0-x\r\n")

            waiting = threading.Thread(target=greet, daemon=True)
            waiting.start()
            with _ssh.banner(server.getsockname(), timeout=20) as link:
                assert link.fileno() > 1023
            waiting.join(20)
    finally:
        for number in kept:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---- whether a machine answers -------------------------------------------------------------------


@contextlib.contextmanager
def answering(*pieces: bytes, closes: bool = False) -> Iterator[_ssh_host.Address]:
    """Serve a port that sends these pieces, one after the other, and then nothing more."""
    over = threading.Event()

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                there, _ = server.accept()
                with there:
                    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for piece in pieces:
                        there.sendall(piece)
                        over.wait(0.05)
                    if not closes:
                        over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        try:
            yield _ssh_host.address("127.0.0.1", port=server.getsockname()[1])
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"SSH-2.0-x\r\n",),
        (b"SS", b"H-", b"2.0-x\r\n"),
        (b"Authorized use only\r\n", b"\r\nSSH", b"-2.0-x\r\n"),
        (b"x" * 5000 + b"\r\nSSH-2.0-x\r\n",),
    ],
)
def test_a_banner_may_come_in_pieces_and_after_other_lines(pieces: tuple[bytes, ...]) -> None:
    with answering(*pieces) as to:
        assert _ssh_host.is_reachable(to, timeout=30)


@pytest.mark.parametrize(
    ("pieces", "closes"),
    [
        ((), False),
        ((), True),
        ((b"SS",), False),
        ((b"no SSH-2.0\r\n",), True),
        ((b"x" * 99,), True),
    ],
)
def test_a_port_that_accepts_a_connection_is_no_machine_that_is_off(
    pieces: tuple[bytes, ...], closes: bool
) -> None:
    with (
        answering(*pieces, closes=closes) as to,
        pytest.raises(_ssh_host.UnclearError, match="not known") as caught,
    ):
        _ssh_host.is_reachable(to, timeout=0.5)
    assert "status" in caught.value.hint


def test_a_port_that_sends_without_end_is_no_machine_that_is_off() -> None:
    with (
        answering(*[b"x" * 4096 + b"\r\n"] * 100) as to,
        pytest.raises(_ssh_host.UnclearError, match="not known"),
    ):
        _ssh_host.is_reachable(to, timeout=30)


def test_a_port_that_refuses_connections_is_a_machine_that_is_off() -> None:
    with answering() as to:
        pass
    assert not _ssh_host.is_reachable(to, timeout=30)


@pytest.mark.parametrize(
    ("error", "off"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (TimeoutError("timed out"), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (paramiko.ChannelException(2, "Connect failed"), True),
        (paramiko.ChannelException(1, "Administratively prohibited"), False),
        (paramiko.SSHException("Timeout opening channel."), True),
        (EOFError(), False),
    ],
)
def test_only_some_errors_of_a_connection_show_a_machine_that_is_off(
    error: Exception, off: bool
) -> None:
    assert _ssh_host._is_off(error) is off


@pytest.mark.parametrize(
    ("command", "answers"), [("true", False), ("sleep 60", False), ("printf SSH-2.0-x", True)]
)
def test_a_proxy_command_that_ends_or_waits_shows_a_machine_that_is_off(
    command: str, answers: bool, config: Callable[[str], None]
) -> None:
    config(f"Host box\n ProxyCommand {command}\n")
    to = _ssh_host.address("box")
    assert _ssh_host.is_reachable(to, timeout=30 if answers else 1) is answers


def test_a_way_that_is_broken_says_nothing_about_the_machine(
    config: Callable[[str], None],
) -> None:
    with answering() as gate:
        pass
    config(f"Host box\n ProxyJump me@127.0.0.1:{gate.port}\n")
    with pytest.raises(_ssh_host.UnclearError, match="not known"):
        _ssh_host.is_reachable(_ssh_host.address("box"), timeout=30)


def test_without_a_status_command_a_machine_that_does_not_answer_clearly_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_PROBE_TIMEOUT", 0.5)
    commands = {"start": f"touch {tmp_path}/started", "stop": f"touch {tmp_path}/stopped"}
    with answering(b"Please wait\r\n") as to:
        target = made(host="127.0.0.1", port=to.port, **commands)
        answer = target.probe()
        with (
            pytest.raises(SessionError, match="not known"),
            target._life.keep_running(lambda _: None),
        ):
            pass
    assert isinstance(answer, Unavailable)
    assert "status" in answer.hint
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "stopped").exists()


# ---- files on a machine --------------------------------------------------------------------------


def entry(name: str, mode: int = stat.S_IFREG, owner: int = 7) -> paramiko.SFTPAttributes:
    made = paramiko.SFTPAttributes()
    made.filename, made.st_mode, made.st_uid = name, mode, owner
    return made


class Server(paramiko.SFTPClient):
    """A server whose folders show what the test gives; it removes nothing."""

    def __init__(self, shown: Callable[[str], Iterator[paramiko.SFTPAttributes]]) -> None:
        self.shown, self.removed = shown, list[str]()

    def listdir_iter(
        self, path: Any = ".", read_aheads: int = 50
    ) -> Iterator[paramiko.SFTPAttributes]:
        assert read_aheads == 1
        yield from self.shown(path)

    def lstat(self, path: Any) -> paramiko.SFTPAttributes:
        return entry(path)

    def remove(self, path: Any) -> None:
        self.removed.append(path)

    rmdir = remove


def endless(_: str) -> Iterator[paramiko.SFTPAttributes]:
    for number in itertools.count():
        yield entry(f"isobench-{number}", stat.S_IFDIR)


def nested(_: str) -> Iterator[paramiko.SFTPAttributes]:
    yield entry("isobench-x", stat.S_IFDIR)


def wide(_: str) -> Iterator[paramiko.SFTPAttributes]:
    for number in range(3):
        yield entry(f"isobench-{number}", stat.S_IFDIR)


def long_names(_: str) -> Iterator[paramiko.SFTPAttributes]:
    yield entry("x" * 256)


def no_names(_: str) -> Iterator[paramiko.SFTPAttributes]:
    yield entry("", stat.S_IFDIR)


def no_text(_: str) -> Iterator[paramiko.SFTPAttributes]:
    yield entry("isobench-0", stat.S_IFDIR)
    b"\xff".decode()


@pytest.mark.parametrize("shown", [endless, nested, wide, long_names, no_names, no_text])
def test_a_listing_without_measure_ends_the_removal_of_a_folder(
    shown: Callable[[str], Iterator[paramiko.SFTPAttributes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ssh_host, "_MOST_ENTRIES", 100)
    with pytest.raises(_ssh_host.ListingError) as caught:
        _ssh_host.Files(Server(shown)).remove("/tmp/x")
    assert "by hand" in caught.value.hint


@pytest.mark.parametrize(("shown", "count"), [(endless, 100), (no_text, 1), (long_names, 0)])
def test_of_a_listing_without_measure_the_first_folders_count(
    shown: Callable[[str], Iterator[paramiko.SFTPAttributes]],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_ssh_host, "_MOST_ENTRIES", 100)
    files = _ssh_host.Files(Server(shown))
    assert len(files.folders_of_owner("/tmp", "/tmp/x")) == count


def test_a_folder_is_removed_with_all_that_is_in_it() -> None:
    tree = {
        "/a": [entry("b", stat.S_IFDIR), entry("c"), entry("l", stat.S_IFLNK)],
        "/a/b": [entry("d")],
    }
    server = Server(lambda path: iter(tree[path]))
    _ssh_host.Files(server).remove("/a")
    assert server.removed == ["/a/b/d", "/a/b", "/a/c", "/a/l", "/a"]


def test_a_folder_that_is_gone_needs_no_removal() -> None:
    def gone(_: str) -> Iterator[paramiko.SFTPAttributes]:
        raise FileNotFoundError
        yield

    server = Server(gone)
    _ssh_host.Files(server).remove("/a")
    assert server.removed == []


class Opened:
    """A login whose files are those of a server of the test; without one the connection is lost."""

    def __init__(self, server: Server | None) -> None:
        self.server, self.transport = server, self

    def is_active(self) -> bool:
        return self.server is not None

    @contextlib.contextmanager
    def files(self) -> Iterator[_ssh_host.Files]:
        assert self.server is not None
        yield _ssh_host.Files(self.server)


def left_by(shown: Callable[[str], Iterator[paramiko.SFTPAttributes]] | None, error: Any) -> Any:
    """Let a session end with an error, or in order, on a server that shows this."""
    target = made()
    target._learned.hold("/tmp/x")
    target._learned.drop("/tmp/x")
    link = Opened(None if shown is None else Server(shown))
    try:
        with closing.closed_at_end(lambda first: target._remove_own(link, "/tmp/x", first)):
            if error is not None:
                raise error
    except BaseException as found:
        if found is not error:
            raise
    return target


def test_a_folder_that_cannot_be_removed_is_named_with_the_first_error() -> None:
    with pytest.raises(SessionError, match=r"^the folder /tmp/x stays on box: .*nested"):
        left_by(nested, None)
    first = SessionError("lost", hint="check the cable")
    with pytest.raises(SessionError, match=r"^lost; and the folder /tmp/x stays") as caught:
        left_by(nested, first)
    assert caught.value.hint == "check the cable"


def test_a_folder_that_stays_for_a_lost_connection_is_named_too() -> None:
    with pytest.raises(
        SessionError, match=r"^no answer; and the folder /tmp/x stays on box: .*lost$"
    ):
        left_by(None, SessionError("no answer"))
    with pytest.raises(SessionError, match=r"^the folder /tmp/x stays on box: .*lost$") as caught:
        left_by(None, None)
    assert caught.value.hint == "the next session there removes it"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")])
def test_after_an_interruption_or_another_error_the_sweep_names_a_folder_that_stays(
    error: BaseException,
) -> None:
    target = left_by(nested, error)
    assert ownership.take_doubt()
    assert target.sweep(lambda _: True, cached=False) == []
    (left,) = target.sweep(lambda _: False, cached=False)
    assert (left.what, left.failure) == (
        "folder /tmp/x on box",
        "the next session there removes it",
    )
    assert target.sweep(lambda _: False, cached=False) == []


@pytest.mark.timeout(60)
def test_after_an_interruption_the_removal_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh, "_BRIEF", 0.1)
    monkeypatch.setattr(deadlines, "GRACE", 0.1)

    def busy(_: str) -> Iterator[paramiko.SFTPAttributes]:
        while True:
            pass
        yield

    target = left_by(busy, KeyboardInterrupt())
    assert target._learned.take_left() == ["/tmp/x"]


def test_a_folder_that_is_removed_is_not_reported() -> None:
    target = left_by(lambda _: iter([entry("a")]), KeyboardInterrupt())
    assert target.sweep(lambda _: False, cached=False) == []


def test_what_a_machine_says_about_itself_is_bounded() -> None:
    class Talkative:
        to = SimpleNamespace(alias="far")

        def execute(self, _: str) -> tuple[int, str]:
            return 0, f"Linux 6.1{'x' * 60_000} x86_64\n"

    found = ssh._identify(cast("_ssh_host.Link", Talkative()))
    assert (len(found.release), found.machine) == (200, "x86_64")
    client = SimpleNamespace(
        get_transport=lambda: SimpleNamespace(remote_version=f"SSH-2.0-{'y' * 60_000}")
    )
    link = _ssh_host.Link(cast("Any", client), cast("Any", Talkative.to))
    assert len(link.server) == 200
