// ---- one update: what first-order theory promises, and what one SGD step does ---------------------------------------

function updateView(place, width) {
  const { update } = trace;
  const { before, after, predicted } = update.loss;
  const rows = [
    ["before", fmt(before, 6), ""],
    ["after, promised by first order", fmt(predicted, 6), fmt(predicted - before, 3)],
    ["after, measured", fmt(after, 6), fmt(after - before, 3)],
  ];
  const share = (after - before) / (predicted - before);
  return el(
    "section",
    { class: "update" },
    viewHead(
      "One update",
      `One SGD step on this very prompt, learning rate ${fmt(update.lr, 3)}: each weight moves by −lr · its gradient. First-order theory says that the loss falls by lr · ‖g‖² = ${fmt(before - predicted, 3)}.`,
    ),
    table("the loss, in nats", ["", "loss", "change"], rows),
    el(
      "p",
      { class: "say" },
      Number.isFinite(share)
        ? `The loss did ${fmt(100 * share, 3)} % of what was promised. The rest is curvature: the smaller the step, the closer to 100 %.`
        : "",
    ),
    curveChart(update, width),
    update.positions.length ? scatter(update.positions, width) : null,
    update.positions.length ? movedTable(update.positions) : null,
  );
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
  const chart = lineChart({
    lines,
    width: Math.min(width, 760),
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

/** Change of ln p of each target: promised across, measured up. On the diagonal, theory is exact. */
function scatter(positions, width) {
  const points = positions
    .filter((p) => p.before !== null && p.target !== null)
    .map((p) => ({ x: p.predicted - p.before, y: p.after - p.before, p }));
  if (!points.length) return null;
  const size = Math.min(width, 440);
  const reach = padded(extent([0, ...points.flatMap(({ x, y }) => [x, y])]));
  const x = linear(reach, [58, size - 16]);
  const y = linear(reach, [size - 46, 16]);
  const drawing = svg("svg", {
    viewBox: `0 0 ${size} ${size}`,
    width: size,
    class: "chart",
    role: "img",
    "aria-label": "change of ln p of each target, promised and measured; the table below has the numbers",
  });
  for (const tick of ticks(reach, 4)) {
    drawing.append(
      svg("line", { x1: 58, x2: size - 16, y1: y(tick), y2: y(tick), class: tick === 0 ? "rule zero" : "rule" }),
      svg("line", { x1: x(tick), x2: x(tick), y1: 16, y2: size - 46, class: tick === 0 ? "rule zero" : "rule" }),
      svg("text", { x: 52, y: y(tick) + 4, class: "tick", "text-anchor": "end" }, fmt(tick, 2)),
      svg("text", { x: x(tick), y: size - 28, class: "tick", "text-anchor": "middle" }, fmt(tick, 2)),
    );
  }
  drawing.append(
    svg("path", { d: `M${x(reach[0])} ${y(reach[0])}L${x(reach[1])} ${y(reach[1])}`, class: "line c1 dashed" }),
  );
  for (const point of points) {
    const dot = svg(
      "circle",
      { cx: x(point.x), cy: y(point.y), r: 5, class: "dot c0" },
      svg(
        "title",
        {},
        `“${visible(point.p.target)}” after “${visible(point.p.token)}”: promised ${fmt(point.x, 3)}, measured ${fmt(point.y, 3)}`,
      ),
    );
    drawing.append(dot);
    if (points.length <= 12)
      drawing.append(
        svg("text", { x: x(point.x) + 8, y: y(point.y) + 4, class: "tick" }, shortened(visible(point.p.target), 10)),
      );
  }
  drawing.append(
    svg("text", { x: size - 16, y: size - 8, class: "tick", "text-anchor": "end" }, "change of ln p, promised"),
    svg("text", { x: 4, y: 11, class: "tick" }, "measured"),
  );
  return el(
    "section",
    {},
    el(
      "h3",
      {},
      "Each target ",
      exportButton("update", () => drawing),
    ),
    el(
      "p",
      { class: "say" },
      "A point is a token of the text. On the dashed diagonal the step did exactly what first order promised.",
    ),
    drawing,
  );
}

function movedTable(positions) {
  const arrow = (before, after) => `${fmt(before, 3)} → ${fmt(after, 3)}`;
  const rows = positions.map((p) => [
    visible(p.token),
    p.target === null ? "–" : visible(p.target),
    p.before === null ? "–" : arrow(p.before, p.after),
    p.before === null ? "–" : `${signed(p.predicted - p.before)} / ${signed(p.after - p.before)}`,
    el(
      "span",
      { class: "tokens-inline" },
      (p.moved ?? [])
        .slice(0, 3)
        .map((m) => el("span", {}, el("span", { class: "token" }, visible(m.text)), ` ${arrow(m.before, m.after)} `)),
    ),
  ]);
  return table(
    "which predictions moved",
    ["after", "target", "ln p", "promised / measured", "probabilities that moved most"],
    rows,
  );
}

function signed(x) {
  return x > 0 ? `+${fmt(x, 2)}` : fmt(x, 2);
}
