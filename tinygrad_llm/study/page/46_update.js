// ---- one update: what first-order theory predicts, and what one SGD step does ---------------------------------------

function updateView(place, width) {
  const { update } = trace;
  const fall = fmt(update.loss.before - update.loss.predicted, 3);
  const head = viewHead(
    "One update",
    `One SGD step on this very input, learning rate ${fmt(update.lr, 3)}: each weight changes by −lr times its gradient. ` +
      `To first order, the loss falls by lr · ‖g‖² = ${fall}.`,
  );
  const half = width >= 900 ? Math.floor(width / 2) - 20 : width;
  const told = update.positions.length > 0;
  return el(
    "section",
    { class: "update" },
    head,
    el(
      "div",
      { class: "halves" },
      el("div", {}, curveChart(update, half), lossTable(update)),
      el("div", {}, told ? scatter(update.positions, half) : shares(update)),
    ),
    told ? [movedTable(update.positions), shares(update)] : null,
  );
}

function lossTable({ loss: { before, after, predicted } }) {
  const rows = [
    ["before", fmt(before, 6), ""],
    ["after, predicted to first order", fmt(predicted, 6), fmt(predicted - before, 3)],
    ["after, measured", fmt(after, 6), fmt(after - before, 3)],
  ];
  const done = (100 * (after - before)) / (predicted - before);
  const text = `The loss fell by ${fmt(done, 3)} % of the predicted amount. The rest is curvature, and shrinks with the step.`;
  return [
    table("the loss", ["", "loss", "change"], rows),
    Number.isFinite(done) ? el("p", { class: "say" }, text) : null,
  ];
}

/** Which parameters are to lower the loss: lr · ‖g‖² of each. */
function shares({ lr }) {
  const falls = (trace.flow?.parameters ?? []).map((p) => [tensors[p.tensor], lr * p.grad_norm ** 2]);
  const known = falls.filter(([, fall]) => fall > 0).sort((p, q) => q[1] - p[1]);
  const total = known.reduce((sum, [, fall]) => sum + fall, 0);
  const rows = known.slice(0, 12).map(([tensor, fall]) => {
    const grad = gradOf(tensor);
    return [grad ? go(tensor.name, `steps/${grad.step + 1}`) : tensor.name, meter(fall / total, 120), fmt(-fall, 3)];
  });
  if (known.length > 12) rows.push([`${known.length - 12} more`, "", ""]);
  return rows.length
    ? table("share of the predicted fall, by parameter: lr · ‖g‖² of each", ["", "share", "change"], rows)
    : null;
}

/** The loss along the direction of the step, and its tangent. */
function curveChart(update, width) {
  if (!update.curve?.length) return null;
  const slope = (update.loss.predicted - update.loss.before) / update.lr;
  const lines = [
    { name: "loss after a step of this size", class: "c0", points: update.curve },
    {
      name: "first order: the tangent",
      class: "c1 dashed",
      points: update.curve.map(([lr]) => [lr, update.loss.before + slope * lr]),
    },
  ];
  lines.push({
    name: `this step, learning rate ${fmt(update.lr, 3)}`,
    class: "c2",
    points: [[update.lr, update.loss.after]],
  });
  const chart = lineChart({
    lines,
    width,
    xName: "learning rate",
    yName: "loss",
    label: "loss by step size, and its tangent",
    dots: true,
  });
  return el(
    "section",
    {},
    el(
      "h3",
      {},
      "How far theory reaches ",
      exportButton("update-curve", () => chart),
    ),
    lineKey(lines),
    chart,
  );
}

/** Change of ln p of each target: predicted across, measured up. On the diagonal, theory is exact. */
function scatter(positions, width) {
  const points = positions
    .filter((p) => typeof p.before === "number")
    .map((p) => ({ x: p.predicted - p.before, y: p.after - p.before, p }));
  if (!points.length) return null;
  const size = Math.min(width, 460);
  const reach = padded(extent([0, ...points.flatMap(({ x, y }) => [x, y])]));
  const [x, y] = [linear(reach, [58, size - 16]), linear(reach, [size - 46, 16])];
  const label = "change of ln p of each target, predicted and measured; the table below has the numbers";
  const drawing = svg("svg", {
    viewBox: `0 0 ${size} ${size}`,
    width: size,
    class: "chart",
    role: "img",
    "aria-label": label,
  });
  drawing.append(...squareRules(x, y, reach, size));
  drawing.append(
    svg("path", { d: `M${x(reach[0])} ${y(reach[0])}L${x(reach[1])} ${y(reach[1])}`, class: "line c1 dashed" }),
  );
  drawing.append(...points.map((point) => scatterDot(point, x(point.x), y(point.y))), ...scatterNames(points, x, y));
  return el(
    "section",
    {},
    el("h3", {}, ["Each target ", exportButton("update", () => drawing)]),
    el(
      "p",
      { class: "say" },
      "A point is a token of the text. On the dashed diagonal, the step did what was predicted.",
    ),
    drawing,
  );
}

/** Lines, ticks and names of the axes. */
function squareRules(x, y, reach, size) {
  const end = { x1: 58, x2: size - 16, y1: 16, y2: size - 46 };
  const rules = ticks(reach, 4).flatMap((tick) => [
    svg("line", { ...end, y1: y(tick), y2: y(tick), class: tick === 0 ? "rule zero" : "rule" }),
    svg("line", { ...end, x1: x(tick), x2: x(tick), class: tick === 0 ? "rule zero" : "rule" }),
    svg("text", { x: 52, y: y(tick) + 4, class: "tick", "text-anchor": "end" }, fmt(tick, 2)),
    svg("text", { x: x(tick), y: size - 28, class: "tick", "text-anchor": "middle" }, fmt(tick, 2)),
  ]);
  const across = svg(
    "text",
    { x: size - 16, y: size - 8, class: "tick", "text-anchor": "end" },
    "change of ln p, predicted",
  );
  return [...rules, across, svg("text", { x: 4, y: 11, class: "tick" }, "measured")];
}

function scatterDot({ x, y, p }, cx, cy) {
  const change = `predicted ${fmt(x, 3)}, measured ${fmt(y, 3)}`;
  const title = svg("title", {}, `“${visible(p.target)}” after “${visible(p.token)}”: ${change}`);
  return svg("circle", { cx, cy, r: 5, class: "dot c0" }, title);
}

/** The tokens beside their points, where there is room. */
function scatterNames(points, x, y) {
  const placed = [];
  return points.flatMap(({ x: a, y: b, p }) => {
    const at = { x: x(a) + 9, y: y(b) + 4 };
    if (placed.some((other) => Math.abs(other.x - at.x) < 60 && Math.abs(other.y - at.y) < 13)) return [];
    placed.push(at);
    return [svg("text", { ...at, class: "tick" }, shortened(visible(p.target), 10))];
  });
}

function movedTable(positions) {
  const arrow = (before, after) => `${fmt(before, 3)} → ${fmt(after, 3)}`;
  const moved = ({ text, before, after }) =>
    el("span", {}, [el("span", { class: "token" }, visible(text)), ` ${arrow(before, after)} `]);
  const rows = positions.map((p) => {
    const known = typeof p.before === "number";
    return [
      visible(p.token),
      visible(p.target),
      known ? arrow(p.before, p.after) : "–",
      known ? `${signed(p.predicted - p.before)} / ${signed(p.after - p.before)}` : "–",
      el("span", { class: "tokens-inline" }, (p.moved ?? []).slice(0, 3).map(moved)),
    ];
  });
  const head = ["after", "target", "ln p", "predicted / measured", "probabilities that moved most"];
  return table("which predictions moved", head, rows);
}

function signed(x) {
  return x > 0 ? `+${fmt(x, 2)}` : fmt(x, 2);
}
