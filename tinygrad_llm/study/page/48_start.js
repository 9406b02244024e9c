// ---- the first view: what this is, how to read it, and questions that the page answers ------------------------------

function startView() {
  const asked = questions();
  const lead = el(
    "div",
    { class: "lead" },
    el("h2", {}, meta.title),
    el("p", { class: "intro" }, meta.intro || ""),
    el(
      "p",
      { class: "actions" },
      go("Step through it", "steps/1", { class: "main-action" }),
      el("span", { class: "dim" }, "→ and ← move, space plays"),
    ),
  );
  const facts = el(
    "div",
    {},
    meta.tokens
      ? el(
          "section",
          {},
          el("h3", {}, "The text"),
          meta.tokens.map((row) =>
            el(
              "p",
              { class: "tokens-inline" },
              row.map((token) => el("span", { class: "token" }, visible(token))),
            ),
          ),
        )
      : null,
    Object.keys(meta.sizes ?? {}).length > 0 &&
      el(
        "section",
        {},
        el("h3", {}, "Sizes"),
        sizes(),
        meta.model
          ? el("details", {}, el("summary", {}, "the model as a tree"), block(meta.model, "the model as a tree"))
          : null,
      ),
    el("p", { class: "dim" }, `${meta.label ?? ""} ${meta.package ?? ""}`),
  );
  return el(
    "section",
    { class: "start" },
    el(
      "div",
      { class: "columns" },
      lead,
      asked.length
        ? el("section", { class: "asked" }, el("h3", {}, "Questions this page answers"), asked.map(question))
        : null,
    ),
    contactSheet(),
    el("div", { class: "columns" }, el("section", {}, el("h3", {}, "How to read it"), guide()), facts),
  );
}

function sizes() {
  const list = Object.entries(meta.sizes ?? {});
  return el(
    "p",
    { class: "sizes" },
    list.map(([letter, n]) =>
      el("span", {}, el("b", {}, letter), ` ${n} `, el("span", { class: "dim" }, SIZE_WORDS[letter] ?? "")),
    ),
  );
}

function question({ q, a, links }) {
  return el(
    "details",
    { class: "question", name: "question" },
    el("summary", {}, q),
    el("p", {}, a),
    el(
      "p",
      { class: "links" },
      links.map(([text, place]) => go(text, place)),
    ),
  );
}

/** Every operation at a glance: the values it made, and below them the gradient that came back. */
function contactSheet() {
  const most = 72;
  const shown = forwardSteps.slice(0, most);
  const frames = shown.map((step) => {
    const tensor = tensors[step.output];
    const grad = gradOf(tensor);
    const back = step.backward === null ? step.i : step.backward;
    return el(
      "li",
      {},
      el(
        "a",
        { href: `#steps/${step.i + 1}`, class: "frame ahead", title: stepTitle(step) },
        el("small", {}, shortened(tensor.label ?? shortPath(tensor.name, 1), 11)),
        thumbnail(tensor, valueScale(tensor), 74, 58),
      ),
      grad
        ? el(
            "a",
            { href: `#steps/${back + 1}`, class: "frame back" },
            el("span", { class: "unseen" }, `gradient of ${tensor.name} `),
            thumbnail(grad, signedScale(grad.stats), 74, 58),
          )
        : null,
    );
  });
  const more =
    forwardSteps.length > most ? el("p", { class: "dim" }, `and ${forwardSteps.length - most} more operations`) : null;
  return el(
    "section",
    { class: "sheet", "aria-label": "all operations" },
    el(
      "p",
      { class: "dim" },
      el("span", { class: "chip ahead" }, "values →"),
      " above, ",
      el("span", { class: "chip back" }, "← gradients"),
      " below; choose one",
    ),
    el("ol", {}, frames),
    more,
  );
}

const SIZE_WORDS = {
  B: "texts",
  T: "tokens",
  C: "channels",
  H: "heads",
  D: "channels of a head",
  V: "vocabulary",
  layers: "",
};

function guide() {
  const colors = palette();
  const swatch = (color, text) => {
    const box = el("span", { class: "swatch large" });
    box.style.background = color;
    return el("li", {}, box, text);
  };
  return el(
    "ul",
    { class: "guide" },
    el("li", {}, legend({ kind: "signed", max: 1 }), " numbers with a sign: 0 in the middle"),
    el("li", {}, legend({ kind: "rising", max: 1 }), " numbers from 0 up, such as attention"),
    el(
      "li",
      {},
      "√ beside a scale: color grows with the square root, because a few numbers are far larger than all others",
    ),
    el(
      "li",
      {},
      el("span", { class: "swatch large hatched" }),
      "hidden by the mask (score −∞, weight 0, gradient of the score 0)",
    ),
    swatch(colors.nan, "NaN"),
    swatch(colors.inf, "infinite"),
    el("li", {}, el("span", { class: "chip ahead" }, "forward →"), " values are computed"),
    el("li", {}, el("span", { class: "chip back" }, "← backward"), " gradients go back"),
  );
}

// ---- questions, with answers from this very trace -------------------------------------------------------------------

function questions() {
  return [askChain, askValues, askMask, askZero, askResidual, askSum, askLoss, askRight]
    .map((ask) => ask())
    .filter(Boolean);
}

function stepLink(text, i, ...at) {
  return [`${text} (step ${i + 1})`, ["steps", i + 1, ...at].join("/")];
}

function askChain() {
  const found = backwardSteps.filter((s) => s.kind === "vjp");
  const step =
    found.find((s) => ["linear", "matmul"].includes(s.kernel)) ?? found.find((s) => s.outgoing.length > 1) ?? found[0];
  if (!step) return null;
  return {
    q: "What does one backward step do?",
    a:
      "It takes the gradient of its own output (how the loss changes with each element of it) and turns it " +
      "into the gradients of its inputs, with the derivative of this one operation: the chain rule. It " +
      "knows nothing of the rest of the model. Here: " +
      `${fitting(kernels[step.kernel].gradient || kernels[step.kernel].formula, step)}.`,
    links: [stepLink(`back through ${step.kernel}`, step.i), stepLink("its forward", step.forward)],
  };
}

function askValues() {
  const part = trace.attention?.find((p) => p.v !== null && gradOf(tensors[p.v]));
  if (!part) return null;
  const [v, weights] = [tensors[part.v], tensors[part.weights]];
  const vjp = steps.find((s) => s.kind === "vjp" && s.outgoing.some((out) => out.tensor === v.id && out.grad !== null));
  if (!vjp) return null;
  const role = vjp.outgoing.find((out) => out.tensor === v.id).role;
  return {
    q: "Where does dV come from?",
    a:
      `Forward, each output row is a mean of the values, with ${shortName(weights)} as weights. So the gradient ` +
      "of value j collects the gradients of all rows i that looked at it, each times the weight with which " +
      "it looked: dV = weightsᵀ · g. Tokens that nobody looks at get a small gradient.",
    links: [
      stepLink("see dV being made", vjp.i, `d${role}`, largestIn(gradOf(v))),
      stepLink("its forward", vjp.forward),
    ],
  };
}

function askMask() {
  const part = trace.attention?.find((p) => p.mask !== null && p.masked !== null && tensors[p.masked].made_by !== null);
  if (!part) return null;
  const forward = tensors[part.masked].made_by;
  const links = [stepLink("the mask, forward", forward)];
  if (steps[forward].backward !== null) links.push(stepLink("and backward", steps[forward].backward));
  return {
    q: "What does the mask do?",
    a:
      `It sets the scores of later tokens to ${MINUS}∞. The softmax makes a weight of exactly 0 of that, so ` +
      "no token sees its future. Backward, nothing passes there: the score had no influence, so its " +
      "gradient is exactly 0.",
    links,
  };
}

/** A gradient that is exactly 0, and the rule that says why. */
function askZero() {
  const telling = ["where", "relu", "softmax", "embedding", "getitem"]; // the clearest reasons first
  const found = backwardSteps.filter((step) => step.kind === "vjp" && telling.includes(step.kernel));
  found.sort((one, other) => telling.indexOf(one.kernel) - telling.indexOf(other.kernel) || one.i - other.i);
  for (const step of found) {
    for (const { role, tensor, grad } of step.outgoing.filter((out) => out.grad !== null)) {
      const values = numbers(grads[grad]);
      const zeros = values?.full ? [...values.data.keys()].filter((i) => values.data[i] === 0).slice(0, 60) : [];
      const reason = (i) => explainElement(step, `d${role}`, i)?.zero;
      const flat = zeros.find((i) => reason(i) && !nothingComesIn({ zero: reason(i) })); // zero by this very operation
      if (flat === undefined) continue;
      const why = reason(flat);
      const element = `${gradName(tensors[tensor])} ${indexText(tensors[tensor], flat)}`;
      return {
        q: "Why is this gradient zero?",
        a: `${element} is 0. ${why}`,
        links: [stepLink("see it in numbers", step.i, `d${role}`, flat)],
      };
    }
  }
  return null;
}

function askResidual() {
  const step = forwardSteps.find((s) => s.residual);
  if (!step) return null;
  const links = [stepLink("the addition", step.i)];
  if (step.backward !== null) links.push(stepLink("its backward", step.backward));
  if (trace.map) links.push(["on the map: the lane on the left", "map"]);
  return {
    q: "Which addition is the residual?",
    a:
      `${tensors[step.output].name} = ${tensors[step.residual.stream].name} + ` +
      `${tensors[step.residual.branch].name}. The first goes on unchanged (the stream), the second is what ` +
      "the layer found (the branch). Backward, both receive the same gradient.",
    links,
  };
}

function askSum() {
  const sums = backwardSteps.filter((s) => s.kind === "sum");
  const step = sums.find((s) => [s.first_use, s.second_use].includes("residual stream")) ?? sums[0];
  if (!step) return null;
  return {
    q: "Why are gradients added?",
    a:
      `${tensors[step.tensor].name} is used more than once. Moving it changes the loss through each use, ` +
      "and for small moves these changes add. So do the gradients.",
    links: [stepLink("see them meet", step.i)],
  };
}

function askLoss() {
  const step = backwardSteps.find((s) => s.kind === "vjp" && s.kernel === "cross_entropy");
  if (!step) return null;
  return {
    q: "What does the loss send back?",
    a:
      "The guess minus the truth: for each position, the predicted probabilities, minus 1 at the right " +
      "token, divided by the number of positions.",
    links: [stepLink("softmax minus one-hot", step.i)],
  };
}

function askRight() {
  const proof = [...(trace.proofs ?? [])]
    .sort((p, q) => Math.abs(q.backprop) - Math.abs(p.backprop))
    .find((p) => gradOf(tensors[p.tensor]));
  if (!proof) return null;
  const tensor = tensors[proof.tensor];
  const made = steps.find((s) => s.kind === "vjp" && s.outgoing.some((out) => out.grad === tensor.grad));
  const links = made
    ? [
        stepLink(
          "check this number",
          made.i,
          `d${made.outgoing.find((out) => out.grad === tensor.grad).role}`,
          ravel(proof.index, tensor.shape),
        ),
      ]
    : [];
  return {
    q: "Is this number right?",
    a:
      `∂L/∂${tensor.name} ${indexText(tensor, ravel(proof.index, tensor.shape))}: backprop says ` +
      `${fmt(proof.backprop, 8)}, the complex step ${fmt(proof.complex ?? proof.central, 8)}. Any cell with ` +
      "a dot can be checked like this.",
    links,
  };
}
