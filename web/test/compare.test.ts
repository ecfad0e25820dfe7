import { describe, expect, it } from "vitest";
import { longestPrompt, type SideName } from "../src/model/compare";
import { parseEvent } from "../src/model/protocol";
import { squaresOf, tokensPerSquare } from "../src/model/waffle";
import { splitOf } from "../src/model/cache";
import { OPENED, Talk, usage } from "./talk";

const PROMPTS = ["alda", "brim"].map((id) => ({
  id,
  name: id,
  description: "",
  text: "",
  questions: [],
  versions: null,
  texts: {},
}));
const begun = () => new Talk().do({ type: "prompts", prompts: PROMPTS }, OPENED);
const ask = (talk: Talk) => talk.do({ type: "compare", question: " Hi ", turnIds: { left: "l", right: "r" } });
const open = (talk: Talk, name: SideName) => talk.do({ type: "side", name, action: { type: "opened" } });
function hears(talk: Talk, name: SideName, event: Record<string, unknown>): Talk {
  return talk.do({ type: "side", name, action: { type: "event", event: parseEvent(JSON.stringify(event))! } });
}

describe("side by side", () => {
  it("begins with two different prompts", () => {
    const { left, right } = begun().state.compare;
    expect([left.system, right.system]).toMatchObject([{ id: "alda" }, { id: "brim" }]);
  });

  it("opens a connection for each side with the first question, and asks on each as it opens", () => {
    const talk = ask(begun());
    expect(
      talk.effects.filter(({ type }) => type === "connect").map((effect) => "line" in effect && effect.line),
    ).toEqual(["left", "right"]);
    open(talk, "right");
    expect(talk.sent("right")).toMatchObject([{ prompt: { id: "brim" }, input: [{ content: "Hi" }] }]);
    expect(talk.state.compare.left.turn!.status).toBe("queued");
    expect(open(talk, "left").sent("left")).toMatchObject([{ prompt: { id: "alda" } }]);
    expect(talk.sent("main")).toEqual([]);
  });

  it("waits for both before another question", () => {
    const talk = open(open(ask(begun()), "left"), "right");
    hears(talk, "left", { type: "response.completed", response: { usage: usage(100, 90, 3) } });
    talk.effects = [];
    ask(talk);
    expect(talk.effects).toEqual([]);
    hears(talk, "right", { type: "response.completed", response: { usage: usage(400, 0, 3) } });
    expect(longestPrompt(talk.state.compare)).toBe(400);
    ask(talk);
    expect([talk.state.compare.left.turn!.status, talk.state.compare.right.turn!.status]).toEqual([
      "waiting",
      "waiting",
    ]);
  });

  it("stops what runs on each", () => {
    const talk = open(ask(begun()), "left");
    talk.sent();
    for (const name of ["left", "right"] as const) talk.do({ type: "side", name, action: { type: "stop" } });
    expect(talk.state.compare.right.turn!.status).toBe("stopped");
    expect(talk.effects.filter(({ type }) => type === "send")).toEqual([
      { type: "send", line: "left", event: { type: "response.cancel", stream_id: "side" } },
    ]);
  });

  it("resumes a side whose connection broke, and only that one", () => {
    const talk = open(open(ask(begun()), "left"), "right");
    hears(talk, "left", { type: "response.created", sequence_number: 0, response: { id: "r9" } });
    talk.do({ type: "side", name: "left", action: { type: "closed", code: 1006, random: 0 } });
    talk.effects = [];
    talk.do({ type: "side", name: "left", action: { type: "wake" } });
    expect(open(talk, "left").sent("left")).toEqual([
      { type: "x.resume", response_id: "r9", after: 0, stream_id: "side" },
    ]);
  });

  it("with a key of its own is another tenant: its prompts are read, what was answered is gone", () => {
    const talk = open(ask(begun()), "left");
    talk.effects = [];
    talk.do({ type: "side", name: "left", action: { type: "key", key: "sk-b" } });
    expect(talk.effects).toEqual([{ type: "load", line: "left" }]);
    expect(talk.state.compare.left).toMatchObject({ turn: null, system: null, link: { phase: "resting" } });
    talk.do({ type: "side", name: "left", action: { type: "prompts", prompts: [PROMPTS[1]!] } });
    expect(talk.state.compare.left.system).toMatchObject({ id: "brim" });
  });
});

describe("squares", () => {
  it("are on one scale for both sides, and show whatever is there at all", () => {
    const perSquare = tokensPerSquare(1600);
    const split = splitOf({
      ...begun().ask("x").last(),
      cache: { promptTokens: 803, cachedTokens: 800, by: { system: 800, history: 0, shared: 0 }, savedMs: 0 },
    })!;
    const squares = squaresOf(split, perSquare);
    expect(squares.filter((origin) => origin === "system")).toHaveLength(80);
    expect(squares.filter((origin) => origin === "computed")).toHaveLength(1);
    expect(squares).not.toContain("shared");
    expect(tokensPerSquare(1)).toBe(1);
  });
});
