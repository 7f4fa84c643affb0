"""The developer's manual, as commands: `nox -l` lists them.

Plain `nox` runs lint, types, tests and wheel.

    nox                       what must pass before a commit
    nox -s live               real engines and emulators, the contract suite included
    nox -s bench              speed of isobench itself, as ratios taken side by side
    nox -s fuzz -- 600        damaged runs and fuzzers, for 600 seconds each
    nox -s lies -- 600        a search for a target that lies about its times and is believed
    nox -s schemas            write the JSON Schemas in docs/schemas anew
    nox -s audit              an SBOM of what isobench installs, and its known faults
    nox -s report             render the examples under reports/examples again
    nox -s bare               README's commands, pasted on fresh Debian roots: before a release
    nox -s nights             three nights of docs/ci on a fresh Debian root
    nox -s kills              isobench killed at random moments: what is left, what is gone

Arguments after `--` go to pytest: `nox -s tests -- -k plan`, `nox -s live -- --require docker`.
Those of `bare` choose: `nox -s bare -- bookworm root`.
"""

import json
import shutil
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "wheel"]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff: every rule, with the exceptions and their reasons in pyproject.toml."""
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.run(sys.executable, "-m", "mypy")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Unit, architecture and golden tests: no engine is started. Fast."""
    # A file stays in one process, whose fixtures are costly; engines would meet each other.
    spread = ("--numprocesses", "auto", "--dist", "loadfile")
    session.run(sys.executable, "-m", "pytest", "-m", "not live", *spread, *session.posargs)


@nox.session(venv_backend="none")
def live(session: nox.Session) -> None:
    """The contract suite and whole runs, on whatever is installed here (see --require)."""
    session.run(sys.executable, "-m", "pytest", "-m", "live", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it outside the checkout without a compiler, run what it brings."""
    session.install("build")
    folder, check = Path(session.create_tmp()), Path("tests/as_shipped.py").resolve()
    for left in folder.iterdir():  # by the session before: nox keeps the folder
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    # From the sdist, as pip does it with a release.
    session.run("python", "-m", "build", "--outdir", str(folder), ".", silent=True)
    built = max(folder.glob("isobench-*.whl"))
    session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "isobench", "ziglang")
    session.install(str(built))
    session.chdir(folder)
    session.run("isobench", "workloads")
    session.run(
        *("isobench", "run", "-r", "2", "-t", "native", "-w", "cpu.sieve", "-o", "run", "-q"),
        env={"XDG_CACHE_HOME": str(folder / "cache")},
    )
    session.run("python", str(check), "run")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Benchmarks of isobench itself: start-up, cost per trial, analysis."""
    names = ("-o", "python_files=bench_*.py", "-o", "python_functions=bench_*")
    columns = "--benchmark-columns=median,iqr,ops,rounds"
    argv = ("pytest", "tests/bench", *names, "--benchmark-only", columns)
    session.run(sys.executable, "-m", *argv, *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Write an SBOM of what isobench installs, and look its packages up among known faults."""
    # Two environments: the tools' own packages are no part of isobench's.
    subject = Path(session.create_tmp()) / "subject"
    session.run("python", "-m", "venv", "--clear", str(subject))
    python = subject / "bin" / "python"
    wanted = ".[kubernetes,history,wasm,build]"
    session.run(str(python), "-m", "pip", "install", "--quiet", wanted, external=True)
    session.run(str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "pip", external=True)
    session.install("cyclonedx-bom==7.*", "pip-audit==2.*")
    sbom = subject.parent / "sbom.cdx.json"
    session.run(
        *("cyclonedx-py", "environment", str(python), "--pyproject", "pyproject.toml"),
        *("--output-reproducible", "--of", "JSON", "--output-file", str(sbom)),
    )
    session.log(f"SBOM: {sbom}")
    _look_up_faults(session, subject)


def _look_up_faults(session: nox.Session, subject: Path) -> None:
    """Ask pip-audit about the packages of an environment; fail if one has a known fault."""
    packages = next(subject.glob("lib/python*/site-packages"))
    found = subject.parent / "faults.json"
    found.unlink(missing_ok=True)
    # isobench itself is in no database.
    session.run(
        *("pip-audit", "--path", str(packages), "--skip-editable", "--progress-spinner", "off"),
        *("--format", "json", "--output", str(found)),
        success_codes=[0, 1],
    )
    if not found.is_file():
        # pip-audit has the same exit code for a fault and for a network that does not answer.
        session.warn("pip-audit could not ask its database (see above): nothing was looked up")
        return
    rows = json.loads(found.read_text())["dependencies"]
    bad = [row for row in rows if row.get("vulns")]
    for row in bad:
        names = ", ".join(fault["id"] for fault in row["vulns"])
        session.log(f"{row['name']} {row['version']}: {names}")
    skipped = [row["name"] for row in rows if "skip_reason" in row]
    if len(skipped) == len(rows):
        reason = rows[0]["skip_reason"] if rows else "no packages"
        session.warn(f"nothing was looked up: pip-audit knows none of the packages ({reason})")
        return
    session.log(f"{len(rows) - len(skipped)} packages looked up, {len(bad)} with known faults")
    session.log(f"not looked up: {', '.join(skipped) or 'none'}")
    if bad:
        session.error("packages with known faults")


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Damaged runs and each fuzzer, 60 seconds each; atheris guides them if it is installed."""
    seconds = session.posargs[0] if session.posargs else "60"
    session.run(sys.executable, "-m", "tests.faults.damage", "--seconds", seconds)
    for fuzzer in sorted(Path("tests/faults").glob("fuzz_*.py")):
        session.run(sys.executable, "-m", f"tests.faults.{fuzzer.stem}", seconds)


@nox.session(venv_backend="none")
def lies(session: nox.Session) -> None:
    """Search for a target that lies about its times and is near-native: SECONDS and a seed."""
    session.run(sys.executable, "-m", "tests.faults.lies", *(session.posargs or ["60"]))


@nox.session(venv_backend="none")
def schemas(session: nox.Session) -> None:
    """Write the JSON Schemas of a run's files into docs/schemas."""
    session.run(sys.executable, "tests/schemas.py")


@nox.session(venv_backend="none")
def report(session: nox.Session) -> None:
    """Render the example reports again from their records."""
    for folder in sorted(path.parent for path in Path("reports/examples").glob("*/summary.json")):
        packed = folder / "run.zip"
        run = str(packed if packed.exists() else folder)
        command = ("report", run, "--output", str(folder), "--quiet")
        session.run(sys.executable, "-m", "isobench", *command)


@nox.session(venv_backend="none")
def nights(session: nox.Session) -> None:
    """Three nights of the workflow in docs/ci on a fresh bookworm root, as an ordinary user."""
    session.run(sys.executable, "tests/nights.py", *(session.posargs or ["bookworm"]))


@nox.session(venv_backend="none")
def bare(session: nox.Session) -> None:
    """README's commands on fresh bookworm and trixie roots, as root and as an ordinary user."""
    logs = ("--logs", session.create_tmp())
    # It takes a while to remove its roots after Ctrl-C, which nox would not wait for.
    session.run(
        *(sys.executable, "tests/bare.py", *logs, *session.posargs),
        interrupt_timeout=None,
        terminate_timeout=None,
    )


@nox.session(venv_backend="none")
def kills(session: nox.Session) -> None:
    """Kill isobench at random moments: `nox -s kills -- --kills 1000`. Needs root and engines."""
    session.run(
        *(sys.executable, "tests/faults/kills.py", *session.posargs),
        interrupt_timeout=None,
        terminate_timeout=None,
    )
