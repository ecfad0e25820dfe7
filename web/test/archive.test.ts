import { describe, expect, it } from "vitest";
import { load, save, type Shelf } from "../src/model/archive";
import { newConversation, newTurn } from "../src/model/conversation";

class MapShelf implements Shelf {
  entries = new Map<string, string>();
  writes = 0;
  full = false;
  get length() {
    return this.entries.size;
  }
  key(index: number) {
    return [...this.entries.keys()][index] ?? null;
  }
  getItem(key: string) {
    return this.entries.get(key) ?? null;
  }
  setItem(key: string, value: string) {
    if (this.full) throw new Error("QuotaExceededError");
    this.writes++;
    this.entries.set(key, value);
  }
  removeItem(key: string) {
    this.entries.delete(key);
  }
}

const done = { ...newTurn("t", "Q"), answer: "A", status: "done" as const, responseId: "r", epoch: 3 };
const one = { ...newConversation("one", 1, { kind: "own", text: "s" }), turns: [done] };
const two = { ...newConversation("two", 2, null), draft: "d" };

describe("archive", () => {
  it("gives back what was kept, newest first", () => {
    const shelf = new MapShelf();
    expect(save(shelf, [], [one, two])).toEqual({ kept: true, taken: [] });
    expect(load(shelf).map(({ id }) => id)).toEqual(["two", "one"]);
    expect(load(shelf)[1]!.turns[0]).toMatchObject({ question: "Q", answer: "A", status: "done" });
  });

  it("forgets the socket of an earlier visit, not the response", () => {
    const shelf = new MapShelf();
    save(shelf, [], [one]);
    expect(load(shelf)[0]!.turns[0]).toMatchObject({ responseId: "r", epoch: 0 });
  });

  it("reads what an earlier version kept, a list of turns, as one branch", () => {
    const shelf = new MapShelf();
    const turn = (id: string) => ({ id, question: id, answer: "A", status: "done" });
    const old = { id: "old", createdAt: 1, system: null, turns: [turn("a"), turn("b")], draft: "d" };
    shelf.entries.set("banyan.conversation.1.old", JSON.stringify(old));
    const [read] = load(shelf);
    expect(read!.turns.map(({ parent }) => parent)).toEqual([null, "a"]);
    expect(read).toMatchObject({ head: "b", draft: "d" });
  });

  it("takes in what another tab has written, and says so", () => {
    const shelf = new MapShelf();
    save(shelf, [], [one]);
    const theirs = { ...one, turns: [done, { ...done, id: "theirs", parent: "t" }] };
    save(shelf, [one], [theirs]);
    const ours = { ...one, turns: [done, { ...done, id: "ours", parent: "t" }] };
    const { taken } = save(shelf, [one], [ours]);
    expect(taken[0]!.turns.map(({ id }) => id)).toEqual(["t", "ours", "theirs"]);
    expect(load(shelf)[0]!.turns.map(({ id }) => id)).toEqual(["t", "ours", "theirs"]);
  });

  it("writes only what changed and removes what is gone", () => {
    const shelf = new MapShelf();
    save(shelf, [], [one, two]);
    save(shelf, [one, two], [one, { ...two, draft: "e" }]);
    expect(shelf.writes).toBe(3);
    save(shelf, [one, two], [two]);
    expect(load(shelf).map(({ id }) => id)).toEqual(["two"]);
  });

  it("leaves other keys alone and skips what it cannot read", () => {
    const shelf = new MapShelf();
    save(shelf, [], [one]);
    shelf.entries.set("other", "x");
    shelf.entries.set("banyan.conversation.1.bad", "{");
    shelf.entries.set("banyan.conversation.1.odd", '{"id":1}');
    expect(load(shelf).map(({ id }) => id)).toEqual(["one"]);
    expect(shelf.entries.get("other")).toBe("x");
  });

  it("says when there is no room", () => {
    const shelf = new MapShelf();
    shelf.full = true;
    expect(save(shelf, [], [one]).kept).toBe(false);
  });
});
