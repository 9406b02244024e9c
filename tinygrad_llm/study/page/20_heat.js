// ---- heat maps: an array as colored cells, with its numbers ---------------------------------------------------------

const CELL = { number: [37, 62], high: [22, 30], most: 24, good: 9, least: 2, gap: 5 };
const MOST_MARKED = 6000; // cells that are drawn with gaps and marks

const WIDE = 48; // columns up to which all leading axes stand side by side

/**
 * How the axes of a shape become rows and columns. The last two are a tile, and further axes repeat it: to the right, or
 * right and down by turns where that gets too wide. Tokens are rows where they are not part of a tile: (B, T, H, D) has a
 * row per token, and the heads side by side.
 */
function layout(shape, axes) {
  const kept = shape.map((_, axis) => axis).filter((axis) => axis >= shape.length - 2 || shape[axis] > 1);
  const size = (list) => list.reduce((product, axis) => product * shape[axis], 1);
  const time = axes?.indexOf("T") ?? -1;
  let rowAxes = [];
  if (kept.length > 2 && kept.includes(time) && time < shape.length - 2) rowAxes = [time];
  else if (kept.length > 1) rowAxes = [shape.length - 2];
  let colAxes = kept.filter((axis) => !rowAxes.includes(axis));
  if (colAxes.length > 2 && size(colAxes) > WIDE) {
    rowAxes = kept.filter((_, i) => (kept.length - i) % 2 === 0);
    colAxes = kept.filter((_, i) => (kept.length - i) % 2 === 1);
  }
  return { rowAxes, colAxes, rows: size(rowAxes), cols: size(colAxes) };
}

/** The index along each of these axes at the n-th row or column. */
function along(n, axes, shape) {
  const index = {};
  for (const axis of [...axes].reverse()) {
    index[axis] = n % shape[axis];
    n = Math.floor(n / shape[axis]);
  }
  return index;
}

/**
 * A heat map of a tensor's values or gradient.
 *
 * options: thing (tensor or grad), scale, width (pixels it may take), mask (flat → hidden), pick (called with a flat
 * index), picked, marks (flat → "a" … : outlined), proved (a Map whose keys are dotted), label (for screen readers),
 * small (little cells, without numbers), later (whoever asked will call mark, which draws).
 */
function heatMap(options) {
  const { thing, scale, label } = options;
  const tensor = "tensor" in thing ? tensors[thing.tensor] : thing;
  const values = numbers(thing);
  const figure = el("figure", { class: "heat" });
  if (!values) {
    figure.append(el("p", { class: "dim" }, "only statistics are kept of this array"));
    return { element: figure, mark() {} };
  }
  const grid = values.full
    ? gridOf(tensor, options.width)
    : { rows: values.rows, cols: values.cols, flat: (r, c) => r * values.cols + c };
  const map = { picked: null, ...options, tensor, values, grid, cursor: null, marks: options.marks ?? new Map() };
  map.hides = values.full ? (options.mask ?? null) : null;
  measure(map);
  map.canvas = el("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heat map",
    "aria-label": `${label}: ${grid.rows} rows, ${grid.cols} columns. Arrow keys read the cells.`,
  });
  map.readout = el("output", { class: "readout", "aria-live": "polite" });
  listen(map);
  const box = el("div", { class: "map" }, map.canvas);
  put(figure, box, el("figcaption", {}, legend(scale), numbersTable(map), map.readout));
  const mark = (marks, picked = null) => {
    Object.assign(map, { marks, picked });
    draw(map);
  };
  if (!options.later) draw(map);
  return { element: figure, mark, map };
}

/**
 * The cells of a tensor: {rows, cols, flat(r, c), …}; flat is −1 where no element stands. Where the tiles do not fit
 * side by side in this width, they are wrapped into bands.
 */
function gridOf(tensor, width = Infinity) {
  const { shape, axes } = tensor;
  const { rowAxes, colAxes, rows, cols } = layout(shape, axes);
  const tileRows = rowAxes.length > 1 ? shape[rowAxes.at(-1)] : rows;
  const tileCols = colAxes.length > 1 ? shape[colAxes.at(-1)] : cols;
  const tiles = cols / tileCols;
  const fitting = Math.max(1, Math.min(tiles, Math.floor((width - 60) / (tileCols * CELL.good + CELL.gap))));
  const bands = rowAxes.length > 1 ? 1 : Math.ceil(tiles / fitting);
  const across = Math.ceil(tiles / bands); // tiles in a band
  const column = (r, c) => Math.floor(r / rows) * across * tileCols + c; // as if there were one band
  const flat = (r, c) => {
    if (column(r, c) >= cols) return -1;
    const at = { ...along(r % rows, rowAxes, shape), ...along(column(r, c), colAxes, shape) };
    return ravel(
      shape.map((_, axis) => at[axis] ?? 0),
      shape,
    );
  };
  return {
    rows: rows * bands,
    cols: across * tileCols,
    flat,
    rowAxes,
    colAxes,
    tileRows,
    tileCols,
    bandRows: rows,
    column,
  };
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

const FONT = "11px system-ui, sans-serif";
const widths = new Map();
const pen = document.createElement("canvas").getContext("2d");

function textWidth(text) {
  if (!widths.has(text)) {
    pen.font = FONT;
    widths.set(text, pen.measureText(text).width);
  }
  return widths.get(text);
}

/** Choose the size of a cell, and the room for labels. */
function measure(map) {
  const { grid, tensor } = map;
  map.rowLabels = grid.rowAxes ? labels(tensor, grid.rowAxes, grid.bandRows) : [];
  map.colLabels = grid.colAxes ? labels(tensor, grid.colAxes.slice(-1), grid.tileCols) : [];
  if (grid.rows * grid.cols === 1) map.rowLabels = map.colLabels = [];
  const words = map.colLabels.some((text, i) => text !== String(i));
  map.left = map.rowLabels.length ? Math.ceil(Math.max(...map.rowLabels.map(textWidth))) + 8 : 0;
  const tiles = grid.tileCols ? grid.cols / grid.tileCols - 1 : 0;
  const room = map.width - map.left - tiles * CELL.gap - 2;
  chooseCell(map, room);
  const longest = map.colLabels.length ? Math.max(...map.colLabels.map(textWidth)) : 0;
  map.upright = words && longest > map.cw - 4;
  map.top = map.colLabels.length && map.cw >= 9 ? (map.upright ? Math.ceil(longest) + 6 : 15) : 0;
  map.titled = tiles > 0 || grid.rows > grid.bandRows;
  if (map.titled) map.top += 15;
  map.x = (c) => map.left + c * map.cw + (map.titled ? Math.floor(c / grid.tileCols) * CELL.gap : 0);
  const tilesDown = grid.tileRows ? Math.floor(grid.bandRows / grid.tileRows) : 1;
  map.y = (r) => {
    const band = grid.bandRows ? Math.floor(r / grid.bandRows) : 0;
    return (
      map.top + r * map.ch + band * (CELL.gap + 15) + (tilesDown > 1 ? Math.floor(r / grid.tileRows) * CELL.gap : 0)
    );
  };
  map.w = map.x(grid.cols - 1) + map.cw + 2;
  map.h = map.y(grid.rows - 1) + map.ch + 2;
}

/** A cell has room for its number, if all fit; a single number gets more. */
function chooseCell(map, room) {
  const { grid } = map;
  map.single = grid.rows * grid.cols === 1;
  map.numbered = map.single || (!map.small && map.values.full && grid.cols * CELL.number[0] <= room && grid.rows <= 40);
  const most = !map.values.full ? CELL.good : map.small ? 16 : CELL.most;
  const side = Math.max(CELL.least, Math.min(most, Math.floor(room / grid.cols)));
  const wide = Math.min(CELL.number[1], Math.floor(room / grid.cols));
  const high = grid.rows > 12 ? CELL.high[0] : Math.min(CELL.high[1], Math.round(wide * 0.48));
  [map.cw, map.ch] = map.single ? [100, 34] : map.numbered ? [wide, high] : [side, side];
}

function labels(tensor, axes, n) {
  return Array.from({ length: n }, (_, i) => {
    const index = along(i, axes, tensor.shape);
    const parts = axes.filter((axis) => tensor.shape[axis] > 1 || axis === axes.at(-1));
    return parts.map((axis) => shortened(axisLabel(tensor, axis, index[axis]), 9)).join("·");
  });
}

/** "head 1", for the tile in which this cell stands. */
function tileTitle(map, r, c) {
  const { tensor, grid } = map;
  const index = along(grid.column(r, c), grid.colAxes, tensor.shape);
  const names = { H: "head", B: "text" };
  return grid.colAxes
    .slice(0, -1)
    .map((axis) => {
      const letter = tensor.axes?.[axis] ?? "";
      if (letter === "3") return "qkv"[index[axis]];
      const label = axisLabel(tensor, axis, index[axis]);
      return label === String(index[axis]) ? `${names[letter] ?? letter} ${label}`.trim() : label;
    })
    .join(" ");
}

// ---- drawing --------------------------------------------------------------------------------------------------------

function draw(map) {
  const { canvas, w, h } = map;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(w * ratio);
  canvas.height = Math.ceil(h * ratio);
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  paint(map, canvasBrush(context));
}

/** The same drawing goes to a canvas or, for export, to SVG. */
function canvasBrush(context) {
  context.font = FONT;
  context.textBaseline = "middle";
  context.lineWidth = 1;
  return {
    rect(x, y, w, h, color) {
      context.fillStyle = color;
      context.fillRect(x, y, w, h);
    },
    box(x, y, w, h, color, width) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(x, y, w, h);
    },
    line(x1, y1, x2, y2, color) {
      context.strokeStyle = color;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      context.stroke();
    },
    dot(x, y, r, color) {
      context.fillStyle = color;
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.fill();
    },
    text(x, y, text, color, align = "center", upright = false) {
      context.fillStyle = color;
      context.textAlign = align;
      if (!upright) return context.fillText(text, x, y);
      context.save();
      context.translate(x, y);
      context.rotate(-Math.PI / 2);
      context.fillText(text, 0, 0);
      return context.restore();
    },
  };
}

function svgBrush(target) {
  const add = (name, attributes, ...children) => target.append(svg(name, attributes, ...children));
  return {
    rect: (x, y, width, height, fill) => add("rect", { x, y, width, height, fill }),
    box: (x, y, width, height, stroke, w) =>
      add("rect", { x, y, width, height, stroke, fill: "none", "stroke-width": w }),
    line: (x1, y1, x2, y2, stroke) => add("line", { x1, y1, x2, y2, stroke }),
    dot: (cx, cy, r, fill) => add("circle", { cx, cy, r, fill }),
    text: (x, y, text, fill, align = "center", upright = false) => {
      const anchor = { center: "middle", left: "start", right: "end" }[align];
      const turn = upright ? `rotate(-90 ${x} ${y})` : null;
      const font = { "font-size": 11, "font-family": "system-ui, sans-serif" };
      add(
        "text",
        { x, y, fill, "text-anchor": anchor, "dominant-baseline": "central", transform: turn, ...font },
        text,
      );
    },
  };
}

function paint(map, brush) {
  const colors = palette();
  const { grid, values, cw, ch } = map;
  const fine = grid.rows * grid.cols <= MOST_MARKED;
  const seam = cw >= 6 && fine ? 1 : 0;
  paintLabels(map, brush);
  for (let r = 0; r < grid.rows; r++) {
    for (let c = 0; c < grid.cols; c++) {
      const flat = grid.flat(r, c);
      if (flat < 0) continue;
      const [x, y] = [map.x(c), map.y(r)];
      const value = values.data[flat];
      const color = cellColor(map, flat, colors);
      brush.rect(x, y, cw - seam, ch - seam, color);
      if (map.hides?.(flat)) paintHatch(brush, x, y, cw - seam, ch - seam, hatchOn(color, colors));
      if (map.numbered) brush.text(x + cw / 2, y + ch / 2, map.single ? fmt(value, 5) : fmtCell(value), inkOn(color));
      else if (!Number.isFinite(value) && cw >= 14 && !map.hides?.(flat))
        brush.text(x + cw / 2, y + ch / 2, Number.isNaN(value) ? "×" : value > 0 ? "∞" : "−∞", inkOn(color));
    }
  }
  if (fine) paintMarks(map, brush, colors);
}

/** What the mask hides has no color of its own, unless a number that is not 0 stands there. */
function cellColor(map, flat, colors) {
  const value = map.values.data[flat];
  const empty = map.hides?.(flat) && (value === 0 || value === -Infinity);
  return empty ? colors.under : colorOf(value, map.scale, colors);
}

/** The color of the hatch: faint over a color, so that the number can be read. */
function hatchOn(color, { under, hatch }) {
  return color === under ? hatch : `${hatch}80`;
}

function paintHatch(brush, x, y, w, h, color) {
  for (let d = 4; d < w + h; d += 7) {
    brush.line(x + Math.max(0, d - h), y + Math.min(h, d), x + Math.min(w, d), y + Math.max(0, d - w), color);
  }
}

function paintLabels(map, brush) {
  const { grid } = map;
  const { dim } = palette();
  const every = Math.max(1, Math.ceil(12 / map.ch));
  for (let r = 0; r < grid.rows && map.rowLabels.length; r += every) {
    brush.text(map.left - 5, map.y(r) + map.ch / 2, map.rowLabels[r % grid.bandRows], dim, "right");
  }
  if (map.top > (map.titled ? 15 : 0)) {
    const skip = map.upright
      ? Math.ceil(12 / map.cw)
      : Math.ceil((Math.max(...map.colLabels.map(textWidth)) + 3) / map.cw);
    for (let c = 0; c < grid.cols; c++) {
      const place = c % (grid.tileCols || grid.cols);
      if (place % skip) continue;
      const x = map.x(c) + map.cw / 2;
      if (map.upright) brush.text(x, map.top - 4, map.colLabels[place], dim, "left", true);
      else brush.text(x, map.top - 7, map.colLabels[place], dim);
    }
  }
  if (map.titled) paintTitles(map, brush, dim);
}

function paintTitles(map, brush, dim) {
  const { grid } = map;
  for (let r = 0; r < grid.rows; r += grid.bandRows) {
    for (let c = 0; c < grid.cols; c += grid.tileCols) {
      if (grid.flat(r, c) < 0) continue;
      const title = tileTitle(map, r, c);
      const text = [title, title.replace("head ", "h"), title.split(" ").at(-1)].find(
        (t) => textWidth(t) < grid.tileCols * map.cw + CELL.gap - 2,
      );
      if (text) brush.text(map.x(c), r ? map.y(r) - 8 : 7, text, dim, "left");
    }
  }
}

function paintMarks(map, brush, colors) {
  const { grid, cw, ch } = map;
  const wanted = map.marks.size || map.picked !== null || map.cursor !== null;
  if (!wanted && !map.proved) return;
  for (let r = 0; r < grid.rows; r++) {
    for (let c = 0; c < grid.cols; c++) {
      const flat = grid.flat(r, c);
      if (flat < 0) continue;
      const [x, y] = [map.x(c), map.y(r)];
      if (map.proved?.has(flat) && cw >= 12) brush.dot(x + cw - 4.5, y + 3.5, 1.5, inkOn(cellColor(map, flat, colors)));
      const here = flat === map.picked || flat === map.cursor;
      if (!here && !map.marks.has(flat)) continue;
      brush.box(x + 0.5, y + 0.5, cw - 2, ch - 2, colors.paper, here ? 4 : 3);
      brush.box(x + 0.5, y + 0.5, cw - 2, ch - 2, colors.ink, here ? 2.5 : 1.25);
    }
  }
}

// ---- reading and picking --------------------------------------------------------------------------------------------

function listen(map) {
  const { canvas, grid } = map;
  const at = (event) => {
    const c = cellAt(event.offsetX, grid.cols, map.x, map.cw);
    const r = cellAt(event.offsetY, grid.rows, map.y, map.ch);
    return r === null || c === null || grid.flat(r, c) < 0 ? null : [r, c];
  };
  canvas.addEventListener("pointermove", (event) => {
    const cell = at(event);
    map.readout.textContent = cell ? readoutText(map, grid.flat(...cell)) : "";
    canvas.style.cursor = cell && map.pick ? "pointer" : "default";
  });
  canvas.addEventListener("pointerleave", () => (map.readout.textContent = ""));
  let [row, col] = [0, 0];
  let clicked = false; // after a click the arrows still move the steps, and with Shift the cell
  const read = () => {
    map.cursor = grid.flat(row, col);
    map.readout.textContent = readoutText(map, map.cursor);
    draw(map);
  };
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && read());
  canvas.addEventListener("pointerdown", () => (clicked = true));
  canvas.addEventListener("click", (event) => {
    const cell = at(event);
    if (!cell) return;
    [row, col] = cell;
    map.cursor = null;
    map.pick?.(grid.flat(...cell));
  });
  canvas.addEventListener("blur", () => {
    clicked = false;
    map.cursor = null;
    draw(map);
  });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = moves[event.key];
    if (clicked && !event.shiftKey && current === "steps") return;
    if (move) {
      row = Math.min(grid.rows - 1, Math.max(0, row + move[0]));
      col = Math.min(grid.cols - 1, Math.max(0, col + move[1]));
      read();
      if (clicked) map.pick?.(map.cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      map.pick?.(grid.flat(row, col));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
}

function cellAt(place, n, start, size) {
  for (let i = 0; i < n; i++) {
    if (place >= start(i) && place < start(i) + size) return i;
  }
  return null;
}

function readoutText(map, flat) {
  if (flat < 0) return "";
  const { tensor, values } = map;
  if (!values.full) return `largest of ${values.cell.join(" × ")} elements: ${fmt(values.data[flat])}`;
  const about = values.rounded ? "≈ " : "";
  const hidden = map.hides?.(flat) ? ", hidden by the mask" : "";
  return `${indexText(tensor, flat)} = ${about}${fmt(values.data[flat], values.rounded ? 3 : 6)}${hidden}`.trim();
}

/** The numbers as a table, made when it is opened. */
function numbersTable(map) {
  const { grid, values } = map;
  if (grid.rows * grid.cols > 2000) return null;
  const details = el("details", { class: "numbers" }, el("summary", {}, "numbers"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const name = (texts, i) => texts[i % texts.length] ?? String(i);
    const head = ["", ...Array.from({ length: grid.cols }, (_, c) => name(map.colLabels, c))];
    const rows = Array.from({ length: grid.rows }, (_, r) => [
      map.rowLabels[r % map.rowLabels.length] ?? String(r),
      ...Array.from({ length: grid.cols }, (_, c) => {
        const flat = grid.flat(r, c);
        if (flat < 0) return "";
        return fmt(values.data[flat], 5) + (map.hides?.(flat) ? " (masked)" : "");
      }),
    ]);
    details.append(table(map.label, head, rows));
  });
  return details;
}

/** A small picture of an array, without numbers: its shape and pattern at a glance. */
function thumbnail(thing, scale, width, height) {
  const values = numbers(thing);
  if (!values) return el("span", { class: "thumb empty" });
  const tensor = "tensor" in thing ? tensors[thing.tensor] : thing;
  const grid = values.full
    ? gridOf(tensor)
    : { rows: values.rows, cols: values.cols, flat: (r, c) => r * values.cols + c };
  const hides = values.full ? maskOf(tensor, "tensor" in thing) : null;
  const ratio = window.devicePixelRatio || 1;
  if (grid.rows * grid.cols === 1) return el("span", { class: "thumb alone" }, fmt(values.data[0], 3));
  const side = Math.max(1, Math.min(height / grid.rows, width / grid.cols, 12));
  const [w, h] = [Math.min(width, grid.cols * side), Math.min(height, grid.rows * side)];
  const canvas = el("canvas", {
    class: "thumb",
    width: Math.round(w * ratio),
    height: Math.round(h * ratio),
    "aria-hidden": "true",
  });
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  const context = canvas.getContext("2d");
  const [colors, brush] = [palette(), canvasBrush(context)];
  const [cw, ch] = [canvas.width / grid.cols, canvas.height / grid.rows];
  const [everyR, everyC] = [Math.max(1, Math.floor(1 / ch)), Math.max(1, Math.floor(1 / cw))]; // not more cells than pixels
  for (let r = 0; r < grid.rows; r += everyR) {
    for (let c = 0; c < grid.cols; c += everyC) {
      const flat = grid.flat(r, c);
      if (flat < 0) continue;
      const [x, y, wide, high] = [
        Math.floor(c * cw),
        Math.floor(r * ch),
        Math.ceil(cw * everyC),
        Math.ceil(ch * everyR),
      ];
      context.fillStyle = cellColor({ values, scale, hides }, flat, colors);
      context.fillRect(x, y, wide, high);
      if (hides?.(flat) && cw >= 4) paintHatch(brush, x, y, wide, high, colors.hatch);
    }
  }
  return canvas;
}
