/** A picture on the page: what the model saw, its tokens block by block, and what came out. */

import { drawSeen, drawTokens, side } from "./draw.js";
import { alternative, caption, hues, looked } from "./tokens.js";

const TOP = 5;
const SAW = "What the model saw";

/** An element with attributes; strings among its content are text, never markup. */
export function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "boolean") made.toggleAttribute(key, value);
    else made.setAttribute(key, value);
  }
  made.append(...content);
  return made;
}

let numbered = 0;

/** The canvas, and a slider over blocks where there are any. */
function frames(name, seen, blocks, grid) {
  const canvas = element("canvas", { role: "img" });
  const told = element("p", { class: "caption" });
  if (!blocks.length) {
    drawSeen(canvas, seen, side([1]));
    canvas.setAttribute("aria-label", `${name}: ${SAW.toLowerCase()}`);
    told.textContent = SAW;
    return [canvas, told];
  }
  const [longer, all] = [side(grid), blocks.map(looked)];
  const colours = hues(all, grid);
  const id = `blocks-${numbered++}`;
  const slider = element("input", { type: "range", id, min: 0, max: all.length, step: 1 });
  const show = () => {
    const place = Number(slider.value);
    const owned = all[place - 1];
    if (owned === undefined) drawSeen(canvas, seen, longer);
    else drawTokens(canvas, seen, owned, colours[place - 1], grid, longer);
    told.textContent = owned === undefined ? SAW : caption(owned);
    const words = owned === undefined ? `${name}: ${SAW.toLowerCase()}` : alternative(name, owned);
    canvas.setAttribute("aria-label", words);
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.value = String(all.length);
  slider.addEventListener("input", show);
  show();
  const label = element("label", { for: id }, "Block: ");
  return [canvas, element("div", { class: "controls" }, label, slider), told];
}

/** The five most likely classes, or that there are features. */
function answers(site, values) {
  if (site.answer !== "logits") {
    const first = values.slice(0, 4).map((value) => value.toPrecision(4)).join(", ");
    return element("p", {}, `${values.length} ${site.answer}: ${first}, …`);
  }
  const most = values.reduce((a, b) => (b > a ? b : a), -Infinity);
  const shares = values.map((value) => Math.exp(value - most));
  const sum = shares.reduce((a, b) => a + b, 0);
  const order = values.map((_, at) => at).sort((a, b) => values[b] - values[a] || a - b);
  const rows = order.slice(0, TOP).map((at) =>
    element(
      "tr",
      {},
      element("td", { class: "words" }, site.labels?.[at] ?? `class ${at}`),
      element("td", { class: "figure" }, values[at].toFixed(3)),
      element("td", { class: "figure" }, `${((100 * shares[at]) / sum).toFixed(1)} %`),
    ),
  );
  const head = ["class", "logit", "share"].map((word, at) =>
    element("th", { scope: "col", class: at ? "figure" : "words" }, word),
  );
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

/**
 * The whole card.
 *
 * @param seen What the model saw.
 * @param blocks Of `owners.js`.
 */
export function card(site, { name, seen, blocks, counts, values, took }) {
  const passed = counts.length ? `Tokens: ${[site.tokens, ...counts].join(" → ")}. ` : "";
  return element(
    "figure",
    { class: "course" },
    element("figcaption", {}, name),
    ...frames(name, seen, blocks, site.grid),
    answers(site, values),
    element("p", { class: "told" }, `${passed}${took.toFixed(1)} ms in one run.`),
  );
}

/** A picture that could not be used. */
export function refused(name, reason) {
  const words = element("p", { class: "verdict doubt" }, reason);
  return element("figure", { class: "course" }, element("figcaption", {}, name), words);
}
