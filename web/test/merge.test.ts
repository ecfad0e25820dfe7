import { describe, expect, it } from "vitest";
import { pathTo, shown } from "../src/model/branches";
import { newConversation, newTurn, type Conversation, type Turn } from "../src/model/conversation";
import { merged } from "../src/model/merge";
import { seeded } from "./seeded";

const turn = (id: string, parent: string | null, parts: Partial<Turn> = {}): Turn => ({
  ...newTurn(id, id, parent),
  status: "done",
  ...parts,
});
const chat = (turns: Turn[], parts: Partial<Conversation> = {}): Conversation => ({
  ...newConversation("c", 1, null),
  turns,
  head: turns.at(-1)?.id ?? null,
  ...parts,
});
const ids = (conversation: Conversation) => conversation.turns.map(({ id }) => id);

describe("two copies of a conversation", () => {
  it("are one and the same object where theirs adds nothing", () => {
    const ours = chat([turn("a", null), turn("b", "a")]);
    expect(merged(ours, chat([turn("a", null)]))).toBe(ours);
  });

  it("keep what was asked in both, as branches; what is shown stays", () => {
    const ours = chat([turn("a", null), turn("b", "a")]);
    const both = merged(ours, chat([turn("a", null), turn("x", "a")]));
    expect(ids(both)).toEqual(["a", "b", "x"]);
    expect(shown(both).map(({ id }) => id)).toEqual(["a", "b"]);
  });

  it("show what was added to the end of what is shown", () => {
    const both = merged(chat([turn("a", null)]), chat([turn("a", null), turn("b", "a")]));
    expect(shown(both).map(({ id }) => id)).toEqual(["a", "b"]);
  });

  it("take the copy of a running turn that has seen more, and an ended one before any", () => {
    const at = (sequence: number, status: Turn["status"] = "streaming") =>
      chat([turn("a", null, { status, sequence, tab: "t", answer: "x".repeat(sequence) })]);
    expect(merged(at(3), at(5)).turns[0]!.sequence).toBe(5);
    expect(merged(at(5), at(3)).turns[0]!.sequence).toBe(5);
    expect(merged(at(5), at(4, "stopped")).turns[0]!.status).toBe("stopped");
    expect(merged(at(4, "stopped"), at(5)).turns[0]!.status).toBe("stopped");
  });

  it("do not bring back what one of them deleted", () => {
    const full = chat([turn("a", null), turn("b", "a")]);
    const cut = chat([turn("a", null)], { gone: ["b"] });
    expect(ids(merged(full, cut))).toEqual(["a"]);
    expect(ids(merged(cut, full))).toEqual(["a"]);
    expect(merged(full, cut).head).toBe("a");
  });

  it("take title, prompt and sampling from the later change, and keep one's own draft", () => {
    const ours = chat([turn("a", null)], { title: "ours", edition: 1, draft: "mine" });
    const theirs = chat([turn("a", null)], { title: "theirs", edition: 2, draft: "yours" });
    expect(merged(ours, theirs)).toMatchObject({ title: "theirs", draft: "mine" });
    expect(merged(theirs, ours)).toBe(theirs);
  });

  it("come to hold the same, whatever two tabs do and in whichever order they hear of it", () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = seeded(seed);
      let [left, right] = [chat([turn("root", null)]), chat([turn("root", null)])];
      const act = (conversation: Conversation, name: string): Conversation => {
        const { turns } = conversation;
        const some = turns[Math.floor(random() * turns.length)];
        if (random() < 0.25 && some) {
          const doomed = turns.filter(({ id }) => pathTo(conversation, id).includes(some)).map(({ id }) => id);
          const rest = turns.filter(({ id }) => !doomed.includes(id));
          return {
            ...conversation,
            turns: rest,
            gone: [...conversation.gone, ...doomed],
            head: rest.at(-1)?.id ?? null,
          };
        }
        return { ...conversation, turns: [...turns, turn(name, some?.id ?? null)], head: name };
      };
      for (let step = 0; step < 12; step++) {
        left = act(left, `l${step}`);
        right = act(right, `r${step}`);
        if (random() < 0.4) left = merged(left, right);
        if (random() < 0.4) right = merged(right, left);
      }
      left = merged(left, right);
      right = merged(right, left);
      expect(new Set(ids(left))).toEqual(new Set(ids(right)));
      for (const one of [left, right]) expect(one.head === null || ids(one).includes(one.head)).toBe(true);
    }
  });
});
