"""Pictures of a trace, its graph as DOT text, and its listing."""

import re

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor
from tinygrad_llm.study import graph_dot, plot_attention, plot_gradient_flow, plot_graph, print_trace, record
from tinygrad_llm.study import trace as trace_model
from tinygrad_llm.study.plots import trace_lines
from tinygrad_llm.study.recorder import record_model

IDS = Generator(2).randint(0, 11, (2, 5))


@pytest.fixture(scope="module")
def model():
    sizes = {"vocab_size": 11, "block_size": 6, "n_layer": 1, "n_head": 2, "n_embd": 8, "initializer_range": 0.3}
    return GPT(GPTConfig(**sizes), Generator(1))


@pytest.fixture(scope="module")
def recording(model):
    return record_model(model, IDS)


def test_attention_is_drawn_beside_its_gradient_with_the_mask_hatched(recording, pictures):
    figure = plot_attention(recording, "transformer.h.0", batch=1)
    weights = recording["transformer.h.0.attn.weights"]
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4
    for h in range(2):
        np.testing.assert_array_equal(panels[h].images[0].get_array(), weights.array[1, h])
        assert panels[h].images[0].get_clim() == (0, 1)
        gradient = panels[2 + h].images[0]
        np.testing.assert_array_equal(gradient.get_array(), recording.gradient_of(weights)[1, h])
        low, high = gradient.get_clim()
        assert low == -high
        assert len(panels[h].patches) == 10  # what the mask hides of 5 × 5
        assert all(patch.get_hatch() for patch in panels[h].patches)
    with pytest.raises(ValueError, match=r"no attention in 'transformer\.h\.7': there is transformer\.h\.0\.attn"):
        plot_attention(recording, "transformer.h.7")


def test_tokens_label_the_axes(model, pictures):
    traced = trace_model(model, IDS, decode=lambda i: "$x$\n" if i == IDS[0, 0] else str(i), prove=False)
    figure = plot_attention(traced, batch=1)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [
        r"\$x\$\n" if i == IDS[0, 0] else str(i) for i in IDS[1]
    ]
    figure = plot_attention(traced)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == r"\$x\$\n"
    figure.canvas.draw()
    flow = plot_gradient_flow(traced)
    names = [text.get_text() for text in flow.axes[0].get_yticklabels()]
    assert names == ["wte", "wpe", "h.0", "ln_f"]
    flow.canvas.draw()


def test_the_graph_has_every_operation_and_edge(recording, pictures):
    figure = plot_graph(recording)
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) == len(recording.forward)
    figure.canvas.draw()
    dot = graph_dot(recording)
    nodes = re.findall(r"^  v(\d+) \[label=", dot, re.M)
    edges = re.findall(r"^  v(\d+) -> v(\d+) \[", dot, re.M)
    assert [int(i) for i in nodes] == [step.output for step in recording.forward]
    between = {
        (i, step.output) for step in recording.forward for i in step.inputs if recording.values[i].made_by is not None
    }
    assert {(int(a), int(b)) for a, b in edges} == between


def test_quotes_in_a_name_stay_inside_the_label():
    x = Tensor(np.ones(2), requires_grad=True)
    r = record(lambda: x.exp().sum())
    r.values[1].name = 'a"] evil [\\'
    assert 'label="exp → a\\"] evil [\\\\ (2)"' in graph_dot(r)


def test_the_listing_has_every_step_in_80_columns(recording, capsys):
    print_trace(recording)
    lines = capsys.readouterr().out.splitlines()
    assert lines == trace_lines(recording)
    assert max(map(len, lines)) <= 80
    numbered = [int(found[1]) for line in lines if (found := re.match(r" *(\d+)  ", line))]
    assert numbered == list(range(len(recording.steps)))
    text = "\n".join(lines)
    assert "softmax: dx = y · (g − Σ g·y)" in text
    assert "residual stream + branch transformer.h.0.attn" in text
    assert "weights (2, 2, 5, 5)" in text
    assert "head lm_head + lookup transformer.wte" in text
