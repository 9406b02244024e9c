// ---- the trace: what Python recorded (the format stands in study/page/__init__.py) ----------------------------------

const trace = JSON.parse(document.getElementById("trace").textContent);
const { meta, tensors, grads, steps, kernels } = trace;
const decoded = new Map();

/** The numbers of a tensor or gradient: {data, rows, cols, cell, full, rounded}; null if only statistics are kept. */
function numbers(thing) {
  if (!thing || !thing.data) return null;
  if (!decoded.has(thing)) decoded.set(thing, decode(thing.data));
  return decoded.get(thing);
}

function decode(data) {
  if (data.form === "full") return { data: new Float32Array(bytes(data.f32).buffer), full: true, rounded: false };
  const special = { 253: -Infinity, 254: Infinity, 255: NaN };
  const value = (byte) => special[byte] ?? data.lo + ((data.hi - data.lo) * byte) / 252;
  const full = data.cell[0] === 1 && data.cell[1] === 1;
  return { ...data, data: Float32Array.from(bytes(data.q8), value), full, rounded: true };
}

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function gradOf(tensor) {
  return tensor.grad === null ? null : grads[tensor.grad];
}

// ---- names ----------------------------------------------------------------------------------------------------------

/** The name without the path of its layer, "attn.weights"; of a product without a name its formula, "q·kᵀ". */
function shortName(tensor) {
  return tensor.label ?? shortPath(tensor.name, 2);
}

/** "∂L/∂v", "∂L/∂(q·kᵀ)". */
function gradName(tensor) {
  const name = shortName(tensor);
  return name.includes("·") ? `∂L/∂(${name})` : `∂L/∂${name}`;
}

/** A name inside a layer: without the layer's own path. */
function nameIn(layer, tensor) {
  if (tensor.label) return tensor.label;
  return layer && tensor.name.startsWith(`${layer}.`) ? tensor.name.slice(layer.length + 1) : tensor.name;
}

/** The last parts of a path; a number alone says nothing, so "h.0" stays together. */
function shortPath(path, parts) {
  const all = path.split(".");
  const more = /^\d/.test(all.at(-parts) ?? "") ? 1 : 0;
  return all.slice(-parts - more).join(".");
}

/** "(H 2, T 5, D 4)": each axis with its letter, if it has one that says more than the number. */
function shapeText(thing) {
  const { shape, axes } = "tensor" in thing ? tensors[thing.tensor] : thing;
  if (!shape.length) return "a number";
  return shape.map((n, i) => (axes?.[i] && axes[i] !== String(n) ? `${axes[i]}\u202f${n}` : String(n))).join(" × ");
}

function statsText(thing) {
  const { stats } = thing;
  if (!stats || stats.min === null) return "no finite number";
  if (stats.n === 1) return "";
  if (/int|bool/.test(thing.dtype ?? "")) return `${fmt(stats.min)} … ${fmt(stats.max)}`;
  return `${fmt(stats.min, 3)} … ${fmt(stats.max, 3)}, norm ${fmt(stats.norm, 3)}`;
}

/** What is special in an array, in words. */
function oddText(stats) {
  const parts = [];
  if (stats?.nan) parts.push(`${stats.nan} NaN`);
  if (stats?.inf) parts.push(`${stats.inf} infinite`);
  if (stats?.zeros && stats.n > 1) parts.push(`${stats.zeros} of ${stats.n} are 0`);
  return parts.join(", ");
}

// ---- indices --------------------------------------------------------------------------------------------------------

function count(shape) {
  return shape.reduce((product, n) => product * n, 1);
}

function unravel(flat, shape) {
  const index = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}

function ravel(index, shape) {
  return index.reduce((flat, i, axis) => flat * shape[axis] + i, 0);
}

/** Where an element of the broadcast shape comes from: its index is cut on the left, and 0 along axes of length 1. */
function broadcastIndex(index, shape) {
  const cut = index.slice(index.length - shape.length);
  return ravel(
    cut.map((i, axis) => (shape[axis] === 1 ? 0 : i)),
    shape,
  );
}

/** "[1, 3]", and in words if an axis has tokens: "[1, 3] (“cat”)". */
function indexText(tensor, flat) {
  if (!tensor.shape.length) return "";
  const index = unravel(flat, tensor.shape);
  const words = index
    .map((i, axis) => axisLabel(tensor, axis, i, index))
    .filter((word, axis) => word !== String(index[axis]));
  return `[${index.join(", ")}]` + (words.length ? ` (${words.map((word) => `“${word}”`).join(" → ")})` : "");
}

/** What the i-th place along an axis stands for: a token along T and V, else its number. */
function axisLabel(tensor, axis, i, index = null) {
  const letter = tensor.axes?.[axis];
  if (letter === "T" && meta.tokens) {
    const batch = index && tensor.axes.indexOf("B") >= 0 ? index[tensor.axes.indexOf("B")] : 0;
    const row = meta.tokens[batch] ?? meta.tokens[0];
    if (i < row.length) return visible(row[i]);
  }
  if (letter === "V" && meta.vocab && tensor.shape[axis] === meta.vocab.length) return visible(meta.vocab[i]);
  return String(i);
}

// ---- steps ----------------------------------------------------------------------------------------------------------

const forwardSteps = steps.filter((step) => step.kind === "forward");
const backwardSteps = steps.filter((step) => step.kind !== "forward");
const proofs = new Map(); // tensor id → flat index → proof
for (const proof of trace.proofs ?? []) {
  if (!proofs.has(proof.tensor)) proofs.set(proof.tensor, new Map());
  proofs.get(proof.tensor).set(ravel(proof.index, tensors[proof.tensor].shape), proof);
}
const hidden = new Map(); // tensor id → {mask, grad}: the mask of attention, and whether it also hides the gradient
for (const part of trace.attention ?? []) {
  const mask = numbers(tensors[part.mask]);
  if (!mask) continue;
  for (const [id, grad] of [
    [part.masked, true],
    [part.weights, false],
    [part.scores, true],
  ]) {
    if (id !== null && id !== undefined) hidden.set(id, { mask: mask.data, value: id !== part.scores, grad });
  }
}

/** A function: flat index → whether attention's mask hides this element; null if there is none. */
function maskOf(tensor, isGradient) {
  const found = hidden.get(tensor.id);
  if (!found || !(isGradient ? found.grad : found.value)) return null;
  return (flat) => found.mask[flat % found.mask.length] === 1;
}

/** One line that names a step: "softmax → attn.weights". */
function stepTitle(step) {
  if (step.kind === "forward") return `${step.kernel} → ${shortName(tensors[step.output])}`;
  const name = shortName(tensors[step.tensor]);
  if (step.kind === "vjp") return `back through ${step.kernel}, from ${name}`;
  if (step.kind === "sum") return `two gradients of ${name} add up`;
  if (step.kind === "seed") return `backward begins at ${name}`;
  if (step.kind === "hook") return `a hook changes the gradient of ${name}`;
  return `the gradient of ${name} is complete`;
}

/** The scale for the values of a tensor: [0, 1] for attention weights, else by its numbers. */
function valueScale(tensor) {
  if ((trace.attention ?? []).some((part) => part.weights === tensor.id)) return UNIT;
  return scaleFor(tensor.stats);
}
