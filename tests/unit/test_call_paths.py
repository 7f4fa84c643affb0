"""The sentence on what serves system calls."""

from pathlib import Path

import msgspec
import pytest

from isobench.model import Technology
from isobench.report.sections.call_paths import call_paths
from isobench.report.sections.lookup import look_up
from isobench.storage.schema import ParityDifference, Summary, TargetSummary

EXAMPLE = Path(__file__).parents[2] / "reports" / "examples" / "2026-11-29-debian12-2cpu"


@pytest.fixture(scope="module")
def example() -> Summary:
    return msgspec.json.decode((EXAMPLE / "summary.json").read_bytes(), type=Summary)


def test_the_sentence_follows_the_evidence_of_each_target(example: Summary) -> None:
    assert call_paths(look_up(example)) == (
        "System calls are served by the host's kernel after a seccomp filter in docker, podman and"
        " landlock; by the host's kernel alone, as natively, in bubblewrap; by a kernel that is"
        " itself a process of the host in gvisor (which intercepts them by ptrace) and uml; by the"
        " host's kernel through an"
        " implementation of the Windows API in wine; by the host's kernel, with each instruction"
        " and call translated, in qemu-user-aarch64; by the kernel of a machine whose instructions"
        " are translated in qemu."
    )


@pytest.mark.parametrize(
    ("technology", "evidence", "labels", "path"),
    [
        ("virtualization", {"kernel.boot_id": "unlike"}, (), "the kernel of a virtual machine"),
        ("containerization", {"kernel.boot_id": "unlike"}, (), "a kernel of its own"),
        ("sandbox", {"payload.format": "unlike"}, (), "a runtime that executes the program"),
        ("containerization", {}, ("seccomp",), "after a seccomp filter"),
        ("containerization", {"kernel.boot_id": "same"}, (), "as natively"),
    ],
)
def test_other_targets(
    technology: str,
    evidence: dict[str, str],
    labels: tuple[str, ...],
    path: str,
    example: Summary,
) -> None:
    changed: list[TargetSummary] = [
        msgspec.structs.replace(
            one,
            technology=Technology(technology),
            evidence=evidence,
            parity=tuple(
                ParityDifference(label=label, native="off", target="filter") for label in labels
            ),
        )
        for one in example.targets
        if one.name == "docker"
    ]
    about = msgspec.structs.replace(example, targets=tuple(changed))
    assert path in call_paths(look_up(about))


def test_without_system_calls_there_is_no_sentence(example: Summary) -> None:
    cells = tuple(cell for cell in example.cells if cell.group != "syscall")
    assert not call_paths(look_up(msgspec.structs.replace(example, cells=cells)))
