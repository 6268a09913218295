/** Pictures as the model takes them: read, resized, cropped and normalised as the file's metadata say. */

import { resized } from "./resample.js";

const KINDS = ["image/png", "image/jpeg", "image/bmp", "image/webp"];
const MOST = 89_478_485; // pixels, as Pillow has it

/** Half to the even number, as Python rounds. */
export function rounded(x) {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** A file as {width, height, channels: 3, pixels}: upright, what is transparent on white. */
export async function read(file) {
  if (!KINDS.includes(file.type)) {
    throw new Error(`${file.type || "no kind of picture"}; expected PNG, JPEG, BMP or WebP`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
      imageOrientation: "from-image",
    });
  } catch {
    throw new Error("the browser cannot read it as a picture");
  }
  const { width, height } = bitmap;
  if (width * height > MOST) throw new Error(`${width}x${height} pixels; expected at most ${MOST}`);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = pen.getImageData(0, 0, width, height);
  const pixels = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; to < pixels.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return { width, height, channels: 3, pixels };
}

/** In grey, as Pillow makes it. */
function grey({ width, height, pixels: colours }) {
  const pixels = new Uint8ClampedArray(width * height);
  for (let at = 0; at < pixels.length; at++) {
    const [r, g, b] = [colours[3 * at], colours[3 * at + 1], colours[3 * at + 2]];
    pixels[at] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
  }
  return { width, height, channels: 1, pixels };
}

/** [width, height] of the whole picture before the crop. */
export function target({ width, height }, rule) {
  const [down, across] = rule.size.map((side) => Math.floor(side / rule.crop_pct));
  if (rule.crop_mode === "squash") return [across, down];
  if (rule.crop_mode === "center" && down === across) {
    const long = (side, short) => Math.trunc((down * side) / short);
    return width <= height ? [down, long(height, width)] : [long(width, height), down];
  }
  const ratios = [height / down, width / across];
  const ratio = rule.crop_mode === "border" ? Math.max(...ratios) : Math.min(...ratios);
  return [rounded(width / ratio), rounded(height / ratio)];
}

/** The middle of a picture in another size; what lies beyond it is filled. */
function cropped({ width, height, channels, pixels }, newWidth, newHeight, fill) {
  const start = (side, wanted) =>
    wanted > side ? -Math.trunc((wanted - side) / 2) : rounded((side - wanted) / 2);
  const [left, top] = [start(width, newWidth), start(height, newHeight)];
  const made = new Uint8ClampedArray(newWidth * newHeight * channels);
  for (let y = 0, to = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const [column, row] = [x + left, y + top];
      const inside = column >= 0 && column < width && row >= 0 && row < height;
      const from = (row * width + column) * channels;
      for (let c = 0; c < channels; c++, to++) made[to] = inside ? pixels[from + c] : fill[c];
    }
  }
  return { width: newWidth, height: newHeight, channels, pixels: made };
}

/** A picture as the model sees it, and as its input [channels][height][width]. */
export function prepared(picture, rule) {
  const [height, width] = rule.size;
  const shown = rule.mean.length === 1 ? grey(picture) : picture;
  const whole = resized(shown, ...target(shown, rule), rule.interpolation, rule.tall);
  const fill = rule.mean.map((v) => (rule.crop_mode === "border" ? rounded(255 * v) : 0));
  const seen = cropped(whole, width, height, fill);
  const [mean, std] = [Float32Array.from(rule.mean), Float32Array.from(rule.std)];
  const input = new Float32Array(width * height * mean.length);
  const { fround } = Math;
  for (let c = 0, to = 0; c < mean.length; c++) {
    for (let at = c; at < seen.pixels.length; at += mean.length, to++) {
      input[to] = fround(fround(fround(seen.pixels[at] / 255) - mean[c]) / std[c]);
    }
  }
  return input;
}

/** An input as pixels again, {width, height, channels: 3, pixels}: what the model saw. */
export function seen(input, rule) {
  const [height, width] = rule.size;
  const number = width * height;
  const pixels = new Uint8ClampedArray(number * 3);
  const value = (at, c) => Math.min(1, Math.max(0, input[c * number + at] * rule.std[c] + rule.mean[c]));
  for (let at = 0; at < number; at++) {
    for (let c = 0; c < 3; c++) {
      pixels[3 * at + c] = rounded(value(at, rule.mean.length === 1 ? 0 : c) * 255);
    }
  }
  return { width, height, channels: 3, pixels };
}
