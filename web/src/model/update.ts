/**
 * The page's one reducer: state and action in, state and effects out.
 *
 * Knows every rule of what follows from what. Does no input or output itself: the effects say what the world should do.
 */
import {
  afterEvent,
  failed,
  isRunning,
  lastTurn,
  newConversation,
  newTurn,
  withLastTurn,
  type Conversation,
  type System,
} from "./conversation";
import { requestFor } from "./history";
import { closed, confirmed, opened, woken, type Link } from "./link";
import { fromLoss, fromRefusal, fromServer } from "./problems";
import type { ClientEvent, ServerEvent } from "./protocol";
import { isAnswering, openConversation, type Action, type State } from "./state";

export type Effect = { type: "connect" } | { type: "wake-after"; ms: number } | { type: "send"; event: ClientEvent };

export interface Next {
  state: State;
  effects: Effect[];
}

export function update(state: State, action: Action): Next {
  const next = apply(state, action);
  const sent = sendQueued(next.state);
  return {
    state: sent.state,
    effects: [...next.effects, ...linkEffects(state.link, sent.state.link), ...sent.effects],
  };
}

function apply(state: State, action: Action): Next {
  switch (action.type) {
    case "ask":
      return still(ask(state, action.turnId, action.text));
    case "retry":
      return still(retry(state, action.turnId));
    case "stop":
      return stop(state);
    case "new":
      return still(startConversation(state, action.id, action.at));
    case "open":
      return still(state.conversations.some(({ id }) => id === action.id) ? { ...state, openId: action.id } : state);
    case "delete":
      return remove(state, action.id, action.freshId, action.at);
    case "draft":
      return still(changeOpen(state, (conversation) => ({ ...conversation, draft: action.text })));
    case "choose":
      return still(changeOpen(state, (conversation) => choose(conversation, action.system)));
    case "dismiss":
      return still({ ...state, notice: null });
    case "model":
      // What the socket said first is newer.
      return still({ ...state, model: state.model ?? action.model });
    case "prompts":
      return still(offerPrompts({ ...state, prompts: action.prompts }));
    case "notice":
      return still({ ...state, notice: action.problem });
    case "socket-opened":
      return still({ ...state, link: opened(state.link), notice: null });
    case "socket-closed":
      return still(lose(state, action.code, action.random));
    case "socket-event":
      return still(receive({ ...state, link: confirmed(state.link) }, action.event));
    case "wake":
      return still({ ...state, link: woken(state.link) });
  }
}

const still = (state: State): Next => ({ state, effects: [] });

// --- what the person does ---

function ask(state: State, turnId: string, text: string): State {
  const question = text.trim();
  if (!question || isAnswering(openConversation(state))) return state;
  const asked = changeOpen(state, (conversation) => ({
    ...conversation,
    draft: "",
    turns: [...conversation.turns, newTurn(turnId, question)],
  }));
  return { ...asked, link: woken(asked.link) };
}

/** The last turn once more, in its place. */
function retry(state: State, turnId: string): State {
  const turn = lastTurn(openConversation(state));
  if (!turn || isAnswering(openConversation(state))) return state;
  const again = changeOpen(state, (conversation) => withLastTurn(conversation, () => newTurn(turnId, turn.question)));
  return { ...again, link: woken(again.link) };
}

function stop(state: State): Next {
  const conversation = openConversation(state);
  const turn = lastTurn(conversation);
  if (turn?.status === "queued")
    return still(changeOpen(state, (open) => withLastTurn(open, (t) => ({ ...t, status: "stopped" }))));
  if (!turn || !isRunning(turn) || turn.status === "stopping") return still(state);
  return {
    state: changeOpen(state, (open) => withLastTurn(open, (t) => ({ ...t, status: "stopping" }))),
    effects: [{ type: "send", event: cancelOf(conversation) }],
  };
}

function cancelOf(conversation: Conversation): ClientEvent {
  const responseId = lastTurn(conversation)?.responseId;
  return { type: "response.cancel", ...(responseId ? { response_id: responseId } : { stream_id: conversation.id }) };
}

/** An empty conversation is taken up again rather than left behind. */
function startConversation(state: State, id: string, at: number): State {
  const empty = state.conversations.find((conversation) => conversation.turns.length === 0);
  if (empty) return { ...state, openId: empty.id };
  const system = openConversation(state).system;
  return { ...state, conversations: [newConversation(id, at, system), ...state.conversations], openId: id };
}

function remove(state: State, id: string, freshId: string, at: number): Next {
  const gone = state.conversations.find((conversation) => conversation.id === id);
  if (!gone) return still(state);
  const turn = lastTurn(gone);
  const effects: Effect[] = turn && isRunning(turn) ? [{ type: "send", event: cancelOf(gone) }] : [];
  const rest = state.conversations.filter((conversation) => conversation !== gone);
  const conversations = rest.length ? rest : [newConversation(freshId, at, gone.system)];
  const openId = id === state.openId ? conversations[0]!.id : state.openId;
  return { state: { ...state, conversations, openId }, effects };
}

/** The first question fixes the system prompt: what was answered under one is not continued under another. */
function choose(conversation: Conversation, system: System): Conversation {
  return conversation.turns.length ? conversation : { ...conversation, system };
}

function offerPrompts(state: State): State {
  const first = state.prompts[0];
  if (!first) return state;
  const system: System = { kind: "prompt", id: first.id, name: first.name };
  const offer = (conversation: Conversation) => (conversation.system ? conversation : choose(conversation, system));
  return { ...state, conversations: state.conversations.map(offer) };
}

// --- what the server does ---

function receive(state: State, event: ServerEvent): State {
  if (event.type === "session") return { ...state, model: event.model ?? state.model };
  const target = state.conversations.find((conversation) => conversation.id === addressee(state, event.streamId));
  if (!target) return event.type === "error" ? { ...state, notice: fromServer(event.error) } : state;
  const changed =
    event.type === "error" && event.error.code === "previous_response_not_found" && !lastTurn(target)?.whole
      ? withLastTurn(target, (turn) => ({ ...newTurn(turn.id, turn.question), whole: true }))
      : withLastTurn(target, (turn) => afterEvent(turn, event));
  return replace(state, changed);
}

/** Events without a lane belong to the one answer that is running, if there is exactly one. */
function addressee(state: State, streamId: string | null): string | null {
  if (streamId !== null) return streamId;
  const running = state.conversations.filter((conversation) => {
    const turn = lastTurn(conversation);
    return turn !== null && isRunning(turn);
  });
  return running.length === 1 ? running[0]!.id : null;
}

function lose(state: State, code: number, random: number): State {
  const link = closed(state.link, code, random);
  const refused = link.phase === "refused";
  const conversations = state.conversations.map((conversation) =>
    withLastTurn(conversation, (turn) => {
      if (isRunning(turn)) return failed(turn, refused ? fromRefusal(code) : fromLoss(code));
      return refused && turn.status === "queued" ? failed(turn, fromRefusal(code)) : turn;
    }),
  );
  return { ...state, link, conversations };
}

// --- what follows ---

/** As soon as the socket is open, everything that waits for it is sent. */
function sendQueued(state: State): Next {
  if (state.link.phase !== "open") return still(state);
  const effects: Effect[] = [];
  const conversations = state.conversations.map((conversation) => {
    if (lastTurn(conversation)?.status !== "queued") return conversation;
    const event = requestFor(conversation, state.link.epoch);
    if (event) effects.push({ type: "send", event });
    return withLastTurn(conversation, (turn) => ({ ...turn, status: "waiting", epoch: state.link.epoch }));
  });
  return effects.length ? { state: { ...state, conversations }, effects } : still(state);
}

function linkEffects(before: Link, after: Link): Effect[] {
  if (before === after || before.phase === after.phase) return [];
  if (after.phase === "connecting") return [{ type: "connect" }];
  return after.phase === "backoff" ? [{ type: "wake-after", ms: after.delayMs }] : [];
}

function changeOpen(state: State, change: (conversation: Conversation) => Conversation): State {
  return replace(state, change(openConversation(state)));
}

function replace(state: State, changed: Conversation): State {
  const conversations = state.conversations.map((conversation) =>
    conversation.id === changed.id ? changed : conversation,
  );
  return { ...state, conversations };
}
