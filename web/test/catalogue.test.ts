import { describe, expect, it } from "vitest";
import { readModel, readPrompts, suggestionsOf } from "../src/model/catalogue";

const prompt = (count: number) =>
  readPrompts({
    data: [{ id: "p", questions: Array.from({ length: count }, (_, i) => ({ question: `q${i}`, answer: "a" })) }],
  })[0]!;

describe("what the server offers", () => {
  it("is its first model", () => {
    expect(readModel({ data: [{ id: "a" }, { id: "b" }] })).toBe("a");
    expect([readModel({ data: [] }), readModel(null), readModel({ data: [{ id: 3 }] })]).toEqual([null, null, null]);
  });

  it("is its prompts, with defaults for what is missing", () => {
    const json = {
      data: [
        { id: "p" },
        { name: "no id" },
        { id: "q", name: "Q", text: "T", questions: [{ question: "?" }, { answer: "!" }] },
      ],
    };
    expect(readPrompts(json)).toEqual([
      { id: "p", name: "p", description: "", text: "", questions: [], versions: [] },
      { id: "q", name: "Q", description: "", text: "T", questions: [{ question: "?", answer: "" }], versions: [] },
    ]);
    expect(readPrompts("nonsense")).toEqual([]);
  });

  it("lists versions newest first, however they are written", () => {
    const versions = (listed: unknown) => readPrompts({ data: [{ id: "p", versions: listed }] })[0]!.versions;
    expect(versions(["1", "2", "10"])).toEqual(["10", "2", "1"]);
    expect(versions([{ version: 1 }, { version: 2 }])).toEqual(["2", "1"]);
    expect(versions("3")).toEqual([]);
  });

  it("suggests a few questions from all over the list", () => {
    expect(suggestionsOf(prompt(12), 6)).toEqual(["q0", "q2", "q4", "q6", "q8", "q10"]);
    expect(suggestionsOf(prompt(7), 3)).toEqual(["q0", "q2", "q4"]);
    expect(suggestionsOf(prompt(2), 6)).toEqual(["q0", "q1"]);
    expect(suggestionsOf(prompt(0), 6)).toEqual([]);
  });
});
