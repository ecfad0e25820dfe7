import { describe, expect, it } from "vitest";
import type { CacheNode } from "../src/model/liveWire";
import { placeTree } from "../src/model/treeLayout";
import { seeded } from "./seeded";

const node = (id: number, parent: number, tokens: number, parts: Partial<CacheNode> = {}): CacheNode => ({
  ...{ id, parent, tokens, tenant: null, locks: 0, pinned: "", hits: 0, idle: 0, preview: null },
  ...parts,
});

function randomTree(seed: number): CacheNode[] {
  const random = seeded(seed);
  return Array.from({ length: 1 + Math.floor(random() * 60) }, (_, index) =>
    node(index + 1, Math.floor(random() * (index + 1)), 1 + Math.floor(random() ** 3 * 3000), {
      idle: Math.floor(random() * 9),
      locks: random() < 0.1 ? 1 : 0,
    }),
  );
}

describe("the tree", () => {
  it("puts a child right of its parent, and a parent in the middle of its children", () => {
    const { placed } = placeTree([node(1, 0, 100), node(2, 1, 50), node(3, 1, 50)], 600, 10);
    const [two, three, one] = placed;
    expect(one).toMatchObject({ leaves: 2, y: (two!.y + three!.y) / 2 });
    expect(two!.x).toBeGreaterThan(one!.x + one!.length);
    expect(one!.thickness).toBeGreaterThan(two!.thickness);
    expect(one!.length).toBeCloseTo(2 * two!.length, 1);
    expect([one!.ribbon, two!.ribbon !== ""]).toEqual(["", true]);
  });

  it("fits, keeps rows apart and draws each node once, whatever its shape", () => {
    for (let seed = 0; seed < 150; seed++) {
      const nodes = randomTree(seed);
      const { placed, height } = placeTree(nodes, 1400, 1000);
      expect(new Set(placed.map(({ node: { id } }) => id)).size).toBe(nodes.length);
      const rows = placed.filter(({ leaves, node: { id } }) => leaves === 1 && !nodes.some((n) => n.parent === id));
      rows.sort((a, b) => a.y - b.y);
      rows.forEach((row, i) => {
        const before = rows[i - 1];
        if (before) expect(row.y - before.y).toBeGreaterThan((row.thickness + before.thickness) / 2);
      });
      for (const { x, y, length, thickness, life } of placed) {
        expect(x + length).toBeLessThanOrEqual(1400);
        expect(y - thickness / 2).toBeGreaterThanOrEqual(0);
        expect(y + thickness / 2).toBeLessThanOrEqual(height);
        expect(life).toBeGreaterThanOrEqual(0);
        expect(life).toBeLessThanOrEqual(1);
      }
    }
  });

  it("draws the branches that live when there are too many", () => {
    const leaves = Array.from({ length: 50 }, (_, i) => node(i + 2, 1, 10, { idle: i, locks: i === 40 ? 1 : 0 }));
    const { placed, folded } = placeTree([node(1, 0, 10), ...leaves], 600, 5);
    expect(folded).toBe(45);
    expect(placed.map(({ node: { id } }) => id).sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 42]);
  });

  it("fades what is evicted next, and nothing that is held or pinned", () => {
    const parts: Partial<CacheNode>[] = [{ idle: 0 }, { idle: 8 }, { idle: 8, locks: 1 }, { idle: 8, pinned: "hard" }];
    const { placed } = placeTree(
      parts.map((part, i) => node(i + 1, 0, 10, part)),
      600,
      10,
    );
    expect(placed.map(({ life }) => life)).toEqual([1, 0, 1, 1]);
  });

  it("takes a node whose parent it does not know for a root", () => {
    expect(placeTree([node(7, 99, 10)], 600, 10).placed[0]).toMatchObject({ ribbon: "", leaves: 1 });
    expect(placeTree([], 600, 10)).toMatchObject({ placed: [], folded: 0 });
  });
});
