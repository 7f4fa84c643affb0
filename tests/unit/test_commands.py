"""Commands that isobench prints for the user to type."""

import pytest

from isobench.model.commands import definitions, named_folder, resume


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("run -t docker", ""),
        ("run -o mine -t docker", " mine"),
        ("run -omine", " mine"),
        ("run --output mine", " mine"),
        ("run --output=mine/of|today", " 'mine/of|today'"),
        ("run -q -- tar -o there", ""),
        ("run -o", ""),
    ],
)
def test_a_run_is_resumed_in_the_folder_that_its_command_has_named(line: str, folder: str) -> None:
    assert resume(named_folder(line.split())) == f"isobench run --resume{folder}"


def test_the_command_of_an_unknown_line_is_that_of_the_latest_run() -> None:
    assert resume(named_folder(None)) == "isobench run --resume"


def test_a_command_finds_the_targets_and_workloads_that_another_has_found() -> None:
    line = ["run", "--config", "my targets.toml", "--workload-folder=a", "--workload-folder", "b"]
    folders = "--workload-folder a --workload-folder b"
    assert " ".join(definitions(line)) == f"--config 'my targets.toml' {folders}"
    # A run has the configuration that it was made with, and not the workloads.
    assert resume("mine", line) == f"isobench run --resume mine {folders}"
    assert definitions(["run", "--config", "--", "--config", "x"]) == ["--config --"]
    assert definitions(["run", "--", "--config", "x"]) == []
    assert definitions(None) == []
