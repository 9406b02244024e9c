// ---- one element in numbers: which numbers it was made of, and how --------------------------------------------------
// Each rule returns lines, and a line is a list of pieces: a text, {slot, flat} for a number that another heat map of the
// step shows, or {group: [pieces]} that stay on one line. `result` is what the page itself computes from these numbers,
// to be compared with the record.

const MOST_TERMS = 6;

/**
 * The slots of a step: name → {tensor, thing, data, gradient}. Inputs and output of the operation have the kernel's
 * names; "y" is the output, "g" its gradient, and "dx" what goes out to the input x.
 */
function slotsOf(step) {
  const slots = new Map();
  const put = (name, thing, gradient) => {
    if (!thing) return;
    const tensor = gradient ? tensors[thing.tensor] : thing;
    const values = numbers(thing);
    slots.set(name, { name, tensor, thing, gradient, shape: tensor.shape, data: values?.full ? values.data : null });
  };
  if (step.kind === "sum") {
    put("first", grads[step.first], true);
    put("second", grads[step.second], true);
    put("total", grads[step.grad], true);
    return slots;
  }
  const forward = step.kind === "vjp" ? steps[step.forward] : step;
  if (forward.kind !== "forward") {
    put("g", grads[step.grad], true);
    return slots;
  }
  for (const input of forward.inputs) put(input.role, tensors[input.tensor], false);
  put("y", tensors[forward.output], false);
  if (step.kind === "vjp") {
    put("g", grads[step.grad], true);
    for (const out of step.outgoing) put(`d${out.role}`, out.grad === null ? null : grads[out.grad], true);
  }
  return slots;
}

/** How the element `flat` of a slot came about: {lines, result, zero}, or null if no rule is known. */
function explainElement(step, name, flat) {
  const slots = slotsOf(step);
  const slot = slots.get(name);
  if (!slot?.data) return null;
  if (step.kind === "sum") return sumRule(slots, name, flat);
  if (step.kind === "seed")
    return { lines: [["the loss changes one to one with itself: ∂L/∂L = ", { slot: "g", flat }]] };
  const forward = step.kind === "vjp" ? steps[step.forward] : step;
  const rule = RULES[forward.kernel];
  const wanted = step.kind === "forward" ? name === "y" : name.startsWith("d");
  if (!rule || !wanted) return null;
  const made = new Maker(slots, name, flat, forward.options ?? {});
  try {
    return rule[step.kind === "forward" ? "forward" : "backward"](made) ?? null;
  } catch (error) {
    if (error instanceof Missing) return null; // one of the arrays is not here in full
    throw error;
  }
}

class Missing extends Error {}

/** What the rules work with: numbers by slot and index, and sums of products of them. */
class Maker {
  constructor(slots, name, flat, options) {
    Object.assign(this, { slots, name, flat, options });
    this.slot = slots.get(name);
    this.index = unravel(flat, this.slot.shape);
  }

  has(slot) {
    return this.slots.has(slot);
  }

  shape(slot) {
    if (!this.slots.get(slot)) throw new Missing();
    return this.slots.get(slot).shape;
  }

  at(slot, flat) {
    const data = this.slots.get(slot)?.data;
    if (!data) throw new Missing();
    return data[flat];
  }

  head() {
    return `${this.name}${this.index.length ? `[${this.index.join(", ")}]` : ""} = `;
  }

  /** Σ of products. terms: lists of [slot, flat]; factor multiplies all. */
  sum(symbols, terms, factor = 1, tail = []) {
    const product = (term) => term.reduce((value, [slot, flat]) => value * this.at(slot, flat), 1);
    let result = factor * terms.reduce((total, term) => total + product(term), 0);
    const largest = [...terms].sort((s, t) => Math.abs(product(t)) - Math.abs(product(s)));
    const shown = new Set(terms.length > MOST_TERMS ? largest.slice(0, MOST_TERMS - 1) : terms);
    const many = terms.length + tail.length > 1;
    const [before, after] = factor === 1 ? ["", ""] : factorTexts(factor, many);
    const pieces = before ? [before] : [];
    for (const [n, term] of terms.filter((one) => shown.has(one)).entries()) {
      const product = term.flatMap(([slot, flat], i) => [...(i ? [" · "] : []), { slot, flat }]);
      pieces.push({ group: [...(n ? [" + "] : []), ...product] });
    }
    const rest = terms.filter((term) => !shown.has(term));
    if (rest.length) {
      const value = rest.reduce((total, term) => total + product(term), 0);
      pieces.push(` + ${rest.length} smaller terms (${fmt(value, 3)})`);
    }
    if (after) pieces.push(after);
    for (const [slot, flat] of tail) {
      pieces.push(" + ", { slot, flat });
      result += this.at(slot, flat);
    }
    const cells = [...terms.flat(), ...tail];
    return {
      lines: [
        [this.head(), symbols],
        ["= ", ...pieces],
      ],
      result,
      cells,
      zero: this.whyZero(terms),
    };
  }

  /** Why a sum of products is 0: one factor is 0 in every term. */
  whyZero(terms) {
    if (!terms.length) return "No term of the sum exists: nothing that the loss depends on used this element.";
    for (let i = 0; i < terms[0].length; i++) {
      const slot = terms[0][i][0];
      if (terms.every((term) => term[i] && this.at(...term[i]) === 0)) {
        const what = slot === "g" ? "g (the gradient that comes in)" : slot;
        return (
          `In every term, the factor ${what} is ` +
          `0${slot === "g" ? ": nothing comes in, so nothing goes out." : "."}`
        );
      }
    }
    return null;
  }

  /** A result that is not a sum of products. */
  give(lines, result, cells, zero = null) {
    return { lines: [[this.head(), ...lines[0]], ...lines.slice(1)], result, cells, zero };
  }
}

/** What stands before and behind a sum that is multiplied by a factor: −( … ), ( … ) / 30. */
function factorTexts(factor, many) {
  const [open, close] = many ? ["(", ")"] : ["", ""];
  if (factor === -1) return [MINUS + open, close];
  const n = Math.round(1 / factor);
  return [open, `${close} ${Math.abs(factor * n - 1) < 1e-9 ? `/ ${n}` : `· ${fmt(factor, 4)}`}`];
}

/** Whether an element is 0 because all is 0 that came in, so that the reason lies in an earlier step. */
function nothingComesIn(worked) {
  return /comes in\)? is 0|Neither use/.test(worked?.zero ?? "");
}

/** Where a 0 in a gradient began: {step, name, flat, zero}, followed back through the steps in which it came in as 0. */
function originOfZero(id, flat) {
  const step = steps[grads[id].step];
  const name = step.kind === "vjp" ? `d${step.outgoing.find((out) => out.grad === id).role}` : "total";
  const worked = explainElement(step, name, flat);
  if (!nothingComesIn(worked)) return { step, name, flat, zero: worked?.zero ?? null };
  if (step.kind === "sum") return originOfZero(step.first, flat);
  return originOfZero(step.grad, worked.cells.find(([slot]) => slot === "g")[1]);
}

function sumRule(slots, name, flat) {
  if (name !== "total") return null;
  const pair = ["first", "second"].map((slot) => ({ slot, flat }));
  const result = slots.get("first").data[flat] + slots.get("second").data[flat];
  const [a, b] = pair.map((p) => slots.get(p.slot).data[flat]);
  const zero =
    a === 0 && b === 0
      ? "Neither use of this tensor sends anything back here."
      : "The two uses send opposite numbers, which cancel.";
  return {
    lines: [["total = first + second"], ["= ", pair[0], " + ", pair[1]]],
    result,
    cells: pair.map((p) => [p.slot, p.flat]),
    zero,
  };
}

// ---- helpers of the rules -------------------------------------------------------------------------------------------

/** All flat indices of `shape` that broadcasting reads from element `flat` of `from`. */
function copiesOf(flat, from, shape) {
  const copies = [];
  for (let i = 0; i < count(shape); i++) if (broadcastIndex(unravel(i, shape), from) === flat) copies.push(i);
  return copies;
}

function axisOf(options, ndim) {
  const axis = Number.parseInt(String(options.axis ?? "-1"), 10);
  return Number.isNaN(axis) ? null : (axis + ndim) % ndim;
}

/** The flat indices of the row in which an element stands, along an axis. */
function rowOf(flat, shape, axis) {
  const index = unravel(flat, shape);
  return Array.from({ length: shape[axis] }, (_, i) => ravel(index.with(axis, i), shape));
}

/** An operation of each element by itself: y = f(x), with its slope in words and numbers. */
function unary(text, f, slopeText, slope, zero = () => null) {
  return {
    forward(m) {
      const x = m.at("x", m.flat);
      return m.give([[text], ["with x = ", { slot: "x", flat: m.flat }]], f(x), [["x", m.flat]]);
    },
    backward(m) {
      const [x, y, g] = [m.at("x", m.flat), m.at("y", m.flat), m.at("g", m.flat)];
      const value = slope(x, y);
      const lines = [
        [`g · ${slopeText}`],
        ["= ", { slot: "g", flat: m.flat }, ` · ${fmt(value, 5)},  at x = `, { slot: "x", flat: m.flat }],
      ];
      const why = g === 0 ? "The gradient that comes in is 0 here." : zero(x, y);
      return m.give(
        lines,
        g * value,
        [
          ["g", m.flat],
          ["x", m.flat],
          ["y", m.flat],
        ],
        why,
      );
    },
  };
}

/** An operation of two arrays that broadcast. signs or factors: what each of its gradients multiplies g with. */
function binary(symbol, f, da, db) {
  const at = (m, slot, index) => broadcastIndex(index, m.shape(slot));
  return {
    forward(m) {
      const [a, b] = [at(m, "a", m.index), at(m, "b", m.index)];
      const grouped = m.at("b", b) < 0 ? ["(", { slot: "b", flat: b }, ")"] : [{ slot: "b", flat: b }];
      return m.give(
        [[`a ${symbol} b`], ["= ", { slot: "a", flat: a }, ` ${symbol} `, ...grouped]],
        f(m.at("a", a), m.at("b", b)),
        [
          ["a", a],
          ["b", b],
        ],
      );
    },
    backward(m) {
      const own = m.name.slice(1);
      const shape = m.shape("g");
      return (own === "a" ? da : db)(m, copiesOf(m.flat, m.shape(own), shape), (slot, i) =>
        at(m, slot, unravel(i, shape)),
      );
    },
  };
}

/** A sum has more than one term. */
function sumSign(places) {
  return places.length > 1 ? "Σ " : "";
}

function passed(sign) {
  return (m, places) => {
    const symbols =
      places.length > 1
        ? `${sign < 0 ? MINUS : ""}Σ g over the ${places.length} places to which it was copied`
        : `${sign < 0 ? MINUS : ""}g, unchanged`;
    return m.sum(
      symbols,
      places.map((i) => [["g", i]]),
      sign,
    );
  };
}

/** Σ of g, each times a slope that is shown as a number. */
function scaled(m, places, symbols, slope) {
  const products = places.map((i) => ({
    group: [i === places[0] ? "= " : " + ", { slot: "g", flat: i }, ` · ${fmt(slope(i), 4)}`],
  }));
  const zero = places.every((i) => m.at("g", i) === 0) ? "The gradient that comes in is 0." : null;
  const result = places.reduce((sum, i) => sum + m.at("g", i) * slope(i), 0);
  return m.give(
    [
      [symbols],
      products.slice(0, MOST_TERMS),
      products.length > MOST_TERMS ? [`and ${products.length - MOST_TERMS} more`] : [],
    ],
    result,
    places.map((i) => ["g", i]),
    zero,
  );
}

// ---- the rules ------------------------------------------------------------------------------------------------------

const RULES = {
  add: binary("+", (a, b) => a + b, passed(1), passed(1)),
  subtract: binary(MINUS, (a, b) => a - b, passed(1), passed(-1)),
  multiply: binary(
    "·",
    (a, b) => a * b,
    (m, places, at) =>
      m.sum(
        `${sumSign(places)}g · b`,
        places.map((i) => [
          ["g", i],
          ["b", at("b", i)],
        ]),
      ),
    (m, places, at) =>
      m.sum(
        `${sumSign(places)}g · a`,
        places.map((i) => [
          ["g", i],
          ["a", at("a", i)],
        ]),
      ),
  ),
  divide: binary(
    "/",
    (a, b) => a / b,
    (m, places, at) => scaled(m, places, `${sumSign(places)}g / b`, (i) => 1 / m.at("b", at("b", i))),
    (m, places, at) =>
      scaled(
        m,
        places,
        `${MINUS}${sumSign(places)}g · a / b²`,
        (i) => -m.at("a", at("a", i)) / m.at("b", at("b", i)) ** 2,
      ),
  ),
  power: {
    forward(m) {
      const n = broadcastIndex(m.index, m.shape("n"));
      return m.give(
        [["xⁿ"], ["x = ", { slot: "x", flat: m.flat }, ",  n = ", { slot: "n", flat: n }]],
        m.at("x", m.flat) ** m.at("n", n),
        [["x", m.flat]],
      );
    },
    backward(m) {
      if (m.name !== "dx") return null;
      const n = m.at("n", broadcastIndex(m.index, m.shape("n")));
      return scaled(m, [m.flat], `g · n · xⁿ⁻¹,  n = ${fmt(n)}`, (i) => n * m.at("x", i) ** (n - 1));
    },
  },
  negative: unary(
    `${MINUS}x`,
    (x) => -x,
    `(${MINUS}1)`,
    () => -1,
  ),
  exp: unary("eˣ", Math.exp, "eˣ", (x) => Math.exp(x)),
  log: unary("ln x", Math.log, "1/x", (x) => 1 / x),
  sqrt: unary("√x", Math.sqrt, "1/(2√x)", (x) => 0.5 / Math.sqrt(x)),
  tanh: unary(
    "tanh x",
    Math.tanh,
    `(1 ${MINUS} y²)`,
    (x, y) => 1 - y * y,
    (x, y) => (Math.abs(y) === 1 ? "tanh is saturated: y² = 1, so the slope is 0." : null),
  ),
  sigmoid: unary(
    "1 / (1 + e⁻ˣ)",
    (x) => 1 / (1 + Math.exp(-x)),
    `y (1 ${MINUS} y)`,
    (x, y) => y * (1 - y),
  ),
  relu: unary(
    "max(x, 0)",
    (x) => Math.max(x, 0),
    "(1 if x > 0, else 0)",
    (x) => (x > 0 ? 1 : 0),
    (x) => (x <= 0 ? "x ≤ 0: relu is flat there, so x has no influence." : null),
  ),
  gelu: unary("gelu(x)", geluOf, "gelu′(x)", geluSlope),
  matmul: {
    forward(m) {
      const [a, b] = matrices(m);
      const [i, j] = m.index.slice(-2);
      const lead = m.index.slice(0, -2);
      return m.sum(
        `Σ_k a[${dots(a)}${i}, k] · b[${dots(b)}k, ${j}]`,
        range(a.at(-1)).map((k) => [
          ["a", leadIndex(lead, a, i, k)],
          ["b", leadIndex(lead, b, k, j)],
        ]),
      );
    },
    backward(m) {
      const [a, b] = matrices(m);
      const g = m.shape("g");
      const own = m.name.slice(1) === "a" ? a : b;
      const [i, j] = m.index.slice(-2);
      const terms = [];
      for (const lead of leads(g)) {
        if (leadIndex(lead, own, i, j) !== m.flat) continue;
        if (own === a)
          terms.push(
            ...range(g.at(-1)).map((n) => [
              ["g", leadIndex(lead, g, i, n)],
              ["b", leadIndex(lead, b, j, n)],
            ]),
          );
        else
          terms.push(
            ...range(g.at(-2)).map((n) => [
              ["a", leadIndex(lead, a, n, i)],
              ["g", leadIndex(lead, g, n, j)],
            ]),
          );
      }
      return m.sum(
        own === a
          ? `Σ_k g[${dots(g)}${i}, k] · b[${dots(b)}${j}, k]  (g bᵀ)`
          : `Σ_k a[${dots(a)}k, ${i}] · g[${dots(g)}k, ${j}]  (aᵀ g)`,
        terms,
      );
    },
  },
  linear: {
    forward(m) {
      const o = m.index.at(-1);
      const [, n] = m.shape("weight");
      const row = Math.floor(m.flat / m.shape("y").at(-1));
      return m.sum(
        `Σ_i x[${[...m.index.slice(0, -1), "i"].join(", ")}] · W[${o}, i]${m.has("bias") ? ` + bias[${o}]` : ""}`,
        range(n).map((i) => [
          ["x", row * n + i],
          ["weight", o * n + i],
        ]),
        1,
        m.has("bias") ? [["bias", o]] : [],
      );
    },
    backward(m) {
      const [out, n] = m.shape("weight");
      const rows = range(count(m.shape("g")) / out);
      if (m.name === "dx") {
        const [row, i] = [Math.floor(m.flat / n), m.flat % n];
        return m.sum(
          `Σ_o g[${[...m.index.slice(0, -1), "o"].join(", ")}] · W[o, ${i}]`,
          range(out).map((o) => [
            ["g", row * out + o],
            ["weight", o * n + i],
          ]),
        );
      }
      if (m.name === "dbias")
        return m.sum(
          "Σ g over all rows",
          rows.map((r) => [["g", r * out + m.flat]]),
        );
      const [o, i] = m.index;
      return m.sum(
        `Σ_rows g[row, ${o}] · x[row, ${i}]  (gᵀ x)`,
        rows.map((r) => [
          ["g", r * out + o],
          ["x", r * n + i],
        ]),
      );
    },
  },
  softmax: {
    forward(m) {
      const row = rowOf(m.flat, m.shape("x"), axisOf(m.options, m.index.length));
      const top = Math.max(...row.map((i) => m.at("x", i)));
      const e = (i) => Math.exp(m.at("x", i) - top);
      const total = row.reduce((sum, i) => sum + e(i), 0);
      const hidden = m.at("x", m.flat) === -Infinity;
      const lines = [
        [`eˣ / Σ eˣ over the row of ${row.length}`],
        [
          "x = ",
          { slot: "x", flat: m.flat },
          `,  eˣ⁻ᵐ / Σ eˣ⁻ᵐ = ${fmt(e(m.flat), 4)} / ${fmt(total, 4)},  m = ${fmt(top, 4)} the largest x`,
        ],
      ];
      return m.give(
        lines,
        e(m.flat) / total,
        row.map((i) => ["x", i]),
        hidden ? `The score is ${MINUS}∞, and e to the ${MINUS}∞ is 0: the mask hides this position.` : null,
      );
    },
    backward(m) {
      const row = rowOf(m.flat, m.shape("y"), axisOf(m.options, m.index.length));
      const dot = row.reduce((sum, i) => sum + m.at("g", i) * m.at("y", i), 0);
      const [y, g] = [m.at("y", m.flat), m.at("g", m.flat)];
      const lines = [
        [`y · (g ${MINUS} Σ g·y)`],
        ["= ", { slot: "y", flat: m.flat }, " · (", { slot: "g", flat: m.flat }, ` ${MINUS} ${paren(dot, 5)})`],
        [
          "Σ g·y over the row is the mean of g, weighted by y. Where g is above this mean, the gradient is positive: a " +
            "step of descent lowers this score.",
        ],
      ];
      const zero =
        y === 0
          ? "y is exactly 0 here (its score is −∞), so its score has no influence: the factor y makes the gradient 0."
          : y === 1
            ? "y is 1 here: no other one in its row has any weight. So y stays 1, whatever this score is."
            : g === dot
              ? "g equals its weighted mean: moving this weight changes nothing."
              : null;
      return m.give(
        lines,
        y * (g - dot),
        row.flatMap((i) => [
          ["y", i],
          ["g", i],
        ]),
        zero,
      );
    },
  },
  where: {
    forward(m) {
      const taken = m.at("condition", broadcastIndex(m.index, m.shape("condition"))) ? "a" : "b";
      const flat = broadcastIndex(m.index, m.shape(taken));
      return m.give(
        [
          [`a where the condition holds, else b`],
          [taken === "a" ? "it holds here: a = " : "it does not hold here: b = ", { slot: taken, flat }],
        ],
        m.at(taken, flat),
        [[taken, flat]],
      );
    },
    backward(m) {
      const own = m.name.slice(1);
      const shape = m.shape("g");
      const chosen = (i) =>
        Boolean(m.at("condition", broadcastIndex(unravel(i, shape), m.shape("condition")))) === (own === "a");
      const copies = copiesOf(m.flat, m.shape(own), shape);
      const places = copies.filter(chosen);
      const made = m.sum(
        `g where ${own} was taken, else 0`,
        places.map((i) => [["g", i]]),
      );
      if (places.length) return made;
      const other = own === "a" ? "b" : "a";
      return m.give(
        [[`0: forward took ${other} here, not ${own}`]],
        0,
        copies.map((i) => ["g", i]),
        noInfluence(m, own, other),
      );
    },
  },
  layer_norm: {
    forward(m) {
      const { row, mean, rstd } = normalized(m);
      const c = m.index.at(-1);
      const xhat = (m.at("x", m.flat) - mean) * rstd;
      const result = xhat * (m.has("weight") ? m.at("weight", c) : 1) + (m.has("bias") ? m.at("bias", c) : 0);
      const tail = [
        ...(m.has("weight") ? [" · ", { slot: "weight", flat: c }] : []),
        ...(m.has("bias") ? [" + ", { slot: "bias", flat: c }] : []),
      ];
      return m.give(
        [
          ["x̂ · weight + bias,  x̂ = (x − mean) · rstd"],
          ["= (", { slot: "x", flat: m.flat }, ` ${MINUS} ${paren(mean, 4)}) · ${fmt(rstd, 4)}`, ...tail],
        ],
        result,
        row.map((i) => ["x", i]),
      );
    },
    backward(m) {
      const n = m.shape("x").at(-1);
      if (m.name !== "dx") {
        const rows = range(count(m.shape("x")) / n).map((r) => r * n + m.flat);
        if (m.name === "dbias")
          return m.sum(
            "Σ g over all rows",
            rows.map((i) => [["g", i]]),
          );
        const xhat = (i) => (m.at("x", i) - normalized(m, i).mean) * normalized(m, i).rstd;
        const result = rows.reduce((sum, i) => sum + m.at("g", i) * xhat(i), 0);
        return m.give(
          [
            ["Σ g · x̂ over all rows"],
            rows.flatMap((i, k) => [k ? " + " : "= ", { slot: "g", flat: i }, ` · ${fmt(xhat(i), 3)}`]),
          ],
          result,
          rows.map((i) => ["g", i]),
        );
      }
      const { row, mean, rstd } = normalized(m);
      const w = (i) => (m.has("weight") ? m.at("weight", i % n) : 1);
      const xhat = (i) => (m.at("x", i) - mean) * rstd;
      const d = (i) => m.at("g", i) * w(i);
      const first = row.reduce((sum, i) => sum + d(i), 0) / n;
      const second = row.reduce((sum, i) => sum + d(i) * xhat(i), 0) / n;
      const lines = [
        ["rstd · (dx̂ − mean(dx̂) − x̂ · mean(dx̂·x̂)),  dx̂ = g · weight"],
        [
          `= ${fmt(rstd, 4)} · (${fmt(d(m.flat), 4)} ${MINUS} ${paren(first, 4)} ${MINUS} ` +
            `${paren(xhat(m.flat), 4)} · ${paren(second, 4)})`,
        ],
        ["The two means are the ways in which x moves the row's mean and its variance."],
      ];
      return m.give(
        lines,
        rstd * (d(m.flat) - first - xhat(m.flat) * second),
        row.map((i) => ["g", i]),
      );
    },
  },
  embedding: {
    forward(m) {
      const C = m.shape("weight").at(-1);
      const place = Math.floor(m.flat / C);
      const flat = m.at("ids", place) * C + (m.flat % C);
      return m.give(
        [["the row of weight that the id names"], [`id ${m.at("ids", place)}: `, { slot: "weight", flat }]],
        m.at("weight", flat),
        [
          ["weight", flat],
          ["ids", place],
        ],
      );
    },
    backward(m) {
      const C = m.shape("weight").at(-1);
      const [v, c] = m.index;
      const places = range(count(m.shape("ids"))).filter((i) => m.at("ids", i) === v);
      const made = m.sum(
        `Σ g over the ${plural(places.length, "place")} where id ${v} stands`,
        places.map((i) => [["g", i * C + c]]),
      );
      return places.length
        ? made
        : {
            ...made,
            zero:
              `Id ${v} does not occur in this text: its row was never looked up, so the loss does not ` +
              "depend on it.",
          };
    },
  },
  reshape: {
    forward: (m) =>
      m.give(
        [["x in another shape: the elements keep their order"], ["= ", { slot: "x", flat: m.flat }]],
        m.at("x", m.flat),
        [["x", m.flat]],
      ),
    backward: (m) => m.sum("g in the old shape", [[["g", m.flat]]]),
  },
  transpose: {
    forward(m) {
      const flat = permuted(m, m.index, m.shape("x"), false);
      return m.give([["x with its axes in another order"], ["= ", { slot: "x", flat }]], m.at("x", flat), [
        ["x", flat],
      ]);
    },
    backward: (m) => m.sum("g with its axes put back", [[["g", permuted(m, m.index, m.shape("g"), true)]]]),
  },
  getitem: {
    forward(m) {
      const flat = taken(m)[m.flat];
      return m.give([["the element of x that the index takes"], ["= ", { slot: "x", flat }]], m.at("x", flat), [
        ["x", flat],
      ]);
    },
    backward(m) {
      const places = taken(m).flatMap((from, i) => (from === m.flat ? [[["g", i]]] : []));
      const made = m.sum("g at the places that took this element", places);
      return places.length
        ? made
        : {
            ...made,
            zero: "Forward did not take this element: the loss does not depend on it through this operation.",
          };
    },
  },
  sum: reduction(() => 1),
  mean: reduction((n) => 1 / n),
  cross_entropy: {
    forward(m) {
      const { rows, losses } = rowLosses(m);
      const total = losses.reduce((sum, loss) => sum + loss, 0);
      return m.give(
        [
          [`mean of ${MINUS}ln p[target] over ${plural(rows.length, "row")}`],
          [`= (${losses.map((loss) => fmt(loss, 3)).join(" + ")}) / ${rows.length}`],
        ],
        total / rows.length,
        rows.map(([i, t]) => ["logits", i * m.shape("logits")[1] + t]),
      );
    },
    backward(m) {
      const V = m.shape("logits")[1];
      const { rows } = rowLosses(m);
      const [i, k] = m.index;
      const target = m.at("targets", i);
      if (target < 0) return m.give([["0: this row has no target"]], 0, [], "This row's target does not count.");
      const row = range(V).map((j) => i * V + j);
      const top = Math.max(...row.map((j) => m.at("logits", j)));
      const Z = row.reduce((sum, j) => sum + Math.exp(m.at("logits", j) - top), 0);
      const p = Math.exp(m.at("logits", m.flat) - top) / Z;
      const hit = k === target ? 1 : 0;
      const lines = [
        [`g · (p ${MINUS} ${hit}) / ${rows.length}:  the guess minus the truth`],
        ["= ", { slot: "g", flat: 0 }, ` · (${fmt(p, 4)} ${MINUS} ${hit}) / ${rows.length}`],
        [
          hit
            ? "This is the target: its logit should rise, so the gradient is negative."
            : "This is not the target: its logit should fall, the more the likelier it was.",
        ],
      ];
      return m.give(
        lines,
        (m.at("g", 0) * (p - hit)) / rows.length,
        row.map((j) => ["logits", j]),
      );
    },
  },
};

/** Why the input that `where` did not take has no gradient. */
function noInfluence(m, own, other) {
  const flat = broadcastIndex(m.index, m.shape(other));
  const score = own === "b" && m.at(other, flat) === -Infinity;
  const put = score ? `The mask put ${MINUS}∞ here, so this score` : `Forward took ${other} here, so ${own}`;
  return `${put} has no influence on the loss, and its gradient is exactly 0, whatever comes in.`;
}

function range(n) {
  return Array.from({ length: n }, (_, i) => i);
}

function geluOf(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

function geluSlope(x) {
  const c = Math.sqrt(2 / Math.PI);
  const t = Math.tanh(c * (x + 0.044715 * x ** 3));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}

/** A number behind a minus sign: in parentheses if it is negative. */
function paren(x, digits) {
  return x < 0 ? `(${fmt(x, digits)})` : fmt(x, digits);
}

/** "…, " in the index of an array that has more axes than a matrix. */
function dots(shape) {
  return shape.length > 2 ? "…, " : "";
}

function matrices(m) {
  const [a, b] = [m.shape("a"), m.shape("b")];
  if (a.length < 2 || b.length < 2) throw new Missing();
  return [a, b];
}

/** All leading indices (without the matrix's two axes) of a shape. */
function leads(shape) {
  const lead = shape.slice(0, -2);
  return range(count(lead)).map((flat) => unravel(flat, lead));
}

function leadIndex(lead, shape, i, j) {
  const own = shape.slice(0, -2);
  return broadcastIndex(lead, own) * shape.at(-2) * shape.at(-1) + i * shape.at(-1) + j;
}

function normalized(m, flat = m.flat) {
  const n = m.shape("x").at(-1);
  const start = flat - (flat % n);
  const row = range(n).map((i) => start + i);
  const mean = row.reduce((sum, i) => sum + m.at("x", i), 0) / n;
  const variance = row.reduce((sum, i) => sum + (m.at("x", i) - mean) ** 2, 0) / n;
  return { row, mean, rstd: 1 / Math.sqrt(variance + Number(m.options.eps ?? 1e-5)) };
}

/** The flat index before (or, of the gradient, after) a transposition. */
function permuted(m, index, shape, undo) {
  const text = m.options.axes;
  const listed = String(text ?? "").match(/-?\d+/g);
  const axes = listed ? listed.map((n) => (Number(n) + index.length) % index.length) : range(index.length).reverse();
  const moved = undo
    ? axes.map((axis) => index[axis])
    : axes.reduce((to, axis, i) => to.with(axis, index[i]), [...index]);
  return ravel(moved, shape);
}

/** "slice(None, 12, None)" → ":12" */
function slicesAsColons(text) {
  const word = (part) => (part.trim() === "None" ? "" : part.trim());
  return text.replace(/slice\(([^,]*),([^,]*),\s*None\)/g, (_, low, high) => `${word(low)}:${word(high)}`);
}

/** For each element of y = x[index], the flat index in x: integers and slices, or one list of ints for each axis. */
function taken(m) {
  const shape = m.shape("x");
  const lists = String(m.options.index ?? "")
    .match(/array\(\[[^[\]]*\]\)/g)
    ?.map((list) => list.match(/-?\d+/g).map(Number));
  if (lists?.length === shape.length) {
    return lists[0].map((_, i) =>
      ravel(
        lists.map((list, axis) => (list[i] + shape[axis]) % shape[axis]),
        shape,
      ),
    );
  }
  const text = slicesAsColons(String(m.options.index ?? ""))
    .trim()
    .replace(/^[[(]|[\])]$/g, "");
  let parts = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (!parts.length || parts.some((part) => !/^(-?\d+|(-?\d*):(-?\d*)|\.\.\.|Ellipsis)$/.test(part)))
    throw new Missing();
  const dots = parts.findIndex((part) => part === "..." || part === "Ellipsis");
  const full = shape.length - parts.filter((_, i) => i !== dots).length;
  if (dots >= 0) parts.splice(dots, 1, ...Array(full).fill(":"));
  else parts = [...parts, ...Array(full).fill(":")];
  const choices = parts.map((part, axis) => {
    const n = shape[axis];
    const from = (word, otherwise) =>
      word === "" ? otherwise : Math.min(n, (Number(word) + n) % n || (Number(word) >= n ? n : 0));
    if (!part.includes(":")) return [(Number(part) + n) % n];
    const [low, high] = part.split(":");
    return range(n).slice(from(low, 0), high === "" ? n : Number(high));
  });
  const all = choices.reduce((list, options) => list.flatMap((index) => options.map((i) => [...index, i])), [[]]);
  return all.map((index) => ravel(index, shape));
}

function reduction(weight) {
  const places = (m) => {
    const shape = m.shape("x");
    const listed = String(m.options.axis ?? "None").match(/-?\d+/g);
    const axes = listed ? listed.map((n) => (Number(n) + shape.length) % shape.length) : range(shape.length);
    const y = shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
    const n = count(shape) / count(y);
    return { n, to: (flat) => broadcastIndex(unravel(flat, shape), y), all: range(count(shape)) };
  };
  return {
    forward(m) {
      const { n, to, all } = places(m);
      return m.sum(
        `Σ x${weight(n) === 1 ? "" : ` / ${n}`} over ${plural(n, "element")}`,
        all.filter((i) => to(i) === m.flat).map((i) => [["x", i]]),
        weight(n),
      );
    },
    backward(m) {
      const { n, to } = places(m);
      return m.sum(
        weight(n) === 1 ? "g: each element counts once" : `g / ${n}: each element counts 1/${n}`,
        [[["g", to(m.flat)]]],
        weight(n),
      );
    },
  };
}

/** The rows of logits that have a target, and −ln p[target] of each. */
function rowLosses(m) {
  const [n, V] = m.shape("logits");
  if (Number(m.options.label_smoothing ?? 0) || (m.options.reduction ?? "mean").replace(/['"]/g, "") !== "mean")
    throw new Missing();
  const rows = range(n)
    .map((i) => [i, m.at("targets", i)])
    .filter(([, target]) => target >= 0);
  const losses = rows.map(([i, target]) => {
    const row = range(V).map((j) => m.at("logits", i * V + j));
    const top = Math.max(...row);
    return top + Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0)) - row[target];
  });
  return { rows, losses };
}
