"""The trace page in a real browser: Chromium, driven by Playwright, where both are installed."""

import contextlib
import importlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor, study

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

HOSTILE = '</script><img src=x onerror="alert(1)"><b>bold</b> &amp; done'
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
VIEWS = ("start", "steps/1", "map", "attention", "flow", "words", "update", "break/0")
AXE = Path(os.environ.get("AXE", "node_modules/axe-core/axe.min.js"))  # npm install axe-core


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function: the file of a page → it, open. At the end, nothing may have been reported or loaded."""
    wrong, stack = [], contextlib.ExitStack()

    def open_page(path, place="start", **options):
        context = stack.enter_context(contextlib.closing(browser.new_context(**options)))
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        allowed = (path.as_uri(), "blob:", "data:")
        page.on("request", lambda request: None if request.url.startswith(allowed) else wrong.append(request.url))
        page.goto(f"{path.as_uri()}#{place}")
        return page

    with stack:
        yield open_page
    assert wrong == []


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The page of the lesson about one attention head."""
    return study.example("attention").save(tmp_path_factory.mktemp("head") / "trace.html")


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """The page of a GPT with two layers whose vocabulary is hostile."""
    config = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8, initializer_range=0.3)
    ids = Generator(2).randint(0, 11, (1, 6))
    made = study.trace(GPT(config, Generator(1)), ids, decode=lambda i: HOSTILE if i == ids[0, 2] else f" t{i}")
    return made.save(tmp_path_factory.mktemp("gpt") / "trace.html")


def show(page, place):
    page.evaluate("place => visit(place)", place)


def test_every_step_can_be_reached_with_the_arrow_key(head, opened):
    page = opened(head, "steps/1")
    count = page.evaluate("steps.length")
    for number in range(1, count + 1):
        playwright.expect(page.locator(".where")).to_contain_text(f"{number} / {count} ")
        way = "forward →" if page.evaluate("i => steps[i].kind === 'forward'", number - 1) else "← backward"
        assert page.locator(".step .way .chip").text_content() == way
        assert page.locator(".step canvas").count() >= 1
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    playwright.expect(page.locator(".where")).to_contain_text(f"{count - 1} / {count} ")
    assert page.url.endswith(f"#steps/{count - 1}")


def test_every_view_of_a_model_is_drawn(gpt, opened):
    page = opened(gpt)
    assert page.locator("#tabs a").all_text_contents() == [
        "Start", "Steps", "Map", "Attention", "Gradients", "Words", "Update", "Break it"
    ]  # fmt: skip
    for name in page.locator("#tabs a").all_text_contents():
        page.locator("#tabs a", has_text=name).click()
        playwright.expect(page.locator("#tabs a[aria-current]")).to_have_text(name)
        assert page.locator("#content h2").count() == 1


def test_play_walks_and_pauses(head, opened):
    page = opened(head, "steps/1")
    page.keyboard.press(" ")
    playwright.expect(page.locator(".where")).to_contain_text("2 / ")
    page.get_by_role("button", name="Pause").click()
    playwright.expect(page.get_by_role("button", name="Play")).to_be_visible()


# ---- what the page says is true -------------------------------------------------------------------------------------

# For each step and each array that it made: elements that the page computes from the other arrays of the step, and how
# many of them differ from the record.
RECOMPUTE = """() => steps.flatMap((step) => [...slotsOf(step)].flatMap(([name, slot]) => {
  const made = { forward: name === "y", vjp: name.startsWith("d"), sum: name === "total" }[step.kind];
  if (!made || !slot.data) return [];
  let [known, wrong] = [0, 0];
  slot.data.forEach((x, flat) => {
    const { result } = explainElement(step, name, flat) ?? {};
    if (result === undefined) return;
    known += 1;
    const close = Math.abs(result - x) <= 2e-5 * Math.abs(x) + 2e-6;
    if (!close && !(Object.is(result, x) && !Number.isFinite(x))) wrong += 1;
  });
  return [[`${step.i} ${step.kind} ${step.kernel} ${name}`, known, wrong]];
}))"""


@pytest.mark.parametrize("name", sorted(study.EXAMPLES))
def test_the_page_computes_each_element_from_the_others(name, opened, tmp_path):
    page = opened(study.example(name).save(tmp_path / "trace.html"))
    rows = page.evaluate(RECOMPUTE)
    assert len(rows) > 3
    assert [row for row in rows if row[2] or not row[1]] == []


def test_a_clicked_element_shows_its_proof(head, opened):
    page = opened(head, "start")
    page.get_by_text("Is this number right?").click()
    page.get_by_role("link", name=re.compile("check this number")).click()
    playwright.expect(page.locator(".verdict.good")).to_be_visible()
    assert float(page.locator(".verdict").get_attribute("data-error")) <= 1e-9
    canvas = page.locator(".card.input canvas").first
    box = canvas.bounding_box()
    shown = set()
    for x in np.linspace(0.2, 0.95, 6):
        for y in np.linspace(0.2, 0.95, 6):
            canvas.click(position={"x": box["width"] * x, "y": box["height"] * y})
            shown.add(page.locator(".element").text_content())
            for verdict in page.locator(".verdict").all():
                assert float(verdict.get_attribute("data-error")) <= 1e-9
    assert len(shown) > 5
    assert page.locator(".worked .bad").count() == 0


def test_the_questions_of_a_lesson_are_answered(head, opened):
    page = opened(head)
    for question, says in {
        "Where does dV come from?": "collects the gradients of all rows",
        "What does the mask do?": "later tokens",
        "Why is this gradient zero?": "no influence",
        "Which addition is the residual?": "goes on unchanged",
        "Is this number right?": "backprop says",
    }.items():
        show(page, "start")
        asked = page.locator(".question", has_text=question)
        asked.locator("summary").click()
        playwright.expect(asked.locator("p").first).to_contain_text(says)
        asked.get_by_role("link").first.click()
        playwright.expect(page.locator(".step .worked .good")).to_be_visible()  # the page computes what was recorded
    show(page, "start")
    page.locator(".question", has_text="Why is this gradient zero?").locator("summary").click()
    page.get_by_role("link", name=re.compile("see it in numbers")).click()
    playwright.expect(page.locator(".zero")).to_contain_text("Why is it zero?")


def test_a_share_of_0_does_not_deny_the_other_shares(head, opened):
    page = opened(head)
    found = page.evaluate("""() => steps.filter((s) => s.kind === "sum").flatMap((s) => {
      const [share, total] = [slotsOf(s).get("second"), slotsOf(s).get("total")];
      const flat = share.data.findIndex((x, i) => x === 0 && total.data[i] !== 0);
      return flat < 0 ? [] : [`steps/${s.i + 1}/second/${flat}`];
    })""")
    assert found
    for place in found:
        show(page, place)
        zero = page.locator(".zero")
        playwright.expect(zero).to_contain_text("may still change the loss through its other uses")
        playwright.expect(zero).to_contain_text("Followed back")  # to the step in which the 0 began
        playwright.expect(page.locator(".proof h4")).to_have_text("Is the complete gradient right?")
        zero.get_by_role("link").click()
        playwright.expect(page.locator(".zero")).to_contain_text("y is 1 here")


def test_every_line_of_numbers_is_an_equation(head, opened):
    page = opened(head)
    for place, says in {
        "steps/14/y/0": "25 smaller terms",  # the mean: the sum is divided
        "steps/16/dx/0": "/ 30",
        "steps/17/da/0": "da[0, 0] = g · b",
        "steps/23/dx/0": "a step of descent lowers this score",
        "steps/24/db/1": "The mask put −∞ here, so this score has no influence",
    }.items():
        show(page, place)
        playwright.expect(page.locator(".inspector")).to_contain_text(says)
    show(page, "steps/14/y/0")
    assert page.locator(".worked .line").nth(1).text_content().endswith(") / 30")
    show(page, "steps/7")
    assert page.evaluate("[...hidden.keys()].map((id) => tensors[id].name)") == ["masked", "weights", "scores"]
    show(page, "steps/33/total/5")
    page.locator(".card canvas").first.click(position={"x": 60, "y": 25})
    assert page.evaluate("innerWidth") >= page.evaluate("document.documentElement.scrollWidth")


def test_a_click_is_told_where_it_can_be_seen_and_leaves_the_arrows_to_the_steps(head, opened):
    page = opened(head, "steps/23", viewport={"width": 1280, "height": 700})
    picked = page.locator(".picked-line")
    first = picked.text_content()
    page.locator(".card canvas").nth(0).click(position={"x": 70, "y": 20})
    playwright.expect(picked).not_to_have_text(first)
    playwright.expect(picked).to_be_in_viewport()
    page.keyboard.press("Shift+ArrowRight")
    assert "steps/23/dx/1" in page.url
    assert page.evaluate("[...document.querySelectorAll('.card canvas')].length") == 4
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator(".where")).to_contain_text("24 / ")


# The color of each cell of every array of a trace, as a pixel of its heat map, compared with that of its number.
PIXELS = """(width) => [...tensors, ...grads].flatMap((thing) => {
  const { map } = heatMap({ thing, scale: signedScale(thing.stats), width, label: "", whole: true });
  const { width: wide, height } = map.canvas;
  const { data } = map.canvas.getContext("2d").getImageData(0, 0, wide, height);
  const wrong = [];
  eachCell(map, {}, (flat, x, y) => {
    const [right, down] = map.numbered ? [2, 2] : [map.cw / 2, map.ch / 2]; // beside the number
    const at = 4 * (Math.floor(y + down) * wide + Math.floor(x + right));
    const seen = [...data.slice(at, at + 3)];
    const color = rgb(colorOf(map.values.data[flat], map.scale)).map((part) => Math.round(255 * part));
    const place = map.grid.flat(...map.grid.place(flat)) === flat;
    if (!place || String(seen) !== String(color)) wrong.push([thing.name ?? thing.id, flat, seen, color]);
  });
  return wrong;
})"""


def test_each_cell_has_the_color_of_its_number(gpt, opened):
    page = opened(gpt)
    for width in (120, 500):
        assert page.evaluate(PIXELS, width) == []


def test_a_tall_map_draws_what_is_in_sight(opened, tmp_path):
    x = Tensor(np.arange(1500, dtype=np.float32).reshape(500, 3), requires_grad=True)
    made = study.trace_function(lambda: (x * x).sum(), {"x": x}, prove=False)
    page = opened(made.save(tmp_path / "trace.html"), "steps/1")
    canvas = page.locator(".card canvas").first
    assert canvas.bounding_box()["height"] <= 410
    canvas.locator("xpath=../..").evaluate("box => box.scrollTo(0, box.scrollHeight)")
    readout = page.locator(".card output").first
    canvas.hover(position={"x": 45, "y": 402})
    playwright.expect(readout).to_contain_text("[499, 0] = 1497")
    canvas.press("ArrowDown")  # reads a cell near the top, and scrolls there
    playwright.expect(readout).to_contain_text("[1, 0] = 3")
    playwright.expect(canvas.locator("xpath=../..")).to_have_js_property("scrollTop", 0)


def test_a_wide_map_draws_what_is_in_sight(opened, tmp_path):
    x = Tensor(np.arange(4000, dtype=np.float32).reshape(4, 1000), requires_grad=True)
    made = study.trace_function(lambda: (x * x).sum(), {"x": x}, prove=False)
    page = opened(made.save(tmp_path / "trace.html"), "steps/1")
    canvas, readout = page.locator(".card canvas").first, page.locator(".card output").first
    box = canvas.bounding_box()
    assert box["width"] < 700
    canvas.locator("xpath=../..").evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    page.wait_for_timeout(100)  # until the scroll was drawn
    sight = canvas.locator("xpath=../..").bounding_box()
    page.mouse.move(sight["x"] + sight["width"] - 8, box["y"] + 10)
    playwright.expect(readout).to_contain_text("[0, 99")
    canvas.press("ArrowRight")
    playwright.expect(readout).to_contain_text("[0, 1] = 1")
    playwright.expect(canvas.locator("xpath=../..")).to_have_js_property("scrollLeft", 0)


def test_masked_positions_are_hatched_and_read_as_masked(head, opened):
    page = opened(head, "attention")
    canvas = page.locator(".attention canvas").first
    canvas.focus()
    page.keyboard.press("ArrowDown")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    playwright.expect(page.locator(".attention output").first).to_contain_text("hidden by the mask")


def test_attention_that_is_kept_as_a_map_is_drawn(opened, tmp_path, monkeypatch):
    traces = importlib.import_module("tinygrad_llm.study.trace")
    for name, value in {"EXACT_BYTES": 100, "MAP_BYTES": 2000, "CELLS": 16}.items():
        monkeypatch.setattr(traces, name, value)
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8), Generator(1))
    made = study.trace(model, Generator(2).randint(0, 11, (1, 6)), prove=False)
    page = opened(made.save(tmp_path / "trace.html"), "attention")
    assert not page.evaluate("numbers(tensors[trace.attention[0].weights]).full")
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((x) => x > 0)"
    assert [canvas.evaluate(drawn) for canvas in page.locator(".attention canvas").all()] == [True, True]


def test_a_mistake_turns_the_check_red(gpt, opened):
    page = opened(gpt, "break")
    playwright.expect(page.get_by_role("status")).to_contain_text("the check passes")
    page.get_by_role("radio").nth(1).check()
    playwright.expect(page.get_by_role("status")).to_contain_text("the check fails")
    assert page.locator(".break path.wrong").count() == 2  # the curve and its key
    assert page.locator(".two-formulas dd").all_text_contents() == ["dx = y · (g − Σ g·y)", "dx = y · (1 − y) · g"]


def test_numbers_that_are_not_finite_are_told(opened, tmp_path):
    x = Tensor(np.array([[1, -1, 0, 2]], np.float32), requires_grad=True)
    with np.errstate(all="ignore"):
        made = study.trace_function(lambda: (x.log() * x).sum(), {"x": x})
    page = opened(made.save(tmp_path / "trace.html"), "flow")
    playwright.expect(page.locator(".flow-view svg .nan")).not_to_have_count(0)
    playwright.expect(page.locator("table .odd")).to_contain_text("NaN")
    for number in range(1, page.evaluate("steps.length") + 1):
        show(page, f"steps/{number}")
        for verdict in page.locator(".verdict.good").all():
            assert float(verdict.get_attribute("data-error")) <= 1e-6
    assert "not finite" in page.evaluate("verdict(null, false).textContent")


# ---- hostile text, other places, other sizes ------------------------------------------------------------------------


def test_a_token_stays_text_in_every_view(gpt, opened):
    page = opened(gpt)
    seen = 0
    for place in (*VIEWS, *(f"words/{i}" for i in range(6)), *(f"steps/{i}" for i in range(1, 60, 7))):
        show(page, place)
        assert page.locator("img, #content b:text-is('bold')").count() == 0
        seen += "onerror" in page.locator("#content").text_content()
    assert seen >= 3
    assert page.title().endswith(page.locator("#title").text_content())


def test_a_notebook_shows_the_page_in_a_frame(opened, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text("<!doctype html><title>notebook</title>" + study.example("scalar")._repr_html_(), encoding="utf-8")
    page = opened(path, "")
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Steps").click()
    playwright.expect(frame.locator(".where")).to_contain_text("1 / ")
    frame.get_by_role("button", name="Next step").click()
    playwright.expect(frame.locator(".where")).to_contain_text("2 / ")
    frame.locator(".step canvas").first.click()
    playwright.expect(frame.locator(".element")).to_be_visible()


def test_pictures_are_saved_as_svg(gpt, opened):
    page = opened(gpt)
    for place in ("steps/12", "map", "attention", "flow", "update", "break/0"):
        show(page, place)
        with page.expect_download() as download:
            page.get_by_role("button", name=re.compile("as SVG")).first.click()
        text = download.value.path().read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert len(text) > 500
        assert re.search(r'(fill|stroke)="(#|rgb)', text)  # its colors are written into it
        assert HOSTILE not in text


@pytest.mark.parametrize("width", [400, 480, 768, 1024, 1280, 1600])
def test_nothing_is_wider_than_the_window(width, gpt, opened):
    page = opened(gpt, viewport={"width": width, "height": 800})
    for place in (*VIEWS, *(f"steps/{i}" for i in range(2, 120, 9))):
        show(page, place)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place


def test_the_theme_follows_the_system_until_it_is_chosen(head, opened):
    page = opened(head, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) != dark
    page.reload()
    assert page.evaluate(background) != dark
    page.locator("#theme").click()
    assert page.evaluate(background) == dark


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed (npm install axe-core)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, gpt, opened):
    page = opened(gpt, color_scheme=scheme, bypass_csp=True)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = []
    for place in (*VIEWS, "steps/70", "steps/100"):
        show(page, place)
        report = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        for rule in report["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found.append((place, rule["id"], rule["nodes"][0]["html"]))
    assert found == []
