import { describe, expect, it } from "vitest";
import { drawChart, niceTop } from "../src/model/chart";
import { afterLive, colourOf, LIVE_LANE, nothingYet, overallHitRate, SAMPLES } from "../src/model/live";
import type { LiveEvent } from "../src/model/liveWire";
import { parseEvent } from "../src/model/protocol";
import { lost, OPENED, Talk } from "./talk";

const read = (event: Record<string, unknown>) => parseEvent(JSON.stringify(event)) as LiveEvent;
const node = (id: number, hits: number, locks = 0) => ({ id, parent: 0, tenant: "t", tokens: 8, hits, locks });
const tree = (...nodes: unknown[]) => read({ type: "x.tree", nodes });
const stats = (found: number, computed: number, steps_per_s = 9) =>
  read({ type: "x.stats", of: "server", hits: { system: found }, misses: { new: computed }, step_ms: 5, steps_per_s });

describe("the subscription", () => {
  it("begins with the page, is renewed with the connection, and ends with the page", () => {
    const talk = new Talk().do(OPENED, { type: "go", page: "live" });
    expect(talk.sent()).toEqual([
      { type: "x.subscribe", topics: ["stats", "tree", "batch"], max_hz: 4, stream_id: LIVE_LANE },
    ]);
    talk.do(lost(), { type: "wake" }, OPENED);
    expect(talk.sent()).toMatchObject([{ type: "x.subscribe" }]);
    talk.do({ type: "go", page: "chat" });
    expect(talk.sent()).toEqual([{ type: "x.unsubscribe" }]);
  });

  it("that is refused says why, there and not as a failed answer", () => {
    const talk = new Talk().do(OPENED).ask("Hi").do({ type: "go", page: "live" });
    const refusal = {
      type: "error",
      stream_id: LIVE_LANE,
      status: 403,
      error: { code: "insufficient_scope", message: "" },
    };
    talk.server(refusal);
    expect(talk.state.live.problem?.title).toContain("may not look");
    expect(talk.last().status).toBe("waiting");
    expect(talk.state.notice).toBeNull();
  });
});

describe("what is shown", () => {
  it("pulses where hits rise, or where a node is newly held", () => {
    let live = afterLive(nothingYet, tree(node(1, 5), node(2, 0)));
    expect([...live.pulses.values()]).toEqual([0, 0]);
    live = afterLive(live, tree(node(1, 6), node(2, 0, 1), node(3, 9)));
    expect([...live.pulses]).toEqual([
      [1, 1],
      [2, 1],
      [3, 0],
    ]);
    live = afterLive(live, tree(node(1, 6), node(2, 0, 1)));
    expect([...live.pulses]).toEqual([
      [1, 1],
      [2, 1],
    ]);
  });

  it("is the hit rate of the prompts that came last, and not one across a restart", () => {
    const after = [stats(100, 100), stats(190, 110), stats(190, 110), stats(0, 10)].reduce(afterLive, nothingYet);
    expect(after.samples.map(({ hitRate }) => hitRate)).toEqual([null, 0.9, 0.9, 0.9]);
    expect(overallHitRate(after.stats!)).toBe(0);
  });

  it("has a step's duration only where steps were run", () => {
    const after = [stats(0, 0), stats(0, 0, 0)].reduce(afterLive, nothingYet);
    expect(after.samples.map(({ stepMs }) => stepMs)).toEqual([5, null]);
  });

  it("keeps a bounded past", () => {
    let live = nothingYet;
    for (let i = 0; i < SAMPLES + 50; i++) live = afterLive(live, stats(i, i));
    expect(live.samples).toHaveLength(SAMPLES);
  });

  it("gives a tenant the colour it first had, and what is public none of theirs", () => {
    let live = afterLive(nothingYet, tree({ ...node(1, 0), tenant: "b" }, { ...node(2, 0), tenant: null }));
    live = afterLive(live, read({ type: "x.batch", lanes: [{ id: "r", tenant: "a", state: "running" }] }));
    expect([colourOf(live, "b"), colourOf(live, "a"), colourOf(live, null)]).toEqual([0, 1, -1]);
  });

  it("takes events with fields missing", () => {
    expect(read({ type: "x.stats" })).toMatchObject({ stats: { of: "tenant", pages: { held: 0, total: null } } });
    expect(read({ type: "x.tree", nodes: "no" })).toEqual({
      type: "tree",
      tree: { nodes: [], hiddenPages: 0, otherPages: 0 },
    });
    expect(read({ type: "x.batch", lanes: [{}, 3] })).toMatchObject({ lanes: [{ state: "waiting", done: 0 }] });
  });
});

describe("a chart", () => {
  it("has the newest value at its right end and gaps where nothing is known", () => {
    const { line, tip } = drawChart([null, 1, 2, null, 4], 106, 26, 5, 4);
    expect(line).toBe("M28 18L53 13M103 3L103.5 3");
    expect(tip).toEqual({ x: 103, y: 3 });
    expect(drawChart([1, null], 100, 20, 5).tip).toBeNull();
    expect(drawChart([], 100, 20, 5)).toEqual({ line: "", area: "", tip: null, top: 1 });
  });

  it("ends at a round number above its values", () => {
    expect([0, 0.03, 1, 7, 12, 501].map(niceTop)).toEqual([1, 0.05, 1, 10, 20, 1000]);
  });
});
