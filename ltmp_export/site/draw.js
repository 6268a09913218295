/** Pictures of tokens, on a canvas: as `ltmp show` draws them. */

import { resized } from "./resample.js";
import { HUES, links } from "./tokens.js";

const INK = [16, 16, 16]; // beside a hue, so that it is seen on any ground
const [DIM, GROUND] = [0.25, 20]; // brightness of pruned patches, and what is added to it
const [HATCH, NEW_HATCH] = [125, 235]; // grey of the lines
const [FAINT, FAINTEST, FEW] = [0.6, 0.2, 40]; // lines between pieces; beyond FEW, fainter
const ROOMY = 16; // pixels of a patch in which a thick outline leaves something to be seen
const CRISP = 3; // times larger: each pixel is shown as a square
const [SIDE, PATCH, LARGEST] = [320, 12, 1024];

/** Pixels of a picture's longer side. */
export const side = (grid) => Math.min(LARGEST, Math.max(SIDE, PATCH * Math.max(...grid)));

/** What the model saw, larger. */
export function enlarged(seen, longer) {
  const scale = longer / Math.max(seen.width, seen.height);
  const [width, height] = [seen.width, seen.height].map((one) => Math.max(1, Math.round(one * scale)));
  return resized(seen, width, height, scale >= CRISP ? "nearest" : "lanczos");
}

/** Which patch each pixel is in. */
function patchOf(width, height, [rows, columns]) {
  const found = new Int32Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor((y * rows) / height) * columns;
    for (let x = 0; x < width; x++, at++) found[at] = row + Math.floor((x * columns) / width);
  }
  return found;
}

/** Of each patch the mean colour of its token's patches. */
function means({ width, height, pixels }, owned, grid) {
  const sums = Array.from({ length: owned.tokens }, () => [0, 0, 0, 0]);
  patchOf(width, height, grid).forEach((patch, at) => {
    const sum = sums[owned.places[patch]];
    if (sum === undefined) return;
    for (let c = 0; c < 3; c++) sum[c] += pixels[3 * at + c];
    sum[3] += 1;
  });
  return owned.places.map((place) => sums[place]?.slice(0, 3).map((sum) => sum / sums[place][3]));
}

/** Whether pixels so near to a pixel have another label, or lie beyond the picture. */
function edge(label, width, height, thick) {
  return (at) => {
    const [x, y] = [at % width, Math.floor(at / width)];
    if (x < thick || y < thick || x >= width - thick || y >= height - thick) return true;
    for (let step = 1; step <= thick; step++) {
      for (let down = -step; down <= step; down += step) {
        for (let across = -step; across <= step; across += step) {
          if (label[at + down * width + across] !== label[at]) return true;
        }
      }
    }
    return false;
  };
}

const put = (data, at, [red, green, blue]) => data.set([red, green, blue, 255], 4 * at);

/** Regions in their mean colours; pruned patches dim and hatched. */
function ground(data, shown, seen, owned, grid, patch, across) {
  const colours = means(seen, owned, grid);
  const period = Math.max(5, Math.round(across / 3));
  const thick = Math.max(1, Math.round(across / 30));
  for (let at = 0; at < patch.length; at++) {
    const own = patch[at];
    if (owned.places[own] >= 0) {
      put(data, at, colours[own]);
      continue;
    }
    const [r, g, b] = shown.pixels.subarray(3 * at, 3 * at + 3);
    let grey = GROUND + DIM * (0.299 * r + 0.587 * g + 0.114 * b);
    if ((Math.floor(at / shown.width) + (at % shown.width)) % period < thick) {
      grey = owned.prunedHere[own] ? NEW_HATCH : HATCH;
    }
    put(data, at, [grey, grey, grey]);
  }
}

/** Faint lines between the pieces of each token. */
function connected(pen, owned, hues, [rows, columns], thin) {
  const { width, height } = pen.canvas;
  const lines = owned.sizes.flatMap((size, token) => {
    if (size < 2) return [];
    const hue = hues[owned.places.indexOf(token)];
    return links(owned, token, columns).map((ends) => ({ ends, colour: HUES[hue] }));
  });
  const seen = Math.max(FAINTEST, FAINT * Math.min(1, FEW / Math.max(lines.length, 1)));
  const layer = new OffscreenCanvas(width, height);
  const sketch = layer.getContext("2d");
  const middle = (patch) => [
    (((patch % columns) + 0.5) * width) / columns,
    ((Math.floor(patch / columns) + 0.5) * height) / rows,
  ];
  for (const { ends, colour } of lines) {
    for (const [style, wide] of [[INK, thin + 2], [colour, thin]]) {
      sketch.beginPath();
      sketch.moveTo(...middle(ends[0]));
      sketch.lineTo(...middle(ends[1]));
      sketch.lineWidth = wide;
      sketch.strokeStyle = `rgb(${style.join(" ")})`;
      sketch.stroke();
    }
  }
  pen.globalAlpha = seen;
  pen.drawImage(layer, 0, 0);
  pen.globalAlpha = 1;
}

/** The outline of each token of several patches; thick where this block merged them. */
function outlined(data, width, height, owned, hues, patch, across, thin) {
  const label = patch.map((own) => owned.places[own]);
  const wide = 2 * thin + (across >= ROOMY ? 1 : 0);
  const near = new Map([thin, thin + 1, wide, wide + 1].map((n) => [n, edge(label, width, height, n)]));
  for (let at = 0; at < patch.length; at++) {
    const own = patch[at];
    if (hues[own] < 0) continue;
    const thick = owned.mergedHere[own] ? wide : thin;
    if (near.get(thick)(at)) put(data, at, HUES[hues[own]]);
    else if (near.get(thick + 1)(at)) put(data, at, INK);
  }
}

/** Draw what the model saw. */
export function drawSeen(canvas, seen, longer) {
  const { width, height, pixels } = enlarged(seen, longer);
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  for (let at = 0; at < width * height; at++) put(image.data, at, pixels.subarray(3 * at, 3 * at + 3));
  pen.putImageData(image, 0, 0);
}

/** Draw the tokens behind a block: `owned` and `hues` of `tokens.js`. */
export function drawTokens(canvas, seen, owned, hues, grid, longer) {
  const shown = enlarged(seen, longer);
  const { width, height } = shown;
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const patch = patchOf(width, height, grid);
  const across = longer / Math.max(...grid);
  const thin = Math.min(4, Math.max(1, Math.round(across / 18)));
  const image = pen.createImageData(width, height);
  ground(image.data, shown, seen, owned, grid, patch, across);
  pen.putImageData(image, 0, 0);
  connected(pen, owned, hues, grid, Math.max(1, Math.floor(thin / 2)));
  const lined = pen.getImageData(0, 0, width, height);
  outlined(lined.data, width, height, owned, hues, patch, across, thin);
  pen.putImageData(lined, 0, 0);
}
