"""metrics.jsonl, the table and samples.txt: what is written is read again, and damage costs only its line."""

import csv
import dataclasses
import json
import math

import pytest

from tinygrad_llm.runs.metrics import read_metrics, read_samples, sample_to_text, step_to_json, steps_to_csv
from tinygrad_llm.training import Step

PLAIN = Step(1, 2.0, 0.1, 1.0, 9.0, None)
BAD = Step(2, math.nan, 0.1, math.inf, 9.0, None, skipped=True, layer_grad_norm={"wte": 1.5, "h.0": math.inf})
FULL = Step(
    3, 1.5, 0.1, 1.0, 9.0, 2.5, 0.5, memory=7, update_ratio={"wte": 0.25}, layer_grad_norm={"wte": 0.5, "h.0": 0.75}
)


def test_read_metrics_returns_the_steps_that_were_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(step_to_json, (PLAIN, BAD, FULL))))
    plain, bad, full = read_metrics(path)
    assert (plain, full) == (PLAIN, FULL)
    assert math.isnan(bad.loss)
    assert math.isnan(bad.grad_norm)
    assert bad.layer_grad_norm["wte"] == 1.5
    assert math.isnan(bad.layer_grad_norm["h.0"])
    assert read_metrics(path, last=2)[-1].step == 2
    assert read_metrics(tmp_path / "gone") == []


def test_nan_and_infinity_are_null_in_json_and_empty_in_the_table():
    fields = json.loads(step_to_json(BAD), parse_constant=pytest.fail)
    assert (fields["loss"], fields["grad_norm"], fields["layer_grad_norm"]) == (None, None, {"wte": 1.5, "h.0": None})
    (row,) = csv.DictReader(steps_to_csv([BAD]).splitlines())
    assert (row["loss"], row["layer_grad_norm/wte"], row["layer_grad_norm/h.0"]) == ("", "1.5", "")


def test_the_table_has_a_column_for_every_figure():
    rows = list(csv.DictReader(steps_to_csv([PLAIN, FULL]).splitlines()))
    by_name = {"update_ratio", "layer_grad_norm", "measures"}
    plain = [field.name for field in dataclasses.fields(Step) if field.name not in by_name]
    assert list(rows[0]) == [*plain, "update_ratio/wte", "layer_grad_norm/wte", "layer_grad_norm/h.0"]
    for row, step in zip(rows, (PLAIN, FULL), strict=True):
        for column, cell in row.items():
            name, _, part = column.partition("/")
            value = getattr(step, name)
            value = (value or {}).get(part) if part else value
            assert cell == ("" if value is None else str(value))


def test_lines_that_are_damaged_or_out_of_order_are_left_out(tmp_path):
    good = [step_to_json(dataclasses.replace(PLAIN, step=n)) for n in (1, 2, 3)]
    fields = json.loads(good[2]) | {"step": 4}
    bad = [
        '{"step":"x","loss":1,"lr":1,"grad_norm":1,"tokens_per_second":1,"val_loss":1}\n',
        good[0],
        good[1],
        "\xff\n",
        json.dumps(fields | {"loss": "x"}) + "\n",
        json.dumps(fields | {"update_ratio": [1, 2]}) + "\n",
        json.dumps(fields | {"step": 4.0}) + "\n",
        '{"step": 4, "lo',
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("".join([good[0], bad[0], good[1], *bad[1:-1], good[2], bad[-1]]).encode("latin-1"))
    assert [step.step for step in read_metrics(path)] == [1, 2, 3]


def test_lines_without_newer_fields_are_read_and_unknown_fields_are_ignored(tmp_path):
    line = {"step": 1, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 9.0, "val_loss": None, "new": 1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line))
    assert read_metrics(tmp_path / "metrics.jsonl") == [PLAIN]


def test_read_samples_returns_those_up_to_a_step(tmp_path):
    samples = [(0, "one"), (4, "two\n--- not a step ---\nlines"), (9, "saß")]
    (tmp_path / "samples.txt").write_text("".join(sample_to_text(*sample) for sample in samples), encoding="utf-8")
    found, damage = read_samples(tmp_path / "samples.txt", 4)
    assert [(step, text.strip()) for step, text in found] == samples[:2]
    assert damage == ""
    assert len(read_samples(tmp_path / "samples.txt", 9)[0]) == 3
    assert read_samples(tmp_path / "gone", 9) == ([], "")
