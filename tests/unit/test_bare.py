"""What the session `bare` pastes, in which environment, and what it reads from the output."""

from pathlib import Path

import pytest

from tests import bare

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_lines_are_those_of_the_readme() -> None:
    pasted = bare.commands(README)
    assert list(pasted) == ["Try it", "Test it"]
    for command in pasted.values():
        assert f"```sh\n{command}\n```" in README
    assert pasted["Try it"].endswith("isobench run")
    assert pasted["Test it"].endswith("-m pytest")


def test_a_readme_without_such_a_section_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no block of commands in the section 'Try it'"):
        bare.commands("# isobench\n\n## Test it\n\n```sh\ntrue\n```\n")


def test_what_reaches_the_registries_goes_in_and_what_changes_python_stays_outside() -> None:
    outer = {
        "https_proxy": "http://proxy",
        "PIP_INDEX_URL": "https://index",
        "SSL_CERT_FILE": "/c",
        "PYTHONUNBUFFERED": "1",
        "PIP_USER": "1",
        "HOME": "/root",
        "KUBECONFIG": "/k",
    }
    inner = bare.environment("tester", "/home/tester", outer)
    assert inner["HOME"] == "/home/tester"
    added = {"https_proxy", "PIP_INDEX_URL", "SSL_CERT_FILE"}
    own = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "TERM"}
    assert set(inner) == added | own


@pytest.mark.parametrize(
    ("last", "passed", "skipped", "failed"),
    [
        ("=== 3331 passed, 775 skipped in 1521.77s (0:25:21) ===", "3331", "775", ""),
        ("= 2 failed, 7 passed, 3 errors in 1.2s =", "7", "", "2 failed, 3 errors"),
        ("report: isobench-results/1/report.html", "", "", ""),
    ],
)
def test_counts_are_those_of_pytests_last_line(
    last: str, passed: str, skipped: str, failed: str
) -> None:
    found = bare.counts(f"tests/unit/test_x.py ... [ 10%]\n{last}\n")
    assert found == {"passed": passed, "skipped": skipped, "failed": failed}
