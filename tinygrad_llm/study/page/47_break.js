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
        mutant ? twoFormulas(mutant) : null,
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
      mutants.map((m, i) => option(i, `${m.kernel}: ${m.name}`, null)),
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
    mutant.worst ? worstOf(mutant) : mutant.message ? el("p", { class: "message" }, mutant.message) : null,
  );
}

/** The element where the check of the kernel, on numbers of its own, sees the largest error. */
function worstOf({ kernel, worst, error, tolerance, method }) {
  const difference = Math.abs(worst.wrong - worst.numeric);
  const scale = fmt(difference / error, 3);
  const numeric = method === "complex" ? "complex step" : method;
  const rows = [
    ["this backward", fmt(worst.wrong, 6)],
    [numeric, fmt(worst.numeric, 6)],
  ];
  const index = worst.index.length ? `, element [${worst.index.join(", ")}]` : "";
  return [
    table(`gradient of ${worst.input} of ${kernel}${index}`, ["", "gradient"], rows),
    el(
      "p",
      { class: "message" },
      `error = |difference| / ${scale} = ${fmt(error, 3)}, allowed ${fmt(tolerance, 1)}. `,
      `${scale} is the largest |gradient| of this input, plus 0.01. The check runs the kernel on random numbers.`,
    ),
  ];
}

/** The right gradient and the wrong one as formulas. */
function twoFormulas(mutant) {
  const right = kernels[mutant.kernel]?.gradient || kernels[mutant.kernel]?.formula || "";
  const line = (name, kind, text) =>
    el("div", {}, el("dt", { class: kind }, name), el("dd", {}, text.replaceAll("\n", "  ")));
  return el("dl", { class: "two-formulas" }, line("right", "good", right), line("wrong", "bad", mutant.wrong));
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
    rows.length
      ? table("which gradients of this model it spoils", ["parameter", "‖wrong − right‖ / (‖right‖ + 0.01)", ""], rows)
      : null,
    el(
      "p",
      { class: "links" },
      "The steps show the right gradient: ",
      (mutant.used_at ?? [])
        .filter((i) => steps[i].backward !== null)
        .slice(0, 6)
        .map((i) =>
          go(`back through ${mutant.kernel} (step ${steps[i].backward + 1})`, `steps/${steps[i].backward + 1}`),
        ),
    ),
  );
}

/** Why training may not show a mistake. */
function unseen({ right }, { curve, factor }) {
  const [a, b] = [right.at(-1), curve.at(-1)];
  if (b === null || b > a + 0.01 * (right[0] - a)) return "";
  return factor > 0
    ? `Every gradient is ${fmt(factor, 3)} times the right one, and AdamW divides a gradient by its size: training cannot reveal ` +
        "this mistake, but the check does."
    : "Here, training does not reveal the mistake, but the check does.";
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
    el("p", { class: "say" }, `${breaks.what}. ${told}`, mutant ? ` ${unseen(breaks, mutant)}` : null),
    lineKey(lines),
    chart,
  );
}
