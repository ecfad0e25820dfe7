import { describe, expect, it } from "vitest";
import { contextTokens, describeSplit, formatMs, formatPercent, formatRate, splitOf } from "../src/model/cache";
import { newTurn, type Turn } from "../src/model/conversation";

const report = (promptTokens: number, system: number, history: number, shared: number): Partial<Turn> => ({
  cache: { promptTokens, cachedTokens: system + history + shared, by: { system, history, shared }, savedMs: 0 },
});
const turn = (parts: Partial<Turn>): Turn => ({ ...newTurn("t", "q"), ...parts });
const tokens = (parts: Partial<Turn>) => splitOf(turn(parts))?.shares.map((share) => share.tokens);

describe("splitOf", () => {
  it("knows nothing before the first report", () => {
    expect(splitOf(turn({}))).toBeNull();
  });

  it("adds up to the prompt", () => {
    expect(tokens(report(1000, 900, 40, 10))).toEqual([900, 40, 10, 50]);
    expect(tokens(report(1000, 0, 0, 0))).toEqual([0, 0, 0, 1000]);
  });

  it("counts what was shared in flight, which only the usage knows", () => {
    expect(
      tokens({ ...report(100, 60, 0, 0), usage: { inputTokens: 100, cachedTokens: 90, outputTokens: 1 } }),
    ).toEqual([60, 0, 30, 10]);
  });

  it("never shows more than the prompt", () => {
    expect(tokens(report(10, 20, 20, 20))).toEqual([10, 0, 0, 0]);
  });

  it("has no share of an empty prompt", () => {
    expect(splitOf(turn(report(0, 0, 0, 0)))!.shares.every(({ fraction }) => fraction === 0)).toBe(true);
  });
});

describe("words", () => {
  it("says the bar", () => {
    expect(describeSplit(splitOf(turn(report(1200, 1100, 60, 0)))!)).toBe(
      "1,160 of 1,200 prompt tokens came from the cache: 1,100 from the system prompt, 60 from this chat, 40 computed anew.",
    );
  });

  it.each([
    [0.2, "under 1 ms"],
    [84.4, "84 ms"],
    [999.4, "999 ms"],
    [999.6, "1.00 s"],
    [1240, "1.24 s"],
    [12_400, "12.4 s"],
  ])("%d ms is %s", (ms, text) => {
    expect(formatMs(ms)).toBe(text);
  });

  it.each([
    [0, "0 %"],
    [0.004, "under 1 %"],
    [0.5, "50 %"],
    [0.996, "over 99 %"],
    [1, "100 %"],
  ])("a share of %d is %s", (fraction, text) => {
    expect(formatPercent(fraction)).toBe(text);
  });

  it("rounds rates", () => {
    expect([3.14, 61.7, 1234.5].map(formatRate)).toEqual(["3.1", "62", "1,235"]);
  });
});

it("counts the context by the branch's last turn that knows it", () => {
  const usage = { inputTokens: 900, cachedTokens: 0, outputTokens: 24 };
  expect(contextTokens([])).toBeNull();
  expect(contextTokens([turn({ usage }), turn({})])).toBe(924);
  expect(contextTokens([turn({ usage }), turn(report(1000, 900, 0, 0))])).toBe(1000);
});
