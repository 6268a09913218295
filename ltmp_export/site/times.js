/** How long the reduced and the dense model take here, in turns, on the same inputs. */

const [LONGEST, MOST, LEAST] = [12_000, 200, 3]; // milliseconds in all; rounds

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

/** Lets the page show what it has to. */
export const breathe = () => new Promise((done) => setTimeout(done));

/**
 * Rounds over all inputs until there are enough of them, or time is up.
 *
 * @param models By name.
 * @param tell Called with the number of rounds that are done.
 * @returns {rounds, medians: by name milliseconds of an image}
 */
export async function measured(models, inputs, tell) {
  const names = Object.keys(models);
  const took = Object.fromEntries(names.map((name) => [name, []]));
  for (const name of names) for (const input of inputs.slice(0, 2)) await models[name].timed(input);
  const start = performance.now();
  let rounds = 0;
  while (rounds < LEAST || (rounds < MOST && performance.now() - start < LONGEST)) {
    const order = rounds % 2 ? [...names].reverse() : names;
    for (const input of inputs) {
      for (const name of order) took[name].push(await models[name].timed(input));
      await breathe();
    }
    rounds += 1;
    tell(rounds);
  }
  return { rounds, medians: Object.fromEntries(names.map((name) => [name, median(took[name])])) };
}
