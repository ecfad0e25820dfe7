import { describe, expect, it } from "vitest";
import { closed, confirmed, firstLink, opened, woken } from "../src/model/link";

describe("link", () => {
  it("waits longer with every attempt, up to a bound", () => {
    let link = firstLink;
    const delays = Array.from({ length: 10 }, () => {
      link = closed(woken(link), 1006, 0.999);
      return link.delayMs;
    });
    expect(delays).toEqual([...delays].sort((a, b) => a - b));
    expect(delays[1]! / delays[0]!).toBeCloseTo(2, 1);
    expect(delays.at(-1)).toBeLessThanOrEqual(15_000);
  });

  it("spreads attempts over half of the delay", () => {
    expect(closed(firstLink, 1006, 0).delayMs).toBe(250);
    expect(closed(firstLink, 1006, 0.5).delayMs).toBe(375);
  });

  it("forgets its attempts when the server speaks, not when the socket merely opens", () => {
    const twice = closed(opened(woken(closed(firstLink, 1013, 0))), 1013, 0);
    expect(twice.attempt).toBe(2);
    expect(closed(confirmed(opened(woken(twice))), 1006, 0).attempt).toBe(1);
  });

  it.each([1001, 1005, 1006, 1011, 1012, 1013])("tries again after %i", (code) => {
    expect(closed(opened(firstLink), code, 0).phase).toBe("backoff");
  });

  it.each([4400, 4401, 4403, 4429])("does not try again after %i", (code) => {
    expect(closed(opened(firstLink), code, 0).phase).toBe("refused");
  });

  it.each([4408, 4490, 4499])("rests after %i until there is a need", (code) => {
    const link = closed(opened(firstLink), code, 0);
    expect(link.phase).toBe("resting");
    expect(woken(link).phase).toBe("connecting");
  });

  it("is not disturbed by waking while open or connecting", () => {
    expect(woken(firstLink)).toBe(firstLink);
    const open = opened(firstLink);
    expect(woken(open)).toBe(open);
  });

  it("counts the sockets it has opened", () => {
    expect(opened(woken(closed(opened(firstLink), 1006, 0))).epoch).toBe(2);
  });
});
