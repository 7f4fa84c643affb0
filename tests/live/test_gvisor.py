"""gVisor itself: its variants, and container engines that use it."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from isobench.evidence import prove
from isobench.model import Available, Command
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins.api import Target, Witness
from isobench.plugins.registry import Registry
from tests import dockerd
from tests.conftest import PROGRAM, Staged, sentence
from tests.live.conftest import Command as Program

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)
QUICK = ("-w", "cpu.sieve", "--blocks", "3", "--min-time", "0.004s")

Able = Callable[[str], Target]
Make = Callable[[Target], Staged]


def variant(**options: object) -> Target:
    """Return gVisor with options, or skip if it cannot run with them."""
    target = Registry({"gvisor": options}).get("gvisor")
    answer = target.probe()
    if not isinstance(answer, Available):
        given = ", ".join(f"{name} = {value}" for name, value in options.items())
        pytest.skip(sentence(f"gvisor with {given}", answer))
    return target


@pytest.mark.parametrize(
    "options",
    [{}, {"rootless": True}, {"platform": "ptrace"}, {"platform": "systrap"}, {"network": "host"}],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_every_variant_is_gvisor_and_the_host_detects_its_platform(
    able: Able, staged: Make, options: dict[str, object]
) -> None:
    native = able("native")
    able("gvisor")
    target = variant(**options)
    outside, one = staged(native), staged(target)

    def evidence(chosen: Target, made: Staged) -> tuple[Any, dict[str, Any]]:
        with chosen.open(made.stage) as session:
            done = session.run(
                Command(argv=("_evidence", "cafe", str(made.shop.canary))),
                timeout=TIMEOUT,
            )
            assert (
                session.run(
                    Command(argv=(PROGRAM, "say", "x")),
                    timeout=TIMEOUT,
                ).stderr
                == b""
            )
            seen = session.witness() if isinstance(session, Witness) else ()
            witnessed = {fact.key: fact.value for fact in seen}
        facts = wire.read(done.stdout, nonce="cafe", iterations=0).facts
        return prove.gather(facts), witnessed

    host, _ = evidence(native, outside)
    inside, witnessed = evidence(target, one)
    assert prove.unmet(prove.check(target.expectations, host=host, inside=inside)) == ""
    platform = witnessed["host.sentry.platform"]
    assert platform == options.get("platform", platform) in ("systrap", "kvm", "ptrace")
    assert isinstance(answer := target.probe(), Available)
    assert str(platform) in answer.version
    assert witnessed["host.rootless"] is (os.geteuid() != 0 or bool(options.get("rootless")))
    assert witnessed["host.sentry.processes"] >= 3  # runsc, gofer, sentry
    assert witnessed["host.resident_kib"] > 0


def measured(ran: Any, name: str) -> dict[str, Any]:
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert summary["gaps"] == []
    found: dict[str, Any] = next(item for item in summary["targets"] if item["name"] == name)
    assert found["status"] == "measured"
    assert all(expectation["kept"] for expectation in found["promises"])
    facts = {fact["key"]: fact["value"] for fact in found["facts"]}
    return found | {"facts": facts}


def test_podman_with_runsc_is_a_sandbox_with_its_own_column(isobench: Program, able: Able) -> None:
    able("podman")
    able("gvisor")
    (isobench.folder / "isobench.toml").write_text(
        '[targets.podman-runsc]\nkind = "podman"\nruntime = "runsc"\n'
        'security_opt = ["seccomp=unconfined"]\n'
    )
    found = measured(isobench("run", "-t", "podman,podman-runsc", *QUICK), "podman-runsc")
    assert found["class"] == "sandbox"
    assert found["facts"]["host.engine.runtime"] == "runsc"
    assert "runsc" in found["facts"]["host.engine.runtime_version"]
    assert found["facts"]["host.sentry.platform"] in ("systrap", "kvm", "ptrace")


@pytest.fixture
def daemon() -> Iterator[str]:
    """A separate dockerd with runsc and, if installed, crun."""
    runsc = {"path": shutil.which("runsc"), "runtimeArgs": ["--network=none"]}
    crun = {"path": shutil.which("crun") or "crun"}
    with dockerd.private({"runtimes": {"runsc": runsc, "crun": crun}}) as made:
        yield made.host


def test_docker_runs_containers_with_every_configured_runtime(
    isobench: Program, able: Able, daemon: str
) -> None:
    able("docker")
    able("gvisor")
    (isobench.folder / "isobench.toml").write_text(
        '[targets.docker-runsc]\nkind = "docker"\nruntime = "runsc"\nmemory = "256m"\n'
        '[targets.docker-runc]\nkind = "docker"\nruntime = "runc"\n'
        'security_opt = ["seccomp=unconfined"]\n'
    )
    names = "docker-runsc,docker-runc"
    ran = isobench("run", "-t", names, *QUICK, DOCKER_HOST=daemon)
    sandbox, container = measured(ran, "docker-runsc"), measured(ran, "docker-runc")
    assert (sandbox["class"], container["class"]) == ("sandbox", "containerization")
    assert sandbox["facts"]["kernel.sentry"] == "gVisor"
    assert sandbox["facts"]["host.engine.memory"] == 256 << 20
    assert container["facts"]["security.seccomp"] == "0"
    assert container["facts"]["host.engine.storage"]
