"""Shell completion: the scripts, and the names that are offered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isobench.config import file
from isobench.model.errors import UsageError
from isobench.plugins import registry

pytestmark = pytest.mark.usefixtures("somewhere")


def asked(instruction: str, words: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)} if words else {}
    environment = {**os.environ, "_ISOBENCH_COMPLETE": instruction, **variables, **more}
    return subprocess.run(
        [sys.executable, "-m", "isobench"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def offered(words: str) -> list[str]:
    done = asked("bash_complete", words)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --")]
)
def test_each_shell_gets_its_script(shell: str, mark: str) -> None:
    done = asked(f"{shell}_source")
    assert done.returncode == 0
    assert mark in done.stdout
    assert "_ISOBENCH_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("isobench run -t do", ["docker"]),
        ("isobench run --targets docker,pod", ["docker,podman", "docker,podman-pod"]),
        ("isobench run -t podman,pod", ["podman,podman-pod"]),
        ("isobench run --require gv", ["gvisor"]),
        ("isobench run -w cpu.s", ["cpu.sieve", "cpu.sha256"]),
        ("isobench run -w sys", ["syscall", "syscall.getppid", "syscall.yield"]),
        ("isobench doctor bub", ["bubblewrap"]),
        ("isobench prepare kv", ["kvm"]),
        ("isobench sel", ["selftest"]),
    ],
)
def test_a_half_typed_name_is_completed(words: str, names: list[str]) -> None:
    found = offered(words)
    assert set(names) <= set(found)
    last = words.rpartition(" ")[2]
    assert all(name.startswith(last) for name in found)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_completions_too(shell: str) -> None:
    last = {"COMP_CWORD": "do"} if shell == "fish" else {}
    done = asked(f"{shell}_complete", "isobench run -t do", **last)
    assert "docker" in done.stdout


def test_targets_of_the_configuration_are_offered_and_nothing_is_probed() -> None:
    Path("isobench.toml").write_text(
        '[targets.docker-own]\nkind = "docker"\n'
        '[targets.trap]\nkind = "ssh"\nhost = "x"\nstatus = "touch executed"\n'
    )
    assert offered("isobench run -t docker-") == ["docker-own"]
    assert offered("isobench doctor tr") == ["trap"]
    assert not Path("executed").exists()


@pytest.mark.parametrize("text", ["[run", '[targets.x]\nkind = "nothing"\n'])
def test_names_are_completed_in_spite_of_a_mistake_in_the_configuration(text: str) -> None:
    Path("isobench.toml").write_text(text)
    with pytest.raises(UsageError):
        registry.Registry(file.find().settings.targets)
    assert "docker" in offered("isobench run -t do")
