// ---- words: what the model expects, layer by layer, and what the gradient would write -------------------------------

function wordsView(place, width) {
  const { words } = trace;
  const chosen = Math.min(words.positions.length - 1, Number(place[0]) || 0);
  return el(
    "section",
    { class: "words" },
    viewHead(
      "Words",
      "The prompt, token by token. The bar under a token is the loss of predicting the next one; choose a " +
        "token to see what the model expected after it.",
    ),
    tokenStrip(words.positions, chosen),
    el(
      "div",
      { class: "beside" },
      prediction(words.positions[chosen]),
      words.lens?.length ? logitLens(words, chosen) : null,
    ),
    words.backward?.length ? backwardLens(words.backward, words.positions, width) : null,
  );
}

function tokenStrip(positions, chosen) {
  const most = Math.max(...positions.map((p) => p.loss ?? 0), 1e-9);
  const items = positions.map((p, i) => {
    const bar = el("span", { class: "lossbar" });
    bar.style.height = `${Math.max(2, Math.round((34 * (p.loss ?? 0)) / most))}px`;
    bar.style.background = typeof p.loss === "number" ? colorOf(p.loss, { kind: "rising", max: most }) : "transparent";
    return el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          "aria-pressed": String(i === chosen),
          onclick: () => visit(`words/${i}`),
          "data-key": `token-${i}`,
        },
        el("span", { class: "token" }, visible(p.token)),
        el("span", { class: "well" }, bar),
        el("small", {}, fmt(p.loss, 2)),
      ),
    );
  });
  return el("ol", { class: "tokens", "aria-label": "tokens with their loss in nats" }, items);
}

function prediction(p) {
  const rows = p.top.map(([text, probability]) => [
    el("span", { class: text === p.target ? "token hit" : "token" }, visible(text)),
    meter(probability),
  ]);
  if (p.target !== null && p.target !== undefined && !p.top.some(([text]) => text === p.target))
    rows.push([el("span", { class: "token hit" }, visible(p.target)), meter(p.p)]);
  const told =
    p.target === null || p.target === undefined
      ? "The text ends here: nothing is known of the next token."
      : `The text goes on with “${visible(p.target)}”: probability ${fmt(p.p, 3)}, loss −ln p = ${fmt(p.loss, 4)}` +
        (typeof p.rank === "number" ? `, place ${p.rank + 1} of all tokens.` : ".");
  return el(
    "div",
    { class: "card" },
    el("h3", {}, `After “${visible(p.token)}”`),
    el("p", {}, told),
    table("what the model expects next", ["token", "probability"], rows),
  );
}

function meter(x, full = 160) {
  const piece = el("span", { class: "meter" });
  piece.style.width = `${Math.round(full * Math.min(1, x ?? 0))}px`;
  return el("span", { class: "metered" }, piece, fmt(x, 3));
}

/** Logit lens: the final layer norm and head, read at every depth. */
function logitLens({ lens, positions }, chosen) {
  const cell = (at, p) => {
    const best = at.top[0];
    const hit = best[0] === p.target;
    const box = el(
      "div",
      { class: hit ? "lens hit" : "lens" },
      el("span", { class: "token" }, shortened(visible(best[0]), 9)),
      el("small", {}, `${hit ? "✓ " : ""}${fmt(best[1], 2)}`),
      at.p === null || hit ? null : el("small", {}, `→ ${fmt(at.p, 2)}`),
    );
    const color = colorOf(at.p ?? 0, UNIT);
    box.style.background = color;
    box.style.color = inkOn(color);
    return box;
  };
  const rows = lens.map((layer) => [
    layer.layer.replace(/^transformer\./, ""),
    ...layer.positions.map((at, i) => cell(at, positions[i])),
  ]);
  return el(
    "section",
    {},
    el("h3", {}, "Logit lens: what it would say after each layer"),
    el(
      "p",
      { class: "say" },
      "The stream after each layer, read by the model's own head. Color: probability of the right token, " +
        "which stands after the arrow where the first guess (above) is another. ✓: the first guess is " +
        "right.",
    ),
    table("logit lens", ["layer", ...positions.map((p, i) => `${i === chosen ? "▸ " : ""}${visible(p.token)}`)], rows, {
      class: "lens-table",
    }),
  );
}

/** Backward lens (Katz et al. 2024): the factors of the MLP's weight gradients, read in the vocabulary. */
function backwardLens(parts, positions) {
  const layers = new Map();
  for (const part of parts) {
    const layer = part.weight.split(".").slice(0, -2).join(".");
    layers.set(layer, [...(layers.get(layer) ?? []), part]);
  }
  const last = [...layers.keys()].at(-1);
  return el(
    "section",
    {},
    el("h3", {}, "Backward lens: what the gradient tries to write"),
    el(
      "p",
      { class: "say" },
      "The gradient of a weight is Σᵢ δᵢ xᵢᵀ over the positions. A step of SGD adds −lr · δᵢ to the " +
        "output wherever an input looks like xᵢ. Read in the vocabulary, that shows which words the step " +
        "raises and lowers (Katz et al. 2024, arXiv:2402.12865).",
    ),
    [...layers].map(([layer, pair]) =>
      el(
        "details",
        { class: "lens-layer", open: layers.size <= 3 || layer === last },
        el("summary", {}, layer.replace(/^transformer\./, "")),
        el(
          "div",
          { class: "lenses" },
          pair.map((part) => lensTable(part, positions)),
        ),
      ),
    ),
  );
}

function lensTable(part, positions) {
  const list = (pairs) =>
    el(
      "span",
      { class: "tokens-inline" },
      pairs.slice(0, 4).map(([text]) => el("span", { class: "token" }, visible(text))),
    );
  const delta = part.factor === "delta";
  const rows = part.positions.map((at, i) => [
    visible(positions[i]?.token ?? String(at.t)),
    fmt(at.norm, 3),
    at.norm ? list(delta ? at.least : at.most) : "–",
    at.norm ? list(delta ? at.most : at.least) : "–",
  ]);
  const head = delta
    ? ["position", "‖δ‖", "this step writes", "and erases"]
    : ["position", "‖x‖", "reads most like", "least like"];
  const name = shortPath(part.weight, 2);
  return table(delta ? `δᵢ of ${name}: the gradients of its outputs` : `xᵢ of ${name}: its inputs`, head, rows);
}
