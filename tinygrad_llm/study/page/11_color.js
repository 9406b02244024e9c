// ---- color maps: blue − … 0 … + orange for signed values, teal from 0 up for others ---------------------------------
// Mixed in OKLab, where equal distances look equal. Blue against orange stays apart in every common color blindness.

const STOPS = {
  light: {
    negative: ["#f1f1ee", "#a6cbef", "#5b9fe0", "#2470c8", "#0d4ba3"],
    positive: ["#f1f1ee", "#f8c795", "#ec8f3b", "#cf610c", "#a33c02"],
    rising: ["#f1f3f1", "#9fd4ca", "#3a9f95", "#0f6f69", "#064f4b"],
    nan: "#d0189b",
    inf: "#f2d400",
    hatch: "#b9bfc0",
    under: "#ffffff",
  },
  dark: {
    negative: ["#262b30", "#2a5384", "#3b7ecb", "#5ba4f5", "#8ac2ff"],
    positive: ["#262b30", "#774318", "#c06f20", "#f29438", "#ffb668"],
    rising: ["#232a2c", "#17564f", "#2a9a8f", "#7ed9cc", "#d6fbf4"],
    nan: "#ff4fc3",
    inf: "#ffe14d",
    hatch: "#566067",
    under: "#191d21",
  },
};
const LEVELS = 256;
const palettes = {};

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The color tables of the current theme. `table` holds the colors of cells (see `colorPlace`), `pixels` the same. */
function palette() {
  const theme = isDark() ? "dark" : "light";
  return (palettes[theme] ??= colorTables(theme));
}

function colorTables(theme) {
  const { nan, inf, under, ...stops } = STOPS[theme];
  const [negative, positive, rising] = [stops.negative, stops.positive, stops.rising].map(ramp);
  const table = [...negative, ...positive, ...rising, nan, inf, under];
  return {
    ...STOPS[theme],
    ink: theme === "dark" ? "#f4f6f6" : "#111417",
    dim: theme === "dark" ? "#a3abb0" : "#565d63",
    paper: theme === "dark" ? "#0c0e10" : "#ffffff",
    ...{ negative, positive, rising, table },
    pixels: Uint32Array.from(table, pixelOf),
  };
}

/** "#rrggbb" as the four bytes of an opaque pixel of ImageData. */
function pixelOf(hex) {
  const [r, g, b] = rgb(hex).map((part) => Math.round(part * 255));
  return new Uint32Array(new Uint8Array([r, g, b, 255]).buffer)[0];
}

/** LEVELS colors "#rrggbb" along the stops. */
function ramp(stops) {
  const labs = stops.map(toLab);
  return Array.from({ length: LEVELS }, (_, level) => {
    const place = (level / (LEVELS - 1)) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2);
    return fromLab(labs[i].map((part, k) => part + (labs[i + 1][k] - part) * (place - i)));
  });
}

/** OKLab of "#rrggbb" (Ottosson 2020). */
function toLab(hex) {
  const [r, g, b] = light(hex);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromLab([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const bytes = linear.map((c) => {
    const x = Math.min(1, Math.max(0, c));
    return Math.round(255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055));
  });
  return "#" + bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
}

/** The amounts of red, green and blue light, from 0 to 1, of "#rrggbb". */
function light(hex) {
  return rgb(hex).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
}

const inks = new Map();

/** Black or white, whichever can be read better on this color: a contrast of 4.5 at least. */
function inkOn(hex) {
  if (!inks.has(hex)) {
    const [r, g, b] = light(hex);
    inks.set(hex, 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff");
  }
  return inks.get(hex);
}

// ---- scales: which number gets which color --------------------------------------------------------------------------

const [MANY, RARE] = [64, 6];

/**
 * The scale for arrays that are compared: signed and centered on 0 if any number is below 0, else from 0 up. Where a few
 * numbers are far larger than all others, color grows with the square root, so that the others can be seen.
 */
function scaleFor(...stats) {
  const known = stats.filter((s) => s && s.min !== null && s.min !== undefined);
  const max = Math.max(0, ...known.map((s) => Math.max(Math.abs(s.min), Math.abs(s.max))));
  const root = known.some((s) => s.n >= MANY && max > (RARE * s.norm) / Math.sqrt(s.n));
  return { kind: known.some((s) => s.min < 0) ? "signed" : "rising", max: max || 1, root };
}

/** Gradients are always signed, attention weights always lie in [0, 1]. */
function signedScale(...stats) {
  return { ...scaleFor(...stats), kind: "signed" };
}

const UNIT = { kind: "rising", max: 1 };

const RISING = 2 * LEVELS;
const [NAN, INF, UNDER] = [3 * LEVELS, 3 * LEVELS + 1, 3 * LEVELS + 2];

/** Where the color of a number stands in a palette's table. */
function colorPlace(x, scale) {
  if (Number.isNaN(x)) return NAN;
  if (!Number.isFinite(x)) return INF;
  const part = Math.min(1, Math.abs(x) / scale.max);
  const level = Math.round((scale.root ? Math.sqrt(part) : part) * (LEVELS - 1));
  if (scale.kind === "rising") return x < 0 ? RISING : RISING + level;
  return x < 0 ? level : LEVELS + level;
}

function colorOf(x, scale) {
  return palette().table[colorPlace(x, scale)];
}

/** The bar that explains a scale. */
function legend(scale) {
  const colors = palette();
  const stops = [0, 64, 128, 192, 255];
  const right = (scale.kind === "signed" ? colors.positive : colors.rising).filter((_, i) => stops.includes(i));
  const left = scale.kind === "signed" ? stops.map((i) => colors.negative[i]).reverse() : [];
  const bar = el("span", { class: "bar" });
  bar.style.background = `linear-gradient(to right, ${[...left, ...right].join(", ")})`;
  const texts = scale.kind === "signed" ? [fmt(-scale.max, 2), bar, fmt(scale.max, 2)] : ["0", bar, fmt(scale.max, 2)];
  if (scale.root) texts.push(el("span", { title: "color grows with the square root" }, "√"));
  return el("span", { class: "legend", role: "img", "aria-label": `color scale, ${scaleWords(scale)}` }, texts);
}

function scaleWords(scale) {
  const most = fmt(scale.max, 2);
  const ends = scale.kind === "signed" ? `blue ${MINUS}${most} through 0 to orange ${most}` : `light 0 to teal ${most}`;
  return scale.root ? `${ends}, growing with the square root` : ends;
}
