/**
 * Which token each patch of an image is part of behind each block, composed of what the file decided.
 *
 * A step is read as `steps/NAME/record.py` reads it. Given are the tensors that the step decided by,
 * as plain numbers; `slots`, where each token stands among what the tensors tell of; `front`, how
 * many rows stand before the patches; and `count`, the tokens that the block counts. Wanted are the
 * slots of the tokens that are left, and for each token the place, among those, of what it `went`
 * to, -1 if it is gone.
 */

export const NOWHERE = -1;

const upTo = (end, start = 0, step = 1) => {
  const found = [];
  for (let at = start; at < end; at += step) found.push(at);
  return found;
};

const places = (flags) => upTo(flags.length).filter((at) => flags[at]);

/** Where tokens go of which some stay, these rows in this order. */
function selected(order, tokens) {
  const went = new Array(tokens).fill(NOWHERE);
  order.forEach((row, place) => {
    went[row] = place;
  });
  return went;
}

/** Where tokens go of which all sources but those that stay merge into destinations. */
function paired(tokens, front, stays, partner) {
  const sources = upTo(tokens, front + (front % 2), 2);
  const destinations = upTo(tokens, front + 1 - (front % 2), 2);
  const went = upTo(tokens);
  destinations.forEach((row, place) => {
    went[row] = front + stays.length + place;
  });
  const kept = new Map(stays.map((source, place) => [source, front + place]));
  sources.forEach((row, source) => {
    went[row] = kept.get(source) ?? went[destinations[partner[source]]];
  });
  return went;
}

export const STEPS = {
  Merge({ merged, partner }, { slots, front }) {
    const tokens = slots.length;
    const sources = upTo(tokens, front + (front % 2), 2).length;
    const stays = upTo(sources).filter((source) => !merged[source]);
    const destinations = upTo(tokens - front - sources);
    const left = [
      ...upTo(front),
      ...stays.map((source) => front + source),
      ...destinations.map((place) => front + merged.length + place),
    ];
    return { left, went: paired(tokens, front, stays, partner) };
  },

  Prune({ kept }, { slots }) {
    const order = places(slots.map((slot) => kept[slot]));
    return { left: order.map((row) => slots[row]), went: selected(order, slots.length) };
  },

  MergeMost({ ranking, partner }, { slots, front, step }) {
    const stays = ranking.slice(step.count);
    if (!step.ranked) stays.sort((a, b) => a - b);
    return {
      left: upTo(slots.length - step.count),
      went: paired(slots.length, front, stays, partner),
    };
  },

  PruneLeast({ order }, { slots }) {
    return { left: upTo(order.length), went: selected(order, slots.length) };
  },

  Fit({ fitted }, { slots, count }) {
    const stay = new Set(fitted.slice(0, count));
    const order = places(slots.map((slot) => stay.has(slot)));
    return { left: upTo(stay.size), went: selected(order, slots.length) };
  },

  Fuse({ ranking }, { slots, front, step, count }) {
    const kept = count - front - (step.fused ? 1 : 0);
    const order = [...upTo(front), ...ranking.slice(0, kept).map((patch) => front + patch)];
    const others = step.fused ? order.length : NOWHERE;
    const went = selected(order, slots.length).map((place) => (place < 0 ? others : place));
    return { left: upTo(count), went };
  },

  Mergence({ ranking, partner }, { slots, front, step }) {
    const stay = new Set(ranking.slice(0, step.keep).map((patch) => front + patch));
    const order = upTo(slots.length).filter((row) => row < front || stay.has(row));
    const into = partner.values();
    const went = selected(order, slots.length);
    const merged = went.map((place) => (place < 0 ? front + into.next().value : place));
    return { left: upTo(order.length), went: merged };
  },

  MergeMask({ target, weights }, { slots, step, count }) {
    const front = slots.length - step.sets * step.of;
    const went = upTo(front);
    target.forEach((into, patch) => {
      const own = weights.slice(patch * step.tokens, (patch + 1) * step.tokens);
      const first = front + Math.floor(patch / step.of) * step.tokens;
      went.push(own.some((weight) => weight > 0) ? first + into : NOWHERE);
    });
    return { left: upTo(count), went };
  },
};

/**
 * Of one image {block, places, before, tokens, front} for each block.
 *
 * @param site What the page is told of the file.
 * @param tensors By name, each an array of numbers.
 */
export function owners(site, tensors) {
  const { front, tokens } = site;
  const first = upTo(tokens, front);
  if (site.blocks === null) {
    const last = tensors.token_map;
    const left = Math.max(front, 1 + last.reduce((a, b) => Math.max(a, b), NOWHERE));
    return [{ block: site.depth - 1, places: last, before: first, tokens: left, front }];
  }
  const found = [];
  let [owner, standing] = [first, tokens];
  site.blocks.forEach((block, number) => {
    if (block.whole) { // tokens are merged in front of it, and all are given back behind it
      found.push({ block: number, places: owner, before: owner, tokens: standing, front });
      return;
    }
    const count = tensors[block.count][0];
    let [after, slots] = [owner, upTo(standing)];
    for (const step of block.steps) {
      const own = Object.fromEntries(
        Object.entries(step.tensors).map(([name, tensor]) => [name, tensors[tensor]]),
      );
      const read = STEPS[step.step](own, { slots, front, step, count });
      after = after.map((place) => (place < 0 ? NOWHERE : read.went[place]));
      slots = read.left;
    }
    if (slots.length !== count) {
      throw new Error(`block ${number} counts ${count} tokens, ${slots.length} left by its decisions`);
    }
    found.push({ block: number, places: after, before: owner, tokens: count, front });
    if (!block.restores) [owner, standing] = [after, count];
  });
  return found;
}
