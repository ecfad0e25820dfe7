/**
 * What a person, or another tab, does among the conversations: begin, open, rename, delete, import.
 *
 * Pure. Keeps two promises: there is always at least one conversation, and the open one is among them.
 */
import { cancelOf } from "./asking";
import { pruned as withoutTurn } from "./branches";
import { activeTurn, isRunning, newConversation, type Conversation } from "./conversation";
import { merged } from "./merge";
import type { ClientEvent } from "./protocol";
import { openConversation, type State } from "./state";

interface Sending {
  state: State;
  events: ClientEvent[];
}

/** An empty conversation is taken up again rather than left behind. */
export function started(state: State, id: string, at: number): State {
  const here: State = { ...state, page: "chat", search: "" };
  const empty = state.conversations.find((conversation) => conversation.turns.length === 0);
  if (empty) return { ...here, openId: empty.id };
  const { system, sampling } = openConversation(state);
  const fresh = { ...newConversation(id, at, system), sampling };
  return { ...here, conversations: [fresh, ...state.conversations], openId: id };
}

export function opened(state: State, id: string): State {
  return state.conversations.some((conversation) => conversation.id === id)
    ? { ...state, page: "chat", openId: id }
    : state;
}

export function renamed(state: State, id: string, title: string): State {
  const name = title.trim().slice(0, 200) || null;
  return change(state, id, (one) => (one.title === name ? one : { ...one, title: name, edition: one.edition + 1 }));
}

export function removed(state: State, id: string, freshId: string, at: number): Sending {
  const gone = state.conversations.find((conversation) => conversation.id === id);
  if (!gone) return { state, events: [] };
  const rest = state.conversations.filter((conversation) => conversation !== gone);
  const conversations = rest.length ? rest : [newConversation(freshId, at, gone.system)];
  const openId = id === state.openId ? conversations[0]!.id : state.openId;
  return { state: { ...state, conversations, openId }, events: cancelling(state, gone) };
}

/** A turn of the open conversation, with all that followed it. */
export function pruned(state: State, turnId: string): Sending {
  const before = openConversation(state);
  const after = withoutTurn(before, turnId);
  const running = activeTurn(before, state.tab);
  const stays = running !== null && after.turns.includes(running);
  return { state: change(state, before.id, () => after), events: stays ? [] : cancelling(state, before) };
}

/**
 * What is there already is added to; nothing is overwritten, and what was deleted here is back. The first of them is
 * opened.
 */
export function imported(state: State, conversations: readonly Conversation[]): State {
  const first = conversations[0];
  return first ? { ...conversations.reduce(restored, state), page: "chat", openId: first.id, search: "" } : state;
}

function restored(state: State, file: Conversation): State {
  const there = new Set(file.turns.map(({ id }) => id));
  const missed = change(state, file.id, (ours) =>
    ours.gone.some((id) => there.has(id)) ? { ...ours, gone: ours.gone.filter((id) => !there.has(id)) } : ours,
  );
  // What was deleted before the file was written is not deleted here for that.
  return takenIn(missed, { ...file, gone: [] });
}

/** Another tab's copy of a conversation. */
export function takenIn(state: State, theirs: Conversation): State {
  if (state.conversations.some(({ id }) => id === theirs.id))
    return change(state, theirs.id, (ours) => merged(ours, theirs));
  const conversations = [...state.conversations, theirs].sort((a, b) => b.createdAt - a.createdAt);
  return { ...state, conversations };
}

/** An empty one that is open stays: there is nothing in it to delete, and a draft perhaps. */
export function deletedElsewhere(state: State, id: string, freshId: string, at: number): Sending {
  const one = state.conversations.find((conversation) => conversation.id === id);
  return one?.turns.length ? removed(state, id, freshId, at) : { state, events: [] };
}

function cancelling(state: State, conversation: Conversation): ClientEvent[] {
  const turn = activeTurn(conversation, state.tab);
  return turn && isRunning(turn) ? [cancelOf(conversation, turn)] : [];
}

function change(state: State, id: string, how: (conversation: Conversation) => Conversation): State {
  let same = true;
  const conversations = state.conversations.map((before) => {
    if (before.id !== id) return before;
    const after = how(before);
    same = after === before;
    return after;
  });
  return same ? state : { ...state, conversations };
}
