// ---- heat maps: an array as colored cells, with its numbers ---------------------------------------------------------

const CELL = { number: [37, 62], high: [22, 30], most: 24, good: 9, least: 2, gap: 5 };
const MOST_MARKED = 6000; // cells that are drawn with gaps and marks
const WINDOW = 410; // pixels of height that are drawn, and those of the width that there is: a larger map scrolls

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
 * small (little cells, without numbers), whole (a large map does not scroll), later (whoever asked will call mark, which
 * draws).
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
  const grid = values.full ? gridOf(tensor, options.width) : plainGrid(values);
  const map = { picked: null, across: 0, down: 0, ...options, tensor, values, grid, cursor: null };
  map.marks = options.marks ?? new Map();
  map.hides = values.full ? (options.mask ?? null) : null;
  map.odd = Boolean(thing.stats.nan || thing.stats.inf);
  measure(map);
  map.canvas = el("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heat map",
    "aria-label": `${label}: ${grid.rows} rows, ${grid.cols} columns. Arrow keys read the cells.`,
  });
  map.readout = el("output", { class: "readout", "aria-live": "polite" });
  listen(map);
  const sheet = el("div", { class: "whole-map" }, map.canvas);
  [sheet.style.width, sheet.style.height] = [`${map.w}px`, `${map.h}px`];
  map.box = el("div", { class: "map" }, sheet);
  map.box.addEventListener("scroll", () => {
    const { scrollLeft, scrollTop } = map.box;
    const [w, h] = sightOf(map);
    const [across, down] = [Math.min(scrollLeft, map.w - w), Math.min(scrollTop, map.h - h)]; // of the canvas
    if (across === map.across && down === map.down) return;
    Object.assign(map, { across, down });
    draw(map);
  });
  put(figure, map.box, el("figcaption", {}, legend(scale), numbersTable(map), map.readout));
  const mark = (marks, picked = null) => {
    Object.assign(map, { marks, picked });
    draw(map);
  };
  if (!options.later) draw(map);
  return { element: figure, mark, map };
}

/** The cells of a map that Python has made. */
function plainGrid({ rows, cols }) {
  return { rows, cols, flat: (r, c) => r * cols + c, place: (flat) => [Math.floor(flat / cols), flat % cols] };
}

/** The flat index that each row or column adds to an element's: of the n-th index along these axes, all others 0. */
function offsets(axes, shape) {
  return axes.reduce(
    (outer, axis) => {
      const step = count(shape.slice(axis + 1));
      return outer.flatMap((from) => Array.from({ length: shape[axis] }, (_, i) => from + i * step));
    },
    [0],
  );
}

/**
 * The cells of a tensor: {rows, cols, flat(r, c), place(flat), …}; flat is −1 where no element stands, and place is the
 * [row, column] of an element. Where the tiles do not fit side by side in this width, they are wrapped into bands.
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
  const wide = across * tileCols;
  const column = (r, c) => Math.floor(r / rows) * wide + c; // as if there were one band
  const [down, right] = [offsets(rowAxes, shape), offsets(colAxes, shape)];
  const flat = (r, c) => (column(r, c) < cols ? down[r % rows] + right[column(r, c)] : -1);
  const place = (at) => {
    const index = unravel(at, shape);
    const [r, c] = [rowAxes, colAxes].map((list) => list.reduce((n, axis) => n * shape[axis] + index[axis], 0));
    return [r + Math.floor(c / wide) * rows, c % wide];
  };
  return {
    rows: rows * bands,
    cols: wide,
    flat,
    place,
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

/** The width of the widest text, sought among the longest ones: measuring 2,000 takes longer than to draw a map. */
function widest(texts) {
  const longest = [...texts].sort((a, b) => b.length - a.length).slice(0, 40);
  return Math.max(0, ...longest.map(textWidth));
}

/** Choose the size of a cell, and the room for labels. */
function measure(map) {
  const { grid, tensor } = map;
  map.rowLabels = grid.rowAxes ? labels(tensor, grid.rowAxes, grid.bandRows) : [];
  map.colLabels = grid.tileCols <= 200 ? labels(tensor, grid.colAxes.slice(-1), grid.tileCols) : []; // more never fit
  if (grid.rows * grid.cols === 1) map.rowLabels = map.colLabels = [];
  const words = map.colLabels.some((text, i) => text !== String(i));
  map.left = map.rowLabels.length ? Math.ceil(widest(map.rowLabels)) + 8 : 0;
  const tiles = grid.tileCols ? grid.cols / grid.tileCols - 1 : 0;
  const room = map.width - map.left - tiles * CELL.gap - 2;
  chooseCell(map, room);
  const longest = widest(map.colLabels);
  map.upright = words && longest > map.cw - 4;
  const over = map.rowLabels.length && map.ch < 11 ? 5 : 0; // a label that is higher than its row
  map.top = map.colLabels.length && map.cw >= 9 ? (map.upright ? Math.ceil(longest) + 6 : 15) : over;
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
  map.h = map.y(grid.rows - 1) + map.ch + 2 + over;
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
  [map.cw, map.ch] = map.single ? [100, 34] : map.numbered ? [wide, high] : [side, stretched(grid, side, 12, 200)];
}

/** The height of a cell: where a tile is much wider than high, more than its width, so that its rows can be told apart. */
function stretched(grid, side, most, all) {
  const flat = (grid.tileCols ?? grid.cols) > 2 * (grid.bandRows ?? grid.rows);
  return flat ? Math.max(side, Math.min(most, Math.floor(all / grid.rows))) : side;
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

/** How much of a map is in sight: [width, height]. */
function sightOf(map) {
  return map.whole ? [map.w, map.h] : [Math.min(map.w, map.width + 12), Math.min(map.h, WINDOW)];
}

/** Draw what is in sight of a map; the canvas stays there while the sheet below it scrolls. */
function draw(map) {
  const { canvas, across, down } = map;
  const [w, h] = sightOf(map);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(w * ratio);
  canvas.height = Math.ceil(h * ratio);
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, -across * ratio, -down * ratio);
  paint(map, canvasBrush(context, ratio));
}

/** The same drawing goes to a canvas of so many pixels per unit or, for export, to SVG. */
function canvasBrush(context, ratio) {
  context.font = FONT;
  context.textBaseline = "middle";
  const { e, f } = context.getTransform();
  const [shift, sides] = [
    [e, f],
    [context.canvas.width, context.canvas.height],
  ];
  return {
    /** Whether something is on the canvas; axis: 0 for x, 1 for y. */
    sees: (start, size, axis) => (start + size) * ratio + shift[axis] > 0 && start * ratio + shift[axis] < sides[axis],
    cells: (map, seam) => putCells(context, map, seam, ratio),
    hatch(x, y, w, h, color) {
      context.fillStyle = hatchPattern(context, color, ratio);
      context.fillRect(x, y, w, h);
    },
    box(x, y, w, h, color, width) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(x, y, w, h);
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
    cells(map, seam) {
      const { table } = palette();
      eachCell(map, {}, (flat, x, y) => {
        add("rect", { x, y, width: map.cw - seam, height: map.ch - seam, fill: table[cellColor(map, flat)] });
      });
    },
    hatch(x, y, w, h, stroke) {
      for (let d = 4; d < w + h; d += HATCH) {
        const [x1, y1] = [x + Math.max(0, d - h), y + Math.min(h, d)];
        add("line", { x1, y1, x2: x + Math.min(w, d), y2: y + Math.max(0, d - w), stroke });
      }
    },
    box: (x, y, width, height, stroke, w) =>
      add("rect", { x, y, width, height, stroke, fill: "none", "stroke-width": w }),
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

/** Call visit(flat, x, y) for each cell that a brush sees. */
function eachCell({ grid, x, y, cw, ch }, { sees }, visit) {
  const columns = range(grid.cols)
    .map((c) => [c, x(c)])
    .filter(([, left]) => !sees || sees(left, cw, 0));
  for (let r = 0; r < grid.rows; r++) {
    const top = y(r);
    if (sees && !sees(top, ch, 1)) continue;
    for (const [c, left] of columns) {
      const flat = grid.flat(r, c);
      if (flat >= 0) visit(flat, left, top);
    }
  }
}

function paint(map, brush) {
  const colors = palette();
  const { grid, values, hides, cw, ch } = map;
  const fine = grid.rows * grid.cols <= MOST_MARKED;
  const seam = cw >= 6 && fine ? 1 : 0;
  brush.cells(map, seam);
  if (hides) paintHatches(map, brush, colors, seam);
  paintLabels(map, brush);
  if (map.numbered || map.odd)
    eachCell(map, brush, (flat, x, y) => {
      const value = values.data[flat];
      const color = colors.table[cellColor(map, flat)];
      if (map.numbered) brush.text(x + cw / 2, y + ch / 2, map.single ? fmt(value, 5) : fmtCell(value), inkOn(color));
      else if (!Number.isFinite(value) && cw >= 14 && !hides?.(flat))
        brush.text(x + cw / 2, y + ch / 2, Number.isNaN(value) ? "×" : value > 0 ? "∞" : "−∞", inkOn(color));
    });
  if (fine) paintMarks(map, brush, colors);
}

/** The place of a cell's color. What the mask hides has none, unless a number that is not 0 stands there. */
function cellColor(map, flat) {
  const value = map.values.data[flat];
  const empty = (value === 0 || value === -Infinity) && map.hides?.(flat);
  return empty ? UNDER : colorPlace(value, map.scale);
}

/** All cells at once, pixel by pixel: so a map of 200,000 cells takes milliseconds. */
function putCells(context, map, seam, ratio) {
  const { grid, cw, ch } = map;
  const { width, height } = context.canvas;
  const columns = pixelsOf(grid.cols, width, (c) => map.x(c) - map.across, cw - seam, ratio);
  const rows = pixelsOf(grid.rows, height, (r) => map.y(r) - map.down, ch - seam, ratio);
  const image = emptyImage(width, height);
  const pixels = new Uint32Array(image.data.buffer, 0, width * height);
  const colors = palette().pixels;
  for (let top = 0; top < height; top++) {
    const [r, at] = [rows[top], top * width];
    if (r < 0) continue;
    if (top && rows[top - 1] === r) {
      pixels.copyWithin(at, at - width, at);
      continue;
    }
    for (let left = 0; left < width; left++) {
      const c = columns[left];
      if (c < 0) continue;
      if (left && columns[left - 1] === c) {
        pixels[at + left] = pixels[at + left - 1];
        continue;
      }
      const flat = grid.flat(r, c);
      if (flat >= 0) pixels[at + left] = colors[cellColor(map, flat)];
    }
  }
  context.putImageData(image, 0, 0);
}

let scratch = new ArrayBuffer(0);

/** Transparent pixels, in memory that the next call reuses: a new image for each map keeps the garbage collector busy. */
function emptyImage(width, height) {
  const size = 4 * width * height;
  if (scratch.byteLength < size) scratch = new ArrayBuffer(2 * size);
  return new ImageData(new Uint8ClampedArray(scratch, 0, size).fill(0), width, height);
}

/** Which of n cells each pixel shows, along one axis; −1 is between them. */
function pixelsOf(n, length, start, size, ratio) {
  const found = new Int32Array(length).fill(-1);
  for (let i = 0; i < n; i++) {
    const from = Math.round(start(i) * ratio);
    const end = Math.max(from + 1, Math.round((start(i) + size) * ratio));
    if (end > 0) found.fill(i, Math.max(0, from), end);
  }
  return found;
}

/** Hatch what the mask hides; cells that touch each other at once. */
function paintHatches(map, brush, colors, seam) {
  let run = { w: 0 };
  const hatch = () => run.w && brush.hatch(run.x, run.y, run.w, map.ch - seam, run.color);
  eachCell(map, brush, (flat, x, y) => {
    if (!map.hides(flat)) return;
    const color = hatchOn(colors.table[cellColor(map, flat)], colors);
    if (run.y === y && run.x + run.w === x && run.color === color) run.w += map.cw;
    else {
      hatch();
      run = { x, y, w: map.cw - seam, color };
    }
  });
  hatch();
}

/** The color of the hatch: faint over a color, so that the number can be read. */
function hatchOn(color, { under, hatch }) {
  return color === under ? hatch : `${hatch}80`;
}

const HATCH = 7; // from line to line
const patterns = new Map();

/** Diagonal lines that continue from cell to cell. */
function hatchPattern(context, color, ratio) {
  const key = `${color} ${ratio}`;
  if (!patterns.has(key)) {
    const side = Math.round(HATCH * ratio);
    const tile = el("canvas", { width: side, height: side }).getContext("2d");
    tile.strokeStyle = color;
    tile.lineWidth = ratio;
    for (const d of [0, side, 2 * side]) {
      tile.moveTo(d + 1, -1);
      tile.lineTo(-1, d + 1);
    }
    tile.stroke();
    const pattern = context.createPattern(tile.canvas, "repeat");
    pattern.setTransform(new DOMMatrix().scale(HATCH / side));
    patterns.set(key, pattern);
  }
  return patterns.get(key);
}

function paintLabels(map, brush) {
  const { grid } = map;
  const { dim } = palette();
  const every = [1, 2, 5, 10].find((n) => n * map.ch >= 12);
  for (let r = 0; r < grid.rows && map.rowLabels.length; r += every) {
    brush.text(map.left - 5, map.y(r) + map.ch / 2, map.rowLabels[r % grid.bandRows], dim, "right");
  }
  if (map.colLabels.length && map.cw >= 9) {
    const skip = map.upright ? Math.ceil(12 / map.cw) : Math.ceil((widest(map.colLabels) + 3) / map.cw);
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
  const corner = (flat) => {
    const [r, c] = grid.place(flat);
    return [map.x(c), map.y(r)];
  };
  for (const flat of cw >= 12 ? (map.proved?.keys() ?? []) : []) {
    const [x, y] = corner(flat);
    brush.dot(x + cw - 4.5, y + 3.5, 1.5, inkOn(colors.table[cellColor(map, flat)]));
  }
  const chosen = [map.picked, map.cursor].filter((flat) => flat !== null && flat >= 0);
  const outline = (x, y, w, h, wide) => {
    brush.box(x + 0.5, y + 0.5, w - 2, h - 2, colors.paper, wide + 1.6);
    brush.box(x + 0.5, y + 0.5, w - 2, h - 2, colors.ink, wide);
  };
  const marked = [...map.marks.keys()].filter((flat) => !chosen.includes(flat));
  if (cw >= 6) marked.forEach((flat) => outline(...corner(flat), cw, ch, 1.25));
  else
    for (const [r, c, last, end] of markedBlocks(marked.map(grid.place)))
      outline(map.x(c) - 1, map.y(r) - 1, map.x(end) + cw - map.x(c) + 3, map.y(last) + ch - map.y(r) + 3, 1.25);
  chosen.forEach((flat) => outline(...corner(flat), Math.max(cw, 5), Math.max(ch, 5), 2.5));
}

/** Rectangles of neighbors, [row, column, last row, last column], because an outline would hide a cell of two pixels. */
function markedBlocks(places) {
  const runs = [];
  for (const [r, c] of places.sort(([r1, c1], [r2, c2]) => r1 - r2 || c1 - c2)) {
    const run = runs.at(-1);
    if (run?.[0] === r && run[3] === c - 1) run[3] = c;
    else runs.push([r, c, r, c]);
  }
  const blocks = new Map(); // columns → the last block there
  return runs.filter((run) => {
    const key = `${run[1]} ${run[3]}`;
    const above = blocks.get(key);
    if (above?.[2] === run[0] - 1) {
      above[2] = run[0];
      return false;
    }
    blocks.set(key, run);
    return true;
  });
}

// ---- reading and picking --------------------------------------------------------------------------------------------

function listen(map) {
  const { canvas, grid } = map;
  const at = (event) => {
    const c = cellAt(event.offsetX + map.across, grid.cols, map.x, map.cw);
    const r = cellAt(event.offsetY + map.down, grid.rows, map.y, map.ch);
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
    const [w, h] = sightOf(map);
    const seen = (start, size, window, now) => Math.max(start + size + 4 - window, Math.min(now, start - 4));
    map.box.scrollLeft = seen(map.x(col), map.cw, w - 12, col ? map.box.scrollLeft : 0);
    map.box.scrollTop = seen(map.y(row), map.ch, h, row ? map.box.scrollTop : 0);
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
  const grid = values.full ? gridOf(tensor) : plainGrid(values);
  const hides = values.full ? maskOf(tensor, "tensor" in thing) : null;
  const ratio = window.devicePixelRatio || 1;
  if (grid.rows * grid.cols === 1) return el("span", { class: "thumb alone" }, fmt(values.data[0], 3));
  const side = Math.max(1, Math.min(height / grid.rows, width / grid.cols, 12));
  const [w, h] = [Math.min(width, grid.cols * side), Math.min(height, grid.rows * stretched(grid, side, 4, height))];
  const canvas = el("canvas", {
    class: "thumb",
    width: Math.round(w * ratio),
    height: Math.round(h * ratio),
    "aria-hidden": "true",
  });
  canvas.style.width = `${w}px`;
  canvas.style.height = `${h}px`;
  const context = canvas.getContext("2d");
  const [cw, ch] = [canvas.width / grid.cols, canvas.height / grid.rows];
  const map = { grid, values, scale, hides, cw, ch, across: 0, down: 0, x: (c) => c * cw, y: (r) => r * ch };
  putCells(context, map, 0, 1);
  if (hides && cw >= 4) paintHatches(map, canvasBrush(context, 1), palette(), 0);
  return canvas;
}
