/** onnxruntime-web: fetched, opened, run. Every file is the one that the site was made with. */

const CPU = "wasm";

/** A file of the site, whose bytes are those that it was made with. */
export async function fetched({ url, integrity }) {
  let answer;
  try {
    answer = await fetch(url, { integrity, mode: "cors", credentials: "same-origin" });
  } catch {
    throw new Error(`${url} cannot be loaded, or is not the file that this site was made with`);
  }
  if (!answer.ok) throw new Error(`${url} cannot be loaded (${answer.status})`);
  return answer.arrayBuffer();
}

/** Numbers of 16 bits, as they are stored, from numbers of 32, to the nearest and half to the even. */
export function halves(values) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (word) => {
    const sign = (word >>> 16) & 0x8000;
    const size = word & 0x7fffffff;
    if (size > 0x7f800000) return sign | 0x7e00;
    if (size >= 0x477ff000) return sign | 0x7c00; // beyond the largest
    if (size < 0x33000001) return sign;
    const exponent = (size >>> 23) - 112;
    const digits = (size & 0x7fffff) | 0x800000;
    const shift = exponent > 0 ? 13 : 14 - exponent;
    const kept = digits >>> shift;
    const rest = digits & ((1 << shift) - 1);
    const half = 1 << (shift - 1);
    const up = rest > half || (rest === half && kept & 1) ? 1 : 0;
    return sign | (exponent > 0 ? ((exponent - 1) << 10) + kept + up : kept + up);
  });
}

function whole(bits) {
  return Float32Array.from(bits, (word) => {
    const [sign, exponent, digits] = [word & 0x8000 ? -1 : 1, (word >> 10) & 31, word & 1023];
    if (exponent === 31) return digits ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 25) * (1024 + digits) : 2 ** -24 * digits);
  });
}

/** Any tensor as an array of numbers. */
function numbers({ type, data }) {
  if (type === "int64") return Array.from(data, Number);
  return Array.from(type === "float16" && data instanceof Uint16Array ? whole(data) : data);
}

/** Threads are there where the host sends the headers that browsers ask for, and on one origin. */
const threads = ({ wasm }) => {
  const alone = globalThis.crossOriginIsolated && !/^https?:/.test(wasm.script);
  return alone ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
};

/** onnxruntime-web with its binary; for WebGPU it is another one. */
async function runtime(provider, given) {
  const { script, binary } = given[provider];
  const bytes = await fetched(binary);
  const ort = await import(script);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads(given);
  ort.env.wasm.wasmBinary = bytes;
  return ort;
}

/** A model that is ready, and `run(input)`: its outputs by name, as arrays of numbers. */
export class Model {
  static async open(ort, provider, bytes, site) {
    const session = await ort.InferenceSession.create(new Uint8Array(bytes), {
      executionProviders: provider === CPU ? [CPU] : [provider, CPU],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3, // errors; that shapes stay on the processor is none
    });
    return new Model(ort, session, site);
  }

  constructor(ort, session, { input, type, shape }) {
    Object.assign(this, { ort, session, input, type, shape });
  }

  /** An input as the runtime takes it. */
  tensor(values) {
    const data = this.type === "float16" ? halves(values) : values;
    return { [this.input]: new this.ort.Tensor(this.type, data, [1, ...this.shape]) };
  }

  async run(values) {
    const given = await this.session.run(this.tensor(values));
    const found = {};
    for (const [name, tensor] of Object.entries(given)) {
      found[name] = numbers(tensor);
      tensor.dispose();
    }
    return found;
  }

  /** Milliseconds of one run, its outputs handed over. */
  async timed(values) {
    const feeds = this.tensor(values);
    const start = performance.now();
    const given = await this.session.run(feeds);
    const took = performance.now() - start;
    Object.values(given).forEach((tensor) => tensor.dispose());
    return took;
  }
}

/** Where it can run here: wasm, and WebGPU if there is an adapter and the site has what it needs. */
export async function providers(given) {
  const adapter = given.webgpu && navigator.gpu && (await navigator.gpu.requestAdapter().catch(() => null));
  return adapter ? [CPU, "webgpu"] : [CPU];
}

/** The runtime on one provider, and models in it, each loaded once. */
export class Place {
  constructor(site, provider) {
    Object.assign(this, { site, provider, opened: new Map() });
    this.threads = provider === CPU ? threads(site.runtime) : 1;
  }

  /** The reduced model, or the dense one. */
  model(name) {
    if (!this.opened.has(name)) this.opened.set(name, this.open(this.site[name]));
    return this.opened.get(name);
  }

  async open(file) {
    this.ort ??= runtime(this.provider, this.site.runtime);
    const [ort, bytes] = await Promise.all([this.ort, fetched(file)]);
    return Model.open(ort, this.provider, bytes, this.site.model);
  }
}
