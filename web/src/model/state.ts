/**
 * All that the page knows, and what it may be asked to do. Types and questions only: `update.ts` changes it.
 */
import type { Prompt } from "./catalogue";
import { isActive, lastTurn, newConversation, type Conversation, type System } from "./conversation";
import { firstLink, type Link } from "./link";
import type { Problem } from "./problems";
import type { ServerEvent } from "./protocol";

export interface State {
  link: Link;
  model: string | null;
  prompts: readonly Prompt[];
  /** Newest first. Never empty: at least the one that is open. */
  conversations: readonly Conversation[];
  openId: string;
  /** A problem of no single answer. */
  notice: Problem | null;
}

/** What happened. Ids, times and randomness come along, so that the same actions always lead to the same state. */
export type Action =
  | { type: "ask"; turnId: string; text: string }
  | { type: "retry"; turnId: string }
  | { type: "stop" }
  | { type: "new"; id: string; at: number }
  | { type: "open"; id: string }
  | { type: "delete"; id: string; freshId: string; at: number }
  | { type: "draft"; text: string }
  | { type: "choose"; system: System }
  | { type: "dismiss" }
  | { type: "model"; model: string | null }
  | { type: "prompts"; prompts: readonly Prompt[] }
  | { type: "notice"; problem: Problem }
  | { type: "socket-opened" }
  | { type: "socket-closed"; code: number; random: number }
  | { type: "socket-event"; event: ServerEvent }
  | { type: "wake" };

/** `lastOpenId`: what this tab had open before a reload; without it a visit begins with an empty conversation. */
export function initialState(
  saved: readonly Conversation[],
  lastOpenId: string | null,
  freshId: string,
  at: number,
): State {
  const kept = saved.find(({ id }) => id === lastOpenId) ?? saved.find(({ turns }) => turns.length === 0);
  const conversations = kept ? saved : [newConversation(freshId, at, null), ...saved];
  return { link: firstLink, model: null, prompts: [], conversations, openId: kept?.id ?? freshId, notice: null };
}

export function openConversation(state: State): Conversation {
  // update.ts keeps openId among the conversations.
  return state.conversations.find((conversation) => conversation.id === state.openId)!;
}

export function isAnswering(conversation: Conversation): boolean {
  return isActive(lastTurn(conversation));
}

export function promptOf(state: State, system: System | null): Prompt | null {
  return system?.kind === "prompt" ? (state.prompts.find((prompt) => prompt.id === system.id) ?? null) : null;
}
