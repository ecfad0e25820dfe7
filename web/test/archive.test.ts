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
    expect(save(shelf, [], [one, two])).toBe(true);
    expect(load(shelf).map(({ id }) => id)).toEqual(["two", "one"]);
    expect(load(shelf)[1]!.turns[0]).toMatchObject({ question: "Q", answer: "A", status: "done" });
  });

  it("forgets ids of an earlier socket", () => {
    const shelf = new MapShelf();
    save(shelf, [], [one]);
    expect(load(shelf)[0]!.turns[0]).toMatchObject({ responseId: null, epoch: 0 });
  });

  it("says that a running answer was cut off by leaving the page", () => {
    const shelf = new MapShelf();
    save(shelf, [], [{ ...one, turns: [done, { ...newTurn("u", "Q2"), answer: "par", status: "streaming" }] }]);
    expect(load(shelf)[0]!.turns[1]).toMatchObject({ status: "failed", answer: "par", problem: { retry: true } });
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
    expect(save(shelf, [], [one])).toBe(false);
  });
});
