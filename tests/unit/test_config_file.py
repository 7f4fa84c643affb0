"""Which configuration is in force, and what a mistake in it is answered with."""

from pathlib import Path

import pytest

from isobench.config import file
from isobench.model.errors import UsageError

SEED_1, SEED_2, SEED_3 = ("[run]\nseed = 1\n", "[run]\nseed = 2\n", "[run]\nseed = 3\n")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, with an empty configuration folder of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "isobench").mkdir(parents=True)
    work = tmp_path / "work" / "inner"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    return tmp_path / "home" / "isobench" / "config.toml"


def load(text: str, tmp_path: Path) -> file.Settings:
    path = tmp_path / "given.toml"
    path.write_text(text)
    return file.load(path, environment={})


def test_without_any_file_everything_is_at_its_default() -> None:
    assert file.load(environment={}) == file.Settings()


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    settings = load(
        """
        [run]
        targets = ["native", "docker"]
        workloads = ["cpu"]
        blocks = { min = 10, max = 60 }
        budget = "10m"
        target_precision = "2.5%"
        margin = "5%"
        seed = 7
        [targets.docker]
        runtime = "runc"
        """,
        tmp_path,
    )
    assert settings.run.targets == ["native", "docker"]
    assert (settings.run.blocks.min, settings.run.blocks.max) == (10, 60)
    assert (settings.run.budget, settings.run.margin, settings.run.seed) == ("10m", "5%", 7)
    assert settings.targets == {"docker": {"runtime": "runc"}}


def test_the_nearest_file_upward_decides() -> None:
    Path("../isobench.toml").write_text(SEED_1)
    assert file.load(environment={}).run.seed == 1
    Path("isobench.toml").write_text(SEED_2)
    assert file.load(environment={}).run.seed == 2


def test_a_table_in_pyproject_counts_and_a_pyproject_without_one_is_passed_by() -> None:
    Path("pyproject.toml").write_text('[project]\nname = "x"\n')
    Path("../pyproject.toml").write_text("[tool.isobench.run]\nseed = 3\n")
    assert file.load(environment={}).run.seed == 3


def test_isobench_toml_goes_before_pyproject_in_one_folder() -> None:
    Path("pyproject.toml").write_text("[tool.isobench.run]\nseed = 3\n")
    Path("isobench.toml").write_text(SEED_1)
    assert file.load(environment={}).run.seed == 1


def test_the_users_own_file_counts_only_where_no_other_is(home: Path) -> None:
    home.write_text(SEED_3)
    assert file.load(environment={}).run.seed == 3
    Path("isobench.toml").write_text(SEED_1)
    assert file.load(environment={}).run.seed == 1


def test_a_file_named_in_the_environment_goes_before_any_found(tmp_path: Path) -> None:
    Path("isobench.toml").write_text(SEED_1)
    (tmp_path / "other.toml").write_text(SEED_2)
    environment = {"ISOBENCH_CONFIG": str(tmp_path / "other.toml")}
    assert file.load(environment=environment).run.seed == 2


def test_a_file_named_by_flag_goes_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SEED_1)
    environment = {"ISOBENCH_CONFIG": str(tmp_path / "missing.toml")}
    assert file.load(tmp_path / "a.toml", environment=environment).run.seed == 1


def test_an_empty_variable_is_no_variable() -> None:
    assert file.load(environment={"ISOBENCH_CONFIG": ""}) == file.Settings()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[run]\nblock = 3\n", "block"),
        ("[runs]\n", "runs"),
        ("[run]\nblocks = { least = 3 }\n", "least"),
        ('[run]\nseed = "one"\n', "seed"),
        ("[run]\nblocks = { min = 0 }\n", "min"),
        ("[run]\nblocks = { max = 100000 }\n", "max"),
        ('[run]\ntargets = "docker"\n', "targets"),
        ("targets = 3\n", "targets"),
        ("[run\n", "given.toml"),
        ("\ufeff=", "given.toml"),
    ],
)
def test_a_mistake_is_reported_with_the_file_the_place_and_a_hint(
    text: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        load(text, tmp_path)
    assert "given.toml" in str(caught.value)
    assert "--config" in caught.value.hint


def test_a_mistake_in_a_table_of_pyproject_is_reported_with_its_file() -> None:
    Path("pyproject.toml").write_text("[tool.isobench]\nspeed = 3\n")
    with pytest.raises(UsageError, match=r"pyproject\.toml.*speed"):
        file.load(environment={})


@pytest.mark.parametrize("text", ["tool = 3\n", "[tool]\nisobench = 3\n"])
def test_a_pyproject_of_another_shape_does_not_crash(text: str) -> None:
    Path("pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        file.load(environment={})


def test_a_file_that_is_no_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        file.load(tmp_path / "binary.toml", environment={})


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_named_file_that_cannot_be_read_is_reported(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        file.load(tmp_path / name, environment={})
    assert caught.value.hint == "name a readable file"
