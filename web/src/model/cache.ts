/**
 * The figures below an answer: where the prompt's tokens came from, and how fast the answer was.
 *
 * Pure. Knows how to split and to say them. Does not know how they are drawn.
 */
import type { Turn } from "./conversation";

export type Origin = "system" | "history" | "shared" | "computed";

export interface Share {
  origin: Origin;
  label: string;
  tokens: number;
  /** Of the prompt, in [0, 1]. */
  fraction: number;
}

export interface Split {
  promptTokens: number;
  cachedTokens: number;
  shares: Share[];
}

export const LABELS: Record<Origin, string> = {
  system: "system prompt",
  history: "this chat",
  shared: "shared",
  computed: "computed",
};

/**
 * The prompt's tokens by origin; null before anything is known. The usage at the end counts what the report before the
 * first token could not: pages that another request was computing meanwhile. Those are shared ones.
 */
export function splitOf(turn: Turn): Split | null {
  const { cache, usage } = turn;
  if (!cache && !usage) return null;
  const promptTokens = usage?.inputTokens ?? cache?.promptTokens ?? 0;
  const cachedTokens = Math.min(promptTokens, usage?.cachedTokens ?? cache?.cachedTokens ?? 0);
  const system = Math.min(cachedTokens, cache?.by.system ?? 0);
  const history = Math.min(cachedTokens - system, cache?.by.history ?? 0);
  const parts: [Origin, number][] = [
    ["system", system],
    ["history", history],
    ["shared", cachedTokens - system - history],
    ["computed", promptTokens - cachedTokens],
  ];
  const shares = parts.map(([origin, tokens]) => ({
    origin,
    label: LABELS[origin],
    tokens,
    fraction: promptTokens ? tokens / promptTokens : 0,
  }));
  return { promptTokens, cachedTokens, shares };
}

/** Tokens of the branch that ends with the last of `turns`: its prompt and its answer; null before they are known. */
export function contextTokens(turns: readonly Turn[]): number | null {
  const last = turns.findLast(({ usage, cache }) => usage !== null || cache !== null);
  if (!last) return null;
  return last.usage ? last.usage.inputTokens + last.usage.outputTokens : last.cache!.promptTokens;
}

/** The bar in words, for those who do not see it. */
export function describeSplit(split: Split): string {
  const parts = split.shares.filter((share) => share.tokens > 0);
  const list = parts.map((share) => `${formatCount(share.tokens)} ${SPOKEN[share.origin]}`).join(", ");
  const whole = `${formatCount(split.cachedTokens)} of ${formatCount(split.promptTokens)} prompt tokens came from the cache`;
  return list ? `${whole}: ${list}.` : `${whole}.`;
}

const SPOKEN: Record<Origin, string> = {
  system: "from the system prompt",
  history: "from this chat",
  shared: "shared with other chats",
  computed: "computed anew",
};

const counts = new Intl.NumberFormat("en");

export function formatCount(value: number): string {
  return counts.format(value);
}

/** 84 ms, 1.24 s, 12.4 s */
export function formatMs(ms: number): string {
  if (ms < 1) return "under 1 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return ms < 9_995 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`;
}

export function formatRate(perS: number): string {
  if (perS === 0) return "0";
  return perS < 9.95 ? perS.toFixed(1) : formatCount(Math.round(perS));
}

export function formatPercent(fraction: number): string {
  // Never claims all or nothing for what is only nearly so.
  if (fraction > 0.99 && fraction < 1) return "over 99 %";
  if (fraction > 0 && fraction < 0.01) return "under 1 %";
  return `${Math.round(fraction * 100)} %`;
}
