import { describe, expect, it } from "vitest";
import { createTabs, type Channel } from "../src/browser/tabs";

/** Several tabs on one channel, and a clock that runs when it is told to. */
function room(...names: string[]) {
  const channels: Channel[] = [];
  const waiting: { at: number; run: () => void }[] = [];
  const gone: string[] = [];
  let now = 0;
  const tabs = names.map((name) => {
    const channel: Channel = {
      onmessage: null,
      postMessage: (data) =>
        channels.filter((other) => other !== channel).forEach((other) => other.onmessage?.({ data } as MessageEvent)),
    };
    channels.push(channel);
    return createTabs(
      name,
      channel,
      (tab) => gone.push(`${name}: ${tab}`),
      (run, ms) => waiting.push({ at: now + ms, run }),
    );
  });
  const pass = (ms: number) => {
    now += ms;
    while (true) {
      const due = waiting.findIndex(({ at }) => at <= now);
      if (due < 0) return;
      waiting.splice(due, 1)[0]!.run();
    }
  };
  return { tabs, gone, pass };
}

describe("tabs", () => {
  it("that answer are there", () => {
    const { tabs, gone, pass } = room("a", "b");
    tabs[0]!.lookFor("b");
    pass(10_000);
    expect(gone).toEqual([]);
  });

  it("that do not answer are gone, once", () => {
    const { tabs, gone, pass } = room("a");
    tabs[0]!.lookFor("b");
    tabs[0]!.lookFor("b");
    pass(10_000);
    expect(gone).toEqual(["a: b"]);
  });

  it("that say goodbye are missed only when they do not come back", () => {
    const { tabs, gone, pass } = room("a", "b");
    tabs[1]!.leave();
    pass(10_000);
    // It still answers: it was reloaded.
    expect(gone).toEqual([]);
  });
});
