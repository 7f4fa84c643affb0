"""What the installed program needs is in what is installed."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = [ROOT / "reports" / name for name in ("examples", "dial")]
"""What was measured: the program reads none of it."""


def test_all_data_of_the_program_are_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert all(
        inside == f"isobench/_shared/{path}" and (ROOT / path).exists()
        for path, inside in included.items()
    )
    data = [path for path in (ROOT / "reports").rglob("*") if path.is_file()]
    wanted = [path for path in data if not any(map(path.is_relative_to, RESULTS))]
    left_out = [
        str(path.relative_to(ROOT))
        for path in wanted
        if not any(path.is_relative_to(ROOT / each) for each in included)
    ]
    assert wanted
    assert left_out == []
