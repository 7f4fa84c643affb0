"""Builds the programs that are shipped, when the wheel is built: see pyproject.toml.

Needs the compiler. All that isobench brings is shipped for every ABI, but what asks for a C
library: that would take minutes, and no workload of isobench's own does.
"""

import hashlib
import shutil
from pathlib import Path

from isobench.model import Abi
from isobench.model.units import Sha256
from isobench.payload import build, compiler, shipped
from isobench.workloads import loader


def jobs() -> list[build.Job]:
    """Return all that is shipped, in the order of the manifest."""
    stages = build.jobs(build.programs(loader.find().values()), Abi)
    tools = [job for abi in Abi if abi.system == "linux" for job in build.tool_jobs(abi)]
    return [job for job in [*stages, *tools] if not job.libc]


def make(folder: Path) -> None:
    """Write `ABI/PROGRAM` and the manifest into a folder; PayloadError where that fails."""
    store = folder / ".store"  # cold: nothing that was built before goes in
    entries = build.side_by_side(lambda job: _made(job, folder, store), jobs())
    shutil.rmtree(store)
    headers = {path.name: _hash(path) for path in compiler.headers()}
    text = shipped.written(entries, headers)
    (folder / shipped.MANIFEST).write_text(text, encoding="utf-8")


def _made(job: build.Job, folder: Path, store: Path) -> shipped.Shipped:
    target = folder / job.abi / job.program
    compiler.compile_to(target, job.program, job.source, job.abi, libc=job.libc, store=store)
    return shipped.Shipped(
        program=job.program,
        abi=job.abi,
        sha256=_hash(target),
        inputs=compiler.inputs(job.source, job.abi, libc=job.libc),
        source=_hash(job.source),
        compiler=compiler.name(),
        flags=compiler.flags(job.abi, libc=job.libc),
    )


def _hash(path: Path) -> Sha256:
    return Sha256(hashlib.sha256(path.read_bytes()).hexdigest())
