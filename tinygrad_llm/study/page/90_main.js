// ---- the page: one view at a time, chosen by the hash ---------------------------------------------------------------

const VIEWS = {
  start: { name: "Start", view: startView, there: () => true },
  steps: { name: "Steps", view: stepView, there: () => steps.length > 0 },
  map: { name: "Map", view: mapView, there: () => trace.map?.edges?.length > 0 },
  attention: { name: "Attention", view: attentionView, there: () => trace.attention?.length > 0 },
  flow: { name: "Gradients", view: flowView, there: () => trace.flow?.parameters?.length > 0 },
  words: { name: "Words", view: wordsView, there: () => trace.words?.positions?.length > 0 },
  update: { name: "Update", view: updateView, there: () => Boolean(trace.update) },
  break: { name: "Break it", view: breakView, there: () => trace.breaks?.mutants?.length > 0 },
};
const content = document.getElementById("content");
const footer = document.getElementById("player");
let here = location.hash.slice(1); // the place that is shown: a view and what it needs, such as "steps/12/dx/3"
let current = ""; // the view that is shown
let deck = null; // the player, made once per width
let lastStep = 1;

// ---- places ---------------------------------------------------------------------------------------------------------

/** Show a place. `how` is pushState, or replaceState for what the back button should not return to. */
function visit(place, how = "pushState") {
  remember(place, how);
  render();
}

/** Put a place into the hash without drawing. */
function remember(place, how = "replaceState") {
  here = place;
  try {
    history[how](null, "", `#${place}`);
  } catch {
    // A page in the frame of a notebook has no address of its own.
  }
}

/** A link to a place leads there without the browser, which would leave the frame of a notebook. */
function onLink(event) {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const place = link.getAttribute("href").slice(1);
  if (place === content.id) content.focus();
  else {
    visit(place);
    scrollTo(0, 0);
  }
}

function route() {
  const [name, ...place] = readable(here).split("/");
  return VIEWS[name]?.there() ? [name, place] : ["start", []];
}

function readable(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Draw the place that is to be shown. */
function render() {
  const [name, place] = route();
  const changed = name !== current;
  current = name;
  footer.hidden = name !== "steps";
  const style = getComputedStyle(content);
  const width = Math.floor(content.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  const focused = content.contains(document.activeElement) ? document.activeElement : null;
  content.replaceChildren(VIEWS[name].view(place, width));
  if (focused) refocus(focused.dataset.key);
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "steps") showPlayer(Math.min(steps.length, Math.max(1, Number(place[0]) || 1)), width);
  else deck?.stop();
  document.title = name === "start" ? meta.title : `${VIEWS[name].name}: ${meta.title}`;
  if (changed) scrollTo(0, 0);
}

function showPlayer(number, width) {
  if (!deck || deck.width !== width) {
    deck?.stop();
    deck = Object.assign(
      player(footer, width, (i) => visit(`steps/${i + 1}`, "replaceState")),
      { width },
    );
  }
  lastStep = number;
  document.querySelector('#tabs a[data-view="steps"]').href = `#steps/${lastStep}`;
  deck.show(number - 1);
  document.getElementById("announcement").textContent =
    `Step ${number} of ${steps.length}: ${stepTitle(steps[number - 1])}`;
}

/** The focus returns to the element that had it before the view was drawn again, or goes to the start of the view. */
function refocus(key) {
  const same = key === undefined ? null : content.querySelector(`[data-key="${CSS.escape(key)}"]`);
  (same ?? content).focus({ preventScroll: true });
}

/** Draw again after something else than the hash has changed. */
function refresh() {
  const y = scrollY;
  render();
  scrollTo(0, y);
}

// ---- keys, theme, size ----------------------------------------------------------------------------------------------

function onKey(event) {
  if (current !== "steps" || event.altKey || event.ctrlKey || event.metaKey) return;
  const { target } = event;
  if (target.closest?.("input, select, textarea")) return;
  if (event.key === "ArrowRight") deck.move(1);
  else if (event.key === "ArrowLeft") deck.move(-1);
  else if (event.key === " " && !target.closest?.("button, a, summary")) deck.toggle();
  else return;
  event.preventDefault();
}

const THEMES = ["", "light", "dark"];

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const text = { "": "◐ auto", light: "☀ light", dark: "☾ dark" }[theme];
  document.getElementById("theme").replaceChildren(text, el("span", { class: "unseen" }, " colors: change"));
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Storage may be forbidden; then the choice lasts as long as the page.
  }
}

function storedTheme() {
  try {
    return THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "";
  } catch {
    return "";
  }
}

function start() {
  document.getElementById("title").textContent = meta.title;
  const facts = [
    meta.parameters ? `${meta.parameters.toLocaleString("en")} parameters` : null,
    meta.loss === null || meta.loss === undefined ? null : `loss ${fmt(meta.loss, 4)}`,
    plural(steps.length, "step"),
    meta.exact ? null : "rounded maps",
  ];
  document.getElementById("facts").textContent = facts.filter(Boolean).join(" · ");
  const there = Object.entries(VIEWS).filter(([, view]) => view.there());
  document
    .getElementById("tabs")
    .append(...there.map(([name, view]) => el("li", {}, go(view.name, name, { "data-view": name }))));
  setTheme(storedTheme());
  document.getElementById("theme").addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length]);
    refresh();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh());
  addEventListener("hashchange", () => {
    here = location.hash.slice(1);
    render();
  });
  document.addEventListener("click", onLink);
  addEventListener("keydown", onKey);
  let [width, waiting] = [innerWidth, null];
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 120);
  });
  render();
}

start();
