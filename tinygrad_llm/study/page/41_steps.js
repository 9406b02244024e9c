// ---- the step: an operation with its inputs on the left and its output on the right, in both directions -------------

/** Show a step. place: its number, and the slot and flat index of the element that is worked out in numbers. */
function stepView(place, width) {
  const i = Math.min(steps.length - 1, Math.max(0, (Number(place[0]) || 1) - 1));
  const step = steps[i];
  const slots = slotsOf(step);
  const asked = { slot: place[1], flat: Number(place[2] ?? -1) };
  const at = slots.get(asked.slot)?.data?.[asked.flat] === undefined ? telling(step, slots) : asked;
  const stage = new Stage(step, slots, at, width);
  return el(
    "section",
    { class: `step ${step.kind === "forward" ? "forward" : "backward"}`, "aria-labelledby": "step-title" },
    stepHead(step, stage),
    stage.flow(),
    el("div", { class: "below" }, stage.inspector, stepTheory(step)),
  );
}

/** The largest element of what the step makes. */
function telling(step, slots) {
  const made = { forward: ["y"], vjp: (step.outgoing ?? []).map((out) => `d${out.role}`) }[step.kind] ?? ["total", "g"];
  const slot = made.find((name) => slots.get(name)?.data);
  return slot ? { slot, flat: largest(slots.get(slot).data) } : null;
}

/** The same for an array that may not be here in full. */
function largestIn(thing) {
  const values = numbers(thing);
  return values?.full ? largest(values.data) : 0;
}

function largest(data) {
  let [best, most] = [0, -1];
  for (let flat = 0; flat < data.length; flat++) {
    const size = Math.abs(data[flat]);
    if (size > most && size < Infinity) [best, most] = [flat, size];
  }
  return best;
}

// ---- the head: what runs, where, and its formula --------------------------------------------------------------------

function stepHead(step, stage) {
  const forward = step.kind === "vjp" ? steps[step.forward] : step;
  const back = step.kind !== "forward";
  const titles = {
    forward: step.kernel,
    vjp: `back through ${step.kernel}`,
    sum: "two gradients meet, and add",
    seed: "backward begins",
    hook: "a hook",
    leaf: "a gradient is complete",
  };
  const line = forward.line
    ? el("p", { class: "code" }, el("code", {}, forward.line), el("span", { class: "dim" }, forward.where ?? ""))
    : null;
  return el(
    "header",
    { class: "step-head" },
    el(
      "p",
      { class: "way" },
      el("span", { class: "chip" }, back ? "← backward" : "forward →"),
      el("span", { class: "dim path" }, step.layer || forward.layer || ""),
    ),
    el("h2", { id: "step-title" }, titles[step.kind], " ", stage.exporter()),
    formulas(step),
    line,
    sentences(step).map((text) => el("p", { class: "say" }, text)),
  );
}

function formulas(step) {
  if (step.kind === "sum")
    return formula([["∂L/∂x = Σ over the uses of x: each use sends its share, and the shares add", true]]);
  if (step.kind === "seed") return formula([["∂L/∂L = 1", true]]);
  const kernel = kernels[step.kernel];
  if (!kernel) return null;
  const back = step.kind === "vjp";
  const [forward, gradient] = kernel.gradient
    ? [kernel.forward, kernel.gradient]
    : (kernel.formula ?? "").split(/\.\s{2,}/);
  return formula([
    [fitting(forward, step), !back],
    [fitting(gradient, step), back],
  ]);
}

/** A kernel's formula without what this step does not have: a bias, or axes that broadcast. */
function fitting(text, step) {
  const { inputs, output } = step.kind === "vjp" ? steps[step.forward] : step;
  const batch = ({ tensor }) => tensors[tensor].shape.slice(0, -2).join();
  let short = text ?? "";
  if (!inputs.some((input) => input.role === "bias"))
    short = short.replace(/ \+ bias/, "").replace(/,\s+dbias = Σ g, the last two summed/, " summed");
  if (inputs.every((input) => batch(input) === tensors[output].shape.slice(0, -2).join()))
    short = short.replace(", summed over broadcast batch axes", "");
  return short;
}

function formula(lines) {
  const shown = lines.filter(([text]) => text);
  return el(
    "div",
    { class: "formula" },
    shown.flatMap(([text, now]) =>
      text.split("\n").map((line) => el("p", { class: now ? "now" : "later" }, line.trim().replace(/\.$/, ""))),
    ),
  );
}

/** What can be said of this step in words, besides Python's notes. */
function sentences(step) {
  const texts = (step.notes ?? []).map((text) => (step.layer ? text.replaceAll(`${step.layer}.`, "") : text));
  if (step.kind === "vjp" && steps[step.forward].residual && forwardSteps.filter((one) => one.residual).length > 1)
    texts.push("So the loss reaches the early layers directly, through all residual additions.");
  if (step.kind === "forward" && !step.recorded)
    texts.push("None of its inputs requires a gradient, so nothing is kept for backward.");
  return texts;
}

/** Whether an input is a plain number, such as 1/√D. */
function isConstant(input) {
  return tensors[input.tensor].role === "constant" && !tensors[input.tensor].shape.length;
}

const pickedLine = el("p", { class: "picked-line" }); // in the bar at the bottom

// ---- the flow: cards of tensors, with their values and gradients ----------------------------------------------------

class Stage {
  constructor(step, slots, at, width) {
    Object.assign(this, { step, slots, at, width });
    this.maps = new Map(); // slot → heat map
    this.inspector = el("section", { class: "inspector", "aria-label": "One element in numbers" });
  }

  flow() {
    const { step } = this;
    const flow =
      step.kind === "sum"
        ? this.sumFlow()
        : step.kind === "forward" || step.kind === "vjp"
          ? this.kernelFlow()
          : this.singleFlow();
    this.inspect();
    return flow;
  }

  kernelFlow() {
    const { step } = this;
    const back = step.kind === "vjp";
    const forward = back ? steps[step.forward] : step;
    const constants = forward.inputs.filter(isConstant).length;
    const room = this.room(forward.inputs.length - constants + 1, constants);
    const inputs = forward.inputs.map((input, i) => this.inputCard(input, back ? step.outgoing[i] : null, room));
    const parts = [back ? this.part("g", "came in", false, room) : null, this.part("y", "value", back, room)];
    const output = this.card("y", tensors[forward.output], parts, "output");
    const arrow = el("span", { class: "arrow" }, back ? "←" : "→");
    const through = el("div", { class: "through", "aria-hidden": "true" }, arrow, el("span", {}, forward.kernel));
    const each = forward.inputs.map((input) => (isConstant(input) ? "9.5rem" : "minmax(0, max-content)"));
    return this.row(
      `flow ${back ? "back" : "ahead"}`,
      [...each, "auto", "minmax(0, max-content)"].join(" "),
      this.stacked && back ? [output, through, ...inputs] : [...inputs, through, output],
    );
  }

  /** An input: its values, and in the backward pass the gradient that goes out to it, or why there is none. */
  inputCard(input, out, room) {
    const tensor = tensors[input.tensor];
    const value = isConstant(input)
      ? el("p", { class: "scalar" }, fmt(numbers(tensor)?.data[0] ?? null))
      : this.part(input.role, "value", Boolean(out), room);
    const gradient = out && out.grad !== null ? this.part(`d${input.role}`, "goes out", false, room) : null;
    const none = out && out.grad === null ? `No gradient: ${out.why ?? "none is needed"}.` : null;
    return this.card(input.role, tensor, [gradient, value, none && el("p", { class: "dim none" }, none)], "input");
  }

  sumFlow() {
    const { step } = this;
    const tensor = tensors[step.tensor];
    const scale = signedScale(...["first", "second", "total"].map((name) => this.slots.get(name).thing.stats));
    const room = this.room(3);
    const whole = step.grad === tensor.grad ? "complete" : "so far";
    const part = (name, use) =>
      el("section", { class: "card" }, el("h3", {}, use ?? "one use"), this.part(name, name, false, room, scale));
    return this.row(
      "flow sum",
      "minmax(0, max-content) auto minmax(0, max-content) auto minmax(0, max-content)",
      part("first", step.first_use),
      el("span", { class: "sign" }, "+"),
      part("second", step.second_use),
      el("span", { class: "sign" }, "="),
      this.card("", tensor, [this.part("total", `total, ${whole}`, false, room, scale)], "output"),
    );
  }

  singleFlow() {
    const { step } = this;
    const room = this.room(2);
    return this.row(
      "flow",
      "minmax(0, max-content)",
      this.card(
        "",
        tensors[step.tensor],
        [this.part("g", step.kind === "leaf" ? "complete" : "", false, room)],
        "output",
      ),
    );
  }

  /** Cards in one row where there is room, else below each other. */
  row(name, columns, ...cards) {
    const row = el("div", { class: this.stacked ? `${name} stacked` : name }, ...cards);
    if (!this.stacked) row.style.gridTemplateColumns = columns;
    return row;
  }

  /** How wide one of n heat maps may be, next to cards of constants. */
  room(n, constants = 0) {
    const each = Math.floor((this.width - 70 - 14 * n - 166 * constants) / n) - 36;
    this.stacked = each < 190;
    return this.stacked ? this.width - 36 : Math.min(each, 560);
  }

  card(role, tensor, parts, kind) {
    const roleText = role ? el("i", { class: "role" }, role) : null;
    const odd = oddText(tensor.stats);
    const named = nameIn(this.step.layer, tensor).replace(/^number(#\d+)?$/, "");
    return el(
      "section",
      { class: `card ${kind}` },
      el("h3", {}, roleText, el("span", { class: "name", title: tensor.name }, dotted(named === role ? "" : named))),
      el(
        "p",
        { class: "dim shape" },
        shapeText(tensor),
        tensor.role === "parameter" ? ", a parameter" : tensor.role === "constant" ? ", a constant" : "",
        odd ? `; ${odd}` : "",
      ),
      parts,
      this.links(tensor),
    );
  }

  /** A heat map of a slot; folded away where it only reminds of the forward pass. */
  part(name, title, folded, room, scale = null) {
    const slot = this.slots.get(name);
    if (!slot) return null;
    const tensor = slot.tensor;
    const chosen = scale ?? (slot.gradient ? signedScale(slot.thing.stats) : valueScale(tensor));
    const heat = heatMap({
      thing: slot.thing,
      scale: chosen,
      width: room,
      small: folded,
      later: true,
      mask: maskOf(tensor, slot.gradient),
      label: `${slot.gradient ? "gradient of " : ""}${tensor.name}`,
      pick: slot.data ? (flat) => this.pick(name, flat) : null,
      proved: slot.gradient ? proofs.get(tensor.id) : null,
    });
    this.maps.set(name, heat);
    const symbol = slot.gradient ? gradName(tensor) : title;
    const head = el(
      "p",
      { class: `tag ${slot.gradient ? "gradient" : "value"}` },
      symbol,
      slot.gradient && title ? el("b", { class: "flag" }, title) : null,
      el("span", { class: "dim" }, ` ${statsText(slot.thing)}`),
    );
    return el("div", { class: folded ? "part kept" : "part" }, head, heat.element);
  }

  links(tensor) {
    const parts = [];
    const link = (step, text) => parts.push(go(text, `steps/${step + 1}`));
    if (tensor.made_by !== null && tensor.made_by !== this.step.i)
      link(tensor.made_by, `made in step ${tensor.made_by + 1}`);
    const uses = (tensor.used_by ?? []).filter((i) => i !== this.step.i);
    uses.slice(0, 4).forEach((i) => link(i, `used in step ${i + 1}`));
    const grad = gradOf(tensor);
    if (grad && grad.step !== this.step.i) link(grad.step, `gradient: step ${grad.step + 1}`);
    return parts.length ? el("p", { class: "links" }, parts) : null;
  }

  exporter() {
    const title = (name) => {
      const { tensor, gradient } = this.slots.get(name);
      return `${name}: ${gradient ? "gradient of " : ""}${tensor.name}.`;
    };
    const maps = () => [...this.maps].filter(([, heat]) => heat.map).map(([name, heat]) => [title(name), heat.map]);
    return exportMapsButton(`step-${this.step.i + 1}`, maps);
  }

  // ---- one element -----------------------------------------------------------------------------------------------------

  pick(name, flat) {
    this.at = { slot: name, flat };
    remember(`steps/${this.step.i + 1}/${name}/${flat}`);
    this.inspect();
  }

  inspect() {
    const { at, slots, step } = this;
    if (!at || !slots.get(at.slot)?.data) {
      pickedLine.replaceChildren();
      this.maps.forEach((heat) => heat.mark(new Map()));
      this.inspector.replaceChildren(
        el("h3", {}, "One element in numbers"),
        el("p", { class: "dim" }, "The values of this step are not kept in full."),
      );
      return;
    }
    const slot = slots.get(at.slot);
    const worked = explainElement(step, at.slot, at.flat);
    for (const [name, heat] of this.maps) {
      if (!heat.map) continue;
      const marks = new Map((worked?.cells ?? []).filter(([of]) => of === name).map(([, flat]) => [flat, true]));
      heat.mark(marks, name === at.slot ? at.flat : undefined);
    }
    this.inspector.replaceChildren(
      ...[
        el(
          "h3",
          {},
          "One element in numbers ",
          el(
            "span",
            { class: "hint dim" },
            "Click any cell: the numbers it was made of are outlined, and a dot means that its gradient was checked. " +
              "← and → still move the steps; with Shift, they move the cell.",
          ),
        ),
        el(
          "p",
          { class: "element" },
          el("b", {}, slot.gradient ? gradName(slot.tensor) : shortName(slot.tensor)),
          ` ${indexText(slot.tensor, at.flat)} = ${fmt(slot.data[at.flat], 7)}`,
        ),
        worked ? workedOut(worked, slots, this.maps, slot.data[at.flat]) : this.unexplained(slot),
        whyZero(slot, at.flat, worked, step),
        proofOf(slot, at.flat, step),
      ].filter(Boolean),
    );
    this.tell(slot, worked);
  }

  /** The element in one line of the bar at the bottom, which is always in sight. */
  tell(slot, worked) {
    const { flat } = this.at;
    const rule = worked?.lines[0].every((piece) => typeof piece === "string") ? worked.lines[0].join("") : null;
    const proof = proofs.get(slot.tensor.id)?.get(flat);
    const whole = slot.gradient && slot.thing.id === gradOf(slot.tensor)?.id;
    const right = whole && proof && proof.error <= 1e-9 ? el("span", { class: "good" }, " ✓ proven") : null;
    const down = () => this.inspector.scrollIntoView({ block: "start" });
    pickedLine.replaceChildren(
      button("in numbers ↓", down, { class: "quiet", "data-key": "in-numbers" }),
      put(
        el("span", { class: "picked" }),
        el("b", {}, slot.gradient ? gradName(slot.tensor) : shortName(slot.tensor)),
        ` ${indexText(slot.tensor, flat)} = ${fmt(slot.data[flat], 5)}`,
        right,
        rule ? el("span", { class: "dim" }, `   ${rule}`) : null,
      ),
    );
  }

  unexplained(slot) {
    const { step, at } = this;
    if (step.kind === "forward" && at.slot !== "y")
      return el("p", {}, "An input of this operation. Click a cell of y to see what it was made of.");
    if (step.kind === "vjp" && !at.slot.startsWith("d"))
      return el(
        "p",
        {},
        slot.gradient
          ? "The gradient that came in. Click a cell that goes out to see what it was made of."
          : "A value from the forward pass. Click a gradient that goes out to see how it is used.",
      );
    if (step.kind === "sum") return el("p", {}, "One of the two gradients that are added.");
    if (step.kind === "leaf") return el("p", {}, "Complete: what all uses of this tensor sent back.");
    return el("p", { class: "dim" }, "For this operation, formula and source stand beside.");
  }
}

/** The lines of a worked element, with the page's own result next to the recorded one. */
function workedOut(worked, slots, maps, recorded) {
  const piece = (part) => {
    if (typeof part === "string") return part;
    if (part.group) return el("span", { class: "group" }, part.group.map(piece));
    const slot = slots.get(part.slot);
    const x = slot.data?.[part.flat];
    const swatch = el("span", { class: "swatch" });
    const scale = maps.get(part.slot)?.map?.scale ?? scaleFor(slot.thing.stats);
    if (x !== undefined) swatch.style.background = colorOf(x, scale);
    const index = slot.shape.length ? `[${unravel(part.flat, slot.shape).join(",")}]` : "";
    return el("span", { class: "number" }, el("span", {}, swatch, fmt(x, 3)), el("small", {}, `${part.slot}${index}`));
  };
  const lines = worked.lines
    .filter((line) => line.length)
    .map((line, i) => el("p", { class: i > 1 && typeof line[0] === "string" ? "prose" : "line" }, line.map(piece)));
  return el("div", { class: "worked" }, lines, worked.result === undefined ? null : compared(worked.result, recorded));
}

function compared(result, recorded) {
  const same =
    Object.is(result, recorded) ||
    Math.abs(result - recorded) <= 2e-5 * Math.abs(recorded) + 1e-7 ||
    (!Number.isFinite(recorded) && !Number.isFinite(result));
  const text = same
    ? `✓ this page computes ${fmt(result, 5)}: as recorded`
    : `this page computes ${fmt(result, 5)}, but ${fmt(recorded, 5)} was recorded`;
  return el("p", { class: same ? "good" : "bad" }, text);
}

/** Why a 0 is 0: by this operation, or by the one in which the zeros began that came in. */
function whyZero(slot, flat, worked, step) {
  if (slot.data[flat] !== 0) return null;
  const share = slot.gradient && slot.thing.id !== gradOf(slot.tensor)?.id;
  const origin = slot.gradient ? originOfZero(slot.thing.id, flat) : null;
  const told = slot.gradient && !share ? proofs.get(slot.tensor.id)?.get(flat)?.zero_because : null;
  const texts = [worked?.zero ?? (origin?.zero ? null : told)];
  if (slot.gradient && !texts[0] && !origin.zero)
    texts.push(share ? "Through this use, it does not change the loss." : "Moving it does not change the loss.");
  if (share) texts.push("The element may still change the loss through its other uses.");
  if (origin?.zero && origin.step !== step) {
    const tensor = tensors[grads[origin.step.kind === "vjp" ? outgoing(origin).grad : origin.step.grad].tensor];
    const place = `steps/${origin.step.i + 1}/${origin.name}/${origin.flat}`;
    texts.push(
      el("span", {}, [
        `Followed back: ${gradName(tensor)} ${indexText(tensor, origin.flat)} is 0 in `,
        go(`step ${origin.step.i + 1}`, place),
        `. There, ${origin.zero}`,
      ]),
    );
  }
  const shown = texts.filter(Boolean).flatMap((text) => [text, " "]);
  return shown.length ? el("p", { class: "zero" }, el("b", {}, "Why is it zero? "), shown) : null;
}

function outgoing({ step, name }) {
  return step.outgoing.find((out) => `d${out.role}` === name);
}

/** Backprop, complex step and central difference side by side. */
function proofOf(slot, flat, step) {
  const all = proofs.get(slot.tensor.id);
  const complete = gradOf(slot.tensor);
  if (!complete) return null;
  const proof = all?.get(flat);
  const part = slot.gradient && slot.thing.id !== complete.id;
  const head = el(
    "h4",
    {},
    !slot.gradient ? "Is its gradient right?" : part ? "Is the complete gradient right?" : "Is this number right?",
  );
  if (!proof) {
    const nearest = all ? [...all.keys()][0] : null;
    const link =
      nearest === null
        ? null
        : button(
            indexText(slot.tensor, nearest) || "the number itself",
            () => {
              visit(`steps/${step.i + 1}/${slot.name}/${nearest}`);
            },
            { class: "quiet" },
          );
    return el(
      "div",
      { class: "proof" },
      head,
      el(
        "p",
        { class: "dim" },
        "The gradient of this element was not checked beforehand. ",
        link ? ["Cells with a dot were: ", link] : null,
      ),
    );
  }
  return el("div", { class: "proof" }, head, proofNote(slot, complete, step), proofTable(proof));
}

function proofNote(slot, complete, step) {
  const symbol = gradName(slot.tensor);
  const three = "computed in three ways that share no code";
  const digits = meta.dtype === "float32" ? " They run in float64, so they have more digits than the map." : "";
  if (!slot.gradient)
    return el("p", { class: "dim" }, `The number above is a value. This is its gradient ${symbol}, ${three}.${digits}`);
  if (slot.thing.id === complete.id) return el("p", { class: "dim" }, `${symbol}, ${three}.${digits}`);
  const what = slot.name === "total" ? "This is the sum so far." : "This is the share of one use.";
  return el("p", { class: "dim" }, [
    `${what} Only the complete gradient, the sum over all uses, can be measured`,
    complete.step === step.i ? null : [" (", go(`step ${complete.step + 1}`, `steps/${complete.step + 1}`), ")"],
    `. Here it is, ${three}.`,
  ]);
}

function proofTable(proof) {
  const exact = typeof proof.complex === "number";
  const rows = [["backprop", fmtFull(proof.backprop), ""]];
  if (exact) rows.push([method("complex step", 1e-20), fmtFull(proof.complex), fmt(proof.error, 2)]);
  rows.push([method("central difference", proof.h), fmtFull(proof.central), fmt(proof.central_error, 2)]);
  const scale = fmt(proof.scale, 3);
  return el(
    "div",
    {},
    table("proof", ["method", "∂L/∂element", "error"], rows, { class: "proof-table" }),
    el(
      "p",
      { class: "dim small" },
      `error = |difference| / ${scale}: the largest |∂L/∂element| of this tensor, plus 0.01`,
    ),
    verdict(exact ? proof.error : proof.central_error, exact),
  );
}

function method(name, h) {
  return el("span", {}, name, el("small", { class: "dim" }, ` h = ${fmt(h, 2)}`));
}

/** A difference loses half of all digits, the complex step none: so much may be missing. */
function verdict(error, exact) {
  if (typeof error !== "number")
    return el("p", { class: "verdict" }, "The loss is not finite, so nothing can be measured.");
  const [method, limit] = exact ? ["complex step", 1e-9] : ["difference", 1e-6];
  const text =
    error <= limit
      ? `✓ right: the ${method} agrees, error ${fmt(error, 2)} ≤ ${fmt(limit, 1)}`
      : `✗ they differ: error ${fmt(error, 2)}, allowed ${fmt(limit, 1)}`;
  return el("p", { class: `verdict ${error <= limit ? "good" : "bad"}`, "data-error": error }, text);
}

// ---- theory: derivation and source ----------------------------------------------------------------------------------

function stepTheory(step) {
  const kernel = kernels[step.kernel];
  if (!kernel) return usesOf(tensors[step.tensor]);
  const forward = step.kind === "vjp" ? steps[step.forward] : step;
  const options = Object.entries(forward.options ?? {});
  const saved = (forward.saved ?? []).map(
    (item) => `${item.name}${item.of ? ` (${item.of})` : ""}: ${item.bytes} bytes`,
  );
  return el(
    "section",
    { class: "theory", "aria-label": "Derivation and source" },
    once(`${step.kernel} ${step.kind}`, () => kernelTheory(kernel, step.kind === "vjp")),
    el(
      "details",
      {},
      el("summary", {}, "What is kept for backward"),
      options.length ? el("p", {}, "Options: ", options.map(([name, value]) => `${name} = ${value}`).join(", ")) : null,
      saved.length
        ? el(
            "ul",
            {},
            saved.map((text) => el("li", {}, text)),
          )
        : el("p", { class: "dim" }, "No array: the gradient needs none."),
      kernel.notes ? el("p", {}, kernel.notes) : null,
    ),
  );
}

/** The derivation and the source of a kernel. */
function kernelTheory(kernel, back) {
  const where = el("span", { class: "dim" }, `${kernel.file}:${kernel.line}`);
  return [
    kernel.derivation
      ? el("details", { open: true }, el("summary", {}, "Derivation"), derivation(kernel.derivation))
      : null,
    el("details", { open: back || !kernel.derivation }, el("summary", {}, "Source ", where), source(kernel, back)),
  ];
}

const theories = new Map();

/** What was made for this key: the same elements are shown at each step that has it. */
function once(key, make) {
  if (!theories.has(key)) theories.set(key, make());
  return theories.get(key);
}

/** Every use of a tensor, with the gradient that came back from it. */
function usesOf(tensor) {
  const rows = (tensor.used_by ?? []).flatMap((i) => {
    const back = steps[i].backward === null ? null : steps[steps[i].backward];
    const shares = (back?.outgoing ?? []).filter((out) => out.tensor === tensor.id);
    return shares.map((out) => [
      go(`${steps[i].kernel} → ${shortName(tensors[steps[i].output])}`, `steps/${i + 1}`),
      go(`step ${back.i + 1}`, `steps/${back.i + 1}`),
      out.grad === null ? "–" : fmt(grads[out.grad].stats.norm, 3),
    ]);
  });
  const total = gradOf(tensor);
  if (total && rows.length > 1)
    rows.push(["together", go(`step ${total.step + 1}`, `steps/${total.step + 1}`), fmt(total.stats.norm, 3)]);
  return el(
    "section",
    { class: "theory" },
    el("h3", {}, "All uses of ", dotted(tensor.name)),
    rows.length
      ? table("where the loss depends on it", ["use", "backward", "norm of its gradient"], rows)
      : el("p", { class: "dim" }, "It is the end of the computation: nothing uses it."),
  );
}

function block(text, label) {
  return el("pre", { tabindex: 0, role: "group", "aria-label": label }, text);
}

/** A derivation, whose lines break between their formulas, where two spaces stand, sooner than inside one. */
function derivation(text) {
  const lines = text.split("\n").map((line) => {
    const parts = line.split(/(?<=\S)(?= {2,})/);
    return el("span", { class: "row" }, [parts.map((part) => el("span", { class: "formula-part" }, part)), "\n"]);
  });
  return el("pre", { class: "derivation", tabindex: 0, role: "group", "aria-label": "Derivation" }, lines);
}

/** Source lines; those of the direction that is shown are marked. */
function source(kernel, back) {
  const [first, end] = kernel.vjp_lines ?? [Infinity, Infinity];
  const lines = kernel.source.split("\n").map((line, i) => {
    const vjp = i >= first && i < end;
    const row = el("span", { class: vjp === back ? "row now" : "row" }, `${line}\n`);
    const indent = line.length - line.trimStart().length + 4; // of what does not fit
    [row.style.paddingLeft, row.style.textIndent] = [`${indent}ch`, `${-indent}ch`];
    return row;
  });
  return el("pre", { class: "source", tabindex: 0, role: "group", "aria-label": "Source" }, el("code", {}, lines));
}
