/**
 * What the live page shows: the newest tree and batch, and the figures of the last minutes.
 *
 * Pure. Knows what a subscription brings and which nodes have just been hit. Does not know how it is drawn.
 */
import type { CacheTree, Lane, LiveEvent, Stats } from "./liveWire";
import type { Problem } from "./problems";

export interface Sample {
  stepMs: number | null;
  /** Share of prompt tokens found, in [0, 1], of the prompts that came last; null before the first. */
  hitRate: number | null;
  tokensPerS: number | null;
}

export interface Live {
  /** The socket (link epoch) that the subscription was sent on; 0 for none. */
  epoch: number;
  tree: CacheTree | null;
  /** How often each node has been seen to be hit; a change is a pulse. */
  pulses: ReadonlyMap<number, number>;
  lanes: readonly Lane[];
  /** Tenants in the order in which they were first seen: each keeps its colour. */
  tenants: readonly string[];
  stats: Stats | null;
  /** Oldest first. */
  samples: readonly Sample[];
  /** Why the server does not show it. */
  problem: Problem | null;
}

/** The lane that a refused subscription is answered on. */
export const LIVE_LANE = "x.live";
export const MAX_HZ = 4;
/** Half a minute. */
export const SAMPLES = 120;

export const nothingYet: Live = {
  epoch: 0,
  tree: null,
  pulses: new Map(),
  lanes: [],
  tenants: [],
  stats: null,
  samples: [],
  problem: null,
};

export function afterLive(live: Live, event: LiveEvent): Live {
  switch (event.type) {
    case "tree":
      return {
        ...live,
        tree: event.tree,
        pulses: pulsesAfter(live, event.tree),
        tenants: seen(live, event.tree.nodes),
        problem: null,
      };
    case "batch":
      return { ...live, lanes: event.lanes, tenants: seen(live, event.lanes) };
    case "stats":
      return { ...live, stats: event.stats, samples: [...live.samples, sampleOf(live, event.stats)].slice(-SAMPLES) };
  }
}

/** A node is hit when its hits rise, or, where they are not told, when it is held and was not before. */
function pulsesAfter(live: Live, tree: CacheTree): ReadonlyMap<number, number> {
  const before = new Map(live.tree?.nodes.map((node) => [node.id, node]));
  const pulses = new Map<number, number>();
  for (const node of tree.nodes) {
    const old = before.get(node.id);
    const hit = old !== undefined && (node.hits > old.hits || node.locks > old.locks);
    pulses.set(node.id, (live.pulses.get(node.id) ?? 0) + (hit ? 1 : 0));
  }
  return pulses;
}

function seen({ tenants }: Live, named: readonly { tenant: string | null }[]): readonly string[] {
  const fresh = new Set(named.map(({ tenant }) => tenant).filter((tenant) => tenant !== null && tenant !== ""));
  const all = [...new Set([...tenants, ...(fresh as Set<string>)])];
  return all.length === tenants.length ? tenants : all;
}

/** Which of the colours a tenant has; -1 for what is public. */
export function colourOf({ tenants }: Live, tenant: string | null): number {
  return tenant === null ? -1 : tenants.indexOf(tenant) % TENANT_COLOURS;
}

/** As many as the style sheet has. */
export const TENANT_COLOURS = 6;

function sampleOf(live: Live, stats: Stats): Sample {
  const found = stats.foundTokens - (live.stats?.foundTokens ?? stats.foundTokens);
  const computed = stats.computedTokens - (live.stats?.computedTokens ?? stats.computedTokens);
  // Counters that fall are those of a server that was started anew.
  const came = found >= 0 && computed >= 0 && found + computed > 0;
  const hitRate = came ? found / (found + computed) : (live.samples.at(-1)?.hitRate ?? null);
  // The duration of the last step stays known when nothing runs; it is of interest only where steps were run.
  const stepMs = stats.stepsPerS ? stats.stepMs : null;
  return { stepMs, hitRate, tokensPerS: stats.tokensPerS };
}

/** Of all prompt tokens since the server started, how many were found; null before the first. */
export function overallHitRate(stats: Stats): number | null {
  const all = stats.foundTokens + stats.computedTokens;
  return all ? stats.foundTokens / all : null;
}
