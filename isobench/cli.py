"""The commands: the only module that prints, and the only one that knows exit codes.

Heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) are imported where they are needed, so
that `isobench --help` answers at once.
"""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from isobench import __version__, flags, packages, screen
from isobench.errors import (
    CellFailedError,
    IsobenchError,
    NothingToRunError,
    UnavailableError,
    UsageError,
)
from isobench.units import TargetName

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.campaign import Outcome
    from isobench.model import Claim
    from isobench.registry import Registry, Variation
    from isobench.report.sheet import Sheet
    from isobench.selftest import Result
    from isobench.store import Run
    from isobench.wish import Launch, Wish

_T = TypeVar("_T")

INTERRUPTED: Final = 130
TIMED_OUT: Final = 124
NOISY: Final = 4
CLAIM_FAILED: Final = 1
GUARANTEE_BROKEN: Final = 1
_EXPORTS: Final = ("json", "csv", "markdown", "html", "junit", "openmetrics")
REGRESSED: Final = 1
FAILURES: Final = ("claim", "error", "noisy", "skipped")
COMPARISON_FAILURES: Final = ("regression", "error", "noisy")
NOISE_FAILURES: Final = ("noisy",)
FAILED_CAUSES: Final = frozenset({"failed", "timed-out", "wrong-answer", "unproven"})


def _fail(error: IsobenchError) -> NoReturn:
    """Print what is wrong and the way out; leave with its exit code."""
    console = screen.console_for(stderr=True)
    console.print("[bold red]isobench:[/] ", end="")
    # Not wrapped: what stands here is copied, paths and commands above all.
    console.print(str(error), markup=False, soft_wrap=True)
    if error.hint:
        console.print("    [green]→[/] ", end="")
        console.print(error.hint, markup=False, soft_wrap=True)
    sys.exit(error.exit_code)


# ---- isobench ------------------------------------------------------------------------------------


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="isobench")
@click.pass_context
def cli(context: click.Context) -> None:
    """Measure what isolation costs here, with evidence that it was in force.

    Runs the same workloads natively and under containers, sandboxes and emulators, and answers
    with ratios to native, honest intervals and verdicts.
    """
    if context.invoked_subcommand is None:
        _front_page(context)


def _front_page(context: click.Context) -> None:
    """Say what this is and what to type next; show the last answer where there is one."""
    import json

    from isobench import places

    def bold(text: str) -> str:
        return click.style(text, bold=True)

    click.echo(
        f"{bold('isobench')} {__version__} - what isolation costs on this machine, with evidence\n"
    )
    click.echo(f"  {bold('isobench run --quick')}      a first look in about a minute")
    click.echo(f"  {bold('isobench run')}              verdicts, in about five minutes")
    click.echo(
        f"  {bold('isobench verify')}           which sentences it supports, which it refutes"
    )
    click.echo(
        f"  {bold('isobench targets')}          what can run here, and what is missing for the rest"
    )
    click.echo(f"  {bold('isobench --help')}           all commands\n")
    latest = places.results() / "latest"
    try:
        summary = json.loads((latest / "summary.json").read_text())
        click.echo(f"Last run ({summary['run']['started']}): {summary['run']['headline']}")
        click.echo(f"  {latest / 'report.html'}")
    except (OSError, ValueError, KeyError, TypeError):
        click.echo("Nothing has been measured in this folder yet.")
    context.exit(0)


def _registry(config: Path | None) -> tuple["Registry", Any]:
    from isobench import config as configuration
    from isobench.registry import Registry

    file, settings = configuration.found(config)
    return Registry(settings.targets, file=file), settings


_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file in place of isobench.toml.",
)
_targets_option = click.option(
    "-t", "--targets", multiple=True, callback=flags.names_of, metavar="NAMES",
    help="Targets, with commas; native is always there. Without: all that can run here.",
)  # fmt: skip
_workloads_option = click.option(
    "-w", "--workloads", multiple=True, callback=flags.names_of, metavar="NAMES",
    help="Workloads or classes (cpu, syscall, io, startup), with commas.",
)  # fmt: skip
_folder_option = click.option(
    "--workload-folder", "folders", multiple=True, type=click.Path(path_type=Path),
    help="A folder with workloads of your own.",
)  # fmt: skip
_color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colour; NO_COLOR works too.",
)


_fail_on_option = click.option(
    "--fail-on", multiple=True, callback=flags.names_of, metavar="KINDS",
    help=f"Of: {', '.join(FAILURES)}.",
)  # fmt: skip
_claims_option = click.option(
    "--claims", type=click.Path(path_type=Path), metavar="FILE",
    help="Claims of your own: see reports/claims.toml.",
)  # fmt: skip


def _export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of what may be written besides the run's folder."""
    texts = {
        "json": "Copy of summary.json (- for standard output).",
        "csv": "All samples as CSV.",
        "markdown": "Copy of summary.md.",
        "html": "Copy of report.html.",
        "junit": "Cells and claims as JUnit's XML.",
        "openmetrics": "Ratios and standings as OpenMetrics text.",
    }
    for kind in reversed(_EXPORTS):
        option = click.option(
            f"--export-{kind}", type=click.Path(allow_dash=True), help=texts[kind]
        )
        command = option(command)
    return command


# ---- run -----------------------------------------------------------------------------------------


@cli.command()
@_targets_option
@_workloads_option
@_folder_option
@click.option("--quick", is_flag=True, help="About a minute; ratios, no verdicts.")
@click.option("--fast", is_flag=True, help="Ten blocks at most.")
@click.option("--rigorous", is_flag=True, help="Half an hour, intervals of 1 %.")
@click.option("--budget", type=flags.Duration(), help="How long the run may take (default 5m).")
@click.option(
    "-r", "--blocks", "--runs", type=click.IntRange(1, 1000), help="Exactly so many blocks."
)
@click.option(
    "--min-blocks", type=click.IntRange(1, 1000), help="Fewest blocks for verdicts (default 10)."
)
@click.option("--max-blocks", type=click.IntRange(1, 1000), help="Most blocks (default 60).")
@click.option(
    "--target-precision", type=flags.Share(), help="Stop when all intervals are this narrow (2.5%)."
)
@click.option("--margin", type=flags.Share(), help="What counts as near-native (5%).")
@click.option(
    "--min-time", type=flags.Duration(), help="Length of one native iteration, for example 0.05s."
)
@click.option(
    "--affinity", "--cpu-affinity", type=flags.Cpus(), metavar="CPUS",
    help="Confine the run to these CPUs, as in 0,2-3: native and all targets alike.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), envvar="ISOBENCH_SEED", help="Replay an order.")
@click.option(
    "--schedule",
    type=click.Choice(["blocks", "duet", "sequential"]),
    default="blocks",
    help="Order of visits; duet: native at the same time as each target, on half of the CPUs each.",
)
@click.option(
    "--launch",
    type=click.Choice(["auto", "fresh", "reuse"]),
    default="auto",
    help="Sessions: opened anew in every block, or reused (auto: where opening takes over 1 s).",
)
@click.option(
    "--timeout",
    type=flags.Duration(),
    help="End the whole run then, with exit code 124.",
)
@click.option(
    "--require",
    multiple=True,
    callback=flags.names_of,
    metavar="NAMES",
    help="Fail unless these can run.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[RUN]",
    help="Go on with an interrupted run (the latest).",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="TARGET.OPTION=VALUE",
    help="Measure a target with one option changed beside it: docker.seccomp=unconfined.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would run; measure nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of this run.")
@_export_options
@_fail_on_option
@_claims_option
@_config_option
@_color_option
@click.option("-q", "--quiet", is_flag=True, help="Only the closing sentence.")
def run(**options: Any) -> None:
    """Measure: the same workloads natively and under each target."""
    outcome = _measure(options)
    if outcome is None:
        return
    _show(outcome, options)
    sys.exit(_exit_code(outcome, options["fail_on"]))


def _measure(options: Mapping[str, Any]) -> "Outcome | None":
    """Measure what the options of `isobench run` ask for; None where they ask for nothing more than
    to say it.
    """
    from isobench import campaign

    _heed_termination()
    if options["dry_run"] and any(options[f"export_{kind}"] for kind in _EXPORTS):
        raise UsageError(
            "--dry-run measures nothing: there is nothing to export",
            hint="leave out --dry-run, or the --export flags",
        )
    registry, settings = _registry(options["config"])
    wish = _wish(options, settings)
    _refuse_unknown(options["fail_on"])
    earlier = _earlier(options["resume"])
    if earlier is not None:
        wish = _same_again(wish, earlier, options)
        if options["config"] is None:
            registry = registry.with_tables(earlier.about.get("config", {}).get("targets", {}))
    varied = [registry.vary(written) for written in options["vary"]]
    if varied:
        registry, wish = _with_variations(registry, wish, varied)
    workloads = _workloads(wish)
    registry.select([*wish.targets, *wish.require])  # a misspelt name is told before all else
    shown = screen.Screen(quiet=options["quiet"], color=options["color"])
    try:
        campaign.sweep(registry, everything=False, observer=lambda line: shown.say(_cleared(line)))
        shown.say("Looking for targets:")
        chosen = campaign.choose(wish, registry, workloads, shown)
        if options["dry_run"]:
            _show_plan(wish, chosen)
            return None
        _announce(wish, chosen, shown)
        chosen = campaign.prepare(chosen, wish, registry, shown.say)
        return campaign.Campaign(wish, registry, shown).run(chosen, earlier)
    finally:
        shown.close()


def _with_variations(
    registry: "Registry", wish: "Wish", varied: "Sequence[Variation]"
) -> "tuple[Registry, Wish]":
    """Return a registry that knows the variations, and a wish for them and what they vary."""
    names = dict.fromkeys(name for one in varied for name in (one.base, one.name))
    registry = registry.with_tables({one.name: one.table for one in varied})
    required = tuple(dict.fromkeys([*wish.require, *names]))
    targets = tuple(dict.fromkeys([*wish.targets, *names])) if wish.targets else ()
    rows = [{"name": v.name, "base": v.base, "option": v.option, "value": v.value} for v in varied]
    return registry, dataclasses.replace(
        wish, targets=targets, require=required, variations=tuple(rows)
    )


def _latest() -> Path:
    """Return the newest run; UsageError where nothing has been measured yet."""
    from isobench import places

    latest = places.results() / "latest"
    if not latest.exists():
        raise UsageError(
            f"nothing has been measured in {places.results()} yet", hint="isobench run --quick"
        )
    return latest


def _earlier(name: str | None) -> "Run | None":
    """Return the run to resume: a folder, or "latest"."""
    if name is None:
        return None
    from isobench import store

    earlier = store.load(_latest() if name == "latest" else Path(name))
    if not earlier.path.is_dir():
        raise UsageError(
            f"{earlier.path} is a file: records cannot be added to it", hint="unpack it first"
        )
    if not earlier.plan.blocks:
        raise UsageError(
            f"{earlier.path} ended before it had a plan", hint="measure anew with isobench run"
        )
    return earlier


def _same_again(wish: "Wish", earlier: "Run", options: Mapping[str, Any]) -> "Wish":
    """Return a wish for what an earlier run was, and for what it had not come to."""
    from isobench.wish import UNBOUNDED

    for flag in ("targets", "workloads", "vary"):
        if options[flag]:
            raise UsageError(
                f"--resume goes on with the {flag} of the earlier run", hint=f"leave out --{flag}"
            )
    about = earlier.about
    longer = bool(options["budget"] or options["blocks"] or options["max_blocks"])
    if not longer and about.get("finished") and not about.get("interrupted", False):
        raise NothingToRunError(
            f"{earlier.path} is complete",
            hint="--budget 10m measures more blocks of its plan; without --resume a new run begins",
        )
    if not longer:
        left = (about.get("budget_seconds") or UNBOUNDED) - (about.get("elapsed_seconds") or 0.0)
        wish = dataclasses.replace(
            wish,
            budget=max(left, 0.0),
            maximum_blocks=about.get("blocks_wanted") or wish.maximum_blocks,
        )
    labels = dict.fromkeys(visit.target for visit in earlier.plan.blocks[0].visits)
    return dataclasses.replace(
        wish,
        targets=tuple(label for label in labels if "#" not in label),
        workloads=tuple(item.workload for item in earlier.plan.work),
        seed=earlier.plan.seed,
        quick=bool(about.get("quick")),
    )


def _heed_termination() -> None:
    """Treat a request to end like Ctrl-C: what was measured is kept, nothing is left behind."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)

    usual = sys.unraisablehook

    def again(fault: Any) -> None:
        """Repeat an interruption that came while Python was tidying up an object, where no
        exception gets through: it would be lost.
        """
        if issubclass(fault.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            usual(fault)

    sys.unraisablehook = again


def _cleared(line: str) -> str:
    """Return what is said of something that a dead run had left: gone now, or not."""
    kept = line.removeprefix("nothing: ")
    return kept if kept != line else f"cleared: {line}"


def _wish(options: Mapping[str, Any], settings: Any) -> "Wish":
    """Return flags over environment over configuration over defaults."""
    from isobench.model import Schedule
    from isobench.wish import UNBOUNDED, Wish

    table = settings.run
    preset: dict[str, Any] = {}
    if sum(bool(options[name]) for name in ("quick", "fast", "rigorous")) > 1:
        raise UsageError(
            "--quick, --fast and --rigorous exclude each other", hint="give one of them"
        )
    if options["quick"]:
        preset = {"budget": 55.0, "maximum_blocks": 5, "iterations": 3, "starts": 2, "quick": True}
    elif options["fast"]:
        preset = {"maximum_blocks": 10}
    elif options["rigorous"]:
        preset = {"budget": 1800.0, "precision": 0.01, "minimum_blocks": 20}
    configured = {
        "budget": _read(flags.Duration(), "budget", table, options["config"]),
        "precision": _read(flags.Share(), "target_precision", table, options["config"]),
        "margin": _read(flags.Share(), "margin", table, options["config"]),
        "minimum_blocks": table.blocks.min,
        "maximum_blocks": table.blocks.max,
        "seed": table.seed,
        "affinity": _read(flags.Cpus(), "affinity", table, options["config"]),
    }
    given = {
        "budget": options["budget"],
        "precision": options["target_precision"],
        "margin": options["margin"],
        "minimum_blocks": options["min_blocks"] or options["blocks"],
        "maximum_blocks": options["max_blocks"] or options["blocks"],
        "seed": options["seed"],
        "affinity": options["affinity"],
        "minimum_time": options["min_time"],
        "time_limit": options["timeout"],
        "output": options["output"],
    }
    values = dict(preset)
    for layer in (configured, given):
        values |= {key: value for key, value in layer.items() if value is not None}
    if options["blocks"] and not options["budget"]:
        values["budget"] = UNBOUNDED  # so many blocks were asked for: however long they take
    if options["blocks"] and not options["target_precision"]:
        values["precision"] = 0.0  # and however precise they are
    fewest, most = values.get("minimum_blocks", 10), values.get("maximum_blocks", 60)
    if given["minimum_blocks"] and given["maximum_blocks"] and fewest > most:
        raise UsageError(
            f"at least {fewest} and at most {most} blocks cannot be", hint="mend one of the two"
        )
    if fewest > most:  # one of the two is a default, and gives way
        values["maximum_blocks" if given["minimum_blocks"] else "minimum_blocks"] = (
            fewest if given["minimum_blocks"] else most
        )
    _refuse_unusable(values.get("affinity", frozenset()))
    from_environment = tuple(
        n.strip() for n in os.environ.get("ISOBENCH_TARGETS", "").split(",") if n.strip()
    )
    return Wish(
        targets=options["targets"] or from_environment or tuple(table.targets),
        workloads=options["workloads"] or tuple(table.workloads),
        folders=tuple(options["folders"]),
        require=options["require"],
        launch=_launch(options, values.get("affinity", frozenset())),
        schedule=Schedule(options["schedule"]),
        claims=_claims(options["claims"], settings, options["config"]),
        argv=tuple(sys.argv[1:]),
        **values,
    )


def _launch(options: Mapping[str, Any], cpus: "frozenset[int]") -> "Launch":
    """Return whose sessions serve several blocks: in a duet none, whose CPUs are swapped."""
    from isobench.wish import Launch

    if options["schedule"] != "duet":
        return Launch(options["launch"])
    if len(cpus or os.sched_getaffinity(0)) == 1:
        raise UsageError(
            "--schedule duet takes two CPUs, and one can be used here",
            hint="leave out --schedule duet, or widen --affinity",
        )
    if options["launch"] == "reuse":
        raise UsageError(
            "--schedule duet swaps CPUs from block to block, which no open session can",
            hint="leave out --launch reuse",
        )
    return Launch.FRESH


def _claims(file: Path | None, settings: Any, config: Path | None) -> "tuple[Claim, ...]":
    """Return the user's claims: those of a file named, else those of the configuration."""
    from isobench import claims
    from isobench import config as configuration

    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise UsageError(f"{file}: {reason}", hint="name a claims file with --claims") from None
        return claims.load(text, origin=str(file))
    if not settings.claims:
        return ()
    origin, _ = configuration.found(config)
    text = Path(origin).read_text(encoding="utf-8")
    return claims.of_table(settings.claims, origin=origin, text=text)


def _read(kind: "click.ParamType[_T]", key: str, table: Any, config: Path | None) -> "_T | None":
    """Return an option of [run] that is written as its flag is."""
    from isobench import config as configuration

    text = getattr(table, key)
    try:
        return kind.convert(text, None, None) if text else None
    except click.BadParameter as error:
        file, _ = configuration.found(config)
        raise UsageError(
            f"{file}: [run] {key}: {error.message}", hint=f"mend it in {file}"
        ) from None


def _refuse_unusable(cpus: "frozenset[int]") -> None:
    usable = os.sched_getaffinity(0)
    if cpus - usable:
        raise UsageError(
            f"--affinity: CPU {', '.join(map(str, sorted(cpus - usable)))} cannot be used here",
            hint=f"usable are {', '.join(map(str, sorted(usable)))}",
        )


def _refuse_unknown(
    kinds: Sequence[str], known: Sequence[str] = FAILURES, flag: str = "--fail-on"
) -> None:
    for kind in kinds:
        if kind not in known:
            raise UsageError(
                f"{flag}: {kind!r} is none of {', '.join(known)}", hint="name some of them"
            )


def _workloads(wish: "Wish") -> Any:
    from isobench import workloads
    from isobench.model import Schedule

    found = workloads.find(wish.folders)
    if wish.schedule is not Schedule.DUET:
        return workloads.select(found, wish.workloads)
    chosen = workloads.select(found, wish.workloads or ("cpu",))
    others = [workload.name for workload in chosen.values() if workload.group != "cpu"]
    if others:
        raise UsageError(
            f"--schedule duet measures work of the CPU alone: {', '.join(others)} cannot be",
            hint="--workloads cpu, or leave out --schedule duet",
        )
    return chosen


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _announce(wish: "Wish", chosen: Any, shown: screen.Screen) -> None:
    from isobench.wish import UNBOUNDED

    cells = len(chosen.able) * len(chosen.workloads)
    if wish.quick:
        length = "a quick look, no verdicts"
    elif wish.budget >= UNBOUNDED:
        length = f"{wish.maximum_blocks} blocks"
    else:
        length = f"budget {wish.budget / 60:.3g} min"
    shown.say(
        f"Measuring {_count(len(chosen.workloads), 'workload')}"
        f" in {_count(len(chosen.able), 'target')}"
        f" ({cells} cells), {length}."
    )


def _show_plan(wish: "Wish", chosen: Any) -> None:
    from isobench.model import Available

    click.echo(f"targets:   {', '.join(chosen.able)}")
    for name, answer in chosen.answers.items():
        if not isinstance(answer, Available):
            click.echo(f"  skipped: {name}: {answer.reason}")
    click.echo(f"workloads: {', '.join(chosen.workloads)}")
    fewest, most = wish.minimum_blocks, wish.maximum_blocks
    blocks = f"{most}" if fewest == most else f"{fewest} to {most}"
    click.echo(f"blocks:    {blocks}, native twice in each")
    click.echo(f"budget:    {wish.budget:g} s")


def _console(options: Mapping[str, Any]) -> "Console":
    """Return where people are spoken to: not where an export was sent."""
    to_stdout = any(options.get(f"export_{kind}") == "-" for kind in _EXPORTS)
    return screen.console_for(stderr=to_stdout, color=options["color"])


def _show(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    """Print the report for the terminal, and write what was asked for besides."""
    console = _console(options)
    if options["quiet"]:
        console.print(outcome.summary["run"]["headline"], markup=False)
        failed = [gap for gap in outcome.summary["gaps"] if gap["cause"] in FAILED_CAUSES]
        if failed:
            first = f"{failed[0]['target']} {failed[0]['workload']}: {failed[0]['detail']}"
            said = f"{_count(len(failed), 'gap')}, the first: {first}"
            console.print(said, markup=False)
        if failed or outcome.folder != outcome.source:
            where = f"report: {outcome.folder / 'report.html'}"
            console.print(where, markup=False, soft_wrap=True)
    else:
        from isobench.report import text, view

        text.render(view.build(outcome.summary), console)
        console.print(
            f"\nreport: {outcome.folder / 'report.html'}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
    _export(outcome, options)
    if outcome.interrupted:
        console.print("Interrupted: the report holds what was measured until then.", markup=False)


def _export(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    files = {"json": "summary.json", "markdown": "summary.md", "html": "report.html"}
    for kind in _EXPORTS:
        target = options.get(f"export_{kind}")
        if target is None:
            continue
        if kind == "csv":
            from isobench import store

            content = store.csv(store.load(outcome.source).samples)
        elif kind == "junit":
            from isobench.report import junit

            content = junit.junit(outcome.summary)
        elif kind == "openmetrics":
            from isobench.report import openmetrics

            content = openmetrics.openmetrics(outcome.summary)
        else:
            content = (outcome.folder / files[kind]).read_text()
        _write(target, content)


def _write(target: str, content: str) -> None:
    if target == "-":
        click.echo(content)
        return
    try:
        Path(target).write_text(content)
    except OSError as error:
        raise UsageError(
            f"{target}: {error.strerror}", hint="name a file that can be written"
        ) from None


def _exit_code(
    outcome: "Outcome", fail_on: Sequence[str], judged: Sequence[Mapping[str, Any]] | None = None
) -> int:
    summary = outcome.summary
    claims = summary["claims"] if judged is None else judged
    if outcome.interrupted:
        return INTERRUPTED
    if outcome.timed_out:
        return TIMED_OUT
    if "claim" in fail_on and any(claim["standing"] == "refuted" for claim in claims):
        return CLAIM_FAILED
    if any(gap["cause"] in FAILED_CAUSES for gap in summary["gaps"]):
        return CellFailedError.exit_code
    if "skipped" in fail_on and any(
        target["status"] == "unavailable" for target in summary["targets"]
    ):
        return UnavailableError.exit_code
    unsure = [cell for cell in summary["cells"] if cell["standing"] == "unproven"]
    if "noisy" in fail_on and (unsure or summary["run"]["doubts"]):
        return NOISY
    return 0


# ---- report --------------------------------------------------------------------------------------


_output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the new files."
)


@cli.command()
@click.argument("path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@_output_option
@_export_options
@_claims_option
@_color_option
@click.option("-q", "--quiet", is_flag=True, help="Only the closing sentence.")
def report(path: Path | None, output: Path | None, **options: Any) -> None:
    """Answer again from the records of a run: a folder, or a zip of one. Measures nothing."""
    own = _claims(options["claims"], None, None) if options["claims"] else ()
    _show(_again(path or _latest(), output, own), options)


def _again(source: Path, output: Path | None, added: "Sequence[Claim]" = ()) -> "Outcome":
    """Answer again from the records of a run, with these claims besides its own."""
    from isobench import campaign, store

    store.load(source)
    target = output or (source if source.is_dir() else source.with_suffix(""))
    try:
        target.mkdir(parents=True, exist_ok=True)
        return campaign.answer_again(source, target, added)
    except OSError as error:
        if not Path(str(error.filename)).is_relative_to(target):
            raise
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="name a folder with --output"
        ) from None


# ---- verify --------------------------------------------------------------------------------------


@cli.command()
@click.argument("path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@_claims_option
@click.option(
    "--measure",
    is_flag=True,
    help="Measure first what the claims need, as far as it can run here (also without any run).",
)
@click.option("--budget", help="How long that may take (default 5m).")
@_output_option
@_export_options
@_fail_on_option
@_config_option
@_color_option
@click.option("-v", "--verbose", is_flag=True, help="With what others have published.")
@click.option("-q", "--quiet", is_flag=True, help="Only how many stand how.")
def verify(path: Path | None, **options: Any) -> None:
    """Judge claims on a run: the documents' sentences, or those of a file of your own.

    Each comes out supported, refuted, inconclusive or untested, with the figures it rests on and
    what would change it. Without RUN the latest is taken, and where there is none, what is needed
    is measured. Exits with 1 for a refuted claim only where --fail-on claim asks for it.
    """
    from rich.markup import escape

    from isobench import answers
    from isobench.report import text, view

    _refuse_unknown(options["fail_on"])
    if path is not None and (options["measure"] or options["budget"]):
        raise UsageError(
            "a RUN is judged as it is: nothing is measured for it",
            hint="leave out RUN, or --measure and --budget",
        )
    registry, settings = _registry(options["config"])
    own = _claims(options["claims"], settings, options["config"])
    if options["measure"] or options["budget"] or (path is None and not _measured()):
        outcome = _measure_for(own, registry, options)
    else:
        outcome = _again(path or _latest(), options["output"], own)
    ids = {claim.id for claim in own}
    if not options["claims"]:
        ids |= {claim.id for claim in answers.documents_claims()}
    console = _console(options)
    for line in _unknown_names(own, registry, outcome):
        console.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)
    seen = view.build(outcome.summary)
    text.verification(seen, ids, console, told=options["verbose"], short=options["quiet"])
    console.print(f"report: {outcome.folder / 'report.html'}", markup=False, soft_wrap=True)
    _export(outcome, options)
    judged = [claim for claim in outcome.summary["claims"] if claim["id"] in ids]
    sys.exit(_exit_code(outcome, options["fail_on"], judged))


def _unknown_names(
    claims: "Sequence[Claim]", registry: "Registry", outcome: "Outcome"
) -> Iterator[str]:
    """Yield a line for each name in claims that nothing here bears: it may be misspelt."""
    import difflib

    from isobench import workloads
    from isobench.model import Technology

    measured = {str(item["name"]) for item in outcome.summary["targets"]}
    targets = {*map(str, registry.names()), *measured}
    known = {*workloads.find(), *(str(row["name"]) for row in outcome.summary["workloads"])}
    known |= {name.partition(".")[0] for name in known}
    for claim in claims:
        whom = {*claim.targets, claim.reference} - {*Technology}
        for kind, names, wanted in (
            ("target", targets, whom),
            ("workload", known, set(claim.workloads)),
        ):
            for name in sorted(wanted - names):
                close = difflib.get_close_matches(name, sorted(names), n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                yield f"claim {claim.id}: no {kind} is called {name!r}{meant}"


def _measured() -> bool:
    from isobench import places

    return (places.results() / "latest").exists()


def _measure_for(
    claims: "Sequence[Claim]", registry: "Registry", options: Mapping[str, Any]
) -> "Outcome":
    """Measure what claims speak of, of that what can run here; without claims, everything."""
    from isobench import campaign
    from isobench.model import Available

    arguments: list[str] = []
    if claims:
        names = [
            name
            for name in registry.names()
            if any(
                name in claim.targets
                or name == claim.reference
                or registry.get(name).technology in {claim.technology, claim.reference}
                for claim in claims
            )
        ]
        whole = any(not claim.targets and not claim.technology for claim in claims)
        found = campaign.look({name: registry.get(name) for name in names}, lambda *_: None)
        able = [name for name in names if isinstance(found[name], Available)]
        if able and not whole:
            arguments += ["--targets", ",".join(able)]
        if all(claim.workloads for claim in claims):
            wanted = dict.fromkeys(name for claim in claims for name in claim.workloads)
            arguments += ["--workloads", ",".join(wanted)]
    for flag in ("budget", "output", "claims", "config", "color"):
        if options[flag]:
            arguments += [f"--{flag}", str(options[flag])]
    context = run.make_context("run", arguments)
    outcome = _measure(context.params)
    assert outcome is not None  # no dry run was asked for
    return outcome


# ---- compare, noise ------------------------------------------------------------------------------


def _runs_at(names: Sequence[str]) -> list["Run"]:
    """Return runs by folder, zip, pattern, or "latest"."""
    import glob

    from isobench import store

    found: list[Path] = []
    for name in names:
        if name == "latest":
            found.append(_latest().resolve())
        elif Path(name).exists() or not glob.has_magic(name):
            found.append(Path(name))
        else:
            # The link "latest" is another name for a run that the pattern has matched.
            matched = [Path(path) for path in sorted(glob.glob(name))]  # noqa: PTH207 - absolute or not
            matched = [path for path in matched if not path.is_symlink()]
            if not matched:
                raise UsageError(f"no run matches {name!r}", hint="name the folders of runs")
            found += matched
    return [store.load(path) for path in found]


def _publish(
    sheet: "Sheet",
    document: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    csv: Callable[[Mapping[str, Any]], str],
) -> None:
    """Print a sheet, or its closing sentence alone, and write what was asked for besides."""
    import json

    from isobench.report import sheet as module

    console = _console(options)
    if options["quiet"]:
        console.print(sheet.closing, markup=False)
    else:
        module.render(sheet, console)
    texts: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(document, indent=1),
        "csv": lambda: csv(document),
        "markdown": lambda: module.markdown(sheet),
    }
    for kind, text in texts.items():
        if (target := options.get(f"export_{kind}")) is not None:
            _write(target, text())


def _document_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of where a document is written besides, of colour and of quiet."""
    quiet = click.option("-q", "--quiet", is_flag=True, help="Only the closing sentence.")
    command = quiet(_color_option(command))
    for kind, name in (("markdown", "Markdown"), ("csv", "CSV"), ("json", "JSON")):
        text = f"As {name} (- for standard output)."
        option = click.option(f"--export-{kind}", type=click.Path(allow_dash=True), help=text)
        command = option(command)
    return command


@cli.command()
@click.argument("names", nargs=-1, metavar="[BASE HEAD | RUN]")
@click.option("--base", "bases", multiple=True, metavar="RUN", help="Runs of BASE; repeat it.")
@click.option("--head", "heads", multiple=True, metavar="RUN", help="Runs of HEAD; repeat it.")
@click.option("--confirm", metavar="RUN", help="A further run of HEAD that must show it again.")
@click.option(
    "-t", "--targets", multiple=True, callback=flags.names_of, metavar="NAMES",
    help="Only these; of one RUN, the two to compare: BASE,HEAD.",
)  # fmt: skip
@_workloads_option
@click.option(
    "--min-effect", type=flags.Share(), default="5%", help="The smallest that matters (5%)."
)
@click.option("--anyway", "--force", is_flag=True, help="Also of different machines and programs.")
@click.option("--only-changed", is_flag=True, help="Leave out what is the same or open.")
@click.option(
    "--group-by", type=click.Choice(["target", "workload", "class", "none"]), default="target",
    help="What rows stand together by.",
)  # fmt: skip
@click.option(
    "--columns", multiple=True, callback=flags.names_of, metavar="NAMES",
    help="Of: target, workload, base, head, change, interval, p, noise, blocks, runs, standing.",
)  # fmt: skip
@_document_options
@click.option(
    "--fail-on", multiple=True, callback=flags.names_of, metavar="KINDS",
    help=f"Of: {', '.join(COMPARISON_FAILURES)}.",
)  # fmt: skip
def compare(**options: Any) -> None:
    """Hold two runs against each other: what isolation costs in HEAD and in BASE.

    Runs are folders, zips or "latest"; several a side by --base and --head. With one RUN and two
    --targets, one target of it is held against the other.
    """
    from isobench.report import comparison as view

    _refuse_unknown(options["fail_on"], COMPARISON_FAILURES)
    _refuse_unknown(options["columns"], view.COLUMNS, "--columns")
    document = _compared(options)
    chosen = {"columns": options["columns"]} if options["columns"] else {}
    sheet = view.build(
        document, group_by=options["group_by"], only_changed=options["only_changed"], **chosen
    )
    _publish(sheet, document, options, csv=view.csv)
    cells, fail_on = document["cells"], options["fail_on"]
    if "regression" in fail_on and any(
        cell["standing"] == "regression" and cell["confirmed"] for cell in cells
    ):
        sys.exit(REGRESSED)
    lost = [one for one in document["absent"] if one["lacking"] == "head"]
    if "error" in fail_on and any(one["cause"] in FAILED_CAUSES for one in lost):
        sys.exit(CellFailedError.exit_code)
    if "noisy" in fail_on and any(cell["standing"] == "unproven" for cell in cells):
        sys.exit(NOISY)


def _compared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison that the arguments ask for."""
    from isobench import comparison

    names, targets = options["names"], options["targets"]
    asked = comparison.Asked(
        minimum_effect=options["min_effect"],
        workloads=options["workloads"],
        anyway=options["anyway"],
    )
    confirm = next(iter(_runs_at([options["confirm"]])), None) if options["confirm"] else None
    if len(names) == 1 and len(targets) == 2 and not options["bases"] + options["heads"]:  # noqa: PLR2004 - a pair
        (run,), (base, head) = _runs_at(names), map(TargetName, targets)
        return comparison.compare_targets(run, base, head, asked, confirm=confirm)
    bases, heads = options["bases"], options["heads"]
    if len(names) == 2 and not bases + heads:  # noqa: PLR2004 - a pair
        bases, heads = names[:1], names[1:]
    elif names or not bases or not heads:
        raise UsageError(
            "compare takes two runs, or --base and --head, or one run and two --targets",
            hint="isobench compare isobench-results/OLD latest",
        )
    asked = dataclasses.replace(asked, targets=targets)
    return comparison.compare(_runs_at(bases), _runs_at(heads), asked, confirm=confirm)


@cli.command()
@click.argument("name", metavar="[RUN]", required=False)
@_workloads_option
@_folder_option
@click.option("--budget", type=flags.Duration(), help="How long to measure (default 75s).")
@click.option(
    "-r", "--blocks", "--runs", type=click.IntRange(3, 1000), help="Exactly so many blocks."
)
@click.option("--target-precision", type=flags.Share(), default="2.5%", help="Planned for (2.5%).")
@click.option(
    "--margin", type=flags.Share(), default="5%", help="What a floor must not exceed (5%)."
)
@click.option("--seed", type=click.IntRange(0), envvar="ISOBENCH_SEED", help="Replay an order.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of this run.")
@_document_options
@click.option(
    "--fail-on", multiple=True, callback=flags.names_of, metavar="KINDS",
    help=f"Of: {', '.join(NOISE_FAILURES)}.",
)  # fmt: skip
@_config_option
def noise(name: str | None, **options: Any) -> None:
    """Tell what this machine can resolve at all, by measuring native against native.

    With RUN (a folder, a zip or "latest"), from what a run has measured of native already.
    """
    import json

    from isobench import resolution, store
    from isobench.report import resolution as view

    _refuse_unknown(options["fail_on"], NOISE_FAILURES)
    outcome = None
    if name is None:
        outcome = _native_alone(options)
        run = store.load(outcome.source)
    else:
        (run,) = _runs_at([name])
    shares = {"precision": options["target_precision"], "margin": options["margin"]}
    try:
        document = json.loads(json.dumps(resolution.resolve(run, **shares)))
    except UsageError:
        if outcome is None or not outcome.interrupted:
            raise
        sys.exit(INTERRUPTED)  # too early for an answer
    _publish(view.build(document), document, options, csv=view.csv)
    code = 0 if outcome is None else _exit_code(outcome, ())
    loud = any(row["exceeds"] for row in document["workloads"])
    sys.exit(code or (NOISY if "noisy" in options["fail_on"] and loud else 0))


def _native_alone(options: Mapping[str, Any]) -> "Outcome":
    """Measure native against native: a run like any other, but for `latest`, which it leaves."""
    import datetime as dt

    from isobench import campaign, places
    from isobench.wish import UNBOUNDED, Wish

    _heed_termination()
    registry, _ = _registry(options["config"])
    blocks = options["blocks"]
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    wish = Wish(
        targets=("native",),
        workloads=options["workloads"],
        folders=tuple(options["folders"]),
        budget=options["budget"] or (UNBOUNDED if blocks else 75.0),
        minimum_blocks=blocks or 10,
        maximum_blocks=blocks or 60,
        precision=0.0,  # it tells how noisy it is: more blocks tell more
        margin=options["margin"],
        seed=options["seed"],
        output=options["output"] or places.results() / f"noise-{stamp}-{os.getpid()}",
        argv=tuple(sys.argv[1:]),
    )
    shown = screen.Screen(quiet=options["quiet"], color=options["color"])
    try:
        campaign.sweep(registry, everything=False, observer=lambda line: shown.say(_cleared(line)))
        chosen = campaign.choose(wish, registry, _workloads(wish), shown)
        _announce(wish, chosen, shown)
        return campaign.Campaign(wish, registry, shown).run(chosen)
    finally:
        shown.close()


# ---- targets, workloads --------------------------------------------------------------------------


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@_config_option
@_color_option
def targets(as_json: bool, config: Path | None, color: str) -> None:
    """List the targets: what can run here, and what to type for the rest."""
    from isobench import campaign

    registry, _ = _registry(config)
    found = {name: registry.get(name) for name in registry.names()}
    answers = campaign.look(found, lambda _name, _answer: None)
    rows = [screen.target_row(name, found[name].technology, answers[name]) for name in found]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    screen.target_table(rows, screen.console_for(color=color))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@_folder_option
@_color_option
def workloads(as_json: bool, folders: Sequence[Path], color: str) -> None:
    """List the workloads: what can be measured."""
    from isobench import workloads as module

    found = module.find(folders)
    if as_json:
        import json

        rows = [
            {"name": w.name, "class": w.group, "metrics": list(w.metrics), "summary": w.summary}
            for w in found.values()
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("workload", "what it does", "one operation"):
        table.add_column(heading, no_wrap=heading == "workload", overflow="fold")
    for workload in found.values():
        table.add_row(workload.name, workload.summary, workload.operation)
    screen.console_for(color=color).print(table)


# ---- selftest ------------------------------------------------------------------------------------


@cli.command()
@click.argument("part", type=click.Choice(["stats"]), default="stats", metavar="[stats]")
@click.option(
    "--replications",
    type=click.IntRange(500),
    help="Simulated runs for every row of the tables (default 1000).",
)
@click.option("--rigorous", is_flag=True, help="5000 of them: a minute or two.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Other runs (default 1).")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--markdown", "as_markdown", is_flag=True, help="For documents.")
@_color_option
def selftest(
    part: str,
    replications: int | None,
    rigorous: bool,
    seed: int,
    as_json: bool,
    as_markdown: bool,
    color: str,
) -> None:
    """Try intervals and verdicts on simulated runs whose true ratio is known. Measures nothing.

    Ends with exit code 1 where a guarantee does not hold, and says which.
    """
    del part  # there is one so far
    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other", hint="give one of them")
    if rigorous and replications is not None:
        raise UsageError(
            "--rigorous and --replications exclude each other", hint="give one of them"
        )
    from isobench import selftest as module

    shown = screen.Screen(quiet=False, color=color)
    try:
        result = module.run(
            replications=replications or (module.RIGOROUS if rigorous else module.REPLICATIONS),
            seed=seed,
            progress=lambda what, done, total: shown.step(f"simulating {what}", done, total),
        )
    finally:
        shown.close()
    if as_json:
        import json

        click.echo(json.dumps(module.document(result), indent=1))
    elif as_markdown:
        click.echo(module.markdown(result))
    else:
        _show_simulated(result, screen.console_for(color=color))
    sys.exit(GUARANTEE_BROKEN if result.broken else 0)


def _show_simulated(result: "Result", console: "Console") -> None:
    """Print the tables of a self-test, how to read them, and what they show."""
    from rich.table import Table

    from isobench import selftest as module

    for figures in module.tables(result):
        console.print(figures.title, style="bold", markup=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, heading in enumerate(figures.head):
            named = place < 2  # noqa: PLR2004 - the two that say what a row is
            table.add_column(heading, justify="right" if place else "left", no_wrap=named)
        for row in figures.rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for line in module.notes(result):
        console.print(f"- {line}", style="dim", markup=False)
    console.print(f"\n{module.sentence(result)}", style="bold", markup=False)


# ---- doctor, clean -------------------------------------------------------------------------------


@cli.command(epilog=f"Packages for --install: {', '.join(packages.NAMES)}.")
@click.option(
    "--install",
    is_flag=True,
    help="Install what the named targets need, by this system's package manager.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before installing.")
@click.option("--check", is_flag=True, help="Exit with 3 unless every named target can run.")
@click.argument("names", nargs=-1, metavar="[NAMES]...")
@_config_option
@_color_option
def doctor(
    install: bool, yes: bool, check: bool, names: Sequence[str], config: Path | None, color: str
) -> None:
    """Say why a target cannot run and what to type; with --install, install what it needs.

    NAMES are targets; for --install they may also be packages.
    """
    from isobench import campaign, elsewhere
    from isobench.model import Available

    console = screen.console_for(color=color)
    registry, _ = _registry(config)
    if install:
        if not names:
            known = " ".join(packages.NAMES)
            raise UsageError("--install needs names", hint=f"isobench doctor --install {known}")
        _install(packages.commands(names), console, yes=yes)
        names = [name for name in names if name in registry.names()]
    wanted = [TargetName(name) for name in names] or registry.names()
    found = {name: registry.get(name) for name in wanted}
    answers = campaign.look(found, lambda _name, _answer: None)
    rows = [screen.target_row(name, found[name].technology, answers[name]) for name in found]
    screen.target_table(rows, console)
    if not names:
        screen.ways_table(elsewhere.groups(), console)
    _check_machine(console)
    if check and not all(isinstance(answer, Available) for answer in answers.values()):
        sys.exit(UnavailableError.exit_code)


@cli.command()
@click.argument("names", nargs=-1, metavar="[TARGETS]...")
@_config_option
@_color_option
def prepare(names: Sequence[str], config: Path | None, color: str) -> None:
    """Make what targets keep between runs: the guests of virtual machines.

    A run does so by itself; this does it beforehand, where there is a network.
    """
    from isobench import campaign
    from isobench.model import Available
    from isobench.plugin import Preparer
    from isobench.wish import Wish

    console = screen.console_for(color=color)
    registry, _ = _registry(config)
    wanted = [TargetName(name) for name in names] or registry.names()
    found = {name: registry.get(name) for name in wanted}
    found = {name: target for name, target in found.items() if isinstance(target, Preparer)}
    answers = campaign.look(found, lambda _name, _answer: None)
    wish = Wish(targets=tuple(names))
    chosen = campaign.Chosen(targets=found, answers=answers, workloads={})
    for name, answer in answers.items():
        if names and not isinstance(answer, Available):
            raise UnavailableError(f"{name} cannot run here: {answer.reason}", hint=answer.hint)
    made = campaign.prepare(chosen, wish, registry, lambda line: console.print(line, markup=False))
    for name in made.able:
        console.print(f"{name} is ready", markup=False, highlight=False)
    if not made.able:
        console.print("nothing to prepare", markup=False, highlight=False)


def _install(commands: Sequence[Sequence[str]], console: "Console", *, yes: bool) -> None:
    import shlex
    import subprocess

    for command in commands:
        console.print(f"$ {shlex.join(command)}", style="bold", markup=False, soft_wrap=True)
    if not yes and sys.stdin.isatty() and not click.confirm("Run these now?", default=True):
        return
    for command in commands:
        sys.stdout.flush()
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, env=_package_environment()
        )
        if done.returncode != 0:
            raise UsageError(
                f"this failed: {shlex.join(command)}",
                hint="read what it says above, and run it by hand",
            )


def _package_environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def _check_machine(console: "Console") -> None:
    """Say what about this machine will make figures worse."""
    from isobench import places
    from isobench.evidence import host
    from isobench.payload import build

    cache = places.cache()
    cache.mkdir(parents=True, exist_ok=True)
    facts = host.describe(cache)
    console.print(f"\n{host.summary(facts)}", markup=False)
    try:
        console.print(f"compiler: {build.compiler()}", style="dim", markup=False)
    except IsobenchError as error:
        console.print(f"compiler: {error} → {error.hint}", markup=False)
    if facts["filesystem"] in host.MEMORY_FILESYSTEMS:
        console.print(
            f"note: {cache} lies in memory ({facts['filesystem']}): I/O figures would be no disk's."
            " Set XDG_CACHE_HOME to a folder on a disk.",
            markup=False,
        )
    load, cpus = facts["load"], facts["cpus"]
    if isinstance(load, float | int) and isinstance(cpus, int) and load > cpus / 2:
        console.print(
            f"note: the load is {load:g} on {cpus} CPUs: measure when it is quiet.", markup=False
        )


@cli.command()
@click.option("--stale", is_flag=True, help="Only what runs that died have left.")
@_config_option
def clean(stale: bool, config: Path | None) -> None:
    """Remove every trace of isobench: containers, images, cgroups, caches. Results are yours and
    stay.
    """
    from isobench import campaign

    registry, _ = _registry(config)
    lines: list[str] = []
    campaign.sweep(registry, everything=not stale, observer=lines.append)
    for line in lines:
        kept = line.removeprefix("nothing: ")
        click.echo(kept if kept != line else f"removed {line}")
    if not lines:
        click.echo("nothing to remove")


# ---- the door ------------------------------------------------------------------------------------


_PLACES_HINT: Final = (
    "isobench writes to its cache (XDG_CACHE_HOME) and to its results (ISOBENCH_RESULTS_DIR,"
    " --output): name folders that can be written"
)


def guarded(function: Callable[[], Any], stderr: IO[str] | None = None) -> int:
    """Run a command; turn whatever a user can mend into a line and an exit code."""
    try:
        function()
    except IsobenchError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=stderr or sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            place = f"{error.filename}: " if error.filename else ""
            own = Path(str(error.filename)).is_relative_to(Path(__file__).parent)
            hint = "isobench is not whole: install it anew" if own else _PLACES_HINT
            _fail(UsageError(f"{place}{error.strerror or error}", hint=hint))
        # Whoever read us has left (`isobench targets | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def main() -> None:
    """Entry point of the command `isobench`."""
    sys.exit(guarded(_command))


def _command() -> None:
    """Run click without the end that its own main puts to Ctrl-C and to broken pipes."""
    try:
        with cli.make_context("isobench", sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
