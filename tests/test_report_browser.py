"""The report's page in a real browser: it opens from a file, asks nobody for anything, and its controls work.

Chromium and its driver have to be installed (Debian: chromium, chromium-driver); elsewhere these tests are skipped. CI
installs them, and fails if they are skipped all the same.
"""

import base64
import io
import json
import shutil
from importlib.resources import files

import numpy as np
import pytest
from forging import TINY, forge_rows

import tinymlds
from tinymlds import report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
pytest.importorskip("plotly")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")
image = pytest.importorskip("matplotlib.image")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver")
AXE = files(pytest.importorskip("axe_playwright_python", reason="needs axe-core")).joinpath("axe.min.js").read_text()

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --enable-unsafe-swiftshader --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run"
)
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
CHARTS = """return [...document.querySelectorAll('.chart')].map((div) => [div.id, div.getBoundingClientRect().width])"""


class Browser:
    """A headless Chromium with one page open."""

    def __init__(self, profile) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(60)

    def open(self, path, width, part="", dark=False) -> None:
        """Open a page anew, nothing of it seen yet."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):  # what the browser did for itself
            self.driver.get_log(kind)
        self.driver.get(path.as_uri() + part)

    def see_all(self) -> None:
        """Scroll to every figure and wait until its charts are drawn."""
        for figure in self.driver.find_elements("css selector", "figure"):
            self.script("arguments[0].scrollIntoView({behavior: 'instant'})", figure)
            self.wait(
                "const name = arguments[0].id.slice(7), place = document.getElementById('charts-' + name);"
                "const drawn = [...place.children].every((div) => div._fullLayout && div.querySelector('.main-svg'));"
                "return drawn && (place.children.length > 0 || ['machine'].includes(name));",
                figure,
            )

    def script(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def wait(self, code, *arguments) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 60).until(lambda _: self.script(code, *arguments))

    def command(self, name, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def choose(self, select, value) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.driver.find_element("css selector", select)).select_by_value(value)

    def trace(self, chart, key):
        """What Plotly has drawn: an attribute of the first trace of a chart."""
        code = "const v = document.getElementById(arguments[0]).data[0][arguments[1]]; return v && v.bdata || v"
        return self.script(code, chart, key)

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself and what it holds within aside."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:", "chrome"))]

    def screenshot(self):
        return image.imread(io.BytesIO(base64.b64decode(self.command("Page.captureScreenshot")["data"])), "png")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about five machines with checkpoints, with a hostile reason for one network, and an analysis of three."""
    folder = tmp_path_factory.mktemp("browser") / "made"
    recipe = TINY | {"threshold": 10.0}
    tinymlds.train(dataset="ds1", count=3, out=folder, workers=1, checkpoints=(0, 1), **recipe)
    twins = [folder.parent / f"{machine}-twin" for machine in ("direct", "xor")]
    for machine, twin in zip(("direct", "xor"), twins, strict=True):
        tinymlds.train(machine, 3, twin, modified=True, workers=1, **recipe)
    analysis = folder.parent / "tampered.json"
    tinymlds.analyze([folder, *twins], "tampered", seeds=2, rungs="majority,knn/raw/*,linear/raw/plain", out=analysis)
    forge_rows(folder, lambda rows: rows[0].update(reason=HOSTILE, status="stalled"))
    options = report.Options(networks=(("eightbit", 0),), analyses=(analysis,))
    return report.write_page(folder, folder.parent / "page.html", options)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_opens_and_asks_nobody(browser, page, width) -> None:
    browser.open(page, width)
    browser.see_all()
    assert [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.requests() == [page.as_uri()]
    assert browser.script("return window.hacked") is None
    browser.choose("#look-task", "eightbit")
    assert HOSTILE in browser.driver.find_element("id", "look-facts").text
    assert browser.script("return document.documentElement.scrollWidth - window.innerWidth") <= 0, "no scrolling sideways"
    charts = dict(browser.script(CHARTS))
    assert {"chart-epochs-0", "chart-map-0", "chart-weights-8", "chart-hidden-3", "chart-answers-0"} <= charts.keys()
    assert all(150 < shown <= width for shown in charts.values())
    buttons = browser.script("return [...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title || '')")
    assert not any("Share" in title or "cloud" in title.lower() for title in buttons)


@pytest.mark.slow
def test_controls_change_the_figures(browser, page) -> None:
    browser.open(page, 1280)
    browser.see_all()
    before = browser.trace("chart-map-0", "name")
    assert browser.driver.find_element("id", "title-weights").text == "Weights of direct 0", "eightbit cannot be drawn"
    browser.choose("#look-task", "eightbit")
    browser.choose("select[data-figure=map]", "epochs")
    browser.wait("return document.getElementById('chart-map-0').data.length === 1")
    assert before == "eightbit"
    assert browser.script("return document.getElementById('chart-map-0').data[0].marker.colorbar.title.text") == "epochs"

    weights, states = browser.trace("chart-weights-0", "z"), browser.trace("chart-hidden-0", "z")
    browser.choose("#look-index", "2")
    assert browser.trace("chart-weights-0", "z") != weights
    assert browser.driver.find_element("id", "title-weights").text == "Weights of eightbit 2"
    other = browser.trace("chart-hidden-0", "z")
    assert other != states
    browser.choose("#look-sequence", "1")
    assert browser.trace("chart-hidden-0", "z") != other

    assert "256 states" in browser.driver.find_element("id", "text-machine").text
    browser.choose("#look-task", "xor")
    assert "has 4 states" in browser.driver.find_element("id", "text-machine").text
    browser.wait("return !!document.querySelector('#chart-machine-0 .main-svg')")
    command = browser.driver.find_element("id", "command-answers").text
    assert command == "tinymlds report made --figures figures --only answers --network xor:0"
    wanted = np.float32(tinymlds.open(page.parent / "made")["xor", 0].state_dict()["gru.weight_ih_l0"])
    drawn = np.frombuffer(base64.b64decode(browser.trace("chart-weights-0", "z")), "<f4").reshape(36, -1)
    assert np.array_equal(drawn[:, :9], wanted)


@pytest.mark.slow
def test_an_analysis_opens_and_its_controls_work(browser, page) -> None:
    browser.open(page, 1280)
    browser.see_all()
    assert "#experiment-tampered" in browser.script("return [...document.querySelectorAll('nav a')].map((a) => a.hash)")
    rows = {(row["case"], row["rung"]): row for row in json.loads((page.parent / "tampered.json").read_text())["rows"]}
    code = (
        "return document.getElementById('chart-ladder-tampered-0')._fullData.filter((trace) => trace.error_x.array)"
        ".flatMap((trace) => Array.from(trace.x).map((x, k) => [trace.name, x, trace.error_x.array[k]]))"
    )
    for case in ("direct", "xor", "all"):
        browser.choose("select[data-figure='ladder-tampered']", case)
        browser.wait("return document.getElementById('chart-ladder-tampered-0').ariaLabel.startsWith(arguments[0])", case)
        drawn = sorted((form, round(x, 4), round(reach, 4)) for form, x, reach in browser.script(code))
        wanted = [
            (rung.split("/")[2], round(row["mean"], 4), round(row["half_width"], 4))
            for (c, rung), row in rows.items()
            if c == case and row["status"] == "done"
        ]
        assert drawn == sorted(wanted)
    bars = browser.script("return document.querySelectorAll('#chart-ladder-tampered-0 .errorbar path').length")
    assert bars == len(wanted), "each point has its interval"
    titles = browser.script(
        "return [...document.querySelectorAll('#charts-confusion-tampered .chart')].map((d) => d.ariaLabel)"
    )
    assert {title.split("/")[0] for title in titles} == {"knn", "linear"}
    browser.choose("select[data-figure='confusion-tampered']", "all")
    row = rows["all", browser.script("return document.getElementById('chart-confusion-tampered-0').ariaLabel")]
    words = browser.script(
        "return [...document.querySelectorAll('#chart-confusion-tampered-0 .annotation')].map((t) => t.textContent)"
    )
    assert sorted(map(int, words)) == sorted(count for counts in row["confusion"] for count in counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "colours"), [("map", 3), ("weights", 12), ("curves", 5), ("answers", 2), ("ladder-tampered", 4)]
)
def test_figures_are_not_blank(browser, page, figure, colours) -> None:
    """A screenshot holds the figure's colours, also where WebGL draws it."""
    browser.open(page, 1280)
    browser.see_all()
    place = browser.driver.find_element("id", f"charts-{figure}")
    browser.script("arguments[0].scrollIntoView({behavior: 'instant'})", place)
    pixels = (browser.screenshot()[..., :3] * 255).astype(np.uint8).reshape(-1, 3)
    colourful = pixels[np.ptp(pixels.astype(int), axis=1) > 40]
    assert len(colourful) > 200
    assert len(np.unique(colourful // 32, axis=0)) >= colours


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_fault(browser, page, width, dark) -> None:
    browser.open(page, width, dark=dark)
    browser.see_all()
    browser.script(AXE)
    found = browser.driver.execute_async_script("axe.run(document).then(arguments[0])")
    assert len(found["passes"]) > 30
    assert [(fault["impact"], fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []


GROUNDS = """return [getComputedStyle(document.body).backgroundColor,
    document.getElementById('chart-curves-0')._fullLayout.paper_bgcolor]"""


@pytest.mark.slow
def test_colours_follow_the_system(browser, page) -> None:
    browser.open(page, 1280, dark=True)
    browser.see_all()
    assert browser.script(GROUNDS) == ["rgb(20, 23, 27)", "#14171b"]
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.wait("return document.getElementById('chart-curves-0')._fullLayout.paper_bgcolor === '#ffffff'")
    assert browser.script(GROUNDS) == ["rgb(255, 255, 255)", "#ffffff"]


PRINTED = """
    window.undrawn = () => [...document.querySelectorAll('.chart')].filter((div) => !div.querySelector('.main-svg')).length;
    window.widest = () => Math.max(...[...document.querySelectorAll('.chart .main-svg')].map((svg) => svg.clientWidth));
    window.before = undrawn();
    addEventListener('beforeprint', () => {
        window.seen = [undrawn(), widest(), document.getElementById('chart-curves-0')._fullLayout.paper_bgcolor];
    });"""


@pytest.mark.slow
def test_a_fresh_page_prints_every_chart(browser, page) -> None:
    browser.open(page, 1280, dark=True)
    browser.script(PRINTED)
    assert browser.script("return before") > 10, "far from the window nothing is drawn"
    assert len(base64.b64decode(browser.command("Page.printToPDF")["data"])) > 100_000
    undrawn, widest, ground = browser.script("return seen")
    assert (undrawn, ground) == (0, "#ffffff")
    assert 600 < widest <= 680, "as wide as a sheet"
    browser.wait("return widest() > 1000")


@pytest.mark.slow
def test_a_link_into_a_fresh_page_ends_where_it_says(browser, page) -> None:
    """Space is reserved, so what is drawn on the way moves nothing."""
    height = "return document.documentElement.scrollHeight"
    there = "return Math.abs(document.querySelector(arguments[0]).getBoundingClientRect().top) < 2"
    browser.open(page, 1280, "#network")
    before = browser.script(height)
    browser.wait("return !!document.querySelector('#chart-weights-0 .main-svg')")
    browser.wait(there, "#network")
    browser.open(page, 1280)
    browser.driver.find_element("css selector", "nav a[href='#space']").click()
    browser.wait("return !!document.querySelector('#chart-map-0 .main-svg')")
    browser.wait(there, "#space")
    browser.see_all()
    assert browser.script(height) == before


@pytest.mark.slow
def test_a_point_of_a_map_leads_to_its_network(browser, page) -> None:
    browser.open(page, 1280)
    browser.see_all()
    x, y, text = browser.script("""const div = document.getElementById('chart-map-0'), of = div._fullLayout;
        div.scrollIntoView({behavior: 'instant', block: 'center'});
        const trace = div._fullData[3], box = div.querySelector('.nsewdrag').getBoundingClientRect();
        return [box.left + of.xaxis.d2p(trace.x[1]), box.top + of.yaxis.d2p(trace.y[1]), trace.text[1]]""")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        browser.wait("return new Promise((done) => setTimeout(() => done(true), 300))")
    task, index = text.split(",")[0].split()
    assert browser.driver.find_element("id", "title-weights").text == f"Weights of {task} {index}"
    browser.wait("return Math.abs(document.getElementById('network').getBoundingClientRect().top) < 2")


@pytest.mark.slow
def test_the_keyboard_reaches_every_control(browser, page) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page, 1280)
    wanted = browser.script("return document.querySelectorAll('a, select, summary, .wide').length")
    seen = set()
    for _ in range(wanted + 5):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(
            browser.script("const e = document.activeElement; return e.id || e.hash || e.dataset.figure || e.textContent")
        )
    assert {"#main", "#space", "map", "single-curves", "look-task", "look-index", "look-sequence"} <= seen
    browser.driver.find_element("id", "look-index").send_keys(Keys.ARROW_DOWN)
    assert browser.driver.find_element("id", "title-weights").text == "Weights of direct 1"
