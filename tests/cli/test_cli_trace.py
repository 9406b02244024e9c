"""`tinygrad-llm trace`: the page that it writes, what it prints, and its errors."""

import base64
import hashlib
import json
import re

import pytest

from tinygrad_llm.cli import demo
from tinygrad_llm.runs.folder import TRACE
from tinygrad_llm.study import EXAMPLES, replay

REAL_TRACE = demo._trace  # the fixture `toys` replaces it


def data_of(html):
    """The numbers in a page."""
    (text,) = re.findall(r'<script type="application/json" id="trace">(.*?)</script>', html, re.S)
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_examples_are_listed(cli):
    status, out, err = cli("trace", "--list")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == list(EXAMPLES)
    listed = json.loads(cli("trace", "--list", "--json")[1])
    assert [e["name"] for e in listed] == list(EXAMPLES)


def test_an_example_is_written_as_one_page_that_loads_nothing(cli, place):
    status, out, err = cli("trace", "--example", "scalar", "--out", "new.html")
    assert (status, out, err) == (0, "wrote new.html: open it in a browser\n", "")
    html = (place / "new.html").read_text(encoding="utf-8")
    assert data_of(html)["meta"]["example"] == "scalar"
    # Its policy allows its own script and style, and nothing else; and it names no address to load from.
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_a_prompt_is_traced_with_the_metrics_of_its_run_and_stays_text(cli, runs, place):
    prompt = "</script><img"
    status, out, err = cli("trace", runs["stories"], "--prompt", prompt, "--json")
    figures = json.loads(out)
    assert (status, err) == (0, "")
    assert figures["out"] == "trace.html"
    assert figures["worst_error"] < 1e-12
    assert figures["proofs"] > 50
    html = (place / "trace.html").read_text(encoding="utf-8")
    assert prompt not in html
    assert "<img" not in html
    data = data_of(html)
    assert "".join(data["meta"]["tokens"][0]) == prompt
    assert data["meta"]["loss"] == figures["loss"]
    assert data["meta"]["title"] == f"stories: {prompt}"
    assert data["flow"]["training"]["steps"] == [2, 3]
    status, _, err = cli("trace", runs["stories"], "--prompt", "The cat sat")
    assert status == 2
    assert "trace.html: exists already: choose another name, or add --overwrite" in err


def test_steps_are_printed(cli, place):
    status, out, err = cli("trace", "--example", "scalar", "--print")
    assert (status, err) == (0, "")
    assert "forward\n" in out
    assert "tanh: dx = g · (1 − y²)" in out
    assert max(map(len, out.splitlines())) <= 80
    assert not list(place.iterdir())


MISTAKES = {
    "nothing to trace": ("trace", "name a run or an --example"),
    "a run and an example": ("trace {run} --example scalar", "name a run or an --example"),
    "an unknown example": ("trace --example scalr", "no example is named 'scalr': did you mean scalar?"),
    "no prompt": ("trace {run}", "give a --prompt"),
    "a prompt for an example": ("trace --example scalar --prompt a", "--prompt is for a run"),
    "a prompt of one token": ("trace {run} --prompt a", "got 1 tokens, give from 2 to 16"),
    "a prompt longer than the block": ("trace {run} --prompt " + "a" * 17, "got 17 tokens, give from 2 to 16"),
    "an unknown character": ("trace {run} --prompt caté", "character '\\xe9' at position 3"),
    "a run that is not there": ("trace nowhere --prompt ab", "nowhere: no model here"),
    "--out in a missing folder": ("trace --example scalar --out no/t.html", "no/t.html: its folder does not exist"),
    "--out that is a folder": ("trace --example scalar --out {run} --overwrite", "is a folder: name a file"),
    "two outputs": ("trace --example scalar --print --json", "--print and --json both print: choose one"),
    "a seed of 33 bits": ("trace --example scalar --seed 4294967296", "an integer from 0 to 4294967295"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, cli, runs, place):
    words, message = MISTAKES[mistake]
    status, out, err = cli(*(str(runs["char-cpu"]) if word == "{run}" else word for word in words.split()))
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not list(place.iterdir())


def test_the_demo_ends_with_a_trace(cli, printed, toys, place, monkeypatch):
    monkeypatch.setattr(demo, "_trace", REAL_TRACE)
    monkeypatch.setattr(replay, "prove", lambda recording: [])  # other tests prove
    monkeypatch.setattr(replay, "breaks", lambda recording: None)
    out = printed("demo", "--steps", 2)
    assert "wrote runs/demo/trace.html: open it in a browser, and step through backprop" in out
    data = data_of((place / "runs/demo" / TRACE).read_text(encoding="utf-8"))
    assert len(data["meta"]["tokens"][0]) == 16
    monkeypatch.setattr(demo, "_trace", lambda training: training.folder.path)
    assert cli("demo", "--steps", 2)[0] == 0
    assert not (place / "runs/demo" / TRACE).exists()  # the trace of another model does not stay
