// ---- gradient flow: how much gradient arrives in each layer ---------------------------------------------------------

function flowView(_, width) {
  const { flow } = trace;
  const layers = flow.layers ?? [];
  const chart = barChart(layers, width);
  return el(
    "section",
    { class: "flow-view" },
    viewHead(
      "Gradient flow",
      "Where the gradient gets small, a layer learns slowly; where it gets large, training becomes " +
        "unstable. The bars are on a log scale.",
      chart ? exportButton("gradient-flow", () => chart) : null,
    ),
    el(
      "p",
      { class: "keys" },
      flowKey("grad", "‖gradient‖ of the weights"),
      flowKey("ratio", `‖update‖ / ‖weight‖ of one SGD step, learning rate ${fmt(flow.lr, 3)}`),
    ),
    chart,
    trainingChart(flow.training, width),
    parameterTable(flow.parameters ?? []),
  );
}

function flowKey(kind, text) {
  return keyOf("rect", { width: 28, height: 10, class: `flowbar ${kind}` }, text);
}

function barChart(layers, width) {
  const values = layers.flatMap((layer) => [layer.grad_norm, layer.ratio]).filter((x) => x > 0);
  if (!values.length) return null;
  const named = Math.min(190, Math.max(...layers.map((layer) => textWidth(layerName(layer)))) + 16);
  const [row, top, right] = [44, 24, 70];
  const h = top + layers.length * row + 8;
  const x = linear(
    [Math.floor(Math.log10(Math.min(...values))) - 0.2, Math.ceil(Math.log10(Math.max(...values)))],
    [named, width - right],
  );
  const drawing = svg("svg", {
    viewBox: `0 0 ${width} ${h}`,
    class: "chart",
    role: "img",
    "aria-label": "gradient norm and update ratio of each layer; the table below has the numbers",
  });
  for (const tick of decades(x.domain)) {
    drawing.append(
      svg("line", { x1: x(tick), x2: x(tick), y1: top - 4, y2: h - 8, class: "rule" }),
      svg("text", { x: x(tick), y: 13, class: "tick", "text-anchor": "middle" }, powerOfTen(tick)),
    );
  }
  layers.forEach((layer, i) => {
    const y = top + i * row;
    drawing.append(
      svg("text", { x: named - 8, y: y + 20, class: "label", "text-anchor": "end" }, shortened(layerName(layer), 26)),
    );
    drawing.append(
      ...flowBar(x, y + 4, layer.grad_norm, "grad", layer),
      ...flowBar(x, y + 21, layer.ratio, "ratio", layer),
    );
  });
  return drawing;
}

function layerName(layer) {
  return layer.layer.replace(/^transformer\./, "") || "(top)";
}

/** A bar with its number; NaN and infinity have a color of their own and reach across. */
function flowBar(x, y, value, kind, layer) {
  const start = x(x.domain[0]);
  if (layer.nan || layer.inf) {
    const text =
      kind === "grad"
        ? [layer.nan ? `${layer.nan} NaN` : "", layer.inf ? `${layer.inf} infinite` : ""].filter(Boolean).join(", ")
        : "–";
    return [
      svg("rect", {
        x: start,
        y,
        width: x(x.domain[1]) - start,
        height: 13,
        class: `flowbar ${layer.nan ? "nan" : "inf"}`,
      }),
      svg("text", { x: start + 6, y: y + 10.5, class: "onbar" }, text),
    ];
  }
  if (!(value > 0)) return [svg("text", { x: start + 4, y: y + 10.5, class: "tick" }, value === 0 ? "0" : "–")];
  const end = x(Math.log10(value));
  return [
    svg("rect", { x: start, y, width: Math.max(1, end - start), height: 13, class: `flowbar ${kind}` }),
    svg("text", { x: end + 6, y: y + 10.5, class: "tick" }, fmt(value, 3)),
  ];
}

function trainingChart(training, width) {
  if (!training) return null;
  const names = Object.keys(training.layers ?? {});
  const lines = names.map((name, i) => ({
    name: name.replace(/^transformer\./, ""),
    class: `c${i % 8}`,
    points: training.steps.map((step, k) => [step, training.layers[name][k]]),
  }));
  const losses = [
    { name: "training loss", class: "c0", points: training.steps.map((step, k) => [step, training.loss[k]]) },
  ];
  if (training.held_out?.length) losses.push({ name: "held-out loss", class: "c1", points: training.held_out });
  const parts = [
    el("h3", {}, "While it was trained"),
    lineKey(losses),
    lineChart({
      lines: losses,
      width,
      xName: "training step",
      yName: "loss, nats per token",
      label: "loss by training step",
    }),
  ];
  if (lines.length)
    parts.push(
      lineKey(lines),
      lineChart({
        lines,
        width,
        log: true,
        xName: "training step",
        yName: "norm of the gradient, log scale",
        label: "gradient norm of each layer by training step",
      }),
    );
  return el("section", {}, parts);
}

function parameterTable(parameters) {
  const rows = parameters.map((p) => {
    const tensor = tensors[p.tensor];
    const grad = gradOf(tensor);
    const odd = p.nan || p.inf ? el("span", { class: "odd" }, oddText(p)) : fmt(p.grad_norm, 3);
    return [
      grad ? go(tensor.name, `steps/${grad.step + 1}`) : tensor.name,
      tensor.shape.join(" × "),
      fmt(p.weight_norm, 3),
      odd,
      fmt(p.ratio, 3),
    ];
  });
  const head = ["parameter", "shape", "‖weight‖", "‖gradient‖", "‖update‖/‖weight‖"];
  return el(
    "details",
    { open: rows.length <= 16 || parameters.some((p) => p.nan || p.inf) },
    el("summary", {}, plural(rows.length, "parameter")),
    table("each parameter", head, rows),
  );
}
