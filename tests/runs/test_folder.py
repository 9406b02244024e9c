"""The folder of a run: what is read of it without a training."""

import pytest

from tinygrad_llm.runs.folder import CONFIG, stated_style


def test_style_is_that_of_the_configuration(tmp_path):
    (tmp_path / CONFIG).write_text('preset = "x"\n\n[finetune]\ntask = "assistant"\nstyle = "phi3"  # of prompts\n')
    assert stated_style(tmp_path) == "phi3"


@pytest.mark.parametrize(
    "content",
    [
        b'preset = "x"\n[training]\nsteps = 3\n',
        b"[finetune]\n",
        b"[finetune]\nstyle = 3\n",
        b"finetune = 3\n",
        b"[[finetune]]\nstyle = 'x'\n",
        b"no TOML",
        b"\xff",
        b"a = " + b"[" * 9999,
    ],
)
def test_no_style_is_stated_by_another_configuration(content, tmp_path):
    (tmp_path / CONFIG).write_bytes(content)
    assert stated_style(tmp_path) is None


def test_no_style_is_stated_without_a_configuration(tmp_path):
    assert stated_style(tmp_path) is None
    (tmp_path / CONFIG).mkdir()
    assert stated_style(tmp_path) is None
    assert stated_style(tmp_path / "none") is None
