/**
 * Puts the page together: store, sockets, storage, other tabs, views. The only file that knows all of them.
 */
import { render } from "preact";
import { chooseFiles, saveFile } from "./browser/files";
import { fetchModel, fetchPrompts, fetchVersions, fetchVersionText, Refused } from "./browser/server";
import { openShelf } from "./browser/shelf";
import { createSocket, protocolsFor, socketUrl, type Socket } from "./browser/socket";
import { createStore } from "./browser/store";
import { createTabs, openChannel } from "./browser/tabs";
import { keptTheme, setTheme } from "./browser/theme";
import { idOfKey, load, readKept, save } from "./model/archive";
import { lastShown } from "./model/branches";
import { fromFile } from "./model/exchange";
import { fileUnread, promptsUnread, storageFull } from "./model/problems";
import { addressOf, pageOf } from "./model/routes";
import { initialState, openConversation, otherTabs, type Line, type State } from "./model/state";
import { update, type Effect } from "./model/update";
import { App } from "./views/App";
import { createIntents } from "./views/intents";
import "./styles/base.css";
import "./styles/frame.css";
import "./styles/panels.css";
import "./styles/welcome.css";
import "./styles/thread.css";
import "./styles/code.css";
import "./styles/figures.css";
import "./styles/composer.css";
import "./styles/live.css";
import "./styles/compare.css";

const OPEN_KEY = "banyan.open";
const TAB_KEY = "banyan.tab";
const KEYS_KEY = "banyan.key.";
const LINES: readonly Line[] = ["main", "left", "right"];
const SAVE_AFTER_MS = 400;

const root = document.getElementById("app")!;
const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint32Array(3)), (word) => word.toString(36)).join("");

const kept = openShelf("localStorage");
const ofThisTab = openShelf("sessionStorage");
setTheme(kept, keptTheme(kept));

// A tab that is duplicated takes its storage along: the name is there only while the page is being left and opened.
const tab = ofThisTab.getItem(TAB_KEY) ?? newId();
ofThisTab.removeItem(TAB_KEY);
const keyOf = (line: Line): string => ofThisTab.getItem(KEYS_KEY + line) ?? "";
const keys = { main: keyOf("main"), left: keyOf("left"), right: keyOf("right") };

const saved = load(kept);
const visit = {
  tab,
  lastOpenId: ofThisTab.getItem(OPEN_KEY),
  freshId: newId(),
  at: Date.now(),
  page: pageOf(location.hash),
  keys,
};
const store = createStore(initialState(saved, visit), update, firstToken, {
  run,
  draw,
  nextFrame: (callback) => requestAnimationFrame(callback),
});
const { dispatch } = store;
const intents = createIntents(dispatch, newId, Date.now, {
  save: saveFile,
  open: openFiles,
  theme: () => keptTheme(kept),
  setTheme: (theme) => setTheme(kept, theme),
});
const tabs = createTabs(tab, openChannel(), (gone) => dispatch({ type: "tab-gone", tab: gone }));
const sockets: Record<Line, Socket> = { main: socketOf("main"), left: socketOf("left"), right: socketOf("right") };

function socketOf(line: Line): Socket {
  const open = async () => new WebSocket(socketUrl(location), await protocolsFor(keyIn(store.state(), line)));
  if (line === "main")
    return createSocket(
      {
        opened: () => dispatch({ type: "socket-opened" }),
        closed: (code) => dispatch({ type: "socket-closed", code, random: Math.random() }),
        event: (event) => dispatch({ type: "socket-event", event }),
      },
      open,
    );
  return createSocket(
    {
      opened: () => dispatch({ type: "side", name: line, action: { type: "opened" } }),
      closed: (code) => dispatch({ type: "side", name: line, action: { type: "closed", code, random: Math.random() } }),
      event: (event) => dispatch({ type: "side", name: line, action: { type: "event", event } }),
    },
    open,
  );
}

function keyIn(state: State, line: Line): string {
  return line === "main" ? state.key : state.compare[line].key || state.key;
}

/** The open answer has just got its first text. */
function firstToken(before: State, after: State): boolean {
  const [earlier, now] = [lastShown(openConversation(before)), lastShown(openConversation(after))];
  return earlier?.id === now?.id && earlier?.answer === "" && now?.answer !== "";
}

function run(effect: Effect): void {
  switch (effect.type) {
    case "connect":
      return sockets[effect.line].connect();
    case "send":
      return sockets[effect.line].send(effect.event);
    case "load":
      return loadCatalogue(effect.line);
    case "load-versions":
      return loadVersions(effect.id);
    case "load-text":
      return loadText(effect.id, effect.version);
    case "wake-after":
      setTimeout(() => wake(effect.line), effect.ms);
  }
}

function wake(line: Line): void {
  dispatch(line === "main" ? { type: "wake" } : { type: "side", name: line, action: { type: "wake" } });
}

function draw(state: State): void {
  render(<App state={state} intents={intents} />, root);
  if (pageOf(location.hash) !== state.page) location.hash = addressOf(state.page);
  saveSoon();
}

function loadCatalogue(line: Line): void {
  const key = keyIn(store.state(), line);
  const current = () => keyIn(store.state(), line) === key;
  if (line !== "main") {
    fetchPrompts(key).then(
      (prompts) => current() && dispatch({ type: "side", name: line, action: { type: "prompts", prompts } }),
      () => current() && dispatch({ type: "side", name: line, action: { type: "key-refused" } }),
    );
    return;
  }
  fetchModel(key).then(
    (model) => current() && dispatch({ type: "model", model }),
    // What else may be wrong the socket finds out as well; its first event names the model.
    (error: unknown) => current() && isUnknownKey(error) && dispatch({ type: "key-needed" }),
  );
  fetchPrompts(key).then(
    (prompts) => current() && dispatch({ type: "prompts", prompts }),
    (error: unknown) => current() && !(error instanceof Refused) && dispatch({ type: "notice", problem: promptsUnread }),
  );
}

function isUnknownKey(error: unknown): boolean {
  return error instanceof Refused && error.status === 401;
}

/** A server without a registry of versions has the one that is listed. */
function loadVersions(id: string): void {
  fetchVersions(store.state().key, id).then(
    (versions) => dispatch({ type: "learned", id, more: { versions } }),
    () => dispatch({ type: "learned", id, more: { versions: [] } }),
  );
}

function loadText(id: string, version: string): void {
  fetchVersionText(store.state().key, id, version).then(
    (text) => dispatch({ type: "learned", id, more: { texts: { [version]: text } } }),
    () => dispatch({ type: "notice", problem: promptsUnread }),
  );
}

async function openFiles(): Promise<void> {
  const conversations = (await chooseFiles()).flatMap((text) => fromFile(text, newId, Date.now()));
  dispatch(conversations.length ? { type: "import", conversations } : { type: "notice", problem: fileUnread });
}

// While an answer streams the conversation changes with every frame; storage is written a few times a second at most.
let lastSaved: State["conversations"] = saved;
let saveTimer: ReturnType<typeof setTimeout> | undefined;
let full = false;

function saveSoon(): void {
  saveTimer ??= setTimeout(saveNow, SAVE_AFTER_MS);
}

function saveNow(): void {
  clearTimeout(saveTimer);
  saveTimer = undefined;
  const { conversations, openId, key, compare } = store.state();
  const { kept: written, taken } = save(kept, lastSaved, conversations);
  if (written) lastSaved = conversations;
  else if (!full) dispatch({ type: "notice", problem: storageFull });
  full = !written;
  taken.forEach((conversation) => dispatch({ type: "elsewhere", conversation }));
  ofThisTab.setItem(OPEN_KEY, openId);
  for (const line of LINES) ofThisTab.setItem(KEYS_KEY + line, line === "main" ? key : compare[line].key);
}

addEventListener("pagehide", () => {
  saveNow();
  ofThisTab.setItem(TAB_KEY, tab);
  tabs.leave();
});
addEventListener("pageshow", () => ofThisTab.removeItem(TAB_KEY));
addEventListener("online", () => dispatch({ type: "wake" }));
addEventListener("hashchange", () => dispatch({ type: "go", page: pageOf(location.hash) }));
addEventListener("storage", ({ key, newValue }) => {
  const id = idOfKey(key ?? "");
  if (id === null) return;
  const conversation = readKept(newValue);
  if (conversation) dispatch({ type: "elsewhere", conversation });
  else dispatch({ type: "deleted-elsewhere", id, freshId: newId(), at: Date.now() });
});

draw(store.state());
sockets.main.connect();
for (const line of LINES) if (line === "main" || keyOf(line)) loadCatalogue(line);
otherTabs(store.state()).forEach(tabs.lookFor);
