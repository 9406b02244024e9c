// ---- attention: every head, its pattern beside its gradient ---------------------------------------------------------

let attentionOf = "weights"; // which gradient stands beside the pattern

function attentionView(place, width) {
  const parts = trace.attention;
  const layer = Math.min(parts.length - 1, Number(place[0]) || 0);
  const part = parts[layer];
  const weights = tensors[part.weights];
  const other = tensors[attentionOf === "scores" && part.masked !== null ? part.masked : part.weights];
  const gradient = gradOf(other);
  const maps = [];
  const small = weights.shape.slice(0, -2).reduce((n, k) => n * k, 1) * weights.shape.at(-1) <= 10; // room for the reading beside
  const side = width < 760 ? width : small && width >= 1100 ? width * 0.36 : (width - 20) / 2;
  const reading = el("div", { class: "reading", "aria-live": "polite" });
  const mask = attentionMask(part);
  const picture = (thing, title, scale) => {
    if (!thing)
      return el("section", { class: "card" }, el("h3", {}, title), el("p", { class: "dim" }, "none was recorded"));
    const heat = heatMap({
      thing,
      scale,
      width: side - 36,
      mask,
      label: `${title}, layer ${part.layer}`,
      pick: (flat) => choose(flat),
    });
    maps.push([title, heat]);
    return el(
      "section",
      { class: "card" },
      el("h3", {}, title),
      el("p", { class: "dim small" }, "rows: who looks; columns: at whom"),
      heat.element,
    );
  };
  const choose = (flat) => {
    const row = rowOf(flat, weights.shape, weights.shape.length - 1);
    for (const [, heat] of maps) heat.mark(new Map(row.map((i) => [i, true])), flat);
    reading.replaceChildren(...attentionRow(part, weights, other, gradient, row, flat, mask));
  };
  const view = el(
    "section",
    { class: "attention" },
    viewHead(
      "Attention",
      "Each row is a query: how much it takes of each earlier token, between 0 and 1. Beside it stands the gradient: blue, more weight here would lower the loss; orange, it would raise it. Hatched positions lie in the future, and the mask hides them.",
      exportMapsButton(`attention-${part.layer}`, () => maps.map(([title, heat]) => [title, heat.map])),
    ),
    el(
      "div",
      { class: "controls" },
      parts.length > 1
        ? choice(
            "layer",
            parts.map((p, i) => [i, shortPath(p.layer.replace(/\.attn$/, ""), 1)]),
            layer,
            (i) => visit(`attention/${i}`),
          )
        : null,
      choice(
        "gradient of",
        [
          ["weights", "weights"],
          ["scores", "scores"],
        ],
        attentionOf,
        (value) => {
          attentionOf = value;
          refresh();
        },
      ),
    ),
    el(
      "div",
      { class: "pair" },
      picture(weights, "pattern", UNIT),
      picture(
        gradient,
        attentionOf === "scores" ? "gradient of the scores" : "gradient of the weights",
        signedScale(gradient?.stats),
      ),
      reading,
    ),
    attentionSteps(part),
  );
  if (numbers(weights)?.full) choose(firstLook(gradient, mask));
  return view;
}

function attentionMask(part) {
  const mask = part.mask === null ? null : numbers(tensors[part.mask]);
  return mask ? (flat) => mask.data[flat % mask.data.length] === 1 : null;
}

/** Where the gradient is largest, among the positions that are not hidden; without a gradient, the first element. */
function firstLook(gradient, mask) {
  const data = (gradient && numbers(gradient)?.data) ?? [];
  const sizes = Array.from(data, (x, i) => (mask?.(i) || !Number.isFinite(x) ? -1 : Math.abs(x)));
  return sizes.reduce((best, size, i) => (size > sizes[best] ? i : best), 0);
}

/** One query in numbers: each key with its weight and gradient. */
function attentionRow(part, weights, other, gradient, row, flat, mask) {
  const index = unravel(flat, weights.shape);
  const head = weights.shape.length > 2 ? `head ${index.at(-3)}, ` : "";
  const query = axisLabel(weights, weights.shape.length - 2, index.at(-2), index);
  const [w, g] = [numbers(weights).data, gradient && numbers(gradient)?.full ? numbers(gradient).data : null];
  const shown = row.filter((i) => !mask?.(i));
  const bar = (x) => {
    const piece = el("span", { class: "meter" });
    piece.style.width = `${Math.round(120 * Math.min(1, x))}px`;
    return el("span", { class: "metered" }, piece, fmt(x, 3));
  };
  const swatched = (x) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colorOf(x, signedScale(gradient.stats));
    return el("span", {}, swatch, fmt(x, 3));
  };
  const rows = shown.map((i) => [
    axisLabel(weights, weights.shape.length - 1, i % weights.shape.at(-1), index),
    bar(w[i]),
    g ? swatched(g[i]) : "–",
  ]);
  const hiddenCount = row.length - shown.length;
  return [
    el("h3", {}, `${head}query ${index.at(-2)} “${query}”`),
    table("what this query takes from each key", ["key", "weight", `∂L/∂${shortName(other)}`], rows),
    hiddenCount
      ? el(
          "p",
          { class: "dim" },
          `${plural(hiddenCount, "later token")} hidden by the mask: weight exactly 0, so the gradient of the score is exactly 0.`,
        )
      : null,
  ].filter(Boolean);
}

/** Links to the steps in which attention and its gradients are made. */
function attentionSteps(part) {
  const names = {
    q: "queries",
    k: "keys",
    v: "values",
    scores: "scores",
    masked: "masked scores",
    weights: "weights",
    heads: "heads",
  };
  const rows = Object.entries(names).flatMap(([key, text]) => {
    const tensor = part[key] === null || part[key] === undefined ? null : tensors[part[key]];
    if (!tensor) return [];
    const grad = gradOf(tensor);
    const link = (step) => (step === null || step === undefined ? "–" : go(`step ${step + 1}`, `steps/${step + 1}`));
    return [
      [
        text,
        tensor.name,
        shapeText(tensor),
        link(tensor.made_by),
        grad ? link(grad.step) : "–",
        grad ? fmt(grad.stats.norm, 3) : "–",
      ],
    ];
  });
  return table(
    "where each part is made, forward and backward",
    ["part", "tensor", "shape", "forward", "gradient", "its norm"],
    rows,
  );
}
