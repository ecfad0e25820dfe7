/**
 * Where each node of the cache's tree is drawn: from left to right as a prompt is read, one row a branch.
 *
 * Pure geometry in user units. A node's length is its tokens, its thickness how many branches run through it; a ribbon
 * joins it to what it grew from. O(nodes log nodes). Does not know colours, SVG or the server.
 */
import type { CacheNode } from "./liveWire";

export interface Placed {
  node: CacheNode;
  x: number;
  /** The middle of it. */
  y: number;
  length: number;
  thickness: number;
  /** The outline of the ribbon to its parent; empty for a root. */
  ribbon: string;
  /** Leaves at or below it. */
  leaves: number;
  /** In [0, 1]: 1 for what is held or was just used, towards 0 for what is evicted next. */
  life: number;
}

export interface TreePicture {
  placed: Placed[];
  width: number;
  height: number;
  /** Branches that found no room. */
  folded: number;
}

/** The fewer branches, the more room each has: up to so many rows, the row's height and the thinnest node. */
const DENSITIES = [
  { rows: 8, row: 34, thinnest: 16 },
  { rows: 20, row: 28, thinnest: 13 },
  { rows: Infinity, row: 22, thinnest: 7 },
];
const WIDE_GAP = 30;
const NARROW_GAP = 16;
const NARROW = 600;
const SHORTEST = 7;
const EDGE = 10;
const THICKEST = 36;

/**
 * `width`: that of the picture, exceeded only by trees too deep for it; the height follows from the branches, of which
 * at most `rows` are drawn.
 */
export function placeTree(nodes: readonly CacheNode[], width: number, rows: number): TreePicture {
  const children = new Map<number, CacheNode[]>();
  const ids = new Set(nodes.map(({ id }) => id));
  for (const node of nodes) {
    const above = ids.has(node.parent) && node.parent !== node.id ? node.parent : 0;
    children.set(above, [...(children.get(above) ?? []), node]);
  }
  const oldest = Math.max(1, ...nodes.map(({ idle }) => idle));
  const { kept, folded } = fold(nodes, children, rows);
  const gap = width < NARROW ? NARROW_GAP : WIDE_GAP;
  const scale = scaleFor(children, kept, width, gap);
  const { row: rowHeight, thinnest } = densityFor([...kept].filter((id) => !children.has(id)).length);
  const placed: Placed[] = [];
  let row = 0;

  function place(node: CacheNode, x: number): Placed {
    const length = Math.max(SHORTEST, node.tokens * scale);
    const below = (children.get(node.id) ?? []).filter(({ id }) => kept.has(id));
    const under = below.map((child) => place(child, x + length + gap));
    const y = under.length ? (under[0]!.y + under.at(-1)!.y) / 2 : EDGE + rowHeight * (row++ + 0.5);
    const leaves = under.reduce((sum, child) => sum + child.leaves, 0) || 1;
    const thickness = Math.min(thinnest + 4.5 * Math.log2(leaves) + (node.pinned ? 2 : 0), THICKEST);
    const life = node.locks || node.pinned === "hard" ? 1 : 1 - node.idle / oldest;
    const here = { node, x, y, length, thickness, ribbon: "", leaves, life };
    // Roots of the tree run together where they leave the trunk.
    const shared = under.reduce((sum, child) => sum + child.thickness, 0);
    let from = y - thickness / 2;
    for (const child of under) {
      const part = (child.thickness / shared) * thickness;
      child.ribbon = ribbon(x + length, from, from + part, child);
      from += part;
    }
    placed.push(here);
    return here;
  }

  for (const root of (children.get(0) ?? []).filter(({ id }) => kept.has(id))) place(root, EDGE);
  const reach = Math.max(width, ...placed.map(({ x, length }) => x + length + EDGE));
  return { placed, width: reach, height: 2 * EDGE + rowHeight * Math.max(1, row), folded };
}

function densityFor(leaves: number): (typeof DENSITIES)[number] {
  return DENSITIES.find(({ rows }) => leaves <= rows)!;
}

/** From the slice [top, bottom] of the parent's end to the child's whole beginning. */
function ribbon(x: number, top: number, bottom: number, child: Placed): string {
  const [upper, lower] = [child.y - child.thickness / 2, child.y + child.thickness / 2];
  const middle = (x + child.x) / 2;
  const n = (value: number) => Number(value.toFixed(1));
  return (
    `M${n(x)} ${n(top)}C${n(middle)} ${n(top)} ${n(middle)} ${n(upper)} ${n(child.x)} ${n(upper)}` +
    `V${n(lower)}C${n(middle)} ${n(lower)} ${n(middle)} ${n(bottom)} ${n(x)} ${n(bottom)}Z`
  );
}

/** The branches that are drawn: those that were used last, with all that they grew from. */
function fold(
  nodes: readonly CacheNode[],
  children: ReadonlyMap<number, CacheNode[]>,
  rows: number,
): { kept: Set<number>; folded: number } {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const leaves = nodes.filter(({ id }) => !children.has(id));
  const ranked = [...leaves].sort((a, b) => b.locks - a.locks || a.idle - b.idle || b.tokens - a.tokens);
  const kept = new Set<number>();
  for (const leaf of ranked.slice(0, rows)) {
    for (let node: CacheNode | undefined = leaf; node && !kept.has(node.id); node = byId.get(node.parent))
      kept.add(node.id);
  }
  return { kept, folded: Math.max(0, leaves.length - rows) };
}

/** The largest length per token at which the longest branch still fits. */
function scaleFor(
  children: ReadonlyMap<number, CacheNode[]>,
  kept: ReadonlySet<number>,
  width: number,
  gap: number,
): number {
  const branches: CacheNode[][] = [];
  function walk(node: CacheNode, path: CacheNode[]): void {
    const here = [...path, node];
    const below = (children.get(node.id) ?? []).filter(({ id }) => kept.has(id));
    if (below.length) below.forEach((child) => walk(child, here));
    else branches.push(here);
  }
  (children.get(0) ?? []).filter(({ id }) => kept.has(id)).forEach((root) => walk(root, []));
  const room = width - 2 * EDGE;
  const fits = (scale: number) =>
    branches.every(
      (path) =>
        path.reduce((sum, { tokens }) => sum + Math.max(SHORTEST, tokens * scale), gap * (path.length - 1)) <= room,
    );
  let [low, high] = [1e-6, 4];
  if (fits(high)) return high;
  for (let step = 0; step < 24; step++) {
    const middle = (low + high) / 2;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}
