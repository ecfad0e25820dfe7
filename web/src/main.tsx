/**
 * Puts the page together: store, socket, storage, views. The only file that knows all of them.
 */
import { render } from "preact";
import { fetchModel, fetchPrompts } from "./browser/server";
import { openShelf } from "./browser/shelf";
import { createSocket, socketUrl } from "./browser/socket";
import { createStore } from "./browser/store";
import { load, save } from "./model/archive";
import { lastTurn } from "./model/conversation";
import { promptsUnread } from "./model/problems";
import { initialState, openConversation, type State } from "./model/state";
import { update, type Effect } from "./model/update";
import { App } from "./views/App";
import { createIntents } from "./views/intents";
import "./styles/base.css";
import "./styles/frame.css";
import "./styles/welcome.css";
import "./styles/thread.css";
import "./styles/figures.css";
import "./styles/composer.css";

const OPEN_KEY = "banyan.open";
const SAVE_AFTER_MS = 400;

const root = document.getElementById("app")!;
const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint32Array(3)), (word) => word.toString(36)).join("");

const kept = openShelf("localStorage");
const ofThisTab = openShelf("sessionStorage");
const saved = load(kept);
const store = createStore(initialState(saved, ofThisTab.getItem(OPEN_KEY), newId(), Date.now()), update, firstToken, {
  run,
  draw,
  nextFrame: (callback) => requestAnimationFrame(callback),
});
const intents = createIntents(store.dispatch, newId, Date.now);
const socket = createSocket(socketUrl(location), {
  opened: () => store.dispatch({ type: "socket-opened" }),
  closed: (code) => store.dispatch({ type: "socket-closed", code, random: Math.random() }),
  event: (event) => store.dispatch({ type: "socket-event", event }),
});

/** The open answer has just got its first text. */
function firstToken(before: State, after: State): boolean {
  const [earlier, now] = [lastTurn(openConversation(before)), lastTurn(openConversation(after))];
  return earlier?.id === now?.id && earlier?.answer === "" && now?.answer !== "";
}

function run(effect: Effect): void {
  if (effect.type === "connect") socket.connect();
  else if (effect.type === "send") socket.send(effect.event);
  else setTimeout(() => store.dispatch({ type: "wake" }), effect.ms);
}

function draw(state: State): void {
  render(<App state={state} intents={intents} />, root);
  saveSoon();
}

// While an answer streams the conversation changes with every frame; storage is written a few times a second at most.
let lastSaved = saved as State["conversations"];
let saveTimer: ReturnType<typeof setTimeout> | undefined;

function saveSoon(): void {
  saveTimer ??= setTimeout(saveNow, SAVE_AFTER_MS);
}

function saveNow(): void {
  clearTimeout(saveTimer);
  saveTimer = undefined;
  const { conversations, openId } = store.state();
  if (save(kept, lastSaved, conversations)) lastSaved = conversations;
  ofThisTab.setItem(OPEN_KEY, openId);
}

addEventListener("pagehide", saveNow);
addEventListener("online", () => store.dispatch({ type: "wake" }));

draw(store.state());
socket.connect();
void fetchModel().then(
  (model) => store.dispatch({ type: "model", model }),
  () => undefined, // The socket's first event names the model as well.
);
void fetchPrompts().then(
  (prompts) => store.dispatch({ type: "prompts", prompts }),
  () => store.dispatch({ type: "notice", problem: promptsUnread }),
);
