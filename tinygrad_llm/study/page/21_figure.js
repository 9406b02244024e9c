// ---- pictures as files: SVG that stands alone -----------------------------------------------------------------------

const DRAWN = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linecap",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
];

/** A button that saves a drawing of this page, with its styles written into each element. */
function exportButton(name, drawing) {
  const standing = () => {
    const drawn = drawing();
    if (drawn.isConnected) return standalone(drawn);
    content.append(drawn); // styles are known in the document alone
    const copy = standalone(drawn);
    drawn.remove();
    return copy;
  };
  return button("SVG", () => saveSvg(name, standing()), {
    class: "quiet",
    "aria-label": `Save ${name} as SVG`,
  });
}

function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const originals = [drawing, ...drawing.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    for (const property of DRAWN) element.setAttribute(property, style.getPropertyValue(property));
    for (const attribute of ["class", "tabindex", "role"]) element.removeAttribute(attribute);
  });
  const [, , w, h] = (drawing.getAttribute("viewBox") ?? "0 0 800 600").split(" ");
  copy.setAttribute("width", w);
  copy.setAttribute("height", h);
  copy.prepend(svg("rect", { width: w, height: h, fill: palette().paper }));
  return copy;
}

/** A button that saves heat maps, each under its title. maps: a function that returns [[title, map], …]. */
function exportMapsButton(name, maps) {
  return button("SVG", () => saveSvg(name, drawMaps(maps())), { class: "quiet", "aria-label": `Save ${name} as SVG` });
}

function drawMaps(maps) {
  const colors = palette();
  const all = svg("svg", {});
  let [x, y, high, wide] = [16, 16, 0, 0];
  for (const [title, map] of maps) {
    const w = Math.max(map.w, textWidth(title));
    if (x > 16 && x + w > 1200) [x, y, high] = [16, y + high, 0];
    const part = svg("g", { transform: `translate(${x} ${y})` });
    const scale = `${title}   ${scaleWords(map.scale)}`;
    svgBrush(part).text(0, 8, scale, colors.ink, "left");
    const cells = svg("g", { transform: "translate(0 22)" });
    paint(map, svgBrush(cells));
    part.append(cells);
    all.append(part);
    high = Math.max(high, map.h + 50);
    x += Math.max(w, textWidth(scale)) + 32;
    wide = Math.max(wide, x);
  }
  const [w, h] = [wide, y + high];
  all.setAttribute("viewBox", `0 0 ${w} ${h}`);
  all.setAttribute("width", w);
  all.setAttribute("height", h);
  all.prepend(svg("rect", { width: w, height: h, fill: colors.paper }));
  return all;
}

function saveSvg(name, drawing) {
  drawing.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  save(`${name.replace(/[^\w.-]+/g, "-")}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(drawing));
}

// ---- charts ---------------------------------------------------------------------------------------------------------

/** A line chart. lines: [{name, class, points: [[x, y], …]}]; y that is null leaves a gap. */
function lineChart({ lines, width, height = 260, xName, yName, log = false, label, dots = false }) {
  const box = { left: 56, right: 14, top: 14, bottom: 40 };
  const points = lines.flatMap((line) => line.points).filter(([, y]) => Number.isFinite(y) && (!log || y > 0));
  if (!points.length)
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
  const x = linear(extent(points.map(([a]) => a)), [box.left, width - box.right]);
  const value = log ? Math.log10 : (y) => y;
  const y = linear(padded(extent(points.map(([, b]) => value(b)))), [height - box.bottom, box.top]);
  const drawing = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width,
    class: "chart",
    role: "img",
    "aria-label": label,
  });
  for (const tick of log ? decades(y.domain) : ticks(y.domain, 5)) {
    const at = y(tick);
    drawing.append(svg("line", { x1: box.left, x2: width - box.right, y1: at, y2: at, class: "rule" }));
    drawing.append(
      svg(
        "text",
        { x: box.left - 8, y: at + 4, class: "tick", "text-anchor": "end" },
        log ? powerOfTen(tick) : fmt(tick, 3),
      ),
    );
  }
  for (const tick of ticks(x.domain, Math.max(2, Math.floor(width / 110)))) {
    drawing.append(
      svg("text", { x: x(tick), y: height - box.bottom + 18, class: "tick", "text-anchor": "middle" }, fmt(tick, 3)),
    );
  }
  drawing.append(svg("text", { x: width - box.right, y: height - 6, class: "tick", "text-anchor": "end" }, xName));
  drawing.append(svg("text", { x: 4, y: 11, class: "tick" }, yName));
  for (const line of lines) {
    drawing.append(svg("path", { d: path(line.points, x, (v) => y(value(v)), log), class: `line ${line.class}` }));
    if (dots) {
      const shown = line.points.filter(([, b]) => Number.isFinite(b) && (!log || b > 0));
      drawing.append(
        ...shown.map(([a, b]) => svg("circle", { cx: x(a), cy: y(value(b)), r: 3, class: `dot ${line.class}` })),
      );
    }
  }
  return drawing;
}

/** An entry of a legend: a small drawing, and what it stands for. */
function keyOf(shape, attributes, text) {
  const drawing = svg("svg", { viewBox: "0 0 28 10", class: "key", "aria-hidden": "true" }, svg(shape, attributes));
  return el("span", {}, drawing, text);
}

/** The names of the lines, each with a piece of its line. */
function lineKey(lines) {
  return el(
    "p",
    { class: "keys" },
    lines.map((line) => keyOf("path", { d: "M0 5H28", class: `line ${line.class}` }, line.name)),
  );
}

function path(points, x, y, log) {
  let [d, open] = ["", false];
  for (const [a, b] of points) {
    const known = b !== null && Number.isFinite(b) && (!log || b > 0);
    if (known) d += `${open ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`;
    open = known;
  }
  return d;
}

function linear(domain, range) {
  const [[a, b], [c, d]] = [domain, range];
  const place = (x) => c + ((x - a) / (b - a || 1)) * (d - c);
  return Object.assign(place, { domain });
}

function extent(list) {
  return [Math.min(...list), Math.max(...list)];
}

function padded([low, high]) {
  const more = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - more, high + more];
}

/** Round numbers in this range: multiples of 1, 2 or 5 times a power of ten. */
function ticks([low, high], wanted) {
  const raw = (high - low || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const list = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) list.push(n * step);
  return list;
}

function decades([low, high]) {
  const list = [];
  const every = Math.max(1, Math.ceil((high - low) / 6));
  for (let n = Math.ceil(low); n <= high; n += every) list.push(n);
  return list.length ? list : [low, high];
}

function powerOfTen(n) {
  return Number.isInteger(n) && n < 0 ? `1e${MINUS}${-n}` : fmt(10 ** n, 2);
}
