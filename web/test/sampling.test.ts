import { describe, expect, it } from "vitest";
import {
  countSet,
  FIELDS,
  readNumber,
  readStops,
  serversOwn,
  writeStops,
  type NumberField,
} from "../src/model/sampling";

const rule = (field: NumberField) => FIELDS.find((one) => one.field === field)!;

describe("a number that is typed", () => {
  it("is taken with a point or a comma, and nothing is the server's own", () => {
    expect(readNumber(rule("temperature"), " 0,7 ")).toEqual({ value: 0.7 });
    expect(readNumber(rule("temperature"), "")).toEqual({ value: null });
    expect(readNumber(rule("temperature"), "0")).toEqual({ value: 0 });
  });

  it.each<[NumberField, string]>([
    ["temperature", "warm"],
    ["temperature", "2.1"],
    ["temperature", "-0.1"],
    ["topP", "0"],
    ["topP", "1.01"],
    ["maxTokens", "1.5"],
    ["maxTokens", "0"],
    ["seed", "1e400"],
    ["seed", "NaN"],
  ])("%s %s is refused by name", (field, typed) => {
    expect(readNumber(rule(field), typed)).toEqual({ wrong: expect.stringContaining(rule(field).label) });
  });
});

describe("stop strings", () => {
  it("are one a line and survive being written", () => {
    const stops = ["END", "\n\n", "a\nb"];
    expect(readStops(writeStops(stops))).toEqual({ value: stops });
    expect(readStops("\n\nEND\n")).toEqual({ value: ["END"] });
  });

  it("are bounded", () => {
    expect(readStops("a\nb\nc\nd\ne")).toHaveProperty("wrong");
    expect(readStops("x".repeat(257))).toHaveProperty("wrong");
  });
});

it("counts what differs from the server", () => {
  expect(countSet(serversOwn)).toBe(0);
  expect(countSet({ ...serversOwn, temperature: 0, stop: ["x"] })).toBe(2);
});
