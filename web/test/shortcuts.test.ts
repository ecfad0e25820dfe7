import { describe, expect, it } from "vitest";
import { commandFor, SHORTCUTS, type Press } from "../src/model/shortcuts";

const press = (key: string, parts: Partial<Press> = {}) =>
  commandFor({ key, ctrl: false, alt: false, shift: false, writing: false, ...parts });

describe("keys", () => {
  it("do what the sheet says", () => {
    for (const { keys, command } of SHORTCUTS.flatMap(({ entries }) => entries)) {
      const [first, second] = keys.toLowerCase().split(" ");
      if (keys === "Esc") continue;
      const got = second ? press(second, { ctrl: first === "ctrl", alt: first === "alt" }) : press(keys);
      expect([keys, got]).toEqual([keys, command]);
    }
  });

  it("are text where one writes, unless with Ctrl or Alt", () => {
    expect([press("r", { writing: true }), press("?", { writing: true })]).toEqual([null, null]);
    expect(press("k", { ctrl: true, writing: true })).toBe("search");
  });

  it("leave the browser its own", () => {
    expect([press("r", { ctrl: true }), press("c", { ctrl: true }), press("Tab"), press("Escape")]).toEqual([
      null,
      null,
      null,
      null,
    ]);
  });
});
