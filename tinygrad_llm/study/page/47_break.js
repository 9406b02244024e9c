// ---- break it: plant a wrong gradient, see the check turn red and the training get worse ----------------------------

function breakView(place, width) {
  const { breaks } = trace;
  const chosen = place[0] === undefined ? -1 : Math.min(breaks.mutants.length - 1, Number(place[0]) || 0);
  const mutant = breaks.mutants[chosen] ?? null;
  return el(
    "section",
    { class: "break" },
    viewHead(
      "Break it",
      "Choose a mistake that people make when they write a backward by hand. The forward stays right; " +
        "only the gradient is wrong.",
    ),
    el(
      "div",
      { class: "split" },
      mutantList(breaks.mutants, chosen),
      el(
        "div",
        { class: "verdicts" },
        verdictCard(mutant),
        breakChart(breaks, mutant, width >= 900 ? Math.round(width * 0.6) : width),
        mutant ? spoiled(mutant) : null,
      ),
    ),
  );
}

function mutantList(mutants, chosen) {
  const pick = (i) => () => visit(i < 0 ? "break" : `break/${i}`);
  const option = (i, title, text) => {
    const input = el("input", {
      type: "radio",
      name: "mutant",
      id: `mutant${i}`,
      onchange: pick(i),
      "data-key": `mutant-${i}`,
    });
    input.checked = i === chosen;
    return el(
      "li",
      {},
      input,
      el("label", { for: `mutant${i}` }, el("b", {}, title), text ? el("span", { class: "dim" }, text) : null),
    );
  };
  return el(
    "fieldset",
    { class: "mutants" },
    el("legend", {}, "which backward"),
    el(
      "ul",
      {},
      option(-1, "as it is", "every gradient right"),
      mutants.map((m, i) => option(i, `${m.kernel}: ${m.name}`, m.wrong === m.name ? null : m.wrong)),
    ),
  );
}

function verdictCard(mutant) {
  if (!mutant)
    return el(
      "div",
      { class: "verdict-card good", role: "status" },
      el("p", { class: "big" }, "✓ the check passes"),
      el("p", {}, "Each kernel's gradient agrees with the complex step to about 16 digits."),
    );
  return el(
    "div",
    { class: `verdict-card ${mutant.caught ? "bad" : "good"}`, role: "status" },
    el("p", { class: "big" }, mutant.caught ? "✗ the check fails" : "the check does not see it"),
    el(
      "p",
      {},
      `relative error ${fmt(mutant.error, 2)}, allowed ${fmt(mutant.tolerance, 1)} ` +
        `(${mutant.method === "complex" ? "complex step" : mutant.method})`,
    ),
    mutant.message ? el("p", { class: "message" }, mutant.message) : null,
  );
}

/** What the mistake does to the gradients of this model. */
function spoiled(mutant) {
  const rows = (mutant.gradients ?? []).map((g) => [
    go(tensors[g.tensor].name, `steps/${(gradOf(tensors[g.tensor])?.step ?? 0) + 1}`),
    fmt(g.error, 2),
    g.error <= 1e-6 ? "untouched" : el("span", { class: "bad" }, "wrong"),
  ]);
  return el(
    "section",
    {},
    sampleMaps(mutant),
    rows.length ? table("which gradients of this model it spoils", ["parameter", "relative error", ""], rows) : null,
    el(
      "p",
      { class: "links" },
      (mutant.used_at ?? []).slice(0, 6).map((i) => go(`used at step ${i + 1}`, `steps/${i + 1}`)),
    ),
  );
}

/** The wrong gradient beside the right one, on the same scale. */
function sampleMaps({ sample }) {
  if (!sample) return null;
  const tensor = tensors[sample.tensor];
  const picture = (data, title) => {
    const thing = { tensor: tensor.id, data, stats: null };
    const values = numbers(thing).data.filter(Number.isFinite);
    thing.stats = { min: Math.min(0, ...values), max: Math.max(0, ...values) };
    return [thing, title];
  };
  const both = [picture(sample.right, "right"), picture(sample.wrong, "wrong")];
  const scale = signedScale(...both.map(([thing]) => thing.stats));
  return el(
    "div",
    { class: "pair" },
    both.map(([thing, title]) =>
      el(
        "section",
        { class: "card" },
        el("h3", {}, `${gradName(tensor)}, ${title}`),
        heatMap({ thing, scale, width: 320, label: `${title} gradient of ${tensor.name}` }).element,
      ),
    ),
  );
}

function breakChart(breaks, mutant, width) {
  const lines = [
    { name: "right gradient", class: "c0", points: breaks.steps.map((step, i) => [step, breaks.right[i]]) },
  ];
  if (mutant)
    lines.push({
      name: `wrong: ${mutant.name}`,
      class: "wrong",
      points: breaks.steps.map((step, i) => [step, mutant.curve[i]]),
    });
  const lost = mutant && mutant.curve.some((x) => x === null);
  const chart = lineChart({
    lines,
    width,
    xName: "step",
    yName: "loss",
    label: "training with the right and with the wrong gradient",
  });
  const last = mutant ? mutant.curve.filter((x) => x !== null).at(-1) : null;
  const told = mutant
    ? `Last loss ${fmt(last, 4)} instead of ${fmt(breaks.right.at(-1), 4)}${lost ? "; then it is not finite" : ""}.`
    : `Last loss ${fmt(breaks.right.at(-1), 4)}.`;
  return el(
    "section",
    {},
    el(
      "h3",
      {},
      "Training ",
      exportButton("break", () => chart),
    ),
    el("p", { class: "say" }, `${breaks.what}. ${told}`),
    lineKey(lines),
    chart,
  );
}
