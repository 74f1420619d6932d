"""A report in a real browser, from disk: nothing fails, nothing hostile runs, both themes, a phone's width."""

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from report_shop import HOSTILE, ReportShop

from pipeline.inspect.report.gather import gather
from pipeline.inspect.report.page import page

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SECTIONS = ("verdict", "gates", "changes", "quarantine", "codebooks", "map", "levels", "collisions", "neighbours")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: of the path ``CHROMIUM``, the system's, or Playwright's own."""
    try:
        playwright = import_module("playwright.sync_api")
    except ImportError:
        pytest.fail("this test drives a browser: pip install playwright, and install Chromium (apt install chromium)")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.fail(f"there is no Chromium: apt install chromium, or playwright install chromium ({error})")
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shop = ReportShop(spark, tmp_path_factory.mktemp("shop"))
    shop.news()
    shop.quarantine()
    path = tmp_path_factory.mktemp("a shop's 100% #report") / "index.html"
    path.write_text(page(gather(spark, shop.opened(), shop.config)))
    return path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_opens_is_clicked_through_and_stays_quiet(browser: Any, report: Path, size: str, theme: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, offline=True, has_touch=size == "phone"
    )
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    assert tab.inner_text("h1").endswith("Ready to release: every gate holds")
    for section in SECTIONS:
        tab.click(f'nav a[href="#{section}"]')
        assert tab.locator(f"#{section} h2, #{section} h1").first.is_visible()
    for summary in tab.locator("summary:visible").all()[:8]:
        summary.click()
    charts = tab.locator(".chart").all()
    for chart in charts:
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    assert len(charts) >= 5
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    shown = tab.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert shown
    assert all(shown)
    # An item of the map shows its picture and its title as text.
    tab.locator("#map .chart").scroll_into_view_if_needed()
    texts = set()
    for point in tab.locator("#map .point").all()[:60]:
        box = point.bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.wait_for_timeout(60)
        if tab.locator("#tip").is_visible():
            texts.add(tab.locator("#tip b").inner_text())
    assert any(text.startswith(HOSTILE[0]) for text in texts)
    assert any(text.startswith(HOSTILE[2][:60]) for text in texts)
    assert tab.locator("#tip script, #tip a").count() == 0
    # The theme is the system's, and the button turns it over, charts as well.
    ground, inks = "getComputedStyle(document.body).backgroundColor", "document.querySelector('.xtick text').style.fill"
    before = tab.evaluate(ground), tab.evaluate(inks)
    tab.evaluate("window.scrollTo(0, 0)")
    tab.click("#theme")
    after = tab.evaluate(ground), tab.evaluate(inks)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert (sum(map(int, before[0][4:-1].split(","))) > 384) == (theme == "light")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def test_what_gets_past_the_escaping_is_dead(browser: Any, report: Path, tmp_path: Path) -> None:
    """The policy is a second wall: markup that is pasted into the page runs nothing and loads nothing."""
    pasted = (
        "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
        "<svg onload=\"document.title = 'run'\"></svg><iframe srcdoc=\"<script>top.document.title = 'run'</script>\">"
        '</iframe><a id="link" href="javascript:document.title = \'run\'">x</a><img src="https://example.org/x.png">'
    )
    path = tmp_path / "pasted.html"
    path.write_text(report.read_text().replace("<main>", f"<main>{pasted}"))
    tab = browser.new_page()
    requests: list[str] = []
    tab.on("requestfinished", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    tab.click("#link")
    tab.wait_for_timeout(300)
    assert tab.title().startswith("Hi-SAM")
    assert not [url for url in requests if url.startswith("http")]
    tab.close()
