"""Was a run made of the payloads that came with the wheel, and of nothing else?

    python as_shipped.py RUN

`nox -s wheel` calls it with the interpreter that has the wheel installed, without a compiler.
"""

import importlib.util
import json
import sys
from pathlib import Path

import isobench

RECORDED = ("sha256", "compiler", "flags")


def main(run: Path) -> None:
    if importlib.util.find_spec("ziglang") is not None:
        sys.exit("the compiler is installed: what would be proved?")
    folder = Path(isobench.__file__).parent / "_shared" / "payloads"
    rows = json.loads((folder / "manifest.json").read_text())["payloads"]
    came = {(row["program"], row["abi"]): row for row in rows}
    ran = json.loads((run / "run.json").read_text())["payloads"]
    for one in ran:
        row = came[one["program"], one["abi"]]
        if [one[key] for key in RECORDED] != [row[key] for key in RECORDED]:
            sys.exit(f"{one} is not what came: {row}")
    if not ran:
        sys.exit("the run names no payloads")
    print(f"{len(ran)} payloads were run, as they came; {len(came)} came")  # noqa: T201 - a program


if __name__ == "__main__":
    main(Path(sys.argv[1]))
