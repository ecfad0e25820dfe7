import { describe, expect, it } from "vitest";
import { follows } from "../src/model/follow";

const at = (top: number, height = 1000) => ({ top, height, viewport: 500 });

describe("follows", () => {
  it("lets go with the first movement up", () => {
    expect(follows(true, at(500), at(499))).toBe(false);
  });

  it("takes hold again near the end", () => {
    expect(follows(false, at(300), at(480))).toBe(true);
    expect(follows(false, at(300), at(400))).toBe(false);
  });

  it("is not moved by what is added below", () => {
    expect(follows(true, at(500), at(500, 1400))).toBe(true);
    expect(follows(false, at(100), at(100, 1400))).toBe(false);
  });

  it("holds when the page shrinks", () => {
    expect(follows(true, at(500), at(300, 800))).toBe(true);
  });
});
