"""Programs in PyTorch's words print what PyTorch prints: programs/NAME.txt, which PyTorch wrote.

`scripts/make_torch_programs.py` made these files. All words must be the same, and every number to one unit of its last
printed digit or to the rounding of float32, because libraries add in another order.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_llm

FOLDER = Path(__file__).with_name("programs")
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.txt"))
ROUNDING = 3e-7  # of a float32 number that is the difference of two near 1
NUMBER = re.compile(r"[-+]?\d+\.\d*(?:e[-+]\d+)?|[-+]?\d+e[-+]\d+")
# All in one process, because loading the package takes longer than most of them.
RUN_ALL = """
import contextlib, io, json, sys
from tinygrad_llm.torch.__main__ import main
printed = {}
for name in sys.argv[1:]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main([name])
    import torch
    torch.set_printoptions(profile="default")
    printed[name] = status, text.getvalue()
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def printed():
    """{program: (exit status, what it printed)}."""
    command = [sys.executable, "-B", "-c", RUN_ALL, *(f"{name}.py" for name in PROGRAMS)]
    environment = {**os.environ, "PYTHONPATH": str(Path(tinygrad_llm.__file__).parents[1])}
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def differences(found, stored):
    """The places where two printed texts differ."""
    if NUMBER.sub("0", " ".join(found.split())) != NUMBER.sub("0", " ".join(stored.split())):
        lines = zip(found.splitlines(), stored.splitlines(), strict=False)
        return [pair for pair in lines if NUMBER.sub("0", pair[0]) != NUMBER.sub("0", pair[1])] or ["lines are missing"]
    return [
        (a, b)
        for a, b in zip(NUMBER.findall(found), NUMBER.findall(stored), strict=True)
        if last_digit(a) != last_digit(b)
        or abs(float(a) - float(b)) > 1.01 * last_digit(b) + max(1e-6 * abs(float(b)), ROUNDING)
    ]


def last_digit(number):
    """The size of one unit in the last digit that is printed: 0.01 of "1.25"."""
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def test_there_are_programs_of_every_chapter():
    assert len(PROGRAMS) == 38
    assert {name.split("_")[0] for name in PROGRAMS} == {*(f"ch0{i}" for i in range(2, 8)), "app", "words"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_pytorch_prints(name, printed):
    status, text = printed[f"{name}.py"]
    assert status == 0
    assert differences(text, (FOLDER / f"{name}.txt").read_text(encoding="utf-8")) == []


def test_a_difference_is_found():
    assert differences("tensor([0.1235, 2.0000])", "tensor([0.1234, 2.0000])") == []
    for other in ("tensor([0.1236, 2.0000])", "tensor([0.1234, 2.0002])", "tensor([0.1234])", "tensor([0.1234, 2.])"):
        assert differences(other, "tensor([0.1234, 2.0000])")
    assert differences("a\nb", "a\nc") == [("b", "c")]
