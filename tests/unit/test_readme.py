"""The README keeps pace with the program."""

import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from isobench.cli._front import cli
from isobench.config.file import Settings
from isobench.plugins.registry import announced
from isobench.workloads import loader

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
CI = (CHECKOUT / ".ci" / "run").read_text()


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("name", list(announced()))
def test_every_announced_target_is_in_its_table(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", list(loader.find()))
def test_every_workload_is_in_its_table(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_has_a_target(link: str) -> None:
    assert (CHECKOUT / link).exists(), link


def test_ci_runs_the_readmes_lines() -> None:
    (test_line,) = [line for block in code("sh") for line in block.splitlines() if "pytest" in line]
    install, run = test_line.split(" && ")
    assert run in CI
    assert install.replace("install -e", "install --quiet -e") in CI
    first = code("sh")[0].strip().split(" && ")
    assert first[0] in CI


def test_its_configuration_is_valid() -> None:
    (example,) = [block for block in code("toml") if "[run]" in block]
    settings = msgspec.convert(tomllib.loads(example), type=Settings)
    assert settings.targets["docker-unconfined"]["kind"] == "docker"


def test_every_flag_it_names_exists() -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    known = {
        option
        for command in commands
        if command is not None
        for parameter in command.params
        for option in parameter.opts
    }
    lines = [line for block in code("sh") for line in block.splitlines() if "isobench " in line]
    named = {flag for line in lines for flag in re.findall(r"(?<= )--[a-z-]+", line)}
    assert named - {"--without-pip", "--python"} <= known
