/**
 * Pictures resized as Pillow resizes them, to the last bit: pixels of 8 bits, weights in fixed point,
 * one axis after the other. Pixels lie [height][width][channels], one byte each.
 */

const BITS = 22; // of a weight's fraction
const HALF = 1 << (BITS - 1);

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function hamming(x) {
  if (x === 0) return 1;
  if (x >= 1) return 0;
  return (Math.sin(x * Math.PI) / (x * Math.PI)) * (0.54 + 0.46 * Math.cos(x * Math.PI));
}

/** How far each filter reaches, and its weight at a distance. */
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => hamming(Math.abs(x))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** Of each new place the first old one that counts, and the weights from there on. */
function weights(from, to, [reach, filter]) {
  const scale = from / to;
  const wide = Math.max(1, scale);
  const support = reach * wide;
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const exact = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      exact.push(filter((x - centre + 0.5) * (1 / wide)));
      sum += exact[exact.length - 1];
    }
    const fixed = exact.map((weight) => {
      const share = sum === 0 ? weight : weight / sum;
      return Math.trunc(share * (1 << BITS) + (share < 0 ? -0.5 : 0.5));
    });
    return { first, fixed };
  });
}

/** Along one axis: lines of places, of which `inner` values lie side by side. */
function along(pixels, lines, from, to, inner, filter) {
  const table = weights(from, to, filter);
  const made = new Uint8ClampedArray(lines * to * inner);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < to; place++) {
      const { first, fixed } = table[place];
      const start = (line * from + first) * inner;
      const end = (line * to + place) * inner;
      for (let value = 0; value < inner; value++) {
        let sum = HALF;
        for (let k = 0; k < fixed.length; k++) sum += pixels[start + k * inner + value] * fixed[k];
        made[end + value] = sum >> BITS;
      }
    }
  }
  return made;
}

function nearest({ width, height, channels, pixels }, newWidth, newHeight) {
  const places = (from, to) => {
    const step = from / to;
    const found = [];
    let at = step * 0.5;
    for (let place = 0; place < to; place++, at += step) found.push(Math.min(from - 1, Math.trunc(at)));
    return found;
  };
  const columns = places(width, newWidth);
  const made = new Uint8ClampedArray(newWidth * newHeight * channels);
  let end = 0;
  for (const y of places(height, newHeight)) {
    for (const x of columns) {
      for (let c = 0; c < channels; c++) made[end++] = pixels[(y * width + x) * channels + c];
    }
  }
  return made;
}

/**
 * A picture {width, height, channels, pixels} in another size.
 *
 * @param tall Whether columns go first where the height shrinks by more than twice as much as the
 *   width, as in Pillow from 13 on; before, rows always do.
 */
export function resized(picture, width, height, interpolation, tall = false) {
  const { channels } = picture;
  if (picture.width === width && picture.height === height) return picture;
  if (interpolation === "nearest") {
    return { width, height, channels, pixels: nearest(picture, width, height) };
  }
  const filter = FILTERS[interpolation];
  const [down, across] = [picture.height - height, picture.width - width];
  let { pixels } = picture;
  const rows = (lines) => {
    if (across) pixels = along(pixels, lines, picture.width, width, channels, filter);
  };
  const columns = (wide) => {
    if (down) pixels = along(pixels, 1, picture.height, height, wide * channels, filter);
  };
  if (tall && down > 0 && down > 2 * across) {
    columns(picture.width);
    rows(height);
  } else {
    rows(picture.height);
    columns(width);
  }
  return { width, height, channels, pixels };
}
