"""The JSON Schemas of a run's files: `python tests/schemas.py` writes them into docs/schemas.

They are made from the Structs that read and write the files, so that they cannot say otherwise.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from isobench.model import Plan
from isobench.storage.schema import History, RunMetadata, Summary, TargetState

FOLDER: Final = Path(__file__).parents[1] / "docs" / "schemas"
FILES: Final[dict[str, tuple[type, str]]] = {
    "run": (RunMetadata, "run.json: what was asked for, on which machine, with which programs"),
    "history": (History, "history.json: how a run compares with the runs before it"),
    "plan": (Plan, "plan.json: blocks and order, fixed before measuring"),
    "state": (TargetState, "state/<target>-pre.json: what a target is here, and what it showed"),
    "summary": (Summary, "summary.json: the answers of a run"),
}


def schema(name: str) -> str:
    """Return the schema of one kind of file, as JSON."""
    kind, about = FILES[name]
    made: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"isobench {about.partition(':')[0]}",
        "description": about.partition(": ")[2],
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n"


def path(name: str) -> Path:
    """Return where the schema of one kind of file stands."""
    return FOLDER / f"{name}.schema.json"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in FILES:
        path(one).write_text(schema(one), encoding="utf-8")
