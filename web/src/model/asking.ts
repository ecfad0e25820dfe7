/**
 * What a person does in the open conversation: ask, ask again, edit, continue, move between branches, stop.
 *
 * Pure. State and what was asked in, state (and what to send) out. Does not know when a question goes out.
 */
import { grown, lastShown, switched } from "./branches";
import {
  activeTurn,
  isRunning,
  newTurn,
  stopped,
  withTurn,
  type Conversation,
  type System,
  type Turn,
} from "./conversation";
import { woken } from "./link";
import type { ClientEvent } from "./protocol";
import type { Sampling } from "./sampling";
import { openConversation, pendingTurn, type State } from "./state";

/** How the page asks for the rest of an answer that a limit or the person has cut. */
export const CONTINUE = "Continue exactly where you stopped.";

export function asked(state: State, turnId: string, text: string): State {
  const question = text.trim();
  if (!question) return state;
  return begin(state, (conversation) => ({
    ...grown(conversation, newTurn(turnId, question, conversation.head)),
    draft: "",
  }));
}

/** The last turn once more, in its place: what failed is not kept as a branch. */
export function askedAgain(state: State, turnId: string): State {
  return begin(state, (conversation) => {
    const last = lastShown(conversation);
    if (!last) return null;
    const turns = conversation.turns.filter((turn) => turn !== last);
    const left = { ...conversation, turns, gone: [...conversation.gone, last.id] };
    return grown(left, { ...newTurn(turnId, last.question, last.parent), continues: last.continues });
  });
}

/** The same question once more, as another branch. */
export function regenerated(state: State, of: string, turnId: string): State {
  return begin(state, (conversation) => {
    const turn = find(conversation, of);
    return turn && grown(conversation, { ...newTurn(turnId, turn.question, turn.parent), continues: turn.continues });
  });
}

/** Another question in the place of an earlier one, as another branch. */
export function edited(state: State, of: string, turnId: string, text: string): State {
  const question = text.trim();
  if (!question) return state;
  return begin(state, (conversation) => {
    const turn = find(conversation, of);
    return turn && grown(conversation, newTurn(turnId, question, turn.parent));
  });
}

export function continued(state: State, turnId: string): State {
  return begin(state, (conversation) => {
    const last = lastShown(conversation);
    if (!last?.answer) return null;
    return grown(conversation, { ...newTurn(turnId, CONTINUE, last.id), continues: true });
  });
}

export function branched(state: State, turnId: string, by: number): State {
  return change(state, (conversation) => switched(conversation, turnId, by));
}

export function stopping(state: State): { state: State; events: ClientEvent[] } {
  const conversation = openConversation(state);
  const turn = activeTurn(conversation, state.tab);
  if (!turn || turn.status === "stopping") return { state, events: [] };
  const next: Turn = isRunning(turn) ? { ...turn, status: "stopping" } : stopped(turn);
  return {
    state: change(state, () => withTurn(conversation, turn.id, () => next)),
    events: isRunning(turn) ? [cancelOf(conversation, turn)] : [],
  };
}

export function cancelOf(conversation: Conversation, turn: Turn): ClientEvent {
  const { responseId } = turn;
  return { type: "response.cancel", ...(responseId ? { response_id: responseId } : { stream_id: conversation.id }) };
}

/** The first question fixes the system prompt: what was answered under one is not continued under another. */
export function chosen(conversation: Conversation, system: System): Conversation {
  return conversation.turns.length ? conversation : { ...conversation, system, edition: conversation.edition + 1 };
}

/** Other sampling holds from the next answer on. */
export function sampled(conversation: Conversation, change: Partial<Sampling>): Conversation {
  return { ...conversation, sampling: { ...conversation.sampling, ...change }, edition: conversation.edition + 1 };
}

/** Conversations for which nobody has chosen yet begin with the first prompt on offer. */
export function offered(state: State): State {
  const first = state.prompts[0];
  if (!first) return state;
  const system: System = { kind: "prompt", id: first.id, name: first.name, version: null };
  const offer = (conversation: Conversation) =>
    conversation.system || conversation.turns.length ? conversation : { ...conversation, system };
  return { ...state, conversations: state.conversations.map(offer) };
}

/** A change that lets this tab run another turn; nothing where one is running already, or `make` has nothing to ask. */
function begin(state: State, make: (conversation: Conversation) => Conversation | null): State {
  const conversation = openConversation(state);
  if (pendingTurn(conversation, state.tab)) return state;
  const made = make(conversation);
  if (!made) return state;
  const ours = withTurn(made, made.head!, (turn) => ({ ...turn, tab: state.tab }));
  return { ...change(state, () => ours), link: woken(state.link) };
}

function find(conversation: Conversation, id: string): Turn | null {
  return conversation.turns.find((turn) => turn.id === id) ?? null;
}

function change(state: State, how: (conversation: Conversation) => Conversation): State {
  const before = openConversation(state);
  const after = how(before);
  if (after === before) return state;
  return { ...state, conversations: state.conversations.map((other) => (other === before ? after : other)) };
}
