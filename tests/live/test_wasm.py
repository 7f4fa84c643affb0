"""WebAssembly: the end of a module, what it cannot reach, the time of compilation."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from isobench.evidence import prove
from isobench.model import Abi, Command, Environment
from isobench.model.errors import SessionError
from isobench.model.units import WorkloadName, seconds
from isobench.payload import build, stage, wire
from isobench.plugins.api import Completed, Target
from isobench.targets.sandboxes.wasm import WasmTarget
from isobench.workloads import loader
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)

Able = Callable[[str], Target]
Make = Callable[[Target], Staged]

OWN = """
#define ISOBENCH_MAIN
#include "isobench.h"
static int ib_main(int argc, char **argv, char **environment) {
    (void)argc, (void)environment;
    if (argv[1][0] == 't') {
        ib_text("before\\n");
        ib_flush();
        __builtin_trap();
    }
    if (argv[1][0] == 'm')
        for (uint64_t i = 0;; i++)
            if (!ib_pages(1 << 26)) {
                ib_decimal(i);
                ib_flush();
                return 3;
            }
    if (argv[1][0] == 'e') ib_exit(200);
    ib_sys(__NR_chdir, "/scratch");
    ib_decimal((uint64_t)-ib_open(argv[2], IB_O_RDONLY, 0));
    ib_flush();
    return 0;
}
"""


@dataclass(frozen=True, kw_only=True)
class Trusting(WasmTarget):
    """A target that grants the whole host, and so is no sandbox."""

    @property
    def trust(self) -> tuple[str, ...]:
        return (*super().trust, "--dir", "/::/")


@pytest.fixture(params=["ahead", "at-start"])
def target(request: pytest.FixtureRequest, able: Able) -> WasmTarget:
    able("wasm")
    return WasmTarget(compile_=request.param)


@pytest.fixture
def own(tmp_path: Path, able: Able) -> Iterator[stage.Workshop]:
    able("wasm")
    source = tmp_path / "payload.c"
    source.write_text(OWN)
    with stage.workshop([build.build("own", source, Abi.WASM32)]) as shop:
        yield shop


def run(shop: stage.Workshop, *arguments: str, target: Target | None = None) -> Completed:
    made = shop.stage(Abi.WASM32)
    with (target or WasmTarget()).open(made) as session:
        return session.run(
            Command(argv=("own", *arguments)),
            timeout=TIMEOUT,
        )


def test_a_trap_is_a_failure_with_the_output_before_it_and_the_reason(own: stage.Workshop) -> None:
    done = run(own, "trap")
    assert done.exit_code not in (0, None)
    assert done.stdout == b"before\n"
    assert b"wasm trap" in done.stderr


def test_a_failed_allocation_is_reported_to_the_module(own: stage.Workshop) -> None:
    done = run(own, "memory")
    assert done.exit_code == 3
    assert 0 < int(done.stdout) <= 64  # a module can address four gibibytes


def test_an_exit_code_above_wasis_range_is_no_success(own: stage.Workshop) -> None:
    assert run(own, "end").exit_code == 125


def test_an_argument_that_is_not_utf_8_is_an_error_of_the_engine(own: stage.Workshop) -> None:
    with pytest.raises(SessionError, match="utf-8"):
        run(own, "open", "\udcff")


def test_no_path_leaves_the_granted_directories(own: stage.Workshop) -> None:
    scratch = own.scratch / "wasm"
    scratch.mkdir()
    (scratch / "inside").write_text("")
    (scratch / "link").symlink_to(own.canary)
    assert int(run(own, "open", "inside").stdout) > 1 << 63  # minus a descriptor
    for path in (str(own.canary), "../../canary", "/scratch/../../canary", "link", "/", ".."):
        assert 0 < int(run(own, "open", path).stdout) < 200, path


def evidence(target: Target, staged: Staged) -> Environment:
    nonce = secrets.token_hex(8)
    with target.open(staged.stage) as session:
        done = session.run(
            Command(argv=("_evidence", nonce, str(staged.shop.canary))),
            timeout=TIMEOUT,
        )
    return prove.gather(wire.read(done.stdout, nonce=nonce, iterations=0).facts)


def test_a_target_that_grants_the_whole_host_breaks_its_expectations(
    able: Able, staged: Make
) -> None:
    native = able("native")
    able("wasm")
    host, broad = evidence(native, staged(native)), Trusting()
    broken = prove.unmet(
        prove.check(broad.expectations, host=host, inside=evidence(broad, staged(broad)))
    )
    assert "host.canary_readable should be False, but is True" in broken
    assert "wasi.directories" in broken


def test_both_times_of_compilation_give_the_same_results(target: WasmTarget, staged: Make) -> None:
    one = staged(target)
    assert (
        prove.unmet(
            prove.check(target.expectations, host=prove.gather(()), inside=evidence(target, one))
        )
        == ""
    )
    for workload in ("cpu.sieve", "cpu.matmul", "io.metadata"):
        answer = loader.find()[WorkloadName(workload)].answer
        assert answer is not None
        done = target.launch(
            one.stage, one.command(workload, "cafe", "1", str(answer.loops)), timeout=TIMEOUT
        )
        assert wire.read(done.stdout, nonce="cafe", iterations=1).check == answer.check


def test_streams_are_exact_to_the_byte(able: Able, staged: Make) -> None:
    one = staged(target := able("wasm"))
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(target.open(one.stage))
        done = session.run(one.command(PROGRAM, "flood", "8"), timeout=TIMEOUT)
    output = b"".join(one.chunks)
    assert len(output) == 8 * 65536
    assert output == done.stdout
    assert output.count(b"\n") == len(output) // 64
