"""The `ssh` kind without a machine: options, command lines of presets, ~/.ssh/config."""

import base64
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isobench.evidence import prove
from isobench.model import Abi, Available, Evidence, Fact, Lack, Technology, Unavailable
from isobench.model.errors import SessionError, UsageError
from isobench.plugins.api import Exclusive, Launcher, Restarter
from isobench.plugins.registry import Registry
from isobench.targets.machines import _machine, _ssh_host

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
UML = {"cpu.vendor": "User Mode Linux"}  # CPUID shows the hypervisor of its host


@pytest.mark.parametrize(
    ("options", "facts", "kept"),
    [
        ({}, {}, True),
        ({}, HARDWARE, False),
        ({}, TCG, False),
        ({}, UML, False),
        ({"class": "paravirtual"}, UML, True),
        ({"class": "paravirtual"}, UML | {"kernel.boot_id": "outside"}, False),
        ({}, {"kernel.boot_id": "outside"}, False),
        ({}, {"host.canary_readable": True}, False),
        ({"class": "emulation"}, TCG, True),
        ({"class": "emulation"}, {}, False),
        ({"class": "emulation"}, HARDWARE, False),
        ({"preset": "libvirt"}, {}, True),
        ({"preset": "libvirt"}, TCG, False),
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
        )
        assert _machine._is_running(status) is runs


# ---- commands and notes --------------------------------------------------------------------------


def test_a_command_ends_at_its_time_limit_and_background_processes_run_on() -> None:
    assert _machine.execute(["sleep", "60"], timeout=0.1)[0] is None
    assert _machine.execute(["sh", "-c", "sleep 5 & echo on"], timeout=4) == (0, "on")
    assert _machine.execute(["/no/such"], timeout=1)[0] == 127


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
