/**
 * The page's one reducer: state and action in, state and effects out.
 *
 * Knows which part answers which action, and what the world has to do after it. The rules are in the parts: `asking.ts`
 * (the open conversation), `list.ts` (among conversations), `delivery.ts` (one turn and the wire), `compare.ts`,
 * `live.ts`.
 */
import {
  askedAgain,
  asked,
  branched,
  chosen,
  continued,
  edited,
  offered,
  regenerated,
  sampled,
  stopping,
} from "./asking";
import { learned } from "./catalogue";
import { SIDES, firstOf, updateSide, type SideAction, type SideName } from "./compare";
import { activeTurn, afterEvent, isActive, withTurn, type Conversation, type System, type Turn } from "./conversation";
import { afterLoss, afterRefusal, dueEvent, sent, takenUp } from "./delivery";
import { requestFor } from "./history";
import { closed, confirmed, firstLink, KEY_REFUSED, KEY_TOO_NARROW, opened, woken, type Link } from "./link";
import { deletedElsewhere, imported, opened as openedOne, pruned, removed, renamed, started, takenIn } from "./list";
import { afterLive, LIVE_LANE, MAX_HZ, nothingYet } from "./live";
import { fromLiveRefusal, fromServer } from "./problems";
import type { ClientEvent, ServerEvent } from "./protocol";
import { openConversation, systemText, type Action, type Line, type State } from "./state";

export type Effect =
  | { type: "connect"; line: Line }
  | { type: "wake-after"; line: Line; ms: number }
  | { type: "send"; line: Line; event: ClientEvent }
  /** Read what the line's key may choose from. */
  | { type: "load"; line: Line }
  | { type: "load-versions"; id: string }
  | { type: "load-text"; id: string; version: string };

export interface Next {
  state: State;
  effects: Effect[];
}

export function update(state: State, action: Action): Next {
  const next = apply(state, action);
  const due = sendDue(next.state);
  return {
    state: due.state,
    effects: [...next.effects, ...linkEffects("main", state.link, due.state.link), ...due.effects],
  };
}

function apply(state: State, action: Action): Next {
  switch (action.type) {
    case "go":
      return still(action.page === state.page ? state : { ...state, page: action.page });
    case "ask":
      return still(asked(state, action.turnId, action.text));
    case "retry":
      return still(askedAgain(state, action.turnId));
    case "regenerate":
      return still(regenerated(state, action.of, action.turnId));
    case "edit":
      return still(edited(state, action.of, action.turnId, action.text));
    case "continue":
      return still(continued(state, action.turnId));
    case "branch":
      return still(branched(state, action.turn, action.by));
    case "delete-turn":
      return sending(pruned(state, action.turn));
    case "stop":
      return sending(stopping(state));
    case "draft":
      return still(changeOpen(state, (conversation) => ({ ...conversation, draft: action.text })));
    case "choose":
      return choose(state, action.system);
    case "sample":
      return still(changeOpen(state, (conversation) => sampled(conversation, action.change)));
    case "new":
      return still(started(state, action.id, action.at));
    case "open":
      return still(openedOne(state, action.id));
    case "rename":
      return still(renamed(state, action.id, action.title));
    case "delete":
      return sending(removed(state, action.id, action.freshId, action.at));
    case "import":
      return still(imported(state, action.conversations));
    case "search":
      return still({ ...state, search: action.text });
    case "dismiss":
      return still({ ...state, notice: null });
    case "elsewhere":
      return still(takenIn(state, action.conversation));
    case "deleted-elsewhere":
      return sending(deletedElsewhere(state, action.id, action.freshId, action.at));
    case "tab-gone":
      return still(takeUp(state, action.tab));
    case "key":
      return signIn(state, action.key);
    case "key-needed":
      return still(askForKey(state));
    case "model":
      // What the socket said first is newer.
      return still({ ...state, model: state.model ?? action.model });
    case "prompts":
      return still(offerPrompts(offered({ ...state, prompts: action.prompts })));
    case "want-versions":
      return { state, effects: [{ type: "load-versions", id: action.id }] };
    case "learned":
      return still({ ...state, prompts: learned(state.prompts, action.id, action.more) });
    case "notice":
      return still({ ...state, notice: action.problem });
    case "socket-opened":
      return still({ ...state, link: opened(state.link), notice: null });
    case "socket-closed":
      return still(lose(state, action.code, action.random));
    case "socket-event":
      return still(receive({ ...state, link: confirmed(state.link) }, action.event));
    case "wake":
      // Without a key that holds the server would only say no again.
      return still(state.signIn === "none" ? { ...state, link: woken(state.link) } : state);
    case "side":
      return updateCompare(state, action.name, action.action);
    case "compare":
      return askBoth(state, action.question, action.turnIds);
  }
}

const still = (state: State): Next => ({ state, effects: [] });

function sending({ state, events }: { state: State; events: ClientEvent[] }): Next {
  return { state, effects: events.map((event) => ({ type: "send", line: "main", event })) };
}

// --- who one is ---

/** Another key: whatever is known of the server was told to somebody else. */
function signIn(state: State, key: string): Next {
  const fresh: State = { ...state, key, signIn: "none", prompts: [], tenant: null, live: nothingYet, notice: null };
  const link: Link = { ...firstLink, epoch: state.link.epoch };
  return {
    state: { ...fresh, link },
    effects: [{ type: "load", line: "main" }, ...(state.link.phase === "connecting" ? [connect("main")] : [])],
  };
}

function askForKey(state: State): State {
  const known = state.tenant === null ? "refused" : "ended";
  return { ...state, signIn: state.key ? known : "needed" };
}

const connect = (line: Line): Effect => ({ type: "connect", line });

/** What an earlier version says has to be read before it can be shown. */
function choose(state: State, system: System): Next {
  const next = changeOpen(state, (conversation) => chosen(conversation, system));
  const unread = system.kind === "prompt" && system.version !== null && systemText(state, system) === null;
  return { state: next, effects: unread ? [{ type: "load-text", id: system.id, version: system.version! }] : [] };
}

// --- what the server does ---

function receive(state: State, event: ServerEvent): State {
  switch (event.type) {
    case "session":
      return {
        ...state,
        signIn: "none",
        model: event.model ?? state.model,
        tenant: event.tenant,
        maxContextTokens: event.maxContextTokens ?? state.maxContextTokens,
      };
    case "tree":
    case "batch":
    case "stats":
      return { ...state, live: afterLive(state.live, event) };
    case "error":
      return refuse(state, event);
    default: {
      const found = addressee(state, event.streamId);
      if (!found) return state;
      const changed = withTurn(found.conversation, found.turn.id, (turn) => afterEvent(turn, event));
      return replace(event.type === "created" ? learnDefaults(state, found.conversation, event) : state, changed);
    }
  }
}

function refuse(state: State, event: Extract<ServerEvent, { type: "error" }>): State {
  if (event.streamId === LIVE_LANE) return { ...state, live: { ...state.live, problem: fromLiveRefusal(event.error) } };
  const found = addressee(state, event.streamId);
  if (!found) return { ...state, notice: fromServer(event.error) };
  return replace(
    state,
    withTurn(found.conversation, found.turn.id, (turn) => afterRefusal(turn, event.error)),
  );
}

/** Events without a lane belong to the one answer that is running, if there is exactly one. */
function addressee(state: State, streamId: string | null): { conversation: Conversation; turn: Turn } | null {
  const running = state.conversations.flatMap((conversation) => {
    const turn = streamId === null || streamId === conversation.id ? activeTurn(conversation, state.tab) : null;
    return turn ? [{ conversation, turn }] : [];
  });
  return running.length === 1 ? running[0]! : null;
}

/** Where the conversation leaves a value to the server, the response says which one it took. */
function learnDefaults(
  state: State,
  { sampling }: Conversation,
  { drawn }: Extract<ServerEvent, { type: "created" }>,
): State {
  const defaults = { ...state.defaults };
  if (sampling.temperature === null && drawn.temperature !== null) defaults.temperature = drawn.temperature;
  if (sampling.topP === null && drawn.topP !== null) defaults.topP = drawn.topP;
  return { ...state, defaults };
}

function lose(state: State, code: number, random: number): State {
  const link = closed(state.link, code, random);
  const refused = link.phase === "refused";
  const conversations = state.conversations.map((conversation) => {
    const turn = activeTurn(conversation, state.tab);
    return turn ? withTurn(conversation, turn.id, (lost) => afterLoss(lost, code, refused)) : conversation;
  });
  const waits = conversations.some((conversation) => isActive(activeTurn(conversation, state.tab)));
  // A connection that was closed for being slow or old is opened again at once where an answer waits for it.
  const lost = { ...state, link: link.phase === "resting" && waits ? woken(link) : link, conversations };
  if (code === KEY_TOO_NARROW) return { ...lost, signIn: "narrow" };
  return code === KEY_REFUSED ? askForKey(lost) : lost;
}

/** What a closed tab was running is run here. */
function takeUp(state: State, tab: string): State {
  const conversations = state.conversations.map((conversation) => {
    const left = conversation.turns.filter((turn) => isActive(turn) && (turn.tab ?? "") === tab);
    return left.reduce((changed, { id }) => withTurn(changed, id, (turn) => takenUp(turn, state.tab)), conversation);
  });
  return { ...state, conversations, link: woken(state.link) };
}

// --- the comparison ---

function updateCompare(state: State, name: SideName, action: SideAction): Next {
  const before = state.compare[name];
  const next = updateSide(before, action);
  const effects: Effect[] = linkEffects(name, before.link, next.side.link);
  effects.push(...next.events.map((event): Effect => ({ type: "send", line: name, event })));
  if (action.type === "key" && action.key) effects.push({ type: "load", line: name });
  const changed = { ...state, compare: { ...state.compare, [name]: next.side } };
  return { state: action.type === "key" ? offerPrompts(changed) : changed, effects };
}

function askBoth(state: State, text: string, turnIds: Record<SideName, string>): Next {
  const question = text.trim();
  if (!question || SIDES.some((name) => isActive(state.compare[name].turn))) return still(state);
  return SIDES.reduce<Next>((before, name) => {
    const ask: SideAction = { type: "ask", turnId: turnIds[name], question, tab: state.tab };
    const next = updateCompare(before.state, name, ask);
    return { state: next.state, effects: [...before.effects, ...next.effects] };
  }, still(state));
}

/** Each side begins with a prompt of its own: there is nothing to compare between equals. */
function offerPrompts(state: State): State {
  const compare = { ...state.compare };
  SIDES.forEach((name, index) => {
    const side = compare[name];
    if (side.key || side.system) return;
    compare[name] = { ...side, system: firstOf(state.prompts, index) ?? { kind: "own", text: "" } };
  });
  return { ...state, compare };
}

// --- what follows ---

/** As soon as the socket is open, everything that waits for it is sent. */
function sendDue(state: State): Next {
  if (state.link.phase !== "open") return still(state);
  const { epoch } = state.link;
  const events: ClientEvent[] = [];
  const conversations = state.conversations.map((conversation) => {
    const turn = activeTurn(conversation, state.tab);
    const event = turn && dueEvent(turn, conversation.id, () => requestFor(conversation, turn, epoch));
    if (!event) return conversation;
    events.push(event);
    return withTurn(conversation, turn.id, (due) => sent(due, epoch));
  });
  const wanted = state.page === "live" ? epoch : 0;
  let { live } = state;
  if (wanted !== live.epoch) {
    if (wanted)
      events.push({ type: "x.subscribe", topics: ["stats", "tree", "batch"], max_hz: MAX_HZ, stream_id: LIVE_LANE });
    else if (live.epoch === epoch) events.push({ type: "x.unsubscribe" });
    live = { ...live, epoch: wanted };
  }
  return events.length || live !== state.live
    ? sending({ state: { ...state, conversations, live }, events })
    : still(state);
}

function linkEffects(line: Line, before: Link, after: Link): Effect[] {
  if (before === after || before.phase === after.phase) return [];
  if (after.phase === "connecting") return [connect(line)];
  return after.phase === "backoff" ? [{ type: "wake-after", line, ms: after.delayMs }] : [];
}

function changeOpen(state: State, change: (conversation: Conversation) => Conversation): State {
  return replace(state, change(openConversation(state)));
}

function replace(state: State, changed: Conversation): State {
  let same = true;
  const conversations = state.conversations.map((conversation) => {
    if (conversation.id !== changed.id) return conversation;
    same = conversation === changed;
    return changed;
  });
  return same ? state : { ...state, conversations };
}
