/**
 * All that the page knows, and what it may be asked to do. Types and questions only: `update.ts` changes it.
 */
import { lastShown } from "./branches";
import { textAt, type Prompt } from "./catalogue";
import { newCompare, type Compare, type SideAction, type SideName } from "./compare";
import { isActive, newConversation, withTurn, type Conversation, type System, type Turn } from "./conversation";
import { takenUp } from "./delivery";
import { firstLink, type Link } from "./link";
import { nothingYet, type Live } from "./live";
import type { Problem } from "./problems";
import type { ServerEvent } from "./protocol";
import type { Page } from "./routes";
import type { Defaults, Sampling } from "./sampling";

/** The page's own connection, or one of the comparison's two. */
export type Line = "main" | SideName;

export interface State {
  /** This tab's name among those that have the page open. */
  tab: string;
  page: Page;
  link: Link;
  /** The page's own key; empty where the server wants none. Kept in memory and for this tab only. */
  key: string;
  /** The server does not answer without a key, or not with this one, or not any more, or knows it and gives it nothing. */
  signIn: "none" | "needed" | "refused" | "ended" | "narrow";
  model: string | null;
  tenant: string | null;
  maxContextTokens: number | null;
  defaults: Defaults;
  prompts: readonly Prompt[];
  /** Newest first. Never empty: at least the one that is open. */
  conversations: readonly Conversation[];
  openId: string;
  /** What is looked for among the conversations. */
  search: string;
  live: Live;
  compare: Compare;
  /** A problem of no single answer. */
  notice: Problem | null;
}

/** What happened. Ids, times and randomness come along, so that the same actions always lead to the same state. */
export type Action =
  | { type: "go"; page: Page }
  // in the open conversation
  | { type: "ask"; turnId: string; text: string }
  | { type: "retry"; turnId: string }
  | { type: "regenerate"; of: string; turnId: string }
  | { type: "edit"; of: string; turnId: string; text: string }
  | { type: "continue"; turnId: string }
  | { type: "branch"; turn: string; by: number }
  | { type: "delete-turn"; turn: string }
  | { type: "stop" }
  | { type: "draft"; text: string }
  | { type: "choose"; system: System }
  | { type: "sample"; change: Partial<Sampling> }
  // among conversations
  | { type: "new"; id: string; at: number }
  | { type: "open"; id: string }
  | { type: "rename"; id: string; title: string }
  | { type: "delete"; id: string; freshId: string; at: number }
  | { type: "import"; conversations: readonly Conversation[] }
  | { type: "search"; text: string }
  | { type: "dismiss" }
  // another tab
  | { type: "elsewhere"; conversation: Conversation }
  | { type: "deleted-elsewhere"; id: string; freshId: string; at: number }
  | { type: "tab-gone"; tab: string }
  // the server
  | { type: "key"; key: string }
  | { type: "key-needed" }
  | { type: "model"; model: string | null }
  | { type: "prompts"; prompts: readonly Prompt[] }
  | { type: "want-versions"; id: string }
  | { type: "learned"; id: string; more: Partial<Pick<Prompt, "versions" | "texts">> }
  | { type: "notice"; problem: Problem }
  | { type: "socket-opened" }
  | { type: "socket-closed"; code: number; random: number }
  | { type: "socket-event"; event: ServerEvent }
  | { type: "wake" }
  // the comparison
  | { type: "side"; name: SideName; action: SideAction }
  | { type: "compare"; question: string; turnIds: Record<SideName, string> };

export interface Visit {
  tab: string;
  /** What this tab had open before a reload; without it a visit begins with an empty conversation. */
  lastOpenId: string | null;
  freshId: string;
  at: number;
  page: Page;
  keys: Record<Line, string>;
}

export function initialState(saved: readonly Conversation[], visit: Visit): State {
  const mine = saved.map((conversation) => resumed(conversation, visit.tab));
  const kept = mine.find(({ id }) => id === visit.lastOpenId) ?? mine.find(({ turns }) => turns.length === 0);
  const conversations = kept ? mine : [newConversation(visit.freshId, visit.at, null), ...mine];
  return {
    tab: visit.tab,
    page: visit.page,
    link: firstLink,
    key: visit.keys.main,
    signIn: "none",
    model: null,
    tenant: null,
    maxContextTokens: null,
    defaults: {},
    prompts: [],
    conversations,
    openId: kept?.id ?? visit.freshId,
    search: "",
    live: nothingYet,
    compare: newCompare(visit.keys),
    notice: null,
  };
}

/** What this tab was running before it was reloaded goes on. */
function resumed(conversation: Conversation, tab: string): Conversation {
  const left = conversation.turns.filter((turn) => isActive(turn) && turn.tab === tab);
  return left.reduce((changed, { id }) => withTurn(changed, id, (turn) => takenUp(turn, tab)), conversation);
}

export function openConversation(state: State): Conversation {
  // update.ts keeps openId among the conversations.
  return state.conversations.find((conversation) => conversation.id === state.openId)!;
}

/** The answer on which the next question waits: the one at the end of the branch that is shown, or this tab's own. */
export function pendingTurn(conversation: Conversation, tab: string): Turn | null {
  const last = lastShown(conversation);
  if (isActive(last)) return last;
  return conversation.turns.findLast((turn) => isActive(turn) && turn.tab === tab) ?? null;
}

/** Tabs, other than this one, that say they are running an answer. */
export function otherTabs(state: State): string[] {
  const tabs = state.conversations.flatMap(({ turns }) => turns.filter(isActive).map(({ tab }) => tab ?? ""));
  return [...new Set(tabs)].filter((tab) => tab !== state.tab);
}

/** What the model is told first, as far as the page knows it. */
export function systemText(state: State, system: System | null): string | null {
  if (system?.kind === "own") return system.text;
  const prompt = promptOf(state, system);
  return prompt && system ? textAt(prompt, system.version) : null;
}

export function promptOf(state: State, system: System | null): Prompt | null {
  return system?.kind === "prompt" ? (state.prompts.find((prompt) => prompt.id === system.id) ?? null) : null;
}
