/**
 * The same question on two sides: two system prompts, or two tenants, each on a connection of its own.
 *
 * A pure reducer for one page. Knows the two sides and when their questions go out. Does not know conversations.
 */
import type { Prompt } from "./catalogue";
import { afterEvent, isActive, isRunning, newTurn, stopped } from "./conversation";
import type { System, Turn } from "./conversation";
import { afterLoss, afterRefusal, dueEvent, sent } from "./delivery";
import { systemFields } from "./history";
import { closed, confirmed, firstLink, opened, woken, type Link } from "./link";
import type { ClientEvent, ServerEvent } from "./protocol";

export const SIDES = ["left", "right"] as const;
export type SideName = (typeof SIDES)[number];

export interface Side {
  /** Who asks: empty for whoever the page itself is. Kept in memory and for this tab only. */
  key: string;
  tenant: string | null;
  /** What this key may choose from; null for what the page itself may. */
  prompts: readonly Prompt[] | null;
  /** The key was refused. */
  refused: boolean;
  system: System | null;
  link: Link;
  turn: Turn | null;
}

export type Compare = Record<SideName, Side>;

/** Sockets of this page are opened with the first question. */
const asleep: Link = { ...firstLink, phase: "resting" };

const LANE = "side";

export function newCompare(keys: Record<SideName, string>): Compare {
  const side = (key: string): Side => ({
    key,
    tenant: null,
    prompts: null,
    refused: false,
    system: null,
    link: asleep,
    turn: null,
  });
  return { left: side(keys.left), right: side(keys.right) };
}

export type SideAction =
  | { type: "choose"; system: System }
  | { type: "key"; key: string }
  | { type: "key-refused" }
  | { type: "prompts"; prompts: readonly Prompt[] }
  | { type: "ask"; turnId: string; question: string; tab: string }
  | { type: "stop" }
  | { type: "opened" }
  | { type: "closed"; code: number; random: number }
  | { type: "event"; event: ServerEvent }
  | { type: "wake" };

export interface NextSide {
  side: Side;
  events: ClientEvent[];
}

export function updateSide(side: Side, action: SideAction): NextSide {
  if (action.type === "stop") return stop(side);
  return flush(apply(side, action));
}

function apply(side: Side, action: Exclude<SideAction, { type: "stop" }>): Side {
  switch (action.type) {
    case "choose":
      return { ...side, system: action.system };
    case "key":
      // Another key is another tenant: what the first one was answered is not shown under it.
      return {
        ...side,
        key: action.key,
        tenant: null,
        prompts: null,
        refused: false,
        system: null,
        turn: null,
        link: asleep,
      };
    case "key-refused":
      return { ...side, refused: true };
    case "prompts":
      return { ...side, prompts: action.prompts, system: side.system ?? firstOf(action.prompts) };
    case "ask": {
      const turn = { ...newTurn(action.turnId, action.question), tab: action.tab };
      return { ...side, turn, link: woken(side.link) };
    }
    case "opened":
      return { ...side, link: opened(side.link) };
    case "closed": {
      const link = closed(side.link, action.code, action.random);
      return { ...side, link, turn: side.turn && afterLoss(side.turn, action.code, link.phase === "refused") };
    }
    case "event":
      return receive({ ...side, link: confirmed(side.link) }, action.event);
    case "wake":
      return { ...side, link: woken(side.link) };
  }
}

function receive(side: Side, event: ServerEvent): Side {
  if (event.type === "session") return { ...side, tenant: event.tenant };
  if (!side.turn) return side;
  if (event.type === "error") return { ...side, turn: afterRefusal(side.turn, event.error) };
  return { ...side, turn: afterEvent(side.turn, event) };
}

function stop(side: Side): NextSide {
  const { turn } = side;
  if (!turn || !isActive(turn)) return { side, events: [] };
  if (!isRunning(turn) || turn.status === "stopping") return { side: { ...side, turn: stopped(turn) }, events: [] };
  const event: ClientEvent = {
    type: "response.cancel",
    ...(turn.responseId ? { response_id: turn.responseId } : { stream_id: LANE }),
  };
  return { side: { ...side, turn: { ...turn, status: "stopping" } }, events: [event] };
}

function flush(side: Side): NextSide {
  const { turn, link } = side;
  if (!turn || link.phase !== "open") return { side, events: [] };
  const event = dueEvent(turn, LANE, () => ({
    type: "response.create",
    stream_id: LANE,
    input: [{ type: "message", role: "user", content: turn.question }],
    ...systemFields(side.system),
  }));
  return event ? { side: { ...side, turn: sent(turn, link.epoch) }, events: [event] } : { side, events: [] };
}

export function isComparing(compare: Compare): boolean {
  return SIDES.some((name) => isActive(compare[name].turn));
}

export function firstOf(prompts: readonly Prompt[], index = 0): System | null {
  const prompt = prompts[index] ?? prompts[0];
  return prompt ? { kind: "prompt", id: prompt.id, name: prompt.name, version: null } : null;
}

/** The longer of the two prompts, in tokens: what both bars are drawn against. */
export function longestPrompt(compare: Compare): number {
  return Math.max(1, ...SIDES.map((name) => promptTokens(compare[name].turn)));
}

function promptTokens(turn: Turn | null): number {
  return turn?.usage?.inputTokens ?? turn?.cache?.promptTokens ?? 0;
}
