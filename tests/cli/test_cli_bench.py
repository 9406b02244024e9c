"""`tinygrad-llm bench`: all figures, in a table, as JSON and as Markdown. No test asserts a time."""

import contextlib
import json

import pytest

from tinygrad_llm import GPTConfig, __version__, runtime
from tinygrad_llm.bench import BenchError, Timing, machine, table, tokenizer, train
from tinygrad_llm.bench.limits import Limits
from tinygrad_llm.bench.measure import OURS, Case, Measure
from tinygrad_llm.cli import bench, doctor


@pytest.fixture
def toy(monkeypatch):
    """Makes `bench train --config toy` possible."""
    monkeypatch.setitem(train.CONFIGS, "toy", (GPTConfig(31, 8, 1, 2, 8), 2))


@pytest.fixture
def alone(monkeypatch):
    """As if no other package were installed."""
    monkeypatch.setattr(bench, "missing", lambda name: [name.removesuffix("-compile")])


@pytest.fixture
def in_this_process(monkeypatch):
    """Contenders of the tokenizer's benchmark run in this process, one after the other."""

    def alternate(contenders, rounds):
        timings = []
        for contender in contenders:
            work = getattr(tokenizer, contender.subject.partition(":")[2])(**contender.options)
            answer, seconds = work.answer(), [work.round() for _ in range(rounds)]
            timings.append(Timing(contender.name, seconds, answer, work.about()))
        return timings

    monkeypatch.setattr(tokenizer, "alternate", alternate)


@pytest.mark.usefixtures("in_this_process")
def test_tokenizer_without_other_packages(alone, cli, text_file):
    status, out, err = cli("bench", "tokenizer", "--json", "--rounds", "1", "--corpus", text_file)
    figures = json.loads(out)
    assert status == 0
    assert err == "(tiktoken, tokenizers not installed: pip install tiktoken tokenizers)\n"
    assert figures["machine"]["cores"] >= 1
    assert figures["machine"]["tinygrad_llm"] == __version__
    size = len(text_file.read_bytes())
    names = ["encode text.txt, cold", "encode text.txt, warm", "decode text.txt", "train 0.0 MB to 4,096 tokens"]
    assert [row["measure"] for row in figures["rows"]] == names
    for row in figures["rows"]:
        assert (row["theirs"], row["ratio"], row["spread"]) == ({}, {}, {})
        seconds = row["ours"]["seconds"]
        assert seconds["min"] == seconds["median"] == seconds["max"] > 0
        assert seconds["rounds"] == [seconds["median"]]
        assert row["rounds"] == figures["rounds"] == figures["threads"] == 1
        if "train" in row["measure"]:
            assert "mb_per_second" not in row["ours"]
        else:
            assert row["ours"]["mb_per_second"] == pytest.approx(size / seconds["median"] / 1e6)
            assert row["ours"]["construction_seconds"] > 0


@pytest.mark.parametrize("name", tokenizer.THEIRS)
@pytest.mark.slow
def test_tokenizer_against_another_package(name, printed, text_file):
    pytest.importorskip(name)
    out = printed("bench", "tokenizer", "--against", name, "--json", "--rounds", "2", "--corpus", text_file)
    rows = json.loads(out)["rows"]
    for row in rows:
        if name == "tiktoken" and "train" in row["measure"]:
            assert row["theirs"] == {}
            continue
        assert row["theirs"][name]["same_result"], row["measure"]
        assert row["theirs"][name]["version"]
        low, high = row["spread"][name]
        assert 0 < low <= high
        ours, theirs = row["ours"]["seconds"], row["theirs"][name]["seconds"]
        assert row["ratio"][name] == theirs["median"] / ours["median"]
    assert len(rows) == 4


@pytest.mark.parametrize("asked", [["tiktoken"], ["tokenizers", "tiktoken"]])
def test_a_requested_package_that_is_missing_costs_one_line(asked, alone, refused):
    err = refused("bench", "tokenizer", "--against", *asked)
    assert err == f"tinygrad-llm bench: {', '.join(asked)} not installed: pip install {' '.join(asked)}\n"


def test_a_failed_worker_costs_one_line(alone, cli, text_file, monkeypatch):
    def failed(*args):
        raise BenchError("tiktoken: RuntimeError: too\nhard")
        yield

    monkeypatch.setattr(tokenizer, "measures", failed)
    status, out, err = cli("bench", "tokenizer", "--against", "--corpus", text_file)
    assert (status, out, err) == (2, "", "tinygrad-llm bench: tiktoken: RuntimeError: too hard\n")


@pytest.fixture
def fixed(monkeypatch):
    """Two measures of fixed figures: 6 MB by three contenders, one of which is wrong; and seconds, by two."""

    def measures(against, rounds, corpora):
        assert (against, rounds, list(corpora)) == (["tiktoken", "tokenizers"], 7, ["text.txt"])
        about = {"version": "1.2"}
        yield Measure(
            Case("encode", {}, {}, amount=6.0, unit="MB/s"),
            [
                Timing("tinygrad_llm", [1.0, 2.0, 3.0], "right"),
                Timing("tiktoken", [4.0, 3.0, 3.0], "right", about),
                Timing("tokenizers", [8.0, 8.0, 6.0], "wrong", about),
            ],
        )
        yield Measure(
            Case("train", {}, {}), [Timing("tinygrad_llm", [1.0], "a"), Timing("tokenizers", [1.5], "a", about)]
        )

    monkeypatch.setattr(tokenizer, "measures", measures)
    monkeypatch.setattr(bench, "missing", lambda name: [])


CELLS = [
    ["", "tinygrad_llm", "tiktoken", "tokenizers", "ratio to tiktoken", "ratio to tokenizers"],
    [
        "encode", "3.00 (2.00–6.00) MB/s", "2.00 (1.50–2.00) MB/s", "0.75 (0.75–1.00) MB/s",
        "1.50 (1.00–4.00)", "another result",
    ],
    ["train", "1.00 (1.00–1.00) s", "–", "1.50 (1.50–1.50) s", "–", "1.50 (1.50–1.50)"],
]  # fmt: skip


@pytest.mark.usefixtures("fixed")
def test_a_wide_table_is_printed_on_its_side(cli, text_file):
    status, out, err = cli("bench", "tokenizer", "--corpus", text_file)
    lines = out.splitlines()
    assert status == 1  # one result is wrong
    assert err == "encode: done\ntrain: done\n"
    assert all(len(line) <= 80 for line in lines)
    (_, *heads), *rows = CELLS
    size = max(map(len, heads))
    for name, *figures in rows:
        at = lines.index(name) + 1
        below = [f"  {head:<{size}}  {figure}" for head, figure in zip(heads, figures, strict=True)]
        assert lines[at : at + len(heads)] == below
    assert [f"tinygrad_llm {__version__}", "tiktoken 1.2", "tokenizers 1.2"] == lines[-4:-1]
    assert lines[-1] == "encode: tokenizers gives another result than tinygrad_llm, so there is no ratio"
    assert "Median (min–max) of 1 or 3 rounds. " in out
    assert "Too few rounds for a reliable ratio (fewer than 7): encode, train" in lines


def test_a_narrow_table_is_aligned():
    rows = [["", "ours", "torch"], ["baby", "1.00 ms", "12 ms"], ["char", "2 ms", ""]]
    assert table.plain(rows, 22) == ["      ours     torch", "baby  1.00 ms  12 ms", "char  2 ms"]
    assert table.plain(rows, 19) == ["baby", "  ours   1.00 ms", "  torch  12 ms", "char", "  ours   2 ms", "  torch"]


@pytest.mark.usefixtures("fixed")
def test_the_markdown_table(cli, text_file):
    _, out, _ = cli("bench", "tokenizer", "--markdown", "--corpus", text_file)
    head, rule, *rows = [line[1:-1].split("|") for line in out.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in (head, *rows)] == CELLS
    assert [cell.strip() for cell in rule] == ["---"] * 6


@pytest.mark.usefixtures("fixed")
def test_json_marks_another_result(cli, text_file):
    encode, train = json.loads(cli("bench", "tokenizer", "--json", "--corpus", text_file)[1])["rows"]
    assert [encode["theirs"][name]["same_result"] for name in tokenizer.THEIRS] == [True, False]
    assert encode["ratio"] == {"tiktoken": 1.5}
    assert encode["spread"] == {"tiktoken": [1.0, 4.0]}
    assert encode["theirs"]["tokenizers"]["mb_per_second"] == 0.75
    assert train["ratio"] == {"tokenizers": 1.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench", "SUBJECT"),
        ("bench abacus", "abacus"),
        ("bench tokenizer --against torch", "torch"),
        ("bench train --config huge", "huge"),
        ("bench train --threads 0", "got '0', but it must be an integer of at least 1"),
        ("bench attention --against --threads 4096", "--threads 4096: this process may use"),
        ("bench tokenizer --threads 1", "--threads"),
        ("bench decode --compile", "--compile"),
        ("bench tokenizer --rounds 0", "got '0', but it must be an integer of at least 1"),
        ("bench tokenizer --json --markdown", "not allowed with"),
        ("bench tokenizer --against --corpus none.txt", "none.txt: no such file"),
    ],
)
def test_a_mistake_costs_one_line(arguments, message, refused):
    assert message in refused(*arguments.split())


@pytest.mark.parametrize(
    ("words", "against"),
    [
        ("--against torch --compile", ["torch", "torch-compile"]),
        ("--compile --against torch", ["torch", "torch-compile"]),
        ("--against torch-compile --compile", ["torch-compile"]),
        ("--against --compile", ["torch-compile"]),
        ("--compile", ["torch", "torch-compile"]),
        ("--against torch", ["torch"]),
    ],
)
def test_compile_adds_torch_compile(words, against, toy, cli, monkeypatch):
    def measure(case, setup):
        assert setup.against == against
        raise BenchError("enough")

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda name: [])
    assert cli("bench", "train", *words.split(), "--config", "toy")[2] == "tinygrad-llm bench: enough\n"


@pytest.mark.parametrize("name", bench.THEMES)
def test_every_subject_has_help_with_an_example(name, printed):
    out = printed("bench", name, "--help")
    assert f"example: tinygrad-llm bench {name}" in " ".join(out.split())
    assert ("--compile" in out) == (name == "train")


# ---- themes with a machine's limit ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_train_without_other_packages(toy, alone, cli):
    status, out, err = cli("bench", "train", "--config", "toy", "--rounds", "2", "--json")
    assert (status, err) == (0, "(torch not installed: pip install torch)\n")
    figures = json.loads(out)
    assert (figures["subject"], figures["threads"]) == ("train", runtime.cores())
    (row,) = figures["rows"]
    assert (row["measure"], row["theirs"], row["ratio"]) == ("toy", {}, {})
    seconds = row["ours"]["seconds"]
    assert len(seconds["rounds"]) == 2
    assert row["ours"]["share_of_limit"] == row["limit"]["seconds"] / seconds["median"]
    assert 0 < row["ours"]["share_of_limit"] < 1
    assert all(rate > 1e8 for rate in row["limit"]["machine"].values())
    assert row["ours"]["blas"]
    assert row["ours"]["times"] >= 1
    assert row["ours"]["workers"] >= 1
    assert row["rounds"] == figures["rounds"] == 2


@pytest.mark.slow
def test_train_against_torch(toy, printed):
    pytest.importorskip("torch")
    out = printed("bench", "train", "--config", "toy", "--against", "torch", "--rounds", "1", "--json")
    (row,) = json.loads(out)["rows"]
    assert row["theirs"]["torch"]["same_result"]
    assert row["theirs"]["torch"]["memory"]["peak"] > row["ours"]["memory"]["peak"] > 0


@pytest.fixture
def measured(monkeypatch):
    """A quiet machine, and a measure of fixed figures.

    `measured["other"]` is torch's last loss. `measured["workers"]` maps a case to our number of workers (default 2).
    """
    answers = {"other": 2.9991, "workers": {}}

    def measure(case, setup):
        assert (setup.against, setup.threads) == (["torch", "torch-compile"], runtime.cores())
        rounds = setup.rounds
        about = {"blas": "openblas SkylakeX", "workers": answers["workers"].get(case.name, 2)}
        setup.progress("is not shown where there is no terminal")
        memory = {"memory": {"peak": 1_234_000_000, "above_imports": 1}}
        torch = {"version": "9.9", "blas": "MKL, 2 thread(s)", **memory}
        timings = [
            Timing(OURS, [0.020, 0.025, 0.021, *[0.021] * 4][:rounds], [4.0, 3.0], about | memory),
            Timing("torch", [0.042, 0.050, 0.040, *[0.042] * 4][:rounds], [4.0, answers["other"]], torch),
            Timing("torch-compile", [1.05] * rounds, [4.0, 3.0001], torch),
        ]
        limited = Case(case.name, case.subjects, {}, 1e-3, flops=2_100_000_000)
        return Measure(limited, timings, Limits(200e9, 50e9))

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda name: [])
    monkeypatch.setattr(bench, "_load_average", lambda: 0.1)
    facts = machine.facts() | {"flags": sorted(runtime.AVX2 | runtime.AVX512), "blas": [{"architecture": "SkylakeX"}]}
    monkeypatch.setattr(machine, "facts", lambda: facts)
    return answers


ROW = [
    "toy", "21.0 (20.0–25.0) ms", "42.0 (40.0–50.0) ms", "1,050 (1,050–1,050) ms",
    "2.00 (1.90–2.10)", "50.00 (42.00–52.50)", "10.5 ms", "50%", "1,234 / 1,234 / 1,234",
]  # fmt: skip


def markdown_cells(out):
    return [[c.strip() for c in line[1:-1].split("|")] for line in out.splitlines() if line.startswith("|")]


def test_markdown_has_all_columns_and_notes(toy, measured, cli):
    status, out, err = cli("bench", "train", "--config", "toy", "--markdown")
    head, rule, row = markdown_cells(out)
    names = [OURS, "torch", "torch-compile"]
    assert head == [
        "", *names, "ratio to torch", "ratio to torch-compile", "limit", "our share of it",
        f"peak memory, MB: {' / '.join(names)}",
    ]  # fmt: skip
    assert rule == ["---"] * len(head)
    assert row == ROW
    assert (status, err) == (0, "toy: done\n")
    assert "up to 200 GF/s in float32 products and 50 GB/s to and from memory" in " ".join(out.split())
    assert f"tinygrad_llm {__version__}: openblas SkylakeX; 2 worker(s)\ntorch 9.9: MKL, 2 thread(s)\n" in out
    assert "Median (min–max) of 7 rounds. " in out
    assert "quiet" not in out
    assert "Too few" not in out


def test_different_losses_leave_no_ratio(toy, measured, cli):
    measured["other"] = 2.99
    status, out, _ = cli("bench", "train", "--config", "toy", "--markdown")
    *_, row = markdown_cells(out)
    assert row == [cell if cell != "2.00 (1.90–2.10)" else "another result" for cell in ROW]
    assert status == 1
    assert "toy: torch gives another result than tinygrad_llm, so there is no ratio" in out
    (row,) = json.loads(cli("bench", "train", "--config", "toy", "--json")[1])["rows"]
    assert row["ratio"] == {"torch-compile": 50.0}


def test_different_workers_are_reported_by_case(toy, measured, cli):
    measured["workers"] = {"char-cpu": 1, "baby": 1}
    out = cli("bench", "train", "--config", "toy", "char-cpu", "baby")[1]
    assert ": openblas SkylakeX; 2 worker(s) (toy), 1 worker(s) (char-cpu, baby) " in " ".join(out.split())
    rows = json.loads(cli("bench", "train", "--config", "toy", "char-cpu", "--json")[1])["rows"]
    assert [row["ours"]["workers"] for row in rows] == [2, 1]


def test_too_few_rounds_are_reported(toy, measured, cli):
    out = cli("bench", "train", "--config", "toy", "--rounds", "3")[1]
    assert "Median (min–max) of 3 rounds. " in out
    assert "\nToo few rounds for a reliable ratio (fewer than 7): toy\n" in out
    figures = json.loads(cli("bench", "train", "--config", "toy", "--rounds", "3", "--json")[1])
    assert figures["rounds"] == figures["rows"][0]["rounds"] == 3


@pytest.mark.parametrize(
    ("variable", "kernels", "flags", "told"),
    [
        ("Haswell", "Haswell", runtime.AVX512 | runtime.AVX2, True),
        ("Haswell", "Haswell", runtime.AVX2, False),
        ("haswell", "Haswell", runtime.AVX512 | runtime.AVX2, True),
        ("skylakex", "SkylakeX", runtime.AVX512 | runtime.AVX2, False),  # OpenBLAS takes either spelling
        (None, "Haswell", runtime.AVX512 | runtime.AVX2, True),
    ],
)
def test_kernels_below_the_processor_are_reported(variable, kernels, flags, told, toy, measured, cli, monkeypatch):
    facts = machine.facts() | {"flags": sorted(flags), "openblas_coretype": variable}
    facts |= {"blas": [{"architecture": kernels}]}
    monkeypatch.setattr(machine, "facts", lambda: facts)
    if variable:  # the environment has no influence: facts decide
        monkeypatch.setenv(runtime.KERNELS, variable)
    out = cli("bench", "train", "--config", "toy")[1]
    advice = doctor.kernels(facts)
    assert len(advice) == told
    assert all(line in " ".join(out.split()) for line in advice)
    assert ("but this processor has AVX-512" in out) == told
    assert (runtime.KERNELS in out) == told


def test_busy_runs_one_process_per_core_and_says_so(toy, measured, cli, monkeypatch):
    inside = []

    @contextlib.contextmanager
    def busy(processes):
        inside.append(processes)
        yield
        inside.append("ended")

    monkeypatch.setattr(bench, "busy", busy)
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    monkeypatch.setattr(bench, "_load_average", iter([0.1, 4.2, 0.1, 0.1]).__next__)
    out = cli("bench", "train", "--config", "toy", "--busy")[1]
    assert "Measured beside 2 busy process(es), one per core; so was the limit." in " ".join(out.split())
    assert "quiet" not in out
    assert json.loads(cli("bench", "train", "--config", "toy", "--json")[1])["machine"]["busy"] == 0
    assert inside == [2, "ended", 0, "ended"]


@pytest.mark.parametrize(
    ("readings", "busy"),
    [
        ([2.345, 0.1, 0.1], 2.345),
        ([0.1, 2.0, 2.4], 0.4),  # two of these are the contenders' own threads
        ([0.1, 3.25, 2.0], 1.25),
        ([0.1, 2.0, 3.25], 1.25),
        ([None, None, None], None),
    ],
)
def test_a_busy_machine_is_reported(readings, busy, toy, measured, cli, monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    for form in ("--markdown", "--json"):
        monkeypatch.setattr(bench, "_load_average", iter(readings).__next__)
        out = cli("bench", "train", "--config", "toy", "char-cpu", form)[1]
        if form == "--json":
            assert json.loads(out)["machine"]["load_average"] == (busy and pytest.approx(busy))
        elif busy is not None and busy > table.BUSY:
            assert f"The machine was not quiet: other programs made a load average of {busy:.1f}. " in out
        else:
            assert "quiet" not in out


@pytest.mark.parametrize(
    ("arguments", "packages"),
    [("train --against torch torch-compile", "torch"), ("decode --against transformers", "torch transformers")],
)
def test_missing_packages_cost_one_line(arguments, packages, refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    names = ", ".join(packages.split())
    assert refused("bench", *arguments.split()) == (
        f"tinygrad-llm bench: {names} not installed: pip install {packages}\n"
    )


def test_measures_before_a_failure_are_shown(toy, measured, cli, monkeypatch):
    measure = bench.measure

    def second_fails(case, setup):
        if case.name != "toy":
            raise BenchError("torch: too hard")
        return measure(case, setup)

    monkeypatch.setattr(bench, "measure", second_fails)
    status, out, err = cli("bench", "train", "--config", "toy", "char-cpu", "--markdown")
    assert (status, err) == (2, "toy: done\ntinygrad-llm bench: torch: too hard\n")
    assert markdown_cells(out)[2:] == [ROW]


def test_a_failed_case_leaves_no_files(toy, measured, cli, monkeypatch, tmp_path):
    def failed(case, setup):
        assert list(tmp_path.iterdir())
        raise BenchError("torch: RuntimeError: too hard")

    monkeypatch.setattr(bench, "measure", failed)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for file in tmp_path.iterdir():
        file.rmdir()  # the test's own working folder
    status, _, err = cli("bench", "train", "--config", "toy")
    assert (status, err) == (2, "tinygrad-llm bench: torch: RuntimeError: too hard\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("toy")
def test_a_profile_counts_each_kernel_and_its_parts_add_up(printed, monkeypatch):
    monkeypatch.setattr(train, "fastest_threads", lambda *_: pytest.fail("one worker is enough, whatever is fastest"))
    out = printed("bench", "train", "--config", "toy", "--profile", "--json")
    figures = json.loads(out)
    (row,) = figures["rows"]
    kernels = row["kernels"]
    times = [one["forward"] + one["backward"] for one in kernels.values()]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(times) < row["seconds"]
    # One layer: four linear layers and attention, three layer norms, and the embedding of tokens.
    calls = {"linear": 4, "causal_self_attention": 1, "layer_norm": 3, "gelu": 1, "embedding": 1}
    assert {name: kernels[name]["calls"] for name in calls} == calls
    C, N = 8, 2 * 8
    x = N * C * 4  # bytes of one array (B, T, C)
    weights = 4 * (3 * C * C + 3 * C + C * C + C + 2 * (4 * C * C) + 4 * C + C)
    assert kernels["linear"]["forward_bytes"] == weights + (1 + 3 + 1 + 1 + 1 + 4 + 4 + 1) * x
    assert kernels["linear"]["backward_bytes"] == weights + (1 + 3 + 1 + 1 + 1 + 4 + 4 + 1) * x


@pytest.mark.usefixtures("toy")
def test_the_table_of_a_profile_fits_the_screen(printed, refused):
    out = printed("bench", "train", "--config", "toy", "--profile")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["toy,", "a", "step"]
    shares = [float(line.split("%")[0].split()[-1]) for line in lines if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=1)
    for option in (["--markdown"], ["--busy"], ["--rounds", 2]):
        err = refused("bench", "train", "--profile", *option)
        assert "--profile compares nothing: leave out" in err
        assert option[0] in err
