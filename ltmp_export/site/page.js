/** The page: what is chosen is prepared, run and shown; the parity line; times. */

import { card, element, refused } from "./cards.js";
import { owners } from "./owners.js";
import { differences, preparation, verdict } from "./parity.js";
import { prepared, read, seen } from "./prepare.js";
import { fetched, Place, providers } from "./run.js";
import { breathe, measured } from "./times.js";

const find = (id) => document.getElementById(id);
const [CARDS, PATIENCE, TIMED] = [24, 8000, 8]; // cards; milliseconds of checks unasked; images timed

let [place, chosen, waiting] = [null, [], Promise.resolve()];

/** One thing after the other: a runtime does not run two. */
function next(job) {
  waiting = waiting.then(job).catch((error) => state(error.message, true));
  return waiting;
}

function state(words, doubt = false) {
  find("state").textContent = words;
  find("state").classList.toggle("doubt", doubt);
}

function judged(id, { good, line, details = [] }) {
  const listed = details.map((one) => element("li", {}, one));
  find(id).replaceChildren(line, ...(listed.length ? [element("ul", {}, ...listed)] : []));
  find(id).className = good ? "verdict" : "verdict doubt";
}

/** The recorded inputs, and that of the test picture. */
async function inputsOf(site) {
  const values = new Float32Array(await fetched(site.recorded));
  const size = site.model.shape.reduce((a, b) => a * b);
  const all = [];
  for (let start = 0; start < values.length; start += size) all.push(values.subarray(start, start + size));
  return all;
}

async function checkPreparation(site, recorded) {
  const bytes = await fetched(site.probe);
  const mine = prepared(await read(new Blob([bytes], { type: "image/png" })), site.preparation);
  judged("prepared", preparation(mine, recorded, site.preparation.std));
}

/** Runs recorded images and compares them; unasked only for a while. */
async function checkParity(site, inputs, patience) {
  const model = await place.model("model");
  const [found, start] = [[], performance.now()];
  for (const [at, recorded] of site.recorded.images.entries()) {
    if (found.length && performance.now() - start > patience) break;
    state(`Checking recorded image ${at + 1} of ${site.recorded.images.length} …`);
    await breathe();
    const told = differences(site, recorded, await model.run(inputs[at]));
    found.push({ name: recorded.name, borderline: recorded.borderline, ...told });
  }
  judged("parity", verdict(site, found));
  state(`Ready. ${where(site)}`);
}

const where = (site) => {
  const threads = place.provider === "wasm" ? `, ${place.threads} thread${place.threads > 1 ? "s" : ""}` : "";
  return `onnxruntime-web ${site.runtime.version}, ${place.provider}${threads}.`;
};

/** Runs an input and puts a card in front of the others. */
async function showInput(site, name, input) {
  state(`Running ${name} …`);
  await breathe();
  const model = await place.model("model");
  const start = performance.now();
  const given = await model.run(input);
  const took = performance.now() - start;
  const found = {
    name, took, seen: seen(input, site.preparation), values: given[site.answer],
    blocks: site.grid === null ? [] : owners(site, given),
    counts: site.counts.map((tensor) => given[tensor][0]),
  };
  chosen = [input, ...chosen].slice(0, TIMED);
  put(card(site, found));
  state(`Ready: ${name}. ${where(site)}`);
}

function put(made) {
  find("cards").prepend(made);
  while (find("cards").children.length > CARDS) find("cards").lastChild.remove();
}

function showFiles(site, files) {
  for (const file of files) {
    next(async () => {
      try {
        await showInput(site, file.name, prepared(await read(file), site.preparation));
      } catch (error) {
        put(refused(file.name, error.message));
        state(`${file.name}: ${error.message}`, true);
      }
    });
  }
}

function takeFiles(site) {
  const [input, drop] = [find("files"), find("drop")];
  input.disabled = false;
  input.addEventListener("change", () => {
    showFiles(site, [...input.files]);
    input.value = "";
  });
  const over = (event) => {
    event.preventDefault();
    drop.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, over);
  document.addEventListener("drop", (event) => showFiles(site, [...event.dataTransfer.files]));
}

function offerRecorded(site, inputs) {
  site.recorded.images.forEach(({ name }, at) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => next(() => showInput(site, name, inputs[at])));
    find("recorded").append(element("li", {}, button));
  });
}

async function time(site, inputs) {
  const given = chosen.length ? chosen : inputs.slice(0, Math.min(TIMED, site.recorded.images.length));
  const models = { reduced: await place.model("model") };
  if (site.dense !== null) models.dense = await place.model("dense");
  const tell = (rounds) => state(`Timing: ${rounds} rounds …`);
  const { rounds, medians } = await measured(models, given, tell);
  const { reduced, dense } = medians;
  const versus = dense === undefined ? "" : `, dense ${dense.toFixed(1)} ms: ${(dense / reduced).toFixed(2)}x`;
  const images = `${given.length} image${given.length > 1 ? "s" : ""}`;
  const line = `Reduced ${reduced.toFixed(1)} ms${versus}. Medians of ${rounds} rounds over ${images}; ${where(site)}`;
  find("times").prepend(element("li", {}, line));
  state(`Ready. ${where(site)}`);
}

function offerProviders(site, inputs, known) {
  for (const radio of document.querySelectorAll("[name=provider]")) {
    radio.disabled = !known.includes(radio.value);
    radio.addEventListener("change", () =>
      next(() => {
        place = new Place(site, radio.value);
        return checkParity(site, inputs, PATIENCE);
      }),
    );
  }
}

async function start() {
  state("Loading …");
  const site = JSON.parse(new TextDecoder().decode(await fetched({ url: "site.json" })));
  place = new Place(site, "wasm");
  const inputs = await inputsOf(site);
  await checkPreparation(site, inputs[site.recorded.images.length]);
  offerProviders(site, inputs, await providers(site.runtime));
  offerRecorded(site, inputs);
  takeFiles(site);
  for (const [id, job] of [
    ["measure", () => time(site, inputs)],
    ["check", () => checkParity(site, inputs, Infinity)],
  ]) {
    find(id).disabled = false;
    find(id).addEventListener("click", () => next(job));
  }
  await checkParity(site, inputs, PATIENCE);
}

next(start);
