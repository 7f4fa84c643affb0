"""The pages in a real browser: no console error, no request, nothing that axe calls serious."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from isobench.history import beside, series
from isobench.report import trend
from tests.bench import bench_history
from tests.conftest import required

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        reason = "chromium cannot run here: it is not installed; apt-get install chromium"
        (pytest.fail if "chromium" in required(request.config) else pytest.skip)(reason)
    with sync_playwright() as playwright:
        # Started by root, as in CI, Chromium refuses its own sandbox. The pages are our own.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def faults() -> list[str]:
    """What pages complained of, and asked for."""
    return []


@pytest.fixture
def opened(browser: Browser, faults: list[str]) -> Iterator[Open]:
    contexts = []

    def open_page(
        path: Path, width: int = 1280, *, scripts: bool = True, dark: bool = False
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            java_script_enabled=scripts,
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: faults.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda asked: faults.append(asked.url))
        page.goto(path.as_uri())
        assert faults.pop(0) == path.as_uri()
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def history_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trend") / "trend.html"
    rows, further = bench_history.history(seed=0)
    every = [*rows, *further]
    trend.write(path, series.series_of(every), beside.newest(every), "a simulated history")
    return path


@pytest.fixture(params=["trend", "report"])
def path(request: pytest.FixtureRequest, history_page: Path) -> Path:
    if request.param == "trend":
        return history_page
    return max((ROOT / "reports" / "examples").glob("*/report.html"))


def first_figure(page: Page) -> Page:
    """Scroll to the first figure: figures are drawn when they come near the window."""
    page.locator("figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".drawn")
    return page


def serious(page: Page) -> list[str]:
    """Return what axe calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_complains_of_nothing_asks_for_nothing_and_fits(
    path: Path, width: int, dark: bool, opened: Open, faults: list[str]
) -> None:
    page = opened(path, width, dark=dark)
    page.mouse.wheel(0, 3000)
    page.wait_for_timeout(300)
    assert faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious(path: Path, width: int, opened: Open) -> None:
    # axe is code of its own, which the policy of the page forbids: the page is tested without it.
    free = path.with_name(f"free-{width}-{path.name}")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    free.write_text(text)
    try:
        page = opened(free, width)
        assert serious(page) == []
    finally:
        free.unlink()


def test_a_page_without_scripting_shows_all_figures(history_page: Path, opened: Open) -> None:
    page = opened(history_page, scripts=False)
    charts = page.locator("figure svg.chart")
    assert charts.count() == 36
    assert all(charts.nth(n).is_visible() for n in range(36))
    assert not page.locator(".filters").is_visible()


def test_a_figure_is_read_with_the_keyboard(
    history_page: Path, opened: Open, faults: list[str]
) -> None:
    page = first_figure(opened(history_page))
    page.locator(".plot").first.focus()
    page.keyboard.press("End")
    readout = page.locator(".readout").first
    last = readout.inner_text()
    assert re.match(r"2026-\d\d-\d\d; cpu\.sieve \d\.\d\dx \[", last), last
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text() not in {"", last}
    page.keyboard.press("End")
    assert readout.inner_text() == last
    page.keyboard.press("Escape")
    assert readout.inner_text() == ""
    assert faults == []


def test_the_axis_of_a_single_run_is_its_day(
    tmp_path: Path, opened: Open, faults: list[str]
) -> None:
    rows, _ = bench_history.history(seed=0)
    path = tmp_path / "trend.html"
    own = [row for row in rows if row.run == rows[0].run]
    trend.write(path, series.series_of(own), beside.newest(own), "one run")
    page = first_figure(opened(path))
    # The axis itself is a drawing: what it is drawn from is read back from where the pointer is.
    places = []
    for at in (0.02, 0.5, 0.98):
        box = page.locator(".plot .u-over").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + at * box["width"], box["y"] + 40)
        places.append(page.locator(".u-cursor-pt").first.evaluate("dot => dot.style.transform"))
    assert len(set(places)) == 1  # there is one run to be read, and it is in the middle
    x = float(places[0].removeprefix("translate(").partition("px")[0])
    assert abs(x - box["width"] / 2) < 10
    assert page.locator(".readout").first.inner_text().startswith(rows[0].started[:10])
    assert faults == []


def test_hovering_shows_the_run_below_the_pointer(history_page: Path, opened: Open) -> None:
    page = first_figure(opened(history_page))
    page.locator(".plot .u-over").first.hover()
    assert "cpu.sieve" in page.locator(".readout").first.inner_text()


def test_figures_are_filtered_by_target_workload_machine_and_change(
    history_page: Path, opened: Open
) -> None:
    page = opened(history_page)
    shown = page.locator("figure:visible")
    assert shown.count() == 36
    page.select_option("select[name=target]", "gvisor")
    assert shown.count() == 12
    page.select_option("select[name=workload]", "io.fsync")
    assert shown.count() == 3
    page.select_option("select[name=machine]", index=1)
    assert shown.count() == 1
    page.select_option("select[name=target]", "")
    page.select_option("select[name=workload]", "")
    page.select_option("select[name=machine]", "")
    page.check("input[name=changed]")
    assert 0 < shown.count() < 36
    assert page.locator("output").inner_text() == f"{shown.count()} of 36 figures"


def test_a_printed_page_has_the_figures_and_no_controls(history_page: Path, opened: Open) -> None:
    page = first_figure(opened(history_page))
    page.emulate_media(media="print")
    assert page.locator("figure svg.chart").first.is_visible()
    assert not page.locator(".plot").first.is_visible()
    assert not page.locator(".filters").is_visible()


@pytest.fixture
def report_page() -> Path:
    return max((ROOT / "reports" / "examples").glob("*/report.html"))


def test_rows_of_the_report_are_filtered_and_sorted(report_page: Path, opened: Open) -> None:
    page = opened(report_page)
    shown = page.locator("tr[data-target]:visible")
    every = shown.count()
    page.select_option("select[name=target]", "docker")
    assert {one.get_attribute("data-target") for one in shown.all()} == {"docker"}
    page.select_option("select[name=target]", "")
    page.select_option("select[name=kind]", "slower")
    assert 0 < shown.count() < every
    page.select_option("select[name=kind]", "")
    page.select_option("select[name=order]", "down")
    first = page.locator("tbody:has(tr.workload)").first
    ratios = [float(text.rstrip("\u00d7")) for text in first.locator("td.ratio").all_inner_texts()]
    assert ratios == sorted(ratios, reverse=True)
    page.select_option("select[name=order]", "")
    assert shown.count() == every


def test_the_rows_that_are_shown_are_copied_as_markdown(report_page: Path, opened: Open) -> None:
    page = opened(report_page)
    page.select_option("select[name=target]", "docker")
    # Where a page may not copy, it shows the text.
    page.evaluate("document.execCommand = () => false")
    page.click("button[name=copy]")
    lines = page.locator("textarea").input_value().splitlines()
    assert lines[0] == "| workload | target | ratio | interval | verdict |"
    assert lines[2].startswith("| cpu.sieve | docker | ")
    assert all(" docker " in line for line in lines[2:])


def test_a_cell_and_a_claim_have_links_of_their_own(report_page: Path, opened: Open) -> None:
    page = opened(report_page)
    link = page.locator("tr[data-target=docker] a.permalink").first
    assert link.get_attribute("href") == "#cell-docker-cpu.sieve"
    assert page.locator(".matrix a[href='#cell-docker-cpu.sieve']").count() == 1
    claim = page.locator(".claims a.permalink").first.get_attribute("href") or ""
    assert claim.startswith("#claim-")
    assert page.locator(f"[id='{claim[1:]}']").count() == 1


def test_evidence_is_folded_and_tables_are_read_on_a_telephone(
    report_page: Path, opened: Open
) -> None:
    page = opened(report_page, 390)
    assert page.locator("#evidence details[open]").count() == 0
    page.locator("#evidence summary").first.click()
    cell = page.locator("#evidence td.raw:visible").first.bounding_box()
    name = page.locator("#parity th").nth(4).bounding_box()
    assert cell is not None
    assert name is not None
    assert cell["width"] > 250  # a cell has the whole width, and no column of single letters
    assert name["height"] < 60
