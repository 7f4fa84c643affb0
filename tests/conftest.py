"""Options and fixtures of the whole suite.

A test that needs a technology asks for it through the fixture `able`; where it cannot run, the
test is skipped with the reason. `--require docker,podman` turns such a skip into a failure: CI says
which technologies it has installed, and then none of their tests can be left out unnoticed.
"""

import contextlib
import functools
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isobench.model import Abi, Availability, Available, Command, Stage, host_abi
from isobench.payload import build, stage
from isobench.plugins.api import Target
from isobench.plugins.registry import Registry
from isobench.workloads import loader
from tests import distributions
from tests.live import cluster as kubernetes_cluster

PROGRAM = "contract"
SOURCE = Path(__file__).parent / "data" / "contract" / "payload.c"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="NAMES",
        help="targets, or chromium, whose tests must not be skipped, with commas",
    )
    parser.addoption(
        "--target",
        default="",
        metavar="NAMES",
        help="hold the contract suite to these installed targets alone, with commas",
    )
    parser.addoption(
        "--target-from",
        type=Path,
        metavar="FOLDER",
        help="hold the contract suite to the targets of this distribution, not installed as yet",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts the suite in the background lets it, and all programs that it starts,
    # ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    distributions.ONLY.extend(name for name in config.getoption("--target").split(",") if name)
    if (source := config.getoption("--target-from")) is not None:
        site = Path(tempfile.mkdtemp(prefix="isobench-site-"))
        config.add_cleanup(lambda: shutil.rmtree(site, ignore_errors=True))
        distributions.install(source, site)
    known = Registry().names()
    for name in distributions.ONLY:
        if name not in known:
            raise pytest.UsageError(
                f"--target: no target is called {name!r}; of: {', '.join(known)}"
            )
    for name in required(config) - OTHERS:
        if name not in known:
            raise pytest.UsageError(
                f"--require: no target is called {name!r}; of: {', '.join(known)}"
            )


OTHERS = frozenset({"chromium"})
"""What `--require` can name that is no target."""
ENGINES = {"podman-pod": "podman", "qemu-aarch64": "qemu"}
"""Targets that stand on the engine, or the downloads, of another one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `--dist loadgroup` spread the contract suite: all tests of an engine in one process."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        name = parameters.get("name")
        if item.path.parent.name == "contract" and name:
            item.add_marker(pytest.mark.xdist_group(ENGINES.get(name, name)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why tests were skipped: each reason once, with how many tests it left out."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = Counter(where[-1].removeprefix("Skipped: ") for where in skipped)
    if reasons:
        terminalreporter.section("skipped tests")
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number:5}  {reason}")


def required(config: pytest.Config) -> frozenset[str]:
    return frozenset(name for name in config.getoption("--require").split(",") if name)


@functools.cache
def _probed(name: str) -> tuple[Target, Availability]:
    target = Registry().get(name)
    return target, target.probe()


def sentence(what: str, answer: Availability) -> str:
    """Return why something cannot run here and what to type, for a person to read."""
    assert not isinstance(answer, Available)
    return f"{what} cannot run here: {answer.reason}; {answer.hint}"


SERVED_BY = {"kubernetes": "cluster"}
"""The fixture that starts what a target's tests need and no package brings."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Start a Kubernetes cluster on this machine for the session, and let KUBECONFIG lead to it.

    Where the user names a cluster of their own, that one is used.
    """
    if named := os.environ.get("KUBECONFIG"):
        yield Path(named)
        return
    if why := kubernetes_cluster.lacking():
        demanded = "kubernetes" in required(request.config)
        (pytest.fail if demanded else pytest.skip)(f"kubernetes cannot run here: {why}")
    ran = kubernetes_cluster.runs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(config := kubernetes_cluster.start()))
        yield config
    if not ran:
        kubernetes_cluster.stop()


@pytest.fixture
def able(request: pytest.FixtureRequest) -> Callable[[str], Target]:
    """Return a function that hands out a target that can run here, or skips (or fails) the test."""

    def get(name: str) -> Target:
        if name in SERVED_BY:
            request.getfixturevalue(SERVED_BY[name])
        target, answer = _probed(name)
        if not isinstance(answer, Available):
            reason = sentence(name, answer)
            if name in required(request.config):
                pytest.fail(reason)
            pytest.skip(reason)
        return target

    return get


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the suite a cache of its own: what it leaves behind is then plain to see."""
    folder = tmp_path_factory.mktemp("cache", numbered=False)
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == folder.stat().st_uid and "pytest" in parent.name:
            parent.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name in (
            "ISOBENCH_CONFIG",
            "ISOBENCH_RESULTS_DIR",
            "ISOBENCH_TARGETS",
            "ISOBENCH_SEED",
        ):
            patch.delenv(name, raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def payloads(cache: Path) -> Callable[[Abi], tuple[build.Payload, ...]]:
    """Return a function that builds every shipped payload and the contract's own for an ABI."""
    host = host_abi()
    assert host is not None
    programs = build.programs(loader.find().values()) | {PROGRAM: (SOURCE, False)}

    @functools.cache
    def built(abi: Abi) -> tuple[build.Payload, ...]:
        return build.build_all(programs, [abi], host=host)

    return built


class Staged:
    """A stage for a target, and what its programs printed and its phases were."""

    def __init__(self, shop: stage.Workshop, abi: Abi) -> None:
        self.shop, self.abi = shop, abi
        self.variables: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.marks: list[str] = []
        self.on_chunk: Callable[[bytes], None] = lambda _: None
        self.stage: Stage = replace(shop.stage(abi), on_phase=self.marks.append)

    def command(self, *argv: str) -> Command:
        """Return a command to which this listens."""
        return Command(
            argv=argv,
            environment=dict(self.variables),
            on_output=self._on_output,
            on_phase=self.marks.append,
        )

    def _on_output(self, chunk: bytes, /, at: int | None = None) -> None:
        self.chunks.append(chunk)
        self.on_chunk(chunk)


@pytest.fixture
def staged(
    payloads: Callable[[Abi], tuple[build.Payload, ...]],
) -> Iterator[Callable[[Target], Staged]]:
    """Return a function that makes a real stage for a target; it is gone after the test."""
    with contextlib.ExitStack() as stack:

        def make(target: Target) -> Staged:
            host = host_abi()
            assert host is not None
            abi = target.abi or host
            return Staged(stack.enter_context(stage.workshop(payloads(abi))), abi)

        yield make
