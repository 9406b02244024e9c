"""Pictures of a trace, its graph as DOT text, and its listing."""

import copy
import re

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor
from tinygrad_llm.study import example, graph_dot, plot_attention, plot_gradient_flow, plot_graph, print_trace, record
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
    assert [axes.get_ylabel() for axes in figure.axes if not axes.images] == ["weight", "∂L/∂weight"]
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


def test_the_attention_of_one_head_is_drawn(pictures):
    one = GPT(GPTConfig(vocab_size=11, block_size=6, n_layer=1, n_head=1, n_embd=4), Generator(1))
    figure = plot_attention(record_model(one, IDS[:, :2], backward=False))
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["head 0"]  # no gradient, no panel of it


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
    assert flow.axes[0].yaxis_inverted()  # from the input at the top to the output
    figures = traced.data["flow"]["layers"]
    for axes, key in zip(flow.axes, ("grad_norm", "ratio"), strict=True):
        assert [bar.get_width() for bar in axes.patches] == [layer[key] for layer in figures]
        assert [text.get_text() for text in axes.texts] == [f" {layer[key]:.2g}" for layer in figures]
    assert [axes.get_xlabel() for axes in flow.axes] == [
        "gradient norm",
        f"‖update‖ / ‖weight‖, lr {traced.data['flow']['lr']:g}",
    ]
    flow.canvas.draw()


def test_a_layer_without_a_finite_gradient_is_labeled(model, pictures):
    damaged = copy.deepcopy(model)
    damaged.transformer.wpe.weight.data[0, 0] = np.nan
    with np.errstate(all="ignore"):
        flow = plot_gradient_flow(trace_model(damaged, IDS, prove=False))
    assert [text.get_text() for text in flow.axes[0].texts if "NaN" in text.get_text()] == [
        "88 NaN, 0 inf", "40 NaN, 0 inf", f"{model.transformer.h[0].num_parameters()} NaN, 0 inf", "16 NaN, 0 inf",
    ]  # fmt: skip


def test_the_graph_has_every_operation_and_edge(recording, pictures):
    figure = plot_graph(recording)
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) == len(recording.forward)
    lanes = {text.get_text().partition(" → ")[2]: text.get_position()[0] for text in figure.axes[0].texts}
    assert [name for name, lane in lanes.items() if name and lane == 0] == [
        "x (2, 5, 8)",
        "h.0.x (2, 5, 8)",
        "h.0 (2, 5, 8)",
    ]
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


SCALAR = """\
forward
    0  product ()  = -0.75
       multiply: y = a · b.
    1  total ()  = 0.25
       add: y = a + b.
    2  y ()  = 0.244919
       tanh: y = tanh x.
    3  L ()  = 0.122459
       multiply: y = a · b.

backward
    4  d L  = 1: the start
    5  d L  = 1
       multiply: da = g · b,  db = g · a
       → d y  = 0.5
       → d a  = 0.244919
    6  d y  = 0.5
       tanh: dx = g · (1 − y²)
       → d total  = 0.470007
    7  d total  = 0.470007
       add: da = g,  db = g
       → d product  = 0.470007
       → d c  = 0.470007
    8  d product  = 0.470007
       multiply: da = g · b,  db = g · a
       → d a  = -0.705011
       → d b  = 0.235004
    9  d a  = -0.460092  sum
       input b of multiply → L + input a of multiply → product
   10  d c  = 0.470007  complete
   11  d b  = 0.235004  complete
   12  d a  = -0.460092  complete"""


def test_the_listing_counts_what_is_not_finite():
    x = Tensor(np.array([1.0, np.inf, np.nan, np.nan]), requires_grad=True)
    y = Tensor(np.array([1.0, np.inf]), requires_grad=True)
    lines = trace_lines(record(lambda: x.exp().sum() + y.exp().sum()))
    assert [line.partition(")  ")[2] for line in lines if re.search(r" exp(#2)? \(", line)] == [
        "2 NaN, 1 inf of 4",
        "0 NaN, 1 inf of 2",
    ]


def test_the_listing_of_a_scalar_example():
    assert "\n".join(trace_lines(example("scalar"))) == SCALAR


def test_the_listing_has_every_step_in_80_columns(recording, capsys):
    print_trace(recording)
    lines = capsys.readouterr().out.splitlines()
    assert lines == trace_lines(recording)
    assert max(map(len, lines)) <= 80
    numbered = [int(found[1]) for line in lines if (found := re.match(r" *(\d+)  ", line))]
    assert numbered == list(range(len(recording.steps)))
    layers = [step.layer for step in recording.forward]
    headings = [layer for i, layer in enumerate(layers) if layer and (not i or layers[i - 1] != layer)]
    assert [line.strip() for line in lines if re.match("  [a-z]", line)] == headings
    text = "\n".join(lines)
    assert "rstd = 1 /\n         √(var + eps), over the last axis\n" in text  # a line that goes on is indented more
    assert "softmax: dx = y · (g − Σ g·y)" in text
    assert "residual stream + branch transformer.h.0.attn" in text
    assert "weights (2, 2, 5, 5)" in text
    assert "head lm_head + lookup transformer.wte" in text
