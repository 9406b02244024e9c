// ---- the map: modules as an outline, and the tensors between them as lanes, like the history of a repository --------
// A row is an operation, or a module that is folded. A lane carries one tensor down to its last use; backward runs up the
// same lane, and its width there is the logarithm of the gradient's norm. The residual stream keeps the lane on the left.

const LANE = { row: 36, step: 22, left: 16, thin: 1, thick: 12 };
const openModules = new Set();
let mapStarted = false;

function mapView(_, width) {
  if (!mapStarted) unfoldFirst();
  mapStarted = true;
  const rows = mapRows();
  const lanes = mapLanes(rows);
  const drawing = drawLanes(rows, lanes);
  const list = el(
    "ol",
    { class: "rows" },
    rows.map((row) => mapRow(row, lanes)),
  );
  list.style.paddingLeft = `${lanes.width}px`;
  drawing.style.height = `${rows.length * LANE.row}px`;
  return el(
    "section",
    { class: "map-view" },
    viewHead(
      "The model",
      "Data runs down, gradients run back up. The wider a lane, the larger the gradient in it (log scale).",
      exportButton("map", () => drawLanes(rows, lanes, true, width)),
    ),
    el(
      "p",
      { class: "keys" },
      laneKey("residual", "residual stream: goes on unchanged"),
      laneKey("branch", "branch: added to the stream"),
      laneKey("plain", "other"),
      laneKey("nograd", "no gradient"),
    ),
    modules.size > 1 ? foldControls() : null,
    el(
      "div",
      {},
      el(
        "p",
        { class: "rows-head", "aria-hidden": "true" },
        el("span", {}, "values"),
        el("span", {}, "gradient"),
        el("span", {}, "its norm"),
      ),
      el("div", { class: "lanes" }, drawing, list),
    ),
  );
}

function viewHead(title, text, ...buttons) {
  return el(
    "header",
    { class: "view-head" },
    el("h2", {}, title, " ", buttons),
    text ? el("p", { class: "say" }, text) : null,
  );
}

function laneKey(kind, text) {
  return keyOf("path", { d: "M0 5H28", class: `lane ${kind}`, "stroke-width": 4 }, text);
}

// ---- which rows are there -------------------------------------------------------------------------------------------

const modules = new Map((trace.map?.modules ?? []).map((module) => [module.path, module]));

/** The modules around a layer, from the outermost in, without the root. */
function around(layer) {
  const paths = [];
  for (let path = layer; path; path = modules.get(path)?.parent ?? path.split(".").slice(0, -1).join(".")) {
    if (modules.has(path)) paths.unshift(path);
  }
  return paths;
}

/** Unfold level by level as long as the map stays short. */
function unfoldFirst() {
  for (let depth = 1; depth < 8; depth++) {
    const level = [...modules.keys()].filter((path) => path && around(path).length === depth);
    const before = new Set(openModules);
    level.forEach((path) => openModules.add(path));
    if (mapRows().length <= 40) continue;
    openModules.clear();
    before.forEach((path) => openModules.add(path));
    const block = level.find((path) => before.has(modules.get(path).parent ?? ""));
    if (block && mapRows().length <= 30) openModules.add(block);
    return;
  }
}

function foldControls() {
  const controls = [button("Unfold all", () => unfoldAll(true)), button("Fold all", () => unfoldAll(false))];
  return el("p", { class: "controls" }, controls);
}

function unfoldAll(open) {
  openModules.clear();
  if (open) [...modules.keys()].forEach((path) => openModules.add(path));
  refresh();
}

/** Leaves that deserve a row: used more than once (a tied embedding), or the start of a residual stream. */
function leafRows() {
  const uses = new Map();
  for (const edge of trace.map?.edges ?? []) {
    if (edge.from !== null || edge.norm === null) continue;
    uses.set(edge.tensor, [...(uses.get(edge.tensor) ?? []), edge]);
  }
  return [...uses]
    .filter(([, edges]) => edges.length > 1 || edges.some((edge) => edge.kind === "residual"))
    .map(([tensor]) => tensor);
}

function mapRows() {
  const rows = leafRows().map((tensor) => ({ kind: "leaf", tensor, depth: 0, open: false, steps: [] }));
  let inside = [];
  for (const step of forwardSteps) {
    const paths = around(step.layer);
    const folded = paths.find((path) => !openModules.has(path));
    const depth = folded ? paths.indexOf(folded) : paths.length;
    const open = paths.slice(0, depth);
    open.forEach((path, level) => {
      if (inside[level] !== path) rows.push({ kind: "module", path, depth: level, open: true, steps: [] });
    });
    inside = open;
    const last = rows.at(-1);
    if (folded && last?.path === folded && !last.open) last.steps.push(step.i);
    else rows.push({ kind: folded ? "module" : "op", path: folded, depth, open: false, steps: [step.i] });
  }
  return rows;
}

// ---- which lane carries which tensor --------------------------------------------------------------------------------

function mapLanes(rows) {
  const rowOfStep = new Map(rows.flatMap((row, r) => row.steps.map((i) => [i, r])));
  const rowOfLeaf = new Map(rows.flatMap((row, r) => (row.kind === "leaf" ? [[row.tensor, r]] : [])));
  const flows = new Map(); // tensor → {from, ends: [{row, kind, norm}], stream}
  for (const edge of trace.map?.edges ?? []) {
    const [from, to] = [
      edge.from === null ? rowOfLeaf.get(edge.tensor) : rowOfStep.get(edge.from),
      rowOfStep.get(edge.to),
    ];
    if (from === undefined || from === to) continue;
    const flow = flows.get(edge.tensor) ?? { tensor: edge.tensor, from, ends: new Map(), stream: false };
    flows.set(edge.tensor, flow);
    flow.ends.set(to, edge);
    flow.stream ||= edge.kind === "residual";
  }
  for (const step of forwardSteps) if (step.residual && flows.has(step.output)) flows.get(step.output).stream = true;
  const streams = [...flows.values()].some((flow) => flow.stream);
  const busy = []; // lane → the row until which it is taken
  for (const flow of [...flows.values()].sort((f, h) => f.from - h.from)) {
    flow.to = Math.max(...flow.ends.keys());
    let lane = streams && !flow.stream ? 1 : 0;
    while (!(flow.stream && lane === 0) && (busy[lane] ?? -1) > flow.from) lane++;
    flow.lane = lane;
    busy[lane] = Math.max(busy[lane] ?? -1, flow.to);
  }
  const place = rows.map((row) =>
    Math.min(...[...flows.values()].filter((flow) => rows[flow.from] === row).map((flow) => flow.lane)),
  );
  rows.forEach((row, r) => {
    if (!Number.isFinite(place[r]) && row.steps.length)
      place[r] = Math.min(...[...flows.values()].filter((flow) => flow.ends.has(r)).map((flow) => flow.lane), 9);
  });
  const norms = [...flows.values()]
    .flatMap((flow) => [...flow.ends.values()])
    .map((edge) => edge.log10)
    .filter((x) => x !== null);
  const most = Math.max(0, ...[...flows.values()].map((flow) => flow.lane));
  return {
    flows: [...flows.values()],
    place,
    norms: norms.length ? extent(norms) : [0, 1],
    width: LANE.left * 2 + most * LANE.step + 6,
  };
}

function thickness(log10, [low, high]) {
  if (log10 === null || log10 === undefined) return 1.5;
  return LANE.thin + (LANE.thick - LANE.thin) * (high > low ? (log10 - low) / (high - low) : 0.5);
}

function drawLanes(rows, lanes, texts = false, width = 800) {
  const h = rows.length * LANE.row;
  const w = texts ? Math.max(width, 640) : lanes.width;
  const drawing = svg("svg", {
    viewBox: `0 0 ${w} ${h}`,
    width: w,
    height: h,
    class: "map-lanes",
    "aria-hidden": texts ? null : "true",
  });
  const x = (lane) => LANE.left + lane * LANE.step;
  const y = (row) => row * LANE.row + LANE.row / 2;
  const strokes = lanes.flows.flatMap((flow) => [...flow.ends].map(([row, edge]) => ({ flow, row, edge })));
  strokes.sort((a, b) => thickness(b.edge.log10, lanes.norms) - thickness(a.edge.log10, lanes.norms));
  for (const { flow, row, edge } of strokes) {
    const [start, lane, end] = [x(lanes.place[flow.from]), x(flow.lane), x(lanes.place[row])];
    const [top, bottom, bend] = [y(flow.from), y(row), LANE.row * 0.8];
    const leave =
      start === lane
        ? `M${lane} ${end !== lane && row < flow.to ? bottom - bend : top}` // a branch begins where it leaves the lane
        : `M${start} ${top}C${start} ${top + bend / 2} ${lane} ${top + bend / 2} ${lane} ${top + bend}`;
    const arrive =
      end === lane
        ? `V${bottom}`
        : `V${bottom - bend}C${lane} ${bottom - bend / 2} ${end} ${bottom - bend / 2} ${end} ${bottom}`;
    const kind =
      edge.norm === null
        ? "nograd"
        : edge.kind === "plain" && flow.stream && edge.kind !== "branch"
          ? "read"
          : edge.kind;
    const line = svg("path", {
      d: leave + arrive,
      class: `lane ${kind}`,
      "stroke-width": thickness(edge.log10, lanes.norms).toFixed(1),
    });
    line.append(svg("title", {}, `${tensors[flow.tensor].name}, gradient norm ${fmt(edge.norm, 3)}`));
    drawing.append(line);
  }
  rows.forEach((row, r) => {
    if (!row.steps.length && row.kind !== "leaf") return;
    const at = { cx: x(lanes.place[r]), cy: y(r) };
    const residual = row.kind === "op" && steps[row.steps[0]].residual;
    drawing.append(
      svg("circle", { ...at, r: residual ? 8 : row.kind === "module" ? 7 : 5, class: `node ${row.kind}` }),
    );
    if (residual) drawing.append(svg("path", { d: `M${at.cx - 4} ${at.cy}h8M${at.cx} ${at.cy - 4}v8`, class: "plus" }));
    if (row.kind === "module") drawing.append(svg("circle", { ...at, r: 2.5, class: "inner" }));
  });
  if (texts)
    rows.forEach((row, r) =>
      drawing.append(svg("text", { x: lanes.width + row.depth * 14, y: y(r) + 4, class: "label" }, rowText(row))),
    );
  return drawing;
}

// ---- the text of a row ----------------------------------------------------------------------------------------------

function rowText(row) {
  if (row.kind === "leaf") return `${tensors[row.tensor].name} (${tensors[row.tensor].role})`;
  if (row.kind === "op") return `${steps[row.steps[0]].kernel} → ${tensors[steps[row.steps[0]].output].name}`;
  const module = modules.get(row.path);
  return `${module.name}: ${module.class}`;
}

function mapRow(row) {
  const item = el("li", { class: `kind-${row.kind}` });
  item.style.height = `${LANE.row}px`;
  const step = row.steps.length ? steps[row.steps.at(-1)] : null;
  const output = row.kind === "leaf" ? tensors[row.tensor] : step && !row.open ? tensors[step.output] : null;
  const texts = { module: moduleTexts, op: operationTexts, leaf: leafTexts }[row.kind](row, step, output);
  const box = el("div", { class: "row" }, texts, pictures(output), gradientBadge(output));
  box.style.paddingLeft = `${row.depth * 14}px`;
  return put(item, box);
}

function moduleTexts(row) {
  const module = modules.get(row.path);
  const fold = () => {
    if (openModules.has(row.path)) openModules.delete(row.path);
    else openModules.add(row.path);
    refresh();
  };
  const sign = el("span", { "aria-hidden": "true" }, row.open ? "▾" : "▸");
  return [
    button([sign, el("b", {}, module.name), el("span", { class: "dim" }, module.class)], fold, {
      class: "fold",
      "aria-expanded": String(row.open),
      "data-key": row.path,
    }),
    el("span", { class: "dim more" }, module.parameters ? `${module.parameters.toLocaleString("en")} parameters` : ""),
  ];
}

function operationTexts(row, step, output) {
  const residual =
    step.residual &&
    `residual: ${shortName(tensors[step.residual.stream])} + ${shortName(tensors[step.residual.branch])}`;
  return [
    go(step.kernel, `steps/${step.i + 1}`, { class: "op" }),
    el("span", { class: "name" }, shortName(output)),
    el("span", { class: "dim more" }, [shapeText(output), residual].filter(Boolean).join(", ")),
    el("code", { class: "dim line-of" }, step.line ?? ""),
  ];
}

function leafTexts(row, step, output) {
  const uses = plural((output.used_by ?? []).length, "use");
  return [
    el("span", { class: "name" }, output.name),
    el("span", { class: "dim more" }, `${shapeText(output)}, ${output.role}, ${uses}`),
  ];
}

/** The values of a tensor and its gradient, in small. */
function pictures(tensor) {
  if (!tensor) return null;
  const grad = gradOf(tensor);
  return el(
    "span",
    { class: "pictures" },
    thumbnail(tensor, valueScale(tensor), 72, 28),
    grad ? thumbnail(grad, signedScale(grad.stats), 72, 28) : null,
  );
}

/** ‖∂L‖ of a tensor, which leads to the step in which it is made. */
function gradientBadge(tensor) {
  const grad = tensor && gradOf(tensor);
  if (!grad) return null;
  const odd = grad.stats.nan || grad.stats.inf;
  return go(odd ? oddText(grad.stats) : fmt(grad.stats.norm, 3), `steps/${grad.step + 1}`, {
    class: odd ? "badge odd" : "badge",
    title: `the gradient of ${tensor.name}`,
    "aria-label": `norm of the gradient of ${tensor.name}: ${fmt(grad.stats.norm, 3)}`,
  });
}
