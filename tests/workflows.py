"""Runs a workflow of GitHub Actions step by step, as its runner would, without GitHub.

Steps run in bash with the files and variables that the runner gives them. Local composite actions
are run from the checkout. What belongs to GitHub is played by folders: `actions/cache/restore` and
`actions/cache/save` copy from and to one, `actions/cache` does both, the second after a job without
a failure, `actions/upload-artifact` copies to one, `actions/checkout` and `actions/setup-python` do
nothing, since the checkout is the workspace. A step of any other kind, and an input of a cache that
is not played, is an error: what is not played must not look as if it passed.
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

_EXPRESSION: Final = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_NOTHING: Final = ("actions/checkout", "actions/setup-python")
_CACHES: Final = {
    "actions/cache": {"path", "key", "restore-keys"},
    "actions/cache/restore": {"path", "key", "restore-keys"},
    "actions/cache/save": {"path", "key"},
}
"""Their inputs, of which all are needed but for `restore-keys`."""
_HEAD: Final = ("bash", "--noprofile", "--norc", "-eo", "pipefail")

Execute = Callable[[Sequence[str], Mapping[str, str]], tuple[int, str]]
"""Runs a command in the workspace; returns its exit code and what it printed."""


@dataclasses.dataclass
class Step:
    """How one step ended."""

    name: str
    code: int
    output: str
    skipped: bool = False


@dataclasses.dataclass(kw_only=True)
class Job:
    """A job on a machine whose files lie in `root`, as this process sees them."""

    workspace: Path
    """The checkout, as the steps see it."""
    temporary: Path
    """RUNNER_TEMP, as the steps see it."""
    cache: Path
    """Plays the cache, and is the same for all nights."""
    artifacts: Path
    """Gets what is uploaded."""
    execute: Execute
    root: Path = Path("/")
    adopt: Callable[[Path], None] = lambda _: None
    """Gives a file or a folder, as this process sees it, to the user of the steps."""
    github: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Inputs of local actions that differ from the workflow's."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    path: list[str] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    after: list[tuple[Path, str]] = dataclasses.field(default_factory=list)
    """Path and key of what `actions/cache` saves after the job."""

    def seen(self, inner: Path) -> Path:
        """Return where this process sees a file of the machine."""
        return self.root / inner.relative_to("/")

    @property
    def summary(self) -> str:
        """The summary of the job."""
        file = self.seen(self.temporary / "summary")
        return file.read_text() if file.exists() else ""

    @property
    def failed(self) -> list[Step]:
        """The steps that failed."""
        return [step for step in self.steps if step.code]

    def run(self, workflow: Path) -> None:
        """Run the only job of a workflow, to its end whatever fails."""
        self.seen(self.temporary).mkdir(parents=True, exist_ok=True)
        self.adopt(self.seen(self.temporary))
        (job,) = yaml.safe_load(workflow.read_text())["jobs"].values()
        known = {f"github.{name}": value for name, value in self.github.items()}
        self._steps(job["steps"], known)
        if not self.failed:
            for path, key in self.after:
                self._save(path, key)

    def _steps(self, steps: Sequence[Mapping[str, Any]], known: dict[str, str]) -> None:
        is_failing = False
        for step in steps:
            name = step.get("name") or step.get("uses") or step["run"].splitlines()[0]
            if is_failing and step.get("if") != "always()":
                self.steps.append(Step(name, 0, "", skipped=True))
                continue
            before = len(self.failed)
            if "run" in step:
                self._shell(name, step, known)
            else:
                self._use(name, step, known)
            is_failing |= len(self.failed) > before

    def _shell(self, name: str, step: Mapping[str, Any], known: dict[str, str]) -> None:
        files = {word: self.temporary / word.lower() for word in ("OUTPUT", "PATH", "ENV")}
        for file in files.values():
            self.seen(file).write_text("")
        environment = {
            **self.environment,
            **{f"GITHUB_{word}": str(file) for word, file in files.items()},
            "GITHUB_STEP_SUMMARY": str(self.temporary / "summary"),
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temporary),
            "CI": "true",
            **{key: expanded(str(value), known) for key, value in step.get("env", {}).items()},
        }
        environment["PATH"] = ":".join([*self.path, environment["PATH"]])
        script = self.temporary / "step.sh"
        # Expressions in a script would be code of whoever opened the pull request.
        assert not _EXPRESSION.search(step["run"]), f"{name}: an expression in a script"
        self.seen(script).write_text(step["run"])
        self.adopt(self.seen(self.temporary))
        code, output = self.execute([*_HEAD, str(script)], environment)
        self.steps.append(Step(name, code, output))
        for line in self.seen(files["OUTPUT"]).read_text().splitlines():
            key, _, value = line.partition("=")
            known[f"steps.{step.get('id')}.outputs.{key}"] = value
        self.path[:0] = self.seen(files["PATH"]).read_text().split()

    def _use(self, name: str, step: Mapping[str, Any], known: dict[str, str]) -> None:
        action, inputs = step["uses"].partition("@")[0], dict(step.get("with", {}))
        if action.startswith("./"):
            self._composite(action, inputs, known)
        elif action in _CACHES:
            self._cache(action, inputs, known)
            self.steps.append(Step(name, 0, ""))
        elif action == "actions/upload-artifact":
            self.steps.append(Step(name, self._upload(inputs), ""))
        else:
            assert action in _NOTHING, f"{action} is not played"
            self.steps.append(Step(name, 0, ""))

    def _composite(self, action: str, inputs: dict[str, Any], known: dict[str, str]) -> None:
        folder = self.seen(self.workspace / action)
        (file,) = folder.glob("action.y*ml")
        described = yaml.safe_load(file.read_text())
        unknown = inputs.keys() - described["inputs"].keys()
        assert not unknown, f"{action} has no inputs {unknown}"
        given = {name: str(one.get("default", "")) for name, one in described["inputs"].items()}
        given |= {name: expanded(str(value), known) for name, value in inputs.items()}
        given |= self.overrides
        inner = {key: value for key, value in known.items() if key.startswith("github.")}
        inner |= {f"inputs.{name}": value for name, value in given.items()}
        assert described["runs"]["using"] == "composite"
        self._steps(described["runs"]["steps"], inner)

    def _cache(self, action: str, inputs: Mapping[str, Any], known: dict[str, str]) -> None:
        unknown = inputs.keys() - _CACHES[action]
        assert not unknown, f"{action}: the inputs {unknown} are not played"
        key, path = expanded(inputs["key"], known), Path(inputs["path"])
        if action == "actions/cache/save":
            self._save(path, key)
            return
        self._restore(path, (key, *inputs.get("restore-keys", "").split()))
        if action == "actions/cache":
            self.after.append((path, key))

    def _restore(self, path: Path, keys: Sequence[str]) -> None:
        """Restore the newest cache whose name begins with the first key that one begins with."""
        for key in keys:
            found = [one for one in self.cache.glob("*") if one.name.startswith(key)]
            if found:
                newest = max(found, key=lambda one: (one.name == key, one.stat().st_mtime_ns))
                copy(newest, self.seen(self.workspace / path))
                self.adopt(self.seen(self.workspace / path))
                return

    def _save(self, path: Path, key: str) -> None:
        """Save a cache. One that exists is left as it is: GitHub writes no key twice."""
        if (self.cache / key).exists():
            return
        copy(self.seen(self.workspace / path), self.cache / key)
        if (self.cache / key).exists():
            os.utime(self.cache / key)  # the newest is restored, by when it was saved

    def _upload(self, inputs: Mapping[str, Any]) -> int:
        target = self.artifacts / inputs["name"]
        found = [self.seen(self.workspace / line) for line in inputs["path"].split()]
        for one in found:
            if one.exists():
                copy(one, target / one.name)
        return int(not target.exists())


def expanded(text: str, known: Mapping[str, str]) -> str:
    """Return a text with its expressions replaced. AssertionError: one is unknown."""

    def value(match: re.Match[str]) -> str:
        assert match[1] in known, f"unknown expression {match[1]}; known: {sorted(known)}"
        return known[match[1]]

    return _EXPRESSION.sub(value, text)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder; what was in its place is replaced. Nothing is no error."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def scripts(workflow: Path) -> Iterator[tuple[str, str]]:
    """Yield name and script of each step of a workflow or an action."""
    plain = yaml.safe_load(workflow.read_text())
    jobs = plain["jobs"].values() if "jobs" in plain else [plain["runs"]]
    for job in jobs:
        for step in job["steps"]:
            if "run" in step:
                yield step.get("name", ""), step["run"]
