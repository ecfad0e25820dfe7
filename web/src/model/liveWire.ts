/**
 * The events of a subscription (`x.stats`, `x.tree`, `x.batch`) as this page reads them. Knows their fields; keeps
 * nothing.
 */
import { count, number, record, records, text, type Unread } from "./fields";
import type * as wire from "./wire";

/** A run of cached tokens. `parent`: 0 for none. `tenant`: null when public. */
export interface CacheNode {
  id: number;
  parent: number;
  tenant: string | null;
  tokens: number;
  /** Requests that hold it now. */
  locks: number;
  pinned: "" | "soft" | "hard";
  hits: number;
  /** Releases of others since it was last held: the higher, the sooner it is evicted. */
  idle: number;
  preview: string | null;
}

export interface CacheTree {
  nodes: CacheNode[];
  hiddenPages: number;
  otherPages: number;
}

export const LANE_STATES = ["running", "prefilling", "waiting", "preempted"] as const;
export type LaneState = (typeof LANE_STATES)[number];

/** A request in the engine: `done` of `total` tokens computed, at most `limit` in the end. */
export interface Lane {
  id: string;
  tenant: string;
  state: LaneState;
  done: number;
  total: number;
  limit: number;
}

/** Figures now. What concerns the whole pool is null for who sees one tenant. */
export interface Stats {
  of: "tenant" | "server";
  running: number;
  prefilling: number;
  waiting: number;
  pages: { held: number; cached: number; free: number | null; pinned: number | null; total: number | null };
  /** Prompt tokens since the server started. */
  foundTokens: number;
  computedTokens: number;
  evictions: number | null;
  preemptions: number | null;
  stepMs: number | null;
  stepsPerS: number | null;
  tokensPerS: number | null;
}

export type LiveEvent =
  { type: "tree"; tree: CacheTree } | { type: "batch"; lanes: Lane[] } | { type: "stats"; stats: Stats };

export function readLive(
  type: "x.stats" | "x.tree" | "x.batch",
  event: Unread<wire.Tree | wire.Batch | wire.Stats>,
): LiveEvent {
  switch (type) {
    case "x.tree":
      return { type: "tree", tree: readTree(event) };
    case "x.batch":
      return { type: "batch", lanes: records<wire.BatchLane>(event.lanes).map(readLane) };
    case "x.stats":
      return { type: "stats", stats: readStats(event) };
  }
}

function readTree(event: Unread<wire.Tree>): CacheTree {
  return {
    nodes: records<wire.TreeNode>(event.nodes).map((node) => ({
      id: count(node.id),
      parent: count(node.parent),
      tenant: text(node.tenant),
      tokens: count(node.tokens),
      locks: count(node.locks),
      pinned: node.pinned === "soft" || node.pinned === "hard" ? node.pinned : "",
      hits: count(node.hits),
      idle: count(node.idle),
      preview: text(node.preview),
    })),
    hiddenPages: count(event.hidden_pages),
    otherPages: count(event.other_pages),
  };
}

function readLane(lane: Unread<wire.BatchLane>): Lane {
  return {
    id: text(lane.id) ?? "",
    tenant: text(lane.tenant) ?? "",
    state: LANE_STATES.find((state) => state === lane.state) ?? "waiting",
    done: count(lane.done),
    total: count(lane.total),
    limit: count(lane.limit),
  };
}

function readStats(event: Unread<wire.Stats>): Stats {
  const pages = record<wire.Pages>(event.pages);
  return {
    of: event.of === "server" ? "server" : "tenant",
    running: count(event.running),
    prefilling: count(event.prefilling),
    waiting: count(event.waiting),
    pages: {
      held: count(pages.held),
      cached: count(pages.cached),
      free: number(pages.free),
      pinned: number(pages.pinned),
      total: number(pages.total),
    },
    foundTokens: sum(record<wire.TokenClasses>(event.hits)),
    computedTokens: sum(record<wire.TokenClasses>(event.misses)),
    evictions: number(event.evictions),
    preemptions: number(event.preemptions),
    stepMs: number(event.step_ms),
    stepsPerS: number(event.steps_per_s),
    tokensPerS: number(event.tokens_per_s),
  };
}

function sum({ system, history, shared, new: fresh }: Unread<wire.TokenClasses>): number {
  return count(system) + count(history) + count(shared) + count(fresh);
}
