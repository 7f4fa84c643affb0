"""The workflows of docs/ci and the action: what they name exists, and no input is code."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from isobench.cli import _exits
from isobench.cli._front import cli
from tests import workflows
from tests.workflows import Job, expanded

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "isobench" / "action.yml"
FILES = [ACTION, *sorted((ROOT / "docs" / "ci").glob("github-*.yml"))]
GITLAB = ROOT / "docs" / "ci" / "gitlab-ci.yml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_scripts_are_valid_bash_without_expressions(path: Path) -> None:
    for name, script in workflows.scripts(path):
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, check=False, capture_output=True
        )
        assert done.returncode == 0, (name, done.stderr)
        assert "${{" not in script, f"{name}: an input would be code"


@pytest.mark.parametrize("path", FILES[1:], ids=lambda path: path.name)
def test_workflows_read_only_and_end(path: Path) -> None:
    plain = yaml.safe_load(path.read_text())
    assert plain["permissions"] == {"contents": "read"}
    for job in plain["jobs"].values():
        assert job["timeout-minutes"] <= 60


def test_the_nightly_workflow_gives_the_action_inputs_that_it_has() -> None:
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    (job,) = yaml.safe_load((ROOT / "docs/ci/github-nightly.yml").read_text())["jobs"].values()
    (step,) = [step for step in job["steps"] if step.get("uses", "").startswith("./")]
    assert ROOT / step["uses"] == ACTION.parent
    assert set(step["with"]) <= set(inputs)
    for given in (step["with"]["fail-on"], inputs["fail-on"]["default"]):
        _exits.refuse_unknown(given.split(","))


@pytest.mark.parametrize("path", [*FILES, GITLAB], ids=lambda path: path.name)
def test_all_options_of_isobench_exist(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        words = line.strip().removeprefix("- ").split()
        while words[:1] and words[0] != "isobench":
            words.pop(0)
        names = [word for word in words[1:3] if word.isalpha()]
        command = cli.get_command(None, names[0]) if names else None  # type: ignore[arg-type]
        if command is None:
            continue
        if hasattr(command, "commands") and names[1:]:
            command = command.commands[names[1]]
        known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags - {"--help"} <= known, line


def test_the_job_of_gitlab_is_valid() -> None:
    (job,) = yaml.safe_load(GITLAB.read_text()).values()
    script = "\n".join(job["script"])
    done = subprocess.run(["bash", "-n"], input=script, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert job["cache"]["paths"] == ["isobench-history"]


def test_the_job_of_gitlab_keeps_the_history_of_a_night_that_fails() -> None:
    (job,) = yaml.safe_load(GITLAB.read_text()).values()
    assert job["cache"]["when"] == "always"
    script = job["script"]
    (kept,) = [n for n, line in enumerate(script) if "history add isobench-run" in line]
    (packed,) = [n for n, line in enumerate(script) if "isobench pack" in line]
    assert kept < packed < script.index('exit "$code"'), "a bundle may fail"


# ---- what plays the runner


def job(tmp_path: Path, **others: object) -> Job:
    def execute(argv: object, environment: object) -> tuple[int, str]:
        done = subprocess.run(
            argv,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,  # type: ignore[call-overload]
        )
        return done.returncode, done.stdout + done.stderr

    return Job(
        workspace=tmp_path, temporary=tmp_path / "t", cache=tmp_path / "c",
        artifacts=tmp_path / "a", execute=execute, environment={"PATH": "/usr/bin:/bin"},
        **others,  # type: ignore[arg-type]
    )  # fmt: skip


def written(tmp_path: Path, *steps: dict[str, object]) -> Path:
    path = tmp_path / "workflow.yml"
    path.write_text(yaml.safe_dump({"jobs": {"one": {"steps": [*steps]}}}))
    return path


def test_a_failed_step_ends_the_job_and_always_is_always(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.run(written(
        tmp_path, {"run": "false | true"}, {"run": "echo no"}, {"run": "echo yes", "if": "always()"}
    ))  # fmt: skip
    assert [(step.code, step.skipped) for step in made.steps] == [(1, False), (0, True), (0, False)]
    assert made.steps[-1].output == "yes\n"


def test_outputs_paths_and_the_summary_reach_what_follows(tmp_path: Path) -> None:
    made = job(tmp_path)
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_text("#!/bin/sh\necho tool ran\n")
    tool.chmod(0o755)
    first = f'echo "x=1" >> "$GITHUB_OUTPUT"; echo "{tmp_path}/bin" >> "$GITHUB_PATH"'
    made.run(written(
        tmp_path,
        {"run": first, "id": "one"},
        {"run": 'echo "$X"; tool; echo "# Hi" >> "$GITHUB_STEP_SUMMARY"',
         "env": {"X": "${{ steps.one.outputs.x }}"}},
    ))  # fmt: skip
    assert made.steps[-1].output == "1\ntool ran\n"
    assert made.summary == "# Hi\n"


def test_a_cache_is_kept_until_the_next_job(tmp_path: Path) -> None:
    keys = {"key": "k-${{ github.run_id }}", "restore-keys": "k-"}
    step = {"uses": "actions/cache@v4", "with": {"path": "kept", **keys}}
    for number in (1, 2):
        made = job(tmp_path, github={"run_id": str(number)})
        (tmp_path / "kept").mkdir(exist_ok=True)
        for left in (tmp_path / "kept").iterdir():
            left.unlink()
        made.run(written(tmp_path, step, {"run": f"ls kept; touch kept/{number}"}))
    assert made.steps[-1].output == "1\n"


@pytest.mark.parametrize("fails", [False, True])
def test_a_cache_is_saved_after_a_job_without_a_failure_or_by_a_step_of_its_own(
    fails: bool, tmp_path: Path
) -> None:
    inputs = {"path": "kept", "key": "k-${{ github.run_id }}"}
    measure = {"run": f"mkdir -p kept; exit {int(fails)}"}
    after = {"uses": "actions/cache/save@v4", "with": inputs}
    both = {"uses": "actions/cache@v4", "with": inputs}
    restore = {"uses": "actions/cache/restore@v4", "with": inputs}
    for number, (steps, is_saved) in enumerate((
        ((both, measure), not fails),
        ((restore, measure), False),
        ((restore, measure, after), not fails),
        ((restore, measure, {**after, "if": "always()"}), True),
    )):  # fmt: skip
        made = job(tmp_path, github={"run_id": str(number)})
        made.run(written(tmp_path, *steps))
        assert (made.cache / f"k-{number}").exists() == is_saved, steps


def test_no_key_of_a_cache_is_written_twice_and_the_newest_is_restored(tmp_path: Path) -> None:
    keys = {"path": "kept", "key": "k"}
    save = {"uses": "actions/cache/save@v4", "with": keys}
    job(tmp_path).run(written(
        tmp_path, {"run": "echo 1 > kept"}, save, {"run": "echo 2 > kept"}, save,
        {"run": "echo 3 > kept"}, {**save, "with": {**keys, "key": "k-3"}},
    ))  # fmt: skip
    for key, others, restored in (("k", "", "1"), ("k-", "", "3"), ("x", "y\nk-\n", "3")):
        step = {"path": "kept", "key": key, "restore-keys": others}
        made = job(tmp_path)
        made.run(written(
            tmp_path, {"uses": "actions/cache/restore@v4", "with": step}, {"run": "cat kept"}
        ))  # fmt: skip
        assert made.steps[-1].output == f"{restored}\n"
    with pytest.raises(AssertionError, match="not played"):
        job(tmp_path).run(written(tmp_path, {**save, "with": {**keys, "save-always": "true"}}))


TOOL = """#!/bin/sh
case "$1 $2" in
run*) mkdir -p isobench-run; touch isobench-run/records.jsonl isobench-junit.xml; exit "$CODE" ;;
pack*) exit "${PACK:-0}" ;;
"history add") mkdir -p isobench-history && touch "isobench-history/$NIGHT" ;;
esac
"""


def test_the_nightly_workflow_keeps_the_history_of_a_night_that_fails(tmp_path: Path) -> None:
    actions = tmp_path / ".github" / "actions"
    shutil.copytree(ACTION.parent, actions / ACTION.parent.name)
    (tmp_path / "bin").mkdir()
    for name, script in (("isobench", TOOL), ("python3", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    known = []
    # The third night is run again, and its bundle cannot be written then.
    for name, run, attempt, code, pack in (
        ("first", 1, 1, 0, 0), ("second", 2, 1, 1, 0), ("third", 3, 1, 1, 0),
        ("again", 3, 2, 0, 2), ("fourth", 4, 1, 0, 0),
    ):  # fmt: skip
        shutil.rmtree(tmp_path / "isobench-history", ignore_errors=True)
        github = {"run_id": str(run), "run_attempt": str(attempt)}
        made = job(tmp_path, github={**github, "server_url": "https://x", "repository": "a/b"})
        made.environment["PATH"] = f"{tmp_path}/bin:{made.environment['PATH']}"
        made.environment |= {"NIGHT": name, "CODE": str(code), "PACK": str(pack)}
        made.run(ROOT / "docs" / "ci" / "github-nightly.yml")
        assert [step.code for step in made.failed] == [code or pack] * bool(code or pack)
        newest = max(made.cache.iterdir(), key=lambda one: one.stat().st_mtime_ns)
        known.append({path.name for path in newest.iterdir()})
    names = ["first", "second", "third", "again", "fourth"]
    assert known == [set(names[: n + 1]) for n in range(5)]


def test_an_action_that_is_not_played_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is not played"):
        job(tmp_path).run(written(tmp_path, {"uses": "somebody/else@v1"}))
    with pytest.raises(AssertionError, match="unknown expression"):
        expanded("${{ secrets.token }}", {})


def arguments(tmp_path: Path, **inputs: str) -> list[str]:
    """Return the arguments that the action calls `isobench run` with."""
    tool = tmp_path / "isobench"
    tool.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    tool.chmod(0o755)
    given = {"TARGETS": "docker", "WORKLOADS": "", "BUDGET": "10m", "FAIL_ON": "error"}
    given |= {"STORE": "store", "ARGUMENTS": "", "GITHUB_OUTPUT": str(tmp_path / "output")}
    script = dict(workflows.scripts(ACTION))["Measure"]
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=tmp_path, env=given | inputs | {"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("fail_on", ["claim,regression", "claim, regression", "regression"])
def test_the_action_compares_with_the_store_for_regressions(fail_on: str, tmp_path: Path) -> None:
    words = arguments(tmp_path, FAIL_ON=fail_on)
    assert words[words.index("--store") + 1] == "store"
    assert "--confirm" in words


def test_the_action_takes_an_empty_list_of_findings(tmp_path: Path) -> None:
    words = arguments(tmp_path, FAIL_ON="")
    assert "--fail-on" not in words
    assert "--store" not in words


def test_the_action_takes_arguments_of_several_lines(tmp_path: Path) -> None:
    words = arguments(tmp_path, ARGUMENTS="--require docker\n--claims mine.toml\n")
    assert words[words.index("--require") :][:4] == ["--require", "docker", "--claims", "mine.toml"]
