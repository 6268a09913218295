/** Whether this browser computes what onnxruntime computed when the site was made. */

import { owners } from "./owners.js";

const argmax = (values) => values.indexOf(values.reduce((a, b) => (b > a ? b : a), -Infinity));
const alike = (one, other) => one.length === other.length && one.every((v, at) => v === other[at]);

/** What differs from what was recorded of an image, in words; and by how much numbers do. */
export function differences(site, recorded, given) {
  const values = given[site.answer];
  const distance = values.reduce((most, value, at) => {
    const gap = Math.abs(value - recorded.values[at]);
    return gap > most || Number.isNaN(gap) ? gap : most;
  }, 0);
  const found = [];
  const counts = site.counts.map((name) => given[name][0]);
  if (!alike(counts, recorded.counts)) {
    found.push(`tokens ${counts.join(", ")}, recorded ${recorded.counts.join(", ")}`);
  }
  if (site.grid !== null) {
    const own = owners(site, given);
    const other = own.find(({ places }, at) => !alike(places, recorded.owners[at]));
    if (other !== undefined) found.push(`other tokens of patches behind block ${other.block}`);
  }
  const [top, expected] = [argmax(values), argmax(recorded.values)];
  if (site.answer === "logits" && top !== expected) found.push(`class ${top}, recorded ${expected}`);
  if (!(distance <= site.recorded.allowed)) {
    found.push(`${site.answer} differ by ${short(distance)}, allowed ${short(site.recorded.allowed)}`);
  }
  return { words: found, distance };
}

/** A number in a few digits. */
export const short = (value) =>
  value === 0 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toPrecision(2);

const each = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/**
 * What a comparison came to.
 *
 * @param found For each image that was compared {name, borderline, words, distance}.
 * @returns {good, line, details}
 */
export function verdict(site, found) {
  const { by, images, allowed } = site.recorded;
  const largest = found.reduce((most, { distance }) => (distance > most ? distance : most), 0);
  const wrong = found.filter(({ words }) => words.length);
  const near = wrong.filter(({ borderline }) => borderline);
  const equal = found.length - wrong.length;
  const compared = found.length < images.length ? ` (of ${images.length} recorded)` : "";
  const what = site.grid === null ? "token counts" : "token counts and the token of every patch";
  const numbers = `${site.answer} differ by ${short(largest)} at most, ${short(allowed)} is allowed`;
  const details = wrong.map(({ name, words }) => `${name}: ${words.join("; ")}`);
  if (!wrong.length) {
    const line = `Equal to ${by} on ${each(equal, "image")}${compared}: ${what} are the same, ${numbers}.`;
    return { good: found.length > 0, line, details };
  }
  if (near.length === wrong.length) {
    const line =
      `Equal to ${by} on ${each(equal, "image")}${compared}. On ${near.length} more the tokens differ ` +
      "where rounding decides: a decision is so near to its threshold that onnxruntime itself decides " +
      "otherwise when inputs change by one rounding.";
    return { good: equal > 0, line, details };
  }
  const line = `NOT equal to ${by} on ${wrong.length} of ${each(found.length, "image")}${compared}.`;
  return { good: false, line, details };
}

/** Whether the test picture becomes the model input that it became when the site was made. */
export function preparation(mine, recorded, std) {
  let [other, furthest] = [0, 0];
  const number = mine.length / std.length;
  for (let at = 0; at < mine.length; at++) {
    if (mine[at] === recorded[at]) continue;
    other += 1;
    const levels = Math.abs(mine[at] - recorded[at]) * std[Math.floor(at / number)] * 255;
    furthest = Math.max(furthest, levels);
  }
  if (!other) return { good: true, line: `A test picture is prepared exactly as by ltmp (${mine.length} values).` };
  const line =
    `A test picture is NOT prepared as by ltmp: ${other} of ${mine.length} values differ, by up to ` +
    `${furthest.toFixed(1)} of 255 levels. A browser that protects against fingerprinting changes pixels.`;
  return { good: false, line };
}
