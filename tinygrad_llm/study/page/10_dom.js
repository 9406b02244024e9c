"use strict";

// ---- elements: text only ever becomes a text node, so nothing in a trace is read as HTML ----------------------------

/** Create an HTML element. Keys that start with "on" are listeners; null, undefined and false attributes are left out. */
function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Create an SVG element, likewise. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  return put(element, ...children);
}

/** Append children; null, undefined and false are left out. */
function put(element, ...children) {
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function button(content, action, attributes = {}) {
  return el("button", { type: "button", onclick: action, ...attributes }, content);
}

/** A dotted name that may be broken after each dot. */
function dotted(name) {
  return name.split(/(?<=\.)/).flatMap((part) => [part, el("wbr")]);
}

/** A link to another place of this page. */
function go(text, place, attributes = {}) {
  return el("a", { href: `#${place}`, ...attributes }, text);
}

/** A table: head is a list of texts, rows are lists of cells (texts or elements); the first cell names its row. */
function table(caption, head, rows, attributes = {}) {
  const cells = (row) => row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": caption },
    el(
      "table",
      attributes,
      el("caption", {}, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, cells(row))),
      ),
    ),
  );
}

/** A row of buttons of which one is pressed. */
function choice(label, options, chosen, choose) {
  return el(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    el("span", { class: "dim", "aria-hidden": "true" }, label),
    options.map(([value, text]) =>
      button(text, () => choose(value), { "aria-pressed": String(value === chosen), "data-key": `${label}-${value}` }),
    ),
  );
}

// ---- text -----------------------------------------------------------------------------------------------------------

const MINUS = "\u2212";

/** A number in so many significant digits. */
function fmt(x, digits = 4) {
  if (x === null || x === undefined) return "–";
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : MINUS + "∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  let text;
  if (size >= 10 ** 6 || size < 1e-4) text = shortExponent(size.toExponential(Math.max(0, digits - 1)));
  else if (Number.isInteger(x)) text = String(size);
  else text = size >= 10 ** digits ? size.toFixed(0) : String(Number(size.toPrecision(digits)));
  return (x < 0 ? MINUS : "") + text;
}

/** "1.200e-5" → "1.2e−5" */
function shortExponent(text) {
  const [digits, exponent] = text.split("e");
  const short = digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
  return `${short}e${exponent.replace("+", "").replace("-", MINUS)}`;
}

/** A number in at most six characters, for a cell. */
function fmtCell(x) {
  const size = Math.abs(x);
  if (!Number.isFinite(x) || (Number.isInteger(x) && size < 1000)) return fmt(x);
  if (size >= 1000 || size < 0.0005) return (x < 0 ? MINUS : "") + shortExponent(size.toExponential(0));
  const text =
    size >= 100 ? size.toFixed(0) : size >= 10 ? size.toFixed(1) : size >= 1 ? size.toFixed(2) : size.toFixed(3);
  return (x < 0 ? MINUS : "") + text.replace(/^0\./, ".");
}

/** Every digit of a float64, as Python prints it. */
function fmtFull(x) {
  if (x === null || x === undefined) return "–";
  const text = x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential() : String(x);
  return shortExponentOnly(text).replace(/^-/, MINUS);
}

function shortExponentOnly(text) {
  return text.replace(/e\+?(-?)/, (_, sign) => "e" + (sign ? MINUS : ""));
}

/** A token as it can be seen: spaces, line ends, tabs and other control characters get a sign, an empty text too. */
function visible(token) {
  if (token === null || token === undefined) return "–";
  if (token === "") return "∅";
  const signs = { " ": "␣", "\n": "⏎", "\t": "⇥", "\x7f": "␡" };
  return token.replace(
    /[\0- \x7f]/g,
    (character) => signs[character] ?? String.fromCharCode(0x2400 + character.charCodeAt(0)),
  );
}

function shortened(text, length) {
  const characters = Array.from(text);
  return characters.length <= length ? text : characters.slice(0, length - 1).join("") + "…";
}

function plural(n, word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}

/** Hand the reader a file. */
function save(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
