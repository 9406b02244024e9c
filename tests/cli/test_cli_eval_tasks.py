"""`tinygrad-llm eval` for tasks: labels by prompting alone, and the answers of an assistant, with a judge."""

import json

import pytest
from chat_models import ALPHABET, BYTES, alphabet, save_alphabet
from judge_server import JudgeServer, send

from tinygrad_llm.evaluation import read_prompts, score_prompts
from tinygrad_llm.models import GPT, GPTClassifier
from tinygrad_llm.random import Generator

TASK = {
    "instruction": "Is it spam?",
    "labels": {"ham": "no", "spam": "yes"},
    "examples": [{"text": f"text {'ab'[i % 2]} {i}", "label": ("ham", "spam")[i % 2]} for i in range(8)],
}
ENTRIES = [
    {"instruction": "Say the alphabet.", "output": ALPHABET, "kind": "letters"},
    {"instruction": "Say it again.", "input": "now", "output": ALPHABET, "kind": "letters"},
    {"instruction": "Say a number.", "output": "one two", "kind": "numbers"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model that answers with the alphabet, a classifier, a task and instructions."""
    folder = tmp_path_factory.mktemp("tasks")
    save_alphabet(folder / "model", block_size=200)
    model = GPTClassifier.from_gpt(alphabet(block_size=200), ["ham", "spam"], Generator(0))
    model.save_pretrained(folder / "spam")
    BYTES.save(folder / "spam" / "tokenizer.json")
    (folder / "task.json").write_text(json.dumps(TASK))
    (folder / "one.json").write_text(json.dumps(ENTRIES))
    return folder


@pytest.fixture
def evaluate(cli, made, monkeypatch):
    """A function: arguments → (exit status, stdout, stderr) of `eval model …` in that folder."""
    monkeypatch.chdir(made)
    monkeypatch.delenv("TINYGRAD_LLM_JUDGE_KEY", raising=False)
    return lambda *args: cli("eval", "model", *args)


# ---- by prompting alone --------------------------------------------------------------------------------------------


def test_accuracy_is_reported_by_number_of_examples(evaluate):
    model, task = GPT.from_pretrained("model"), read_prompts("task.json")
    status, out, err = evaluate("--prompts", "task.json", "--shots", 0, 2, "--seed", 3, "--json")
    figures = json.loads(out)
    assert (status, err) == (0, "")
    expected = [score_prompts(model, BYTES, task, n, 3)._asdict() for n in (0, 2)]
    assert figures == {
        "run": "model", "prompts": "task.json", "n": 8, "chance": 0.5, "seed": 3, "scores": expected,
    }  # fmt: skip
    status, out, _ = evaluate("--prompts", "task.json", "--seed", 3)
    assert status == 0
    assert "task.json: 8 texts; the model writes one of no (ham), yes (spam)" in out
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert list(rows) == ["0", "1", "4", "chance"]
    assert f"{expected[0]['accuracy']:.1%}  ± {expected[0]['standard_error']:.1%}" in rows["0"]
    assert rows["chance"].endswith("50.0%  ± 17.7%")


def test_a_classifier_is_shown_beside(evaluate):
    status, out, _ = evaluate("--prompts", "task.json", "--shots", 0, "--classifier", "spam", "--json")
    assert status == 0
    beside = json.loads(out)["classifier"]
    error = pytest.approx(0.177, abs=0.18)
    assert beside == {"run": "spam", "accuracy": beside["accuracy"], "standard_error": error, "seen": 0}
    out = evaluate("--prompts", "task.json", "--shots", 0, "--classifier", "spam")[1]
    assert f"{'spam, fine-tuned':<36} {beside['accuracy']:>9.1%}  ± " in out


def test_prompts_that_do_not_fit_are_told_or_refused(evaluate):
    status, out, err = evaluate("--prompts", "task.json", "--shots", 0, 7)
    assert status == 0
    assert "8 of 16 texts are longer than the 200 tokens" in err
    status, out, err = evaluate("--prompts", "task.json", "--shots", 0, 7, "--no-crop")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "task.json: example 1: the text with an ending has " in err


# ---- answers -------------------------------------------------------------------------------------------------------


def test_answers_are_scored_by_kind(evaluate):
    status, out, err = evaluate("--instructions", "one.json", "--style", "phi3", "--json")
    figures = json.loads(out)
    assert (status, err) == (0, "")
    assert (figures["n"], figures["exact_match"], figures["left_out"]) == (3, 2 / 3, 0)
    assert (figures["instructions"], figures["style"], "judge" in figures) == ("one.json", "phi3", False)
    assert figures["kinds"]["letters"] == {"n": 2, "exact": 1.0, "f1": 1.0}
    assert figures["kinds"]["numbers"]["exact"] == 0
    assert [one["answer"] for one in figures["answers"]] == [ALPHABET] * 3
    status, out, _ = evaluate("--instructions", "one.json", "--style", "phi3", "--max-new-tokens", 5)
    assert status == 0
    assert "one.json: 3 entries, prompt style phi3" in out
    assert "0.0%" in out.splitlines()[-1]


def test_prompts_of_instructions_that_do_not_fit_are_told_or_refused(evaluate, made):
    (made / "long.json").write_text(json.dumps([*ENTRIES, {**ENTRIES[0], "input": "x" * 300}]))
    status, out, err = evaluate("--instructions", "long.json", "--style", "plain", "--json")
    assert status == 0
    assert "1 of 4 texts are longer than the 200 tokens" in err
    assert json.loads(out)["cropped"] == 1
    status, out, err = evaluate("--instructions", "long.json", "--style", "plain", "--no-crop")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the prompt 'Say the alphabet.' has " in err


def test_a_run_is_scored_on_what_neither_it_nor_its_bases_were_trained_on(cli, toys, text_file, place):
    entries = [{"instruction": "Say the cat.", "input": str(i), "output": "the cat", "kind": "say"} for i in range(40)]
    (place / "mine.json").write_text(json.dumps(entries))
    pairs = [{"instruction": "Say it.", "input": str(i), "chosen": "the cat", "rejected": "a"} for i in range(20)]
    (place / "pairs.json").write_text(json.dumps(pairs))
    wide = ("--preset", "stories", "--set", "model.block_size=64", "--out", "base")
    assert cli("train", "--corpus", text_file, *wide)[0] == 0

    def finetune(task, data, base, out, seed, *more):
        words = ("--set", "style=plain", "--steps", 4, "--workers", 1, "--set", "batch_size=4", "--seed", seed)
        return cli("finetune", task, data, "--base", base, "--out", out, *words, *more)

    def evaluated(run, file):
        return json.loads(cli("eval", run, "--instructions", file, "--json")[1])

    assert finetune("assistant", "mine.json", "base", "new", 5)[0] == 0
    tested = json.loads((place / "new" / "results.json").read_text())
    figures = evaluated("new", "mine.json")
    assert {name: figures[name] for name in tested} == {**tested, "answers": figures["answers"]}
    assert sorted(map(str, figures["answers"])) == sorted(map(str, tested["answers"]))
    assert (figures["n"], figures["left_out"], figures["style"]) == (4, 36, "plain")
    shown = " ".join(cli("eval", "new", "--instructions", "mine.json")[1].split())
    assert "4 entries, prompt style plain; the other 36 are left out: new saw them in training" in shown
    assert evaluated("base", "mine.json")["n"] == 40

    assert finetune("preference", "pairs.json", "new", "kind", 5, "--layers", "lora")[0] == 0
    assert evaluated("kind", "mine.json")["n"] == 4
    asked = [{**one, "output": one["chosen"]} for one in pairs]
    asked = [{name: one[name] for name in ("instruction", "input", "output")} for one in asked]
    (place / "more.json").write_text(json.dumps([*entries[::-1], *asked]))  # no copy of a file that it saw
    assert evaluated("kind", "more.json")["n"] == 4 + 2

    status, out, _ = finetune("assistant", "mine.json", "kind", "again", 6)
    assert status == 0
    unseen = evaluated("again", "mine.json")["n"]
    assert f"new was trained on them: {4 - unseen}" in " ".join(out.split())
    assert json.loads((place / "again" / "results.json").read_text())["n"] == unseen

    (place / "messages.tsv").write_text("".join(f"{('ham', 'spam')[i % 2]}\tthe cat {i}\n" for i in range(20)))
    assert finetune("classifier", "messages.tsv", "base", "spam", 6)[0] == 0
    (place / "task.json").write_text(
        json.dumps({**TASK, "examples": [{"text": f"The  cat {i}", "label": "ham"} for i in range(10, 30)]})
    )
    words = ("eval", "base", "--prompts", "task.json", "--shots", 0, "--classifier", "spam")
    seen = json.loads(cli(*words, "--json")[1])["classifier"]["seen"]
    assert 10 - 4 <= seen <= 10  # the test part has four of the twenty
    assert f"spam saw {seen} of these texts in training" in cli(*words)[1]

    (place / "pairs.json").unlink()
    figures = evaluated("kind", "more.json")
    assert figures["n"] == 4 + 20
    assert figures["notes"] == [
        f"kind: its examples {place}/pairs.json are gone or changed: which of these it saw is unknown"
    ]


# ---- a judge -------------------------------------------------------------------------------------------------------


def judged(evaluate, server, *more):
    how = ("--style", "phi3", "--judge", server.url, "--judge-model", "llama3")
    return evaluate("--instructions", "one.json", *how, *more)


def test_a_judge_scores_every_answer_and_gets_the_key_of_the_variable(evaluate, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_JUDGE_KEY", "sk-secret")
    with JudgeServer("90", "Score: 70/100", "I cannot say") as server:
        status, out, err = judged(evaluate, server, "--json")
        assert len(server.asked) == 3
        assert {headers["Authorization"] for _, headers, _ in server.asked} == {"Bearer sk-secret"}
        assert "Say it again.\n\nnow" in server.asked[1][2]["messages"][0]["content"]
    figures = json.loads(out)
    assert (status, err) == (0, "")
    url = f"{server.url}/chat/completions"
    assert figures["judge"] == {"url": url, "model": "llama3", "scored": 2, "mean": 80.0}
    assert [one["score"] for one in figures["answers"]] == [90.0, 70.0, None]
    assert figures["answers"][2]["judged"] == "I cannot say"
    assert "secret" not in out


def test_the_judge_s_mean_is_printed_below_the_table(evaluate):
    with JudgeServer("90", "70", "?") as server:
        status, out, _ = judged(evaluate, server)
    assert status == 0
    line = "judge llama3: 80.0 of 100, the mean of 2 scores; 1 replies hold no number from 0 to 100"
    assert " ".join(out.split("\n", 5)[-1].split()) == line
    with JudgeServer("?") as server:
        assert "judge llama3: no reply holds a score\n" in judged(evaluate, server)[1]
    with JudgeServer("0") as server:  # a score like others
        assert "judge llama3: 0.0 of 100, the mean of 3 scores\n" in judged(evaluate, server)[1]


@pytest.mark.parametrize("answer", [401, lambda handler: send(handler, {"error": "no sk-secret"})])
def test_a_judge_that_fails_is_one_line_without_the_key(evaluate, monkeypatch, answer):
    monkeypatch.setenv("TINYGRAD_LLM_JUDGE_KEY", "sk-secret")
    with JudgeServer(answer) as server:
        status, out, err = judged(evaluate, server, "--json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "/v1/chat/completions: the " in err
    assert "secret" not in err


# ---- mistakes ------------------------------------------------------------------------------------------------------

MISTAKES = {
    "more shots than texts": ("--prompts task.json --shots 8", "task.json: got 8 shots, which must be from 0 to 7"),
    "a negative number of shots": ("--prompts task.json --shots -1", "--shots: got '-1', but it"),
    "half a shot": ("--prompts task.json --shots 0.5", "got '0.5', but it must be an integer of at least 0"),
    "a task that is no JSON": ("--prompts broken.json", "line 2 column 1: give a JSON object with instruction, labels"),
    "a task without examples": ("--prompts none.json", "none.json: examples must be a list of examples, got []"),
    "no task": ("--prompts nowhere.json", "nowhere.json: cannot be read: No such file"),
    "a task for a file": ("task.json --shots 1", "--shots is for --prompts FILE"),
    "a classifier that is none": ("--prompts task.json --classifier model", "'tinygrad_llm.GPTClassifier' is needed"),
    "labels of others": ("--prompts other.json --classifier spam", "has the classes ham, spam, and other.json the"),
    "no instructions": ("--instructions nowhere.json", "nowhere.json: no such file"),
    "instructions that are no JSON": ("--instructions broken.json", "broken.json: line 1: not JSON: Expecting"),
    "messages as instructions": ("--instructions messages", "messages.tsv: line 1: not JSON: Expecting value"),
    "a judge without a model": ("--instructions one.json --judge http://localhost", "give --judge URL and --judge"),
    "a model without a judge": ("--instructions one.json --judge-model a", "give --judge URL and --judge-model NAME"),
    "a judge elsewhere": ("--instructions one.json --judge http://a.b --judge-model a", "must begin with https://"),
    "a style that is none": ("--instructions one.json --style alpacca", "did you mean alpaca?"),
    "an empty judge": ("--instructions one.json --judge= --judge-model a", "must be a URL such as"),
}  # fmt: skip


def test_mistakes_cost_one_line_each(evaluate, made, for_each, snapshot):
    (made / "broken.json").write_text('{"instruction": "x"\n"labels": 1}')
    (made / "none.json").write_text(json.dumps({**TASK, "examples": []}))
    examples = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    (made / "other.json").write_text(json.dumps({**TASK, "labels": ["good", "bad"], "examples": examples}))
    before = snapshot(made)

    def check(mistake):
        arguments, message = MISTAKES[mistake]
        status, out, err = evaluate(*arguments.split(" "))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("tinygrad-llm eval: ")
        assert message in err
        assert snapshot(made) == before

    for_each(MISTAKES, check)
