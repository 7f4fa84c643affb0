"""Entry points and configuration -> targets; a broken plug-in is reported and never fatal."""

import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Lack, Stage, Unavailable
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import Sha256, TargetName
from isobench.plugins import entry_points, indirect, registry
from isobench.plugins.api import Explains, Target
from isobench.plugins.entry_points import Kind
from isobench.plugins.registry import Registry
from isobench.plugins.testing import FakeTarget

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
Install = Callable[..., None]

TARGET = """
    import contextlib
    from dataclasses import dataclass
    from isobench.model import Available, Technology

    @dataclass(frozen=True, kw_only=True)
    class Mine:
        level: int = 1
        profile: str = ""
        name = "mine"
        technology = Technology.SANDBOX
        abi = None
        expectations = ()

        def probe(self):
            return Available(version=f"mine {self.level}")

        @contextlib.contextmanager
        def open(self, stage):
            yield None
"""


@pytest.fixture(autouse=True)
def forget_announced() -> Iterator[None]:
    entry_points.forget()
    yield
    entry_points.forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one module and its entry points."""
    number = iter(range(100))

    def place(module: str, points: Mapping[str, str], name: str = "its-maker") -> None:
        site = tmp_path / f"site{next(number)}"
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        package = f"plugin_of_{re.sub(r'[^a-z0-9]', '_', str(tmp_path.name))}"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value.replace('MODULE', package)}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{Kind.TARGET.group}]", *lines]))
        (site / f"{package}.py").write_text(textwrap.dedent(module))
        monkeypatch.syspath_prepend(site)
        entry_points.forget()

    return place


def what_is_wrong(target: Target) -> Unavailable:
    answer = target.probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PLUGIN
    return answer


def test_the_targets_of_pyproject_are_the_installed_ones() -> None:
    written = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"][Kind.TARGET.group]
    installed = {
        point.name: point.value
        for point in metadata.distribution("isobench").entry_points
        if point.group == Kind.TARGET.group
    }
    assert installed == written, "run `pip install -e .` again"


def test_every_announced_target_of_ours_loads_and_keeps_to_the_interface() -> None:
    ours = [
        p.name
        for p in metadata.entry_points(group=Kind.TARGET.group)
        if p.value.startswith("isobench.")
    ]
    every = Registry()
    for name in ours:
        target = every.get(name)
        assert not isinstance(target, registry.BrokenTarget), target
        assert isinstance(target, Target)
        assert target.name == name
        assert isinstance(target, Explains)  # optional for others, not for ours
        assert set(target.starts) == {"cold", "warm", "exec"}


def test_native_comes_first_and_strangers_come_last_by_name(install: Install) -> None:
    install(TARGET, {"zebra": "MODULE:Mine", "aardvark": "MODULE:Mine"})
    names = list(Registry().names())
    assert names[: len(registry.ORDER)] == list(registry.ORDER)
    others = names[len(registry.ORDER) :]
    assert others == sorted(others)
    assert {"aardvark", "zebra"} <= set(others)


def test_a_plug_in_of_another_distribution_is_found_and_used(install: Install) -> None:
    install(TARGET, {"mine": "MODULE:Mine"})
    target = Registry().get("mine")
    assert isinstance(target, Target)
    assert target.name == "mine"


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("def broken(:", "SyntaxError"),
        ("", "Mine"),
        ("Mine = 3", "TypeError"),
        ("class Mine:\n    def __init__(self): raise OSError('no licence')", "no licence"),
        ("class Mine:\n    name = 'mine'", "technology, abi, expectations, probe, open"),
        ("import sys; sys.exit(3)", "SystemExit"),
    ],
)
def test_a_plug_in_that_does_not_load_is_blamed_on_its_distribution(
    module: str, why: str, install: Install
) -> None:
    install(module, {"mine": "MODULE:Mine"}, "its-maker")
    every = Registry()
    answer = what_is_wrong(every.get("mine"))
    assert why in answer.what
    assert "its-maker" in answer.hint
    assert every.get("native").name == "native"


def test_a_broken_target_opens_no_session(install: Install, tmp_path: Path) -> None:
    install("raise RuntimeError('out of order')", {"mine": "MODULE:Mine"})
    stage = Stage(root=tmp_path, digest=Sha256(""), scratch=tmp_path, owner="isobench-m-1-2")
    opening = Registry().get("mine").open(stage)
    with pytest.raises(SessionError, match="out of order"), opening:
        pass


def test_an_in_tree_name_is_never_replaced(install: Install) -> None:
    install(TARGET, {"docker": "MODULE:Mine"}, "a-usurper")
    assert type(Registry().get("docker")).__module__ == "isobench.targets.containers.docker"


def test_a_target_is_made_once() -> None:
    every = Registry()
    assert every.get("native") is every.get("native")


def test_options_reach_the_target(install: Install) -> None:
    install(TARGET, {"mine": "MODULE:Mine"})
    target: Any = Registry({"mine": {"level": 3, "profile": "x"}}).get("mine")
    assert (target.level, target.profile) == (3, "x")


def test_options_reach_a_target_whose_annotations_are_strings(install: Install) -> None:
    install(
        "from __future__ import annotations\n" + textwrap.dedent(TARGET), {"mine": "MODULE:Mine"}
    )
    target: Any = Registry({"mine": {"level": 3}}).get("mine")
    assert target.level == 3


@pytest.mark.parametrize(
    ("options", "why"),
    [({"levle": 3}, "levle"), ({"level": "three"}, "int"), ({"level": True}, "int")],
)
def test_a_mistaken_option_is_reported_with_its_table(
    options: dict[str, Any], why: str, install: Install
) -> None:
    install(TARGET, {"mine": "MODULE:Mine"})
    with pytest.raises(UsageError, match=why) as caught:
        Registry({"mine": options}).get("mine")
    assert "[targets.mine]" in str(caught.value)
    assert caught.value.hint


def test_an_option_that_python_has_a_word_for_is_set_by_its_own_name(install: Install) -> None:
    module = TARGET.replace('profile: str = ""', 'class_: str = ""')
    install(module, {"mine": "MODULE:Mine"})
    target: Any = Registry({"mine": {"class": "fine"}}).get("mine")
    assert target.class_ == "fine"
    with pytest.raises(UsageError) as caught:
        Registry({"mine": {"class_": "fine"}}).get("mine")
    assert "level, class" in caught.value.hint


def test_a_value_that_a_target_refuses_is_reported_with_its_table(install: Install) -> None:
    refusal = """
        def __post_init__(self):
            if self.level > 5:
                raise ValueError("level = 9: five is the most")
    """
    install(TARGET + refusal, {"mine": "MODULE:Mine"})
    with pytest.raises(UsageError, match=r"\[targets\.mine\]: level = 9"):
        Registry({"mine": {"level": 9}}).get("mine")


@pytest.mark.parametrize("name", ["qemu", "kvm", "qemu-aarch64", "mine"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"memory": "12"}, 'memory = "12": write it as "512MiB" or "2GiB"'),
        ({"memory": "0MiB"}, 'memory = "0MiB"'),
        ({"memory": "79MiB"}, 'memory = "79MiB": a guest needs at least 80MiB'),
        ({"memory": 512}, "memory = 512: Expected `str`"),
        ({"disk": "1 TB"}, 'disk = "1 TB": write it as'),
        ({"vcpus": -1}, "vcpus = -1: write a number of CPUs"),
        ({"vcpus": 1.5}, "vcpus = 1.5: Expected `int`"),
        ({"boot_timeout": -2.0}, "boot_timeout = -2: write seconds"),
        ({"boot_timeout": float("nan")}, "boot_timeout = nan: write seconds"),
        ({"cache": "nothing"}, 'cache = "nothing": Invalid enum value'),
        ({"guest": "big"}, 'guest = "big": Invalid enum value'),
    ],
)
def test_a_mistaken_option_of_a_virtual_machine_is_reported_with_what_to_type(
    name: str, options: dict[str, Any], told: str
) -> None:
    kind = {"kind": "qemu"} if name == "mine" else {}
    with pytest.raises(UsageError) as caught:
        Registry({name: {**kind, **options}}).get(name)
    assert f"[targets.{name}]" in str(caught.value)
    assert told in str(caught.value)
    assert "isobench.toml" in caught.value.hint


def test_a_choice_is_answered_with_all_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        Registry({"qemu": {"cache": "nothing"}}).get("qemu")
    assert '"none", "writeback", "writethrough"' in caught.value.hint


def test_a_plug_in_that_refuses_its_own_defaults_is_broken(install: Install) -> None:
    module = TARGET + "\n        def __post_init__(self):\n            raise ValueError('no 1')\n"
    install(module, {"mine": "MODULE:Mine"})
    assert "no 1" in what_is_wrong(Registry().get("mine")).what
    with pytest.raises(UsageError, match="no 1"):
        Registry({"mine": {"level": 1}}).get("mine")


def test_an_unknown_option_is_answered_with_those_there_are(install: Install) -> None:
    install(TARGET, {"mine": "MODULE:Mine"})
    with pytest.raises(UsageError) as caught:
        Registry({"mine": {"levle": 3}}).get("mine")
    assert "level, profile" in caught.value.hint


def test_a_target_without_options_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        Registry({"native": {"speed": "high"}}).get("native")
    assert "none" in caught.value.hint


def test_a_configured_target_is_one_more_with_its_own_options(install: Install) -> None:
    install(TARGET, {"mine": "MODULE:Mine"})
    every = Registry({"strict": {"kind": "mine", "level": 9}})
    assert list(every.names())[-1] == "strict"
    strict: Any = every.get("strict")
    plain: Any = every.get("mine")
    assert (strict.level, plain.level) == (9, 1)


@pytest.mark.parametrize(("name", "kind"), [("kvm", "qemu-kvm"), ("mine", "qemu-tcg")])
def test_a_virtual_machine_may_be_called_by_its_accelerator(name: str, kind: str) -> None:
    target = Registry({name: {"kind": kind, "vcpus": 2}}).get(name)
    assert target.name == kind.removeprefix("qemu-").replace("tcg", "qemu")


def test_a_configured_target_of_an_unknown_kind_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="'hyperkit'") as caught:
        Registry({"fast": {"kind": "hyperkit"}})
    assert "docker" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("virtualbox", 'kind = "ssh", preset = "virtualbox"'),
        ("VMware", 'preset = "esxi"'),
        ("firecracker", 'kind = "ssh", host'),
        ("nerdctl", "not supported yet"),
        ("kata", 'runtime = "kata"'),
    ],
)
def test_a_technology_without_a_target_is_answered_with_how_it_is_reached(
    name: str, way: str
) -> None:
    with pytest.raises(UsageError, match="not a target itself") as caught:
        Registry().get(name)
    assert way in caught.value.hint


def test_no_technology_without_a_target_has_one() -> None:
    assert not indirect.names() & set(registry.announced())
    assert all(indirect.instructions(name) for name in indirect.names())


def test_a_name_that_says_what_it_is_cannot_be_given_another_kind() -> None:
    with pytest.raises(UsageError, match="docker"):
        Registry({"docker": {"kind": "podman"}})


@pytest.mark.parametrize("name", ["a/b", "../x", "native#2", "all", "auto", "a,b", "", " x"])
def test_a_name_that_no_file_or_flag_could_carry_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"targets.{name}")):
        Registry({name: {"kind": "native"}})


@pytest.mark.parametrize("kind", [3, ["docker"], {}])
def test_a_kind_that_is_no_text_is_refused(kind: Any) -> None:
    with pytest.raises(UsageError, match=r"targets\.fast"):
        Registry({"fast": {"kind": kind}})


@pytest.mark.parametrize("name", ["dockr", "Docker", "", "docker "])
def test_an_unknown_name_is_reported_with_a_hint(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(name))) as caught:
        Registry().get(name)
    assert "isobench targets" in caught.value.hint


def test_a_name_nearly_right_is_answered_with_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        Registry().get("qemu-user")
    assert "did you mean qemu-user-aarch64?" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "right"), [("qmeu", "qemu"), ("quemu", "qemu"), ("podmann", "podman")]
)
def test_letters_in_the_wrong_places_are_answered_with_the_right_name(
    name: str, right: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Registry({"q": {"kind": "qemu"}}).get(name)
    assert f"did you mean {right}?" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("qemu", {"arguments": "-x"}, "arguments takes a list of texts;"),
        ("ssh", {"start": 1}, 'start takes text, as in "this" or a list of texts;'),
        ("ssh", {"expect": 1}, "expect takes a table, as in"),
        ("qemu", {"vcpus": "two"}, "vcpus takes a whole number;"),
    ],
)
def test_what_an_option_takes_is_shown_in_words_and_where_to_fix_it(
    name: str, options: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Registry({name: options}, file="my own.toml").get(name)
    assert caught.value.hint.startswith(wanted)
    assert caught.value.hint.endswith("; fix it in my own.toml")


def test_a_refused_value_is_fixed_in_the_file_that_was_read() -> None:
    with pytest.raises(UsageError) as caught:
        Registry({"qemu": {"disk": "90TiB"}}, file="my own.toml").get("qemu")
    assert 'write it as "512MiB" or "2GiB", in these units' in str(caught.value)
    assert caught.value.hint == "fix it in my own.toml"


def test_an_emulator_that_is_not_there_is_not_to_be_installed() -> None:
    answer = Registry({"qemu": {"emulator": "/no/such/qemu"}}).get("qemu").probe()
    assert isinstance(answer, Unavailable)
    assert answer.what == "/no/such/qemu"
    assert "fix emulator" in answer.hint
    assert "--install" not in answer.hint


def test_native_is_always_selected_and_only_names_count_as_requested() -> None:
    every = Registry()
    chosen, explicit = every.select(["docker"])
    assert (list(chosen), explicit) == (["native", "docker"], {"docker"})


@pytest.mark.parametrize("names", [[], ["all"], ["auto"]])
def test_all_means_every_target_and_asks_for_none_by_name(names: list[str]) -> None:
    every = Registry()
    chosen, explicit = every.select(names)
    assert tuple(chosen) == every.names()
    assert explicit == frozenset()


def test_all_and_a_name_ask_for_that_one_by_name() -> None:
    every = Registry()
    chosen, explicit = every.select(["all", "docker"])
    assert tuple(chosen) == every.names()
    assert explicit == {"docker"}


def test_a_fake_keeps_to_the_interface_as_well() -> None:
    assert isinstance(FakeTarget(name=TargetName("box")), Target)
