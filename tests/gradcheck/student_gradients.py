"""Gradients as students write them: 27 tasks, each with a correct gradient, and with one that has a usual mistake.

Nothing here was written for the complex step: forwards use np.var, np.std, norm, abs, vdot, and buffers of floats.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = 1e-5


@dataclass(frozen=True)
class Student:
    name: str
    f: Callable[..., Any]
    right: Callable[..., Any]
    wrong: Callable[..., Any]
    mistake: str
    x: Any


R = np.random.default_rng(3)
X, W, B = R.normal(size=(5, 4)), R.normal(size=(4, 3)), R.normal(size=3)
LABELS = np.array([0, 2, 1, 1, 0])
IDS = np.array([[1, 3, 3], [0, 1, 5]])
LINE, FILTER = R.normal(size=9), R.normal(size=3)
Q, K, V = R.normal(size=(3, 4, 5))
AWAY = R.choice([-1.0, 1.0], (5, 4)) * R.uniform(0.3, 2.0, (5, 4))  # from the kinks at 0


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def one_hot(labels, n):
    return np.eye(n)[labels]


# ---- normalization -------------------------------------------------------------------------------------------------


def batch_norm(x, gamma, beta):
    mean, var = x.mean(0), np.var(x, axis=0)
    xhat = (x - mean) / np.sqrt(var + EPS)
    return gamma * xhat + beta, (xhat, gamma, var)


def batch_norm_backward(g, cache):
    xhat, gamma, var = cache
    n, d = len(g), g * gamma
    dx = (n * d - d.sum(0) - xhat * (d * xhat).sum(0)) / (n * np.sqrt(var + EPS))
    return dx, (g * xhat).sum(0), g.sum(0)


def batch_norm_as_if_the_statistics_were_constants(g, cache):
    xhat, gamma, var = cache
    return g * gamma / np.sqrt(var + EPS), (g * xhat).sum(0), g.sum(0)


def layer_norm(p):
    x = p["x"]
    xhat = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)
    return xhat * p["weight"] + p["bias"]


def layer_norm_backward(g, p, eps=EPS):
    x = p["x"]
    rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    xhat, d = (x - x.mean(-1, keepdims=True)) * rstd, g * p["weight"]
    dx = rstd * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))
    return {"x": dx, "weight": (g * xhat).sum(0), "bias": g.sum(0)}


def standardize(x):
    mean, std = x.mean(), x.std()
    y = (x - mean) / std
    return y, lambda g: ((g - g.mean() - y * (g * y).mean()) / std,)


def standardize_with_ddof_1_in_backward(g, x):
    y = (x - x.mean()) / x.std()
    return (g - g.mean() - y * (g * y).mean()) / x.std(ddof=1)


def rms_norm(x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPS)


def rms_norm_backward(g, x):
    r = 1 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPS)
    return r * (g - x * r**2 * np.mean(g * x, axis=-1, keepdims=True))


def unit(x):
    return x / np.linalg.norm(x)


def unit_backward(g, x):
    n = np.linalg.norm(x)
    return (g - x * np.sum(g * x) / n**2) / n


# ---- losses --------------------------------------------------------------------------------------------------------


def cosine_distance(a, b):
    return 1 - np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def cosine_gradients(a, b, power=2):
    na, nb = np.linalg.norm(a), np.linalg.norm(b)
    c = a @ b / (na * nb)
    return -(b / (na * nb) - c * a / na**power), -(a / (na * nb) - c * b / nb**power)


TARGET = X[::-1] + 0.3


def huber(x):
    r = np.abs(x - TARGET)
    return np.where(r < 1, 0.5 * r**2, r - 0.5).mean()


def huber_gradient(x):
    r = x - TARGET
    return np.where(np.abs(r) < 1, r, np.sign(r)) / r.size


def cross_entropy(logits, labels):
    p = softmax(logits)
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def binary_cross_entropy(z, t):
    p = 1 / (1 + np.exp(-z))
    return -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))


def mean_squared_error(x, t):
    return np.mean(np.abs(x - t) ** 2)


def kl_divergence(x, t):
    p, q = softmax(x), softmax(t)
    return np.sum(q * (np.log(q) - np.log(p)))


def hinge(scores, labels):
    margins = np.maximum(0, scores - scores[np.arange(len(labels)), labels][:, None] + 1)
    margins[np.arange(len(labels)), labels] = 0
    return margins.sum() / len(labels)


def hinge_gradient(scores, labels, subtract=True):
    rows = np.arange(len(labels))
    d = ((scores - scores[rows, labels][:, None] + 1) > 0).astype(float)
    d[rows, labels] = 0
    if subtract:
        d[rows, labels] = -d.sum(1)
    return d / len(labels)


def ridge(w, x, y):
    return np.linalg.norm(x @ w - y) ** 2 + 0.1 * np.linalg.norm(w) ** 2


def logistic_regression(p):
    z = X @ p["w"] + p["b"]
    return np.logaddexp(0, z).mean() - z[2]


def logistic_gradients(p):
    z = X @ p["w"] + p["b"]
    d = 1 / (1 + np.exp(-z)) / len(z)
    d[2] -= 1
    return {"w": X.T @ d, "b": d.sum()}


# ---- activations ---------------------------------------------------------------------------------------------------

C = math.sqrt(2 / math.pi)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(C * (x + 0.044715 * x**3)))


def gelu_derivative(x, a=0.044715):
    t = np.tanh(C * (x + a * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * C * (1 + 3 * a * x**2)


def softmax_backward(g, x):
    p = softmax(x)
    return p * (g - (g * p).sum(-1, keepdims=True))


def softplus(x):
    """A loop over a buffer of floats."""
    y = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        y[i] = math.log1p(math.exp(x[i]))
    return y


def leaky_relu(x):
    return np.where(x > 0, x, 0.1 * x)


# ---- layers --------------------------------------------------------------------------------------------------------


def attention(q, k, v):
    p = softmax(q @ k.T / math.sqrt(q.shape[-1]))
    return p @ v, (q, k, v, p)


def attention_backward(g, cache, scale=True):
    q, k, v, p = cache
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    if scale:
        ds = ds / math.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ g


def pooled(x):
    return x.reshape(-1, 2).max(1)


def max_pool_backward(g, x):
    d = np.zeros_like(x)
    d[2 * np.arange(len(g)) + np.argmax(x.reshape(-1, 2), axis=1)] = g
    return d


def conv(x, w):
    y = np.zeros(len(x) - len(w) + 1)
    for i in range(len(y)):
        y[i] = np.dot(x[i : i + len(w)], w)
    return y


def conv_backward(g, x, w):
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(len(g)):
        dx[i : i + len(w)] += g[i] * w
        dw += g[i] * x[i : i + len(w)]
    return dx, dw


def conv_backward_that_overwrites(g, x, w):
    dx, dw = conv_backward(g, x, w)
    for i in range(len(g)):
        dx[i : i + len(w)] = g[i] * w
    return dx, dw


def embedding(table, ids):
    return table[ids]


def embedding_backward(g, table, ids):
    d = np.zeros_like(table)
    np.add.at(d, ids, g)
    return d


def embedding_backward_that_forgets_repeated_ids(g, table, ids):
    d = np.zeros_like(table)
    d[ids] += g
    return d


def linear(x, w, b):
    return x @ w + b, (x, w)


def two_layers(p):
    h = np.tanh(X @ p["W1"] + p["b1"])
    return np.sum((h @ p["W2"]) ** 2)


def two_layers_backward(p, derivative=lambda h: 1 - h**2):
    h = np.tanh(X @ p["W1"] + p["b1"])
    dy = 2 * h @ p["W2"]
    da = (dy @ p["W2"].T) * derivative(h)
    return {"W1": X.T @ da, "b1": da.sum(0), "W2": h.T @ dy}


def pairwise_distances(x):
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1) + np.eye(len(x)))


def pairwise_backward(g, x, both=True):
    d = g[..., None] * (x[:, None] - x[None]) / pairwise_distances(x)[..., None]
    return d.sum(1) - d.sum(0) if both else d.sum(1)


def tanh_cell(p):
    h = np.zeros(3)
    for x in X[:, :3]:
        h = np.tanh(p["U"] @ h + x)
    return h.sum()


def tanh_cell_backward(p, through_time=True):
    h, hs = np.zeros(3), [np.zeros(3)]
    for x in X[:, :3]:
        h = np.tanh(p["U"] @ h + x)
        hs.append(h)
    d, du = np.ones(3), np.zeros_like(p["U"])
    for before, after in zip(hs[-2::-1], hs[:0:-1], strict=True):
        da = d * (1 - after**2)
        du += np.outer(da, before)
        d = p["U"].T @ da
        if not through_time:
            break
    return {"U": du}


STUDENTS = [
    Student(
        "batch norm", batch_norm, batch_norm_backward, batch_norm_as_if_the_statistics_were_constants,
        "mean and variance taken for constants", (X, R.normal(size=4), R.normal(size=4)),
    ),
    Student(
        "layer norm", layer_norm, layer_norm_backward, lambda g, p: layer_norm_backward(g, p, eps=0.0),
        "eps forgotten in backward", {"x": X, "weight": R.normal(size=4), "bias": R.normal(size=4)},
    ),
    Student(
        "(x − mean) / x.std", lambda x: standardize(x)[0], lambda g, x: standardize(x)[1](g)[0],
        standardize_with_ddof_1_in_backward, "ddof 1 in backward only", X,
    ),
    Student(
        "RMS norm", rms_norm, rms_norm_backward, lambda g, x: g / np.sqrt(np.mean(x**2, -1, keepdims=True) + EPS),
        "the second term forgotten", X,
    ),
    Student(
        "x / ‖x‖", unit, unit_backward, lambda g, x: (g - x * np.sum(g * x)) / np.linalg.norm(x),
        "not divided by ‖x‖²", X,
    ),
    Student(
        "cosine distance", cosine_distance, cosine_gradients, lambda a, b: cosine_gradients(a, b, power=1),
        "norm instead of norm²", (LINE, LINE[::-1] + 0.1),
    ),
    Student(
        "Huber", huber, huber_gradient, lambda x: np.where(np.abs(x - TARGET) < 1, x - TARGET, 1) / x.size,
        "sign forgotten", X,
    ),
    Student("vdot", lambda a, b: np.vdot(a, b) ** 2, lambda a, b: (2 * np.vdot(a, b) * b, 2 * np.vdot(a, b) * a),
            lambda a, b: (2 * np.vdot(a, b) * a, 2 * np.vdot(a, b) * b), "the two swapped", (LINE, LINE**2)),
    Student("cross-entropy", cross_entropy, lambda z, y: (softmax(z) - one_hot(y, 4)) / len(y),
            lambda z, y: softmax(z) - one_hot(y, 4), "mean forgotten", (X, LABELS)),
    Student("binary cross-entropy", binary_cross_entropy, lambda z, t: (1 / (1 + np.exp(-z)) - t) / len(z),
            lambda z, t: (1 / (1 + np.exp(-z)) - t) / (len(z) + 1), "divided by n + 1", (LINE, LINE.astype(int) % 2)),
    Student("mean squared error", mean_squared_error, lambda x, t: 2 * (x - t) / x.size,
            lambda x, t: 2 * (x - t) / len(x), "divided by the rows only", (X, (10 * X[::-1]).astype(int))),
    Student("KL divergence", kl_divergence, lambda x, t: (softmax(x) - softmax(t), softmax(t) * (
        np.log(softmax(t)) - np.log(softmax(x)) - np.sum(softmax(t) * np.log(softmax(t) / softmax(x)),
                                                         -1, keepdims=True))),
            lambda x, t: (softmax(x) - softmax(t), softmax(t) - softmax(x)), "the target's gradient by symmetry",
            (X, X[::-1])),
    Student("hinge", hinge, hinge_gradient, lambda s, y: hinge_gradient(s, y, subtract=False),
            "the true class forgotten", (X, LABELS)),
    Student("ridge regression", ridge, lambda w, x, y: (2 * x.T @ (x @ w - y) + 0.2 * w, 2 * np.outer(x @ w - y, w),
                                                        -2 * (x @ w - y)),
            lambda w, x, y: (2 * x.T @ (x @ w - y) + 0.1 * w, 2 * np.outer(x @ w - y, w), -2 * (x @ w - y)),
            "the penalty without its 2", (R.normal(size=4), X, R.normal(size=5))),
    Student("logistic regression", logistic_regression, logistic_gradients,
            lambda p: logistic_gradients(p) | {"b": 0.0}, "the bias left at 0", {"w": R.normal(size=4), "b": 0.3}),
    Student("GELU", gelu, gelu_derivative, lambda x: gelu_derivative(x, 0.0447), "0.0447 for 0.044715", X),
    Student("softmax", softmax, softmax_backward, lambda g, x: g * softmax(x) * (1 - softmax(x)),
            "the diagonal only", X),
    Student("softplus", softplus, lambda x: 1 / (1 + np.exp(-x)), lambda x: 1 / (1 + np.exp(x)), "the sign of x", X),
    Student("leaky ReLU", leaky_relu, lambda x: np.where(x > 0, 1, 0.1), lambda x: np.where(x > 0, 1, 0),
            "ReLU's derivative", AWAY),
    Student("attention", attention, attention_backward, lambda g, cache: attention_backward(g, cache, scale=False),
            "the scale forgotten", (Q, K, V)),
    Student("max pooling", pooled, max_pool_backward,
            lambda g, x: np.repeat(g, 2) / 2, "the mean's gradient", R.permutation(8) / 2),
    Student("convolution", conv, conv_backward, conv_backward_that_overwrites, "= for +=", (LINE, FILTER)),
    Student("embedding", embedding, embedding_backward, embedding_backward_that_forgets_repeated_ids,
            "d[ids] += g with repeated ids", (R.normal(size=(6, 2)), IDS)),
    Student("linear", linear, lambda g, c: (g @ c[1].T, c[0].T @ g, g.sum(0)),
            lambda g, c: (g @ c[1].T, c[0].T @ g, g.mean(0)), "the bias averaged", (X, W, B)),
    Student("two layers", two_layers, two_layers_backward, lambda p: two_layers_backward(p, lambda h: 1 - h),
            "1 − h for 1 − h²", {"W1": W, "b1": B, "W2": R.normal(size=(3, 2))}),
    Student("pairwise distances", pairwise_distances, pairwise_backward,
            lambda g, x: pairwise_backward(g, x, both=False), "one of two uses of x", X),
    Student("recurrent cell", tanh_cell, tanh_cell_backward, lambda p: tanh_cell_backward(p, through_time=False),
            "only the last step", {"U": R.normal(size=(3, 3))}),
]  # fmt: skip
