// ---- the tape, folded: forward runs to the right above the line, backward returns to the left below it --------------
// An operation and its backward stand in one column. The height of a bar is the logarithm of the norm.

const TAPE = { label: 15, bar: 24, middle: 5, sums: 13, least: 10, most: 72 };
const SMALL_TAPE = { ...TAPE, bar: 13, middle: 3, sums: 8, least: 8 }; // in a narrow window

/** Build the tape. choose(i) is called with the step that was clicked. Returns {element, show(i)}. */
function tape(width, choose) {
  const size = width < 560 ? SMALL_TAPE : TAPE;
  const column = Math.min(size.most, Math.max(size.least, (width - 30) / (forwardSteps.length + 1)));
  const w = Math.ceil(column * (forwardSteps.length + 1) + 26);
  const bottom = size.label + 2 * size.bar + size.middle + size.sums;
  const drawing = svg("svg", {
    viewBox: `0 0 ${w} ${bottom + 2}`,
    width: w,
    height: bottom + 2,
    class: "tape",
    "aria-hidden": "true",
  });
  const cells = placeCells(column, size);
  drawLayers(drawing, column);
  const turn = forwardSteps.length * column;
  const [top, low] = [size.label + size.bar - 7, size.label + size.bar + size.middle + 8];
  const r = (low - top) / 2;
  drawing.append(
    svg("path", {
      d: `M${turn + 3} ${top}h${column - 1}a${r} ${r} 0 0 1 0 ${low - top}m5 -4.5l-5 4.5l5 4.5`,
      class: "turn",
    }),
  );
  const marks = cells.map((cell) => drawCell(drawing, cell, choose));
  const head = drawing.appendChild(svg("rect", { class: "playhead", rx: 3 }));
  const element = el("div", { class: "tapebox" }, drawing);
  let shown = -1;
  const show = (i) => {
    for (; shown < i; shown++) marks[shown + 1].classList.add("past");
    for (; shown > i; shown--) marks[shown].classList.remove("past");
    const { x, y, w: wide, h } = cells[i];
    for (const [key, value] of Object.entries({ x: x - 2, y: y - 2, width: wide + 4, height: h + 4 }))
      head.setAttribute(key, value);
    head.classList.toggle("back", steps[i].kind !== "forward");
    if (element.scrollWidth > element.clientWidth) element.scrollLeft = x - element.clientWidth / 2;
  };
  return { element, show };
}

/** Where each step stands: {x, y, w, h, kind}. */
function placeCells(column, size) {
  const columns = new Map(forwardSteps.map((step, n) => [step.i, n]));
  const forward = levels(forwardSteps.map((step) => tensors[step.output].stats));
  const back = levels(steps.map((step) => (step.kind === "vjp" ? grads[step.grad].stats : null)));
  const base = size.label + size.bar;
  const under = base + size.middle;
  let [at, small] = [forwardSteps.length, 0];
  return steps.map((step, i) => {
    if (step.kind === "forward") {
      const h = 4 + forward[columns.get(i)] * (size.bar - 5);
      return { x: columns.get(i) * column + 1, y: base - h, w: column - 2, h, kind: "forward", i };
    }
    if (step.kind === "vjp") {
      [at, small] = [columns.get(step.forward), 0];
      const h = 4 + back[i] * (size.bar - 5);
      return { x: at * column + 1, y: under, w: column - 2, h, kind: "vjp", i };
    }
    if (step.kind === "seed") return { x: at * column + 1, y: under, w: column - 2, h: size.bar / 2, kind: "seed", i };
    const side = Math.min(size.sums - 2, column / 2 - 1);
    if (step.kind === "leaf") [at, small] = [columns.get(tensors[step.tensor].used_by?.[0]) ?? 0, 0]; // below its first use
    const shift =
      step.kind === "leaf" ? column - side - 2 : (small++ % Math.max(1, Math.floor(column / (side + 1)))) * (side + 1);
    const x = at * column + 1 + shift;
    return { x, y: under + size.bar + 2, w: side, h: side, kind: step.kind, i };
  });
}

/** Norms as heights in [0, 1], by their logarithm. */
function levels(stats) {
  const logs = stats.map((s) => (s?.norm > 0 ? Math.log10(s.norm) : null));
  const known = logs.filter((x) => x !== null);
  const [low, high] = known.length ? extent(known) : [0, 1];
  return logs.map((x) => (x === null ? 0 : high > low ? (x - low) / (high - low) : 0.5));
}

function drawCell(drawing, cell, choose) {
  const { x, y, w, h, kind } = cell;
  const shape =
    kind === "sum"
      ? svg("path", { d: `M${x + w / 2} ${y}l${w / 2} ${h / 2}l${-w / 2} ${h / 2}l${-w / 2} ${-h / 2}z` })
      : svg("rect", { x, y, width: w, height: h, rx: kind === "leaf" ? w / 2 : 1.5 });
  shape.setAttribute("class", `cell ${kind}`);
  shape.addEventListener("click", () => choose(cell.i));
  shape.append(svg("title", {}, `step ${cell.i + 1}: ${stepTitle(steps[cell.i])}`));
  drawing.append(shape);
  return shape;
}

/** The names of the layers above the columns, as deep as there is room. */
function drawLayers(drawing, column) {
  let start = 0;
  for (let n = 1; n <= forwardSteps.length; n++) {
    if (n < forwardSteps.length && forwardSteps[n].layer === forwardSteps[start].layer) continue;
    const [x, w] = [start * column + 1, (n - start) * column - 2];
    const name = forwardSteps[start].layer.replace(/^transformer\./, "");
    drawing.append(svg("line", { x1: x, x2: x + w, y1: TAPE.label - 2, y2: TAPE.label - 2, class: "band" }));
    const text = [name, shortPath(name, 2), shortPath(name, 1)].find((t) => t && textWidth(t) * 0.92 <= w);
    if (text) drawing.append(svg("text", { x, y: TAPE.label - 6, class: "tick" }, text));
    start = n;
  }
}

/** What the marks of the tape mean. */
function tapeKey() {
  const mark = (shape) => svg("svg", { viewBox: "0 0 10 10", class: "tape", "aria-hidden": "true" }, shape);
  return el(
    "p",
    { class: "tape-key dim" },
    "bars: norms, on a log scale",
    el("span", {}, mark(svg("path", { d: "M5 0l5 5l-5 5l-5 -5z", class: "cell sum past" })), " two gradients add"),
    el("span", {}, mark(svg("circle", { cx: 5, cy: 5, r: 4.5, class: "cell leaf past" })), " a gradient is complete"),
  );
}

// ---- the player -----------------------------------------------------------------------------------------------------

const PLAY = "M7 4l12 8l-12 8z";

/** A sign that needs no font. */
function icon(d, kind = "") {
  return svg("svg", { viewBox: "0 0 24 24", class: `icon ${kind}`, "aria-hidden": "true" }, svg("path", { d }));
}

/** Buttons, slider and tape. Returns {show(i), stop(), toggle()}. */
function player(box, width, choose) {
  let timer = null;
  let now = 0;
  const last = steps.length - 1;
  const move = (i) => choose(Math.min(last, Math.max(0, i)));
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.replaceChildren(icon(PLAY));
    play.setAttribute("aria-label", "Play");
  };
  const toggle = () => {
    if (timer) return stop();
    if (now === last) move(0);
    timer = setInterval(() => (now === last ? stop() : move(now + 1)), 1400);
    play.replaceChildren(icon("M8 5v14M16 5v14", "open wide"));
    return play.setAttribute("aria-label", "Pause");
  };
  const control = (sign, label, action) =>
    button(
      sign,
      () => {
        stop();
        action();
      },
      { "aria-label": label, title: label },
    );
  const play = button(icon(PLAY), toggle, { "aria-label": "Play", class: "play" });
  const slider = el("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "Step" });
  slider.addEventListener("input", () => {
    stop();
    move(Number(slider.value));
  });
  const text = el("p", { class: "where" });
  const film = tape(width, (i) => {
    stop();
    move(i);
  });
  const turn = steps.findIndex((step) => step.kind !== "forward");
  const controls = el(
    "div",
    { class: "controls" },
    control(icon("M6 5v14M18 5l-8 7l8 7", "open"), "First step", () => move(0)),
    control(icon("M15 5l-8 7l8 7", "open"), "Step back", () => move(now - 1)),
    play,
    control(icon("M9 5l8 7l-8 7", "open"), "Next step", () => move(now + 1)),
    turn >= 0
      ? control(icon("M4 7h11a5 5 0 0 1 0 10h-9M10 13l-4 4l4 4", "open"), "To the start of backward", () => move(turn))
      : null,
    control(icon("M6 5l8 7l-8 7M18 5v14", "open"), "Last step", () => move(last)),
  );
  box.replaceChildren(
    el("div", { class: "deck" }, controls, slider, text),
    el("div", { class: "told" }, pickedLine, tapeKey()),
    film.element,
  );
  const show = (i) => {
    now = i;
    slider.value = i;
    const words = steps[i].kind === "forward" ? "forward" : "backward";
    slider.setAttribute("aria-valuetext", `step ${i + 1} of ${steps.length}, ${words}: ${stepTitle(steps[i])}`);
    text.replaceChildren(`${i + 1} / ${steps.length} `, el("span", {}, words));
    film.show(i);
  };
  return {
    show,
    stop,
    toggle,
    move: (by) => {
      stop();
      move(now + by);
    },
  };
}
