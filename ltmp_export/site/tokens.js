/** What is known of the tokens behind a block, beside who owns which patch; words for it; colours. */

/** Seven hues that people with any colour vision tell apart (Okabe and Ito). */
export const HUES = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
  [204, 121, 167],
];
export const NONE = -1;

/** What follows from an owner of `owners.js`, patch by patch. */
export function looked(owned) {
  const { places, before, tokens } = owned;
  const sizes = new Array(tokens).fill(0);
  const parts = Array.from({ length: tokens }, () => new Set());
  places.forEach((place, patch) => {
    if (place < 0) return;
    sizes[place] += 1;
    parts[place].add(before[patch]);
  });
  return {
    ...owned,
    sizes,
    several: places.map((place) => place >= 0 && sizes[place] > 1),
    mergedHere: places.map((place) => place >= 0 && parts[place].size > 1),
    prunedHere: places.map((place, patch) => place < 0 && before[patch] >= 0),
  };
}

const number = (count, one, several = `${one}s`) => `${count} ${count === 1 ? one : several}`;

const told = (owned) => {
  const merged = owned.sizes.filter((size) => size > 1).length;
  const pruned = owned.places.filter((place) => place < 0).length;
  return {
    tokens: number(owned.tokens, "token"),
    rest: `${merged} merged, ${number(pruned, "patch", "patches")} pruned`,
    largest: owned.sizes.reduce((a, b) => Math.max(a, b), 0),
  };
};

/** A line under a picture. */
export function caption(owned) {
  const { tokens, rest } = told(owned);
  return `Block ${owned.block}: ${tokens}, ${rest}`;
}

/** The same for who does not see it. */
export function alternative(name, owned) {
  const { tokens, rest, largest } = told(owned);
  const detail = largest > 1 ? `; the largest has ${largest} patches` : "";
  return `${name}, ${owned.places.length} patches. Behind block ${owned.block}: ${tokens}, ${rest}${detail}.`;
}

/** By token those whose patches touch its own, over corners as well. */
function neighbours({ places }, [rows, columns]) {
  const beside = new Map();
  const meet = (a, b) => {
    if (a < 0 || b < 0 || a === b) return;
    for (const [one, other] of [[a, b], [b, a]]) {
      if (!beside.has(one)) beside.set(one, new Set());
      beside.get(one).add(other);
    }
  };
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const own = places[y * columns + x];
      if (x + 1 < columns) meet(own, places[y * columns + x + 1]);
      if (y + 1 === rows) continue;
      meet(own, places[(y + 1) * columns + x]);
      if (x + 1 < columns) meet(own, places[(y + 1) * columns + x + 1]);
      if (x > 0) meet(own, places[(y + 1) * columns + x - 1]);
    }
  }
  return beside;
}

/** The hue that most of a token's patches had, the first of those; of tokens that had any. */
function hadBefore({ places, several }, before) {
  const counts = new Map();
  places.forEach((token, patch) => {
    if (!several[patch] || before[patch] < 0) return;
    if (!counts.has(token)) counts.set(token, new Array(HUES.length).fill(0));
    counts.get(token)[before[patch]] += 1;
  });
  return new Map([...counts].map(([token, own]) => [token, own.indexOf(Math.max(...own))]));
}

/** Hues of one block's patches: the larger a token the earlier it chooses, old ones before all. */
function huesOf(owned, grid, before) {
  const had = hadBefore(owned, before);
  const beside = neighbours(owned, grid);
  const tokens = owned.sizes.map((_, token) => token).filter((token) => owned.sizes[token] > 1);
  tokens.sort(
    (a, b) => !had.has(a) - !had.has(b) || owned.sizes[b] - owned.sizes[a] || a - b,
  );
  const given = new Map();
  const used = new Array(HUES.length).fill(0);
  for (const token of tokens) {
    const taken = new Set([...(beside.get(token) ?? [])].map((other) => given.get(other)));
    const all = HUES.map((_, hue) => hue);
    const left = all.filter((hue) => !taken.has(hue));
    const free = left.length ? left : all;
    let hue = had.get(token) ?? NONE;
    if (!free.includes(hue)) hue = free.reduce((a, b) => (used[b] < used[a] ? b : a));
    given.set(token, hue);
    used[hue] += 1;
  }
  return owned.places.map((token) => given.get(token) ?? NONE);
}

/** For each block the hue of each patch; a token keeps its own as far as its neighbours allow. */
export function hues(blocks, grid) {
  let before = blocks[0].places.map(() => NONE);
  return blocks.map((owned) => (before = huesOf(owned, grid, before)));
}

/** The patches of a token, by pieces that hang together over sides. */
function pieces({ places }, token, columns) {
  const left = new Set(places.flatMap((own, patch) => (own === token ? [patch] : [])));
  const found = [];
  for (const start of [...left]) {
    if (!left.delete(start)) continue;
    const piece = [start];
    for (const patch of piece) {
      const x = patch % columns;
      const beside = [patch - columns, patch + columns];
      if (x > 0) beside.push(patch - 1);
      if (x < columns - 1) beside.push(patch + 1);
      for (const other of beside) if (left.delete(other)) piece.push(other);
    }
    found.push(piece);
  }
  return found;
}

/** Pairs of patches that connect the pieces of a token: the shortest that connect them all. */
export function links(owned, token, columns) {
  const parts = pieces(owned, token, columns);
  if (parts.length < 2) return [];
  const patches = parts.flatMap((piece, at) => piece.map((patch) => ({ patch, at })));
  const far = (a, b) => {
    if (a.at === b.at) return 0;
    const down = Math.floor(a.patch / columns) - Math.floor(b.patch / columns);
    const across = (a.patch % columns) - (b.patch % columns);
    return down * down + across * across;
  };
  const [first, ...rest] = patches;
  let waiting = rest.map((one) => ({ one, from: first, length: far(first, one) }));
  const found = [];
  while (waiting.length) {
    const next = waiting.reduce((a, b) => (b.length < a.length ? b : a));
    if (next.length) found.push([next.from.patch, next.one.patch]);
    waiting = waiting.filter((other) => other !== next);
    for (const other of waiting) {
      const length = far(next.one, other.one);
      if (length < other.length) Object.assign(other, { from: next.one, length });
    }
  }
  return found;
}
