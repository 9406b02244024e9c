"""`bench scaling` at tiny sizes: what is measured, the exponents, and the picture. No test asserts a time."""

import dataclasses
import json

import pytest

from tinygrad_llm.bench import BenchError, Timing, scaling
from tinygrad_llm.bench.measure import OURS, Case, Measure
from tinygrad_llm.cli import bench
from tinygrad_llm.models import GPT, GPTConfig


@pytest.fixture
def tiny(monkeypatch):
    """Tiny sizes, and contenders whose costs follow powers of the size: time x² and x, memory x and x³."""
    monkeypatch.setattr(scaling, "BASE", GPTConfig(11, 4, n_layer=1, n_head=1, n_embd=4))
    monkeypatch.setattr(scaling, "SIZES", {"T": (4, 8, 16), "C": (4, 8), "batch": (1, 3), "layers": (1, 2)})
    monkeypatch.setattr(scaling, "HEAD", 4)
    seen = []

    def alternate(contenders, rounds, progress):
        config = GPT.from_pretrained(contenders[0].options["folder"]).config
        seen.append((config, contenders[0].options["batch"]))
        progress("round 1")
        x = config.block_size
        costs = [(1e-3 * x**2, 1000 * x), (1e-3 * x, x**3)]
        return [
            Timing(one.name, [seconds] * rounds, [1.0], {"memory": {"above_imports": memory}})
            for one, (seconds, memory) in zip(contenders, costs, strict=False)
        ]

    monkeypatch.setattr(scaling, "alternate", alternate)
    monkeypatch.setattr(bench, "missing", lambda name: [])
    return seen


def test_one_size_grows_and_the_others_stay(tiny, cli):
    status, out, err = cli("bench", "scaling", "--json", "--rounds", "2")
    assert (status, err) == (0, "")
    base = scaling.BASE
    changed = [
        *({"block_size": n} for n in (4, 8, 16)), {"n_embd": 4}, {"n_embd": 8, "n_head": 2}, {}, {},
        {"n_layer": 1}, {"n_layer": 2},
    ]  # fmt: skip
    assert [config for config, _ in tiny] == [dataclasses.replace(base, **changes) for changes in changed]
    assert [batch for _, batch in tiny] == [4] * 5 + [1, 3] + [4] * 2
    figures = json.loads(out)
    places = [(axis, size) for axis, sizes in scaling.SIZES.items() for size in sizes]
    assert [(row["axis"], row["size"]) for row in figures["rows"]] == places
    assert all(row["rounds"] == 2 and set(row["theirs"]) == {"torch"} for row in figures["rows"])
    assert figures["exponents"]["T"][OURS] == pytest.approx({"seconds": 2.0, "memory": 1.0})
    assert figures["exponents"]["T"]["torch"] == pytest.approx({"seconds": 1.0, "memory": 3.0})
    assert figures["exponents"]["batch"][OURS] == pytest.approx({"seconds": 0.0, "memory": 0.0}, abs=1e-12)


def test_the_table_and_the_picture_show_all_sizes(tiny, printed, tmp_path):
    pytest.importorskip("matplotlib")
    out = printed("bench", "scaling", "--axis", "T", "batch", "--out", tmp_path / "x.png")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"{OURS}, ms {OURS}, MB torch, ms torch, MB"
    assert lines[3] == "T 16 256.0 0.0 16.0 0.0"
    assert lines[6] == "T, exponent 2.00 1.00 1.00 3.00"
    assert lines[-1] == f"saved {tmp_path / 'x.png'}"
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    points = [scaling.Point("T", n, Measure(Case("", {}, {}), [Timing(OURS, [n * 1e-3])])) for n in (4, 8)]
    above, below = scaling.picture(points, [OURS, "torch"], "Chip").axes
    ours, theirs = above.lines
    assert (above.get_ylabel(), below.get_ylabel()) == ("time of a step, ms", "peak memory above the imports, MB")
    assert below.get_xlabel() == "T, positions"
    assert list(ours.get_xdata()) == [4, 8]
    assert list(ours.get_ydata()) == [4.0, 8.0]
    assert [text.get_text() for text in above.get_legend().get_texts()] == [f"{OURS}, exponent 1.00", "torch"]
    assert all(y != y for y in [*theirs.get_ydata(), *below.lines[0].get_ydata()])  # unknown


def test_without_a_picture_no_file_is_named(tiny, printed):
    assert " ".join(printed("bench", "scaling", "--axis", "T").split()).endswith(" to the power of a.")


def test_the_exponent_fits_known_costs_only():
    assert scaling.exponent((1, 2, 4, 8), (3.0, 6.0, None, 24.0)) == pytest.approx(1.0)
    assert scaling.exponent((1, 2), (3.0, None)) is None
    assert scaling.exponent((2, 2), (3.0, 4.0)) is None


@pytest.mark.parametrize("cause", ["matplotlib", "folder", "worker"])
def test_what_is_missing_costs_one_line(cause, tiny, cli, tmp_path, monkeypatch):
    out = tmp_path / "x.png"
    if cause == "matplotlib":

        def missing():
            raise ImportError("a picture needs matplotlib: pip install …")

        monkeypatch.setattr(bench, "new_figure", missing)
    if cause == "worker":

        def failed(*args, **options):
            raise BenchError("torch: too hard")

        monkeypatch.setattr(scaling, "alternate", failed)
    out = tmp_path / "absent" / "x.png" if cause == "folder" else out
    words = {"matplotlib": "a picture needs matplotlib: pip install …", "worker": "torch: too hard"}
    status, printed, err = cli("bench", "scaling", "--out", out, "--axis", "T")
    expected = words.get(cause, f"--out {out}: there is no folder {out.parent}")
    assert (status, printed, err) == (2, "", f"tinygrad-llm bench: {expected}\n")
    assert len(tiny) == 0 if cause != "worker" else not out.exists()


@pytest.mark.slow
def test_a_tiny_sweep_runs_in_new_processes(printed, monkeypatch):
    monkeypatch.setattr(scaling, "BASE", GPTConfig(11, 4, n_layer=1, n_head=1, n_embd=4))
    monkeypatch.setattr(scaling, "SIZES", {"T": (4, 8)})
    monkeypatch.setattr(scaling, "HEAD", 4)
    out = printed("bench", "scaling", "--axis", "T", "--rounds", "1", "--json", "--against")
    rows = json.loads(out)["rows"]
    assert all(row["ours"]["seconds"]["median"] > 0 for row in rows)
    assert all(row["ours"]["memory"]["above_imports"] > 0 for row in rows)
