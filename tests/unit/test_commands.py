"""Commands that isobench prints for the user to type."""

import pytest

from isobench.model.commands import resume_command


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
    assert resume_command(line.split()) == f"isobench run --resume{folder}"


def test_the_command_of_an_unknown_line_is_that_of_the_latest_run() -> None:
    assert resume_command(None) == "isobench run --resume"
