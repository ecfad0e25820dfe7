import { describe, expect, it } from "vitest";
import { learned, readModel, readPrompts, readVersions, suggestionsOf, textAt } from "../src/model/catalogue";

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
      { id: "p", name: "p", description: "", text: "", questions: [], versions: null, texts: {} },
      {
        id: "q",
        name: "Q",
        description: "",
        text: "T",
        questions: [{ question: "?", answer: "" }],
        versions: null,
        texts: {},
      },
    ]);
    expect(readPrompts("nonsense")).toEqual([]);
  });

  it("are versions, newest first, however they are numbered", () => {
    const versions = (...listed: unknown[]) => readVersions({ data: listed.map((version) => ({ version })) });
    expect(versions(1, 2, 10)).toEqual(["10", "2", "1"]);
    expect(versions("1", null, {})).toEqual(["1"]);
    expect(readVersions({ error: "no" })).toEqual([]);
  });

  it("says the latest text where no other version is meant, and only what has been read of others", () => {
    const [one] = learned([{ ...prompt(0), text: "new" }], "p", { versions: ["2", "1"] });
    expect([textAt(one!, null), textAt(one!, "2"), textAt(one!, "1")]).toEqual(["new", "new", null]);
    const [two] = learned([one!], "p", { texts: { "1": "old" } });
    expect(two).toMatchObject({ versions: ["2", "1"] });
    expect(textAt(two!, "1")).toBe("old");
  });

  it("suggests a few questions from all over the list", () => {
    expect(suggestionsOf(prompt(12), 6)).toEqual(["q0", "q2", "q4", "q6", "q8", "q10"]);
    expect(suggestionsOf(prompt(7), 3)).toEqual(["q0", "q2", "q4"]);
    expect(suggestionsOf(prompt(2), 6)).toEqual(["q0", "q1"]);
    expect(suggestionsOf(prompt(0), 6)).toEqual([]);
  });
});
