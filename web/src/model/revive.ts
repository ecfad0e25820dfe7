/**
 * Conversations read from storage or from a file, where any field may be missing or wrong.
 *
 * Pure. What is missing gets its default, so that what an earlier version of the page has kept is still read: there a
 * conversation was a plain list of turns.
 */
import { isActive, newConversation, newTurn, stopped, type Conversation, type System, type Turn } from "./conversation";
import { count, number, record, text } from "./fields";
import type { Problem } from "./problems";
import type { CacheReport, Timing, Usage } from "./protocol";
import { FIELDS, serversOwn, type Sampling } from "./sampling";

const STATUSES = ["queued", "waiting", "streaming", "stopping", "lost", "done", "cut", "stopped", "failed"] as const;

/** An id is also a storage key, and the name of a lane on the wire. */
const ID = /^[\w-]{1,64}$/;

/** The conversation in `value`, or null where it is none. */
export function readConversation(value: unknown): Conversation | null {
  const { id, createdAt, title, system, sampling, edition, turns, head, gone, draft } = record(value);
  if (typeof id !== "string" || !ID.test(id) || typeof createdAt !== "number" || !Array.isArray(turns)) return null;
  const read = readTurns(turns);
  if (read === null) return null;
  const ids = new Set(read.map((turn) => turn.id));
  return {
    ...newConversation(id, createdAt, readSystem(system)),
    title: text(title),
    sampling: readSampling(sampling),
    edition: count(edition),
    turns: read,
    head: typeof head === "string" && ids.has(head) ? head : (read.at(-1)?.id ?? null),
    gone: strings(gone),
    draft: text(draft) ?? "",
  };
}

/** As after a visit whose tab is gone: nothing is running, and no socket knows its responses. */
export function settled(conversation: Conversation): Conversation {
  const turns = conversation.turns.map((turn) => {
    const still = { ...turn, responseId: null, epoch: 0, tab: null };
    return isActive(still) ? stopped(still) : still;
  });
  return { ...conversation, turns };
}

function readTurns(list: unknown[]): Turn[] | null {
  const turns: Turn[] = [];
  const seen = new Set<string>();
  for (const item of list) {
    const fields = record(item);
    const { id, question, answer, status } = fields;
    if (typeof id !== "string" || typeof question !== "string" || seen.has(id)) return null;
    const before: string | null = turns.at(-1)?.id ?? null;
    const parent: unknown = "parent" in fields ? fields.parent : before;
    turns.push({
      ...newTurn(id, question, typeof parent === "string" && seen.has(parent) ? parent : null),
      continues: fields.continues === true,
      answer: text(answer) ?? "",
      status: STATUSES.find((known) => known === status) ?? "stopped",
      tab: text(fields.tab),
      responseId: text(fields.responseId),
      sequence: number(fields.sequence) ?? -1,
      cache: readCache(fields.cache),
      usage: readUsage(fields.usage),
      timing: readTiming(fields.timing),
      endedBy: text(fields.endedBy),
      problem: readProblem(fields.problem),
    });
    seen.add(id);
  }
  return turns;
}

export function readSystem(value: unknown): System | null {
  const { kind, id, name, version, text: own } = record(value);
  if (kind === "own") return { kind, text: text(own) ?? "" };
  if (kind !== "prompt" || typeof id !== "string") return null;
  return { kind, id, name: text(name) ?? id, version: text(version) };
}

function readSampling(value: unknown): Sampling {
  const fields = record(value);
  const read = { ...serversOwn, stop: strings(fields.stop).slice(0, 4) };
  for (const { field, min, max } of FIELDS) {
    const there = number(fields[field]);
    if (there !== null && there >= min && there <= max) read[field] = there;
  }
  return read;
}

function readCache(value: unknown): CacheReport | null {
  if (value == null) return null;
  const { promptTokens, cachedTokens, by, savedMs } = record(value);
  const { system, history, shared } = record(by);
  return {
    promptTokens: count(promptTokens),
    cachedTokens: count(cachedTokens),
    by: { system: count(system), history: count(history), shared: count(shared) },
    savedMs: number(savedMs) ?? 0,
  };
}

function readUsage(value: unknown): Usage | null {
  if (value == null) return null;
  const { inputTokens, cachedTokens, outputTokens } = record(value);
  return { inputTokens: count(inputTokens), cachedTokens: count(cachedTokens), outputTokens: count(outputTokens) };
}

function readTiming(value: unknown): Timing | null {
  if (value == null) return null;
  return { ttftMs: number(record(value).ttftMs), tokensPerS: number(record(value).tokensPerS) };
}

function readProblem(value: unknown): Problem | null {
  const { title, advice, retry } = record(value);
  return typeof title === "string" ? { title, advice: text(advice) ?? "", retry: retry === true } : null;
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}
