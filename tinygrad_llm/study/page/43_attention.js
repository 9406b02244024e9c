// ---- attention: every head, its pattern beside its gradient ---------------------------------------------------------

let attentionOf = "weights"; // which gradient stands beside the pattern

function attentionView(place, width) {
  const layer = Math.min(trace.attention.length - 1, Number(place[0]) || 0);
  const part = trace.attention[layer];
  const weights = tensors[part.weights];
  const other = tensors[attentionOf === "scores" && part.masked !== null ? part.masked : part.weights];
  const gradient = gradOf(other);
  const mask = attentionMask(part);
  const side = attentionWidth(weights, width);
  const reading = el("div", { class: "reading", "aria-live": "polite" });
  const choose = (flat) => {
    const row = rowOf(flat, weights.shape, weights.shape.length - 1);
    for (const [, heat] of pictures) heat.mark(new Map(row.map((i) => [i, true])), flat);
    reading.replaceChildren(...attentionRow(weights, other, gradient, row, flat, mask));
  };
  const picture = (thing, title, scale) => {
    const label = part.layer ? `${title}, layer ${part.layer}` : title;
    return [title, heatMap({ thing, scale, width: side, mask, label, pick: choose, whole: true, later: true })];
  };
  const pictures = [picture(weights, "pattern", UNIT)];
  if (gradient)
    pictures.push(picture(gradient, `gradient of the ${attentionWords(part)}`, signedScale(gradient.stats)));
  if (numbers(weights)?.full) choose(firstLook(gradient, mask));
  else pictures.forEach(([, heat]) => heat.mark(new Map())); // a map of it is there
  return el(
    "section",
    { class: "attention" },
    attentionHead(part, pictures),
    attentionControls(layer),
    el("div", { class: "pair" }, pictures.map(attentionCard), reading, attentionSteps(part)),
  );
}

/** What the gradient beside the pattern belongs to. */
function attentionWords(part) {
  if (attentionOf === "weights") return "weights";
  return part.masked === null ? "scores" : "masked scores";
}

/** How wide one heat map may be: small ones leave room for the numbers beside them. */
function attentionWidth(weights, width) {
  const columns = count(weights.shape.slice(0, -2)) * weights.shape.at(-1);
  if (width < 760) return width - 36;
  return (columns <= 10 && width >= 1100 ? width * 0.36 : (width - 20) / 2) - 36;
}

function attentionHead(part, pictures) {
  const maps = () => pictures.map(([title, heat]) => [title, heat.map]);
  return viewHead(
    "Attention",
    "Each row is a query: how much it takes of each earlier token, between 0 and 1. Beside it stands the gradient: " +
      `blue, a larger ${attentionOf === "weights" ? "weight" : "score"} here would lower the loss; orange, it would ` +
      "raise it. Hatched positions lie in the future, and the mask hides them" +
      (attentionOf === "weights"
        ? ": their weights have a gradient, but the softmax multiplies it with the weight 0, so none of it gets further."
        : "."),
    exportMapsButton(`attention-${part.layer}`, maps),
  );
}

function attentionControls(layer) {
  const layers = trace.attention.map((part, i) => [i, shortPath(part.layer.replace(/\.attn$/, ""), 1)]);
  const kinds = [
    ["weights", "weights"],
    ["scores", "scores, masked"],
  ];
  const show = (kind) => {
    attentionOf = kind;
    refresh();
  };
  return el(
    "div",
    { class: "controls" },
    layers.length > 1 ? choice("layer", layers, layer, (i) => visit(`attention/${i}`)) : null,
    choice("gradient of", kinds, attentionOf, show),
  );
}

function attentionCard([title, heat]) {
  const rows = el("p", { class: "dim small" }, "rows: who looks; columns: at whom");
  return el("section", { class: "card" }, el("h3", {}, title), rows, heat.element);
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
function attentionRow(weights, other, gradient, row, flat, mask) {
  const index = unravel(flat, weights.shape);
  const head = weights.shape.length > 2 ? `head ${index.at(-3)}, ` : "";
  const query = axisLabel(weights, weights.shape.length - 2, index.at(-2), index);
  const [w, g] = [numbers(weights).data, gradient && numbers(gradient)?.full ? numbers(gradient).data : null];
  const shown = row.filter((i) => !mask?.(i));
  const swatched = (x) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colorOf(x, signedScale(gradient.stats));
    return el("span", {}, swatch, fmt(x, 3));
  };
  const rows = shown.map((i) => [
    axisLabel(weights, weights.shape.length - 1, i % weights.shape.at(-1), index),
    meter(w[i], 120),
    g ? swatched(g[i]) : "–",
  ]);
  const hiddenCount = row.length - shown.length;
  return [
    el(
      "h3",
      {},
      query === String(index.at(-2)) ? `${head}query ${query}` : `${head}query “${query}”`,
      query === String(index.at(-2)) ? null : el("small", { class: "dim" }, `  row ${index.at(-2)}, counted from 0`),
    ),
    table("what this query takes from each key", ["key", "weight", gradName(other)], rows),
    hiddenCount
      ? el(
          "p",
          { class: "dim" },
          `${plural(hiddenCount, "later token")} hidden by the mask: the weight is exactly 0, and so is the gradient ` +
            "of the score.",
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
