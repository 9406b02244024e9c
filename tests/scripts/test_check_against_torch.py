"""scripts/check_against_torch.py: our operations agree with PyTorch's on its own samples, and a wrong one is found."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script(script):
    return script("check_against_torch")


def test_every_operation_agrees_with_torch(script):
    counts, failures = script.run([])
    assert failures == []
    assert sum(count["agree"] for count in counts.values()) > 1600


def test_the_table_names_what_differs_and_what_is_not_offered(script, capsys):
    assert script.main(["F.cat", "cumsum"]) == 0
    out = capsys.readouterr().out
    assert "2 × documented: PyTorch drops an empty 1-d tensor" in out
    assert "2 × not offered: dtype" in out
    assert "26 samples of 2 operations: 22 agree, 2 have arguments that we do not offer, 2 differ as documented" in out


def test_every_documented_difference_still_exists(script):
    counts, _ = script.run([name for name, _, _ in script.DOCUMENTED])
    for name, _, reason in script.DOCUMENTED:
        assert counts[name][f"documented: {reason}"], name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, dim: 1.0001 * script_softmax(x, dim), "value:"),
        (lambda x, dim: script_softmax(x.detach(), dim) + 0 * x, "gradient of input 0:"),
        (lambda x, dim: script_softmax(x, dim).sum(dim, keepdim=True), "value: shape"),
    ],
)
def test_a_wrong_operation_is_found(script, wrong, message, monkeypatch):
    monkeypatch.setattr(script.functional, "softmax", wrong)
    _, failures = script.run(["F.softmax"])
    assert failures
    assert message in failures[-1] + failures[0]


def script_softmax(x, dim):
    return x.softmax(dim)
