import { describe, expect, it } from "vitest";
import { newConversation, newTurn, type Conversation, type System, type Turn } from "../src/model/conversation";
import { fromFile, toJson, toMarkdown } from "../src/model/exchange";
import { Talk } from "./talk";

let made = 0;
const read = (text: string) => fromFile(text, () => `new${made++}`, 5000);
const done = (id: string, question: string, answer: string, parent: string | null): Turn => ({
  ...newTurn(id, question, parent),
  answer,
  status: "done",
});
const chat = (system: System | null, ...said: [string, string][]): Conversation => {
  const turns = said.map(([question, answer], i) => done(`t${i}`, question, answer, i ? `t${i - 1}` : null));
  return { ...newConversation("c", 1, system), turns, head: turns.at(-1)?.id ?? null };
};
const said = (conversation: Conversation) => conversation.turns.map(({ question, answer }) => [question, answer]);

describe("JSON", () => {
  it("gives back every branch", () => {
    const one = chat({ kind: "own", text: "s" }, ["Q", "A"], ["R", "B"]);
    const branched = { ...one, turns: [...one.turns, done("x", "R2", "B2", "t0")], head: "x", title: "T" };
    const file = toJson([branched]);
    expect(file.name).toBe("t.json");
    expect(read(file.text)).toEqual([branched]);
  });

  it("is added to what is there when it is read twice", () => {
    const talk = new Talk();
    const one = { ...chat(null, ["Q", "A"]), id: "c7" };
    talk.do({ type: "import", conversations: [one] }, { type: "import", conversations: [one] });
    expect(talk.state.conversations.map(({ id }) => id)).toEqual(["c0", "c7"]);
    expect(talk.open().id).toBe("c7");
  });

  it("brings back what was deleted since, and deletes nothing", () => {
    const one = { ...chat(null, ["Q", "A"], ["R", "B"]), id: "c7" };
    const talk = new Talk([one], { lastOpenId: "c7" }).do({ type: "delete-turn", turn: "t1" });
    talk.do({ type: "import", conversations: [{ ...one, gone: ["t0"] }] });
    expect(talk.open().turns.map(({ id }) => id)).toEqual(["t0", "t1"]);
  });

  it("with an id that would be no lane's name is refused", () => {
    const one = chat(null, ["Q", "A"]);
    for (const id of ["", "x".repeat(65), "a/b"]) expect(read(JSON.stringify({ ...one, id }))).toEqual([]);
  });

  it("brings nothing that runs", () => {
    const one = chat(null, ["Q", "A"]);
    const running = { ...one, turns: [{ ...one.turns[0]!, status: "streaming", tab: "x", responseId: "r" }] };
    const [back] = read(JSON.stringify({ conversations: [running] }));
    expect(back!.turns[0]).toMatchObject({ status: "stopped", tab: null, responseId: null });
  });

  it("of another kind, or broken, holds no conversation", () => {
    for (const text of ["[]", "{}", "3", "null", '{"conversations":[{"id":1}]}', "{", "words", ""])
      expect(read(text)).toEqual([]);
  });

  it("with fields of the wrong type is read as far as it goes", () => {
    const odd = { id: "c", createdAt: 1, turns: [{ id: "a", question: "Q", answer: 3, usage: "x", parent: "gone" }] };
    expect(read(JSON.stringify(odd))[0]!.turns[0]).toMatchObject({ answer: "", parent: null, status: "stopped" });
  });

  it("whose turns stand in a circle is not followed round and round", () => {
    const turns = [
      { id: "a", question: "A", answer: "", status: "done", parent: "b" },
      { id: "b", question: "B", answer: "", status: "done", parent: "a" },
    ];
    const [back] = read(JSON.stringify({ id: "c", createdAt: 1, turns, head: "b" }));
    expect(back!.turns.map(({ parent }) => parent)).toEqual([null, "a"]);
  });
});

describe("Markdown", () => {
  it("is what people would write", () => {
    const file = toMarkdown(chat({ kind: "prompt", id: "alda", name: "Alda", version: "2" }, ["How much?", "Two."]));
    expect(file.name).toBe("how-much.md");
    expect(file.text).toBe(
      "# How much?\n\n## System prompt\n\n*Registered:* Alda (`alda` @ 2)\n\n" +
        "## Question\n\nHow much?\n\n## Answer\n\nTwo.\n",
    );
  });

  it.each<[string, Conversation]>([
    ["plain", chat({ kind: "own", text: "Be brief.\n\nAlways." }, ["Q", "A"], ["R", "B"])],
    ["registered", chat({ kind: "prompt", id: "p", name: "P (x)", version: null }, ["Q", "A"])],
    ["unanswered", chat(null, ["Q", "A"], ["R", ""])],
    ["like our own headings", chat(null, ["a\n## Answer\nb", "\\## Question\n\n## Question"], ["R", "# T"])],
    ["code", chat(null, ["```\n## Answer\n```", "```md\n\\\\## Question\n```"])],
  ])("is read again: %s", (_, conversation) => {
    const [back] = read(toMarkdown(conversation).text);
    expect(said(back!)).toEqual(said(conversation));
    expect(back!.system).toEqual(conversation.system);
    expect(back!.head).toBe(back!.turns.at(-1)!.id);
  });

  it("with Windows line ends is read as well", () => {
    expect(said(read("# T\r\n\r\n## Question\r\n\r\nQ\r\n\r\n## Answer\r\n\r\nA\r\n")[0]!)).toEqual([["Q", "A"]]);
  });
});
