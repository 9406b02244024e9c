"""The page of `chat --web` in a real browser: Chromium, driven by Playwright, where both are installed."""

import contextlib
import json
import shutil

import pytest
from chat_models import ALPHABET, Held, alphabet, serving, wait_until

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

HOSTILE = '</script><img src=x onerror="alert(1)"><b>bold</b> &amp; done'
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function: a server → its page. At the end, nothing may have been reported or asked of another host.

    expected: a part of what the browser itself reports in this test.
    """
    wrong, stack = [], contextlib.ExitStack()

    def open_page(server, expected="nothing", **options):
        context = stack.enter_context(contextlib.closing(browser.new_context(**options)))
        page = context.new_page()
        page.on("console", lambda message: None if expected in message.text else wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        allowed = (server.url, f"blob:{server.url}", "data:,")
        page.on("request", lambda request: None if request.url.startswith(allowed) else wrong.append(request.url))
        page.goto(server.url)
        return page

    with stack:
        yield open_page
    assert wrong == []


def ask(page, text):
    page.get_by_label("Your text").fill(text)
    page.get_by_label("Your text").press("Enter")


def turns(page):
    """(kind, text) of everything in the conversation."""
    return [(item.get_attribute("class"), item.text_content()) for item in page.locator("#turns li").all()]


def wait_for(page, text):
    playwright.expect(page.locator("#turns li").last).to_have_text(text)


def test_an_answer_is_shown_as_text_while_it_is_written(opened):
    model = Held(HOSTILE, free=False)
    with serving(model, title="runs/<b>") as server:
        page = opened(server)
        assert page.title() == page.locator("h1").text_content() == "runs/<b>"
        ask(page, HOSTILE)
        model.allowed.release(9)
        wait_for(page, "</script>")
        playwright.expect(page.locator("#send")).to_have_text("Stop")
        model.allowed.release(1000)
        wait_for(page, HOSTILE)
        playwright.expect(page.locator("#send")).to_have_text("Send")
        assert turns(page) == [("user", HOSTILE), ("assistant", HOSTILE)]
        assert page.locator("#turns img, #turns b, #turns script").count() == 0


def test_an_answer_that_is_stopped_is_kept_and_the_server_is_free_again(opened):
    model = Held("x", free=False, ends=False)
    with serving(model) as server:
        page = opened(server)
        ask(page, "hello")
        model.allowed.release(3)
        wait_for(page, "xxx")
        page.locator("#send").click()
        playwright.expect(page.locator("#status")).to_have_text("stopped")
        model.allowed.release(10**6)
        wait_until(lambda: not server._deadlines)
        assert turns(page) == [("user", "hello"), ("assistant", "xxx")]


def test_new_conversation_while_an_answer_is_read_forgets_both(opened):
    model = Held("x", free=False, ends=False)
    with serving(model) as server:
        page = opened(server)
        ask(page, "hello")
        model.allowed.release(3)
        wait_for(page, "xxx")
        page.locator("#reset").click()
        model.allowed.release(10**6)
        assert turns(page) == []
        assert page.evaluate("turns.length") == 0


def test_a_text_that_is_refused_comes_back_with_the_reason(opened):
    with serving(Held("fine")) as server:
        page = opened(server, "400 (Bad Request)")
        ask(page, "<|endoftext|>")
        wait_for(page, "the text holds the special token '<|endoftext|>': leave it out")
        assert turns(page)[0][0] == "error"
        assert page.get_by_label("Your text").input_value() == "<|endoftext|>"
        ask(page, "hello")
        wait_for(page, "fine")
        assert turns(page) == [("user", "hello"), ("assistant", "fine")]


def test_the_conversation_is_saved_and_two_pages_do_not_share_it(opened):
    with serving(Held("fine"), system="be kind") as server:
        page, other = opened(server), opened(server)
        assert page.get_by_label("System text", exact=True).input_value() == "be kind"
        ask(page, "one")
        wait_for(page, "fine")
        ask(other, "two")
        wait_for(other, "fine")
        with page.expect_download() as download:
            page.locator("#save").click()
        saved = json.loads(download.value.path().read_text(encoding="utf-8"))
        said = [("system", "be kind"), ("user", "one"), ("assistant", "fine")]
        assert [(message["role"], message["content"]) for message in saved["messages"]] == said


def test_what_was_cropped_and_cut_is_told(opened):
    with serving(alphabet(ends=False, block_size=60)) as server:
        page = opened(server)
        ask(page, "x" * 100)
        status = page.locator("#status")
        playwright.expect(status).to_contain_text("the text is longer than the 60 tokens that the model reads")
        playwright.expect(status).to_contain_text("the answer is cut after")
        (_, (kind, text)) = turns(page)
        assert kind == "assistant"
        assert set(text) <= set(ALPHABET + " ")
        assert page.evaluate("turns[0][1]") == text


def test_a_server_that_has_ended_is_told(opened):
    with serving(Held("fine")) as server:
        page = opened(server, "ERR_CONNECTION_REFUSED")
    ask(page, "hello")
    wait_for(page, "the server has ended, or could not go on")


@pytest.mark.parametrize("width", [320, 480, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(width, scheme, opened):
    with serving(Held("w" * 300), title="runs/" + "a" * 200, system="s" * 300) as server:
        page = opened(server, viewport={"width": width, "height": 700}, color_scheme=scheme)
        ask(page, "u" * 300)
        wait_for(page, "w" * 300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("#send", "#text", "#save", "#reset"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
