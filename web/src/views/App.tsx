/** The whole page: sidebar, header, one of the views. Keeps only what is laid open over it. */
import { useLayoutEffect, useState } from "preact/hooks";
import { announcement } from "../model/announce";
import { lastShown } from "../model/branches";
import { isComparing } from "../model/compare";
import { activeTurn, type Conversation } from "../model/conversation";
import { ofLink } from "../model/problems";
import { commandFor, type Command } from "../model/shortcuts";
import { openConversation, pendingTurn, type State } from "../model/state";
import { ComparePage } from "./Compare";
import { Composer } from "./Composer";
import { Header } from "./Header";
import type { Intents } from "./intents";
import { LivePage } from "./Live";
import { Notice } from "./Notice";
import { Settings } from "./Settings";
import { Shortcuts } from "./Shortcuts";
import { Sidebar } from "./Sidebar";
import { SignIn } from "./SignIn";
import { Thread } from "./Thread";
import { Welcome } from "./Welcome";

type Layer = "none" | "drawer" | "settings" | "sheet";

export function App({ state, intents }: { state: State; intents: Intents }) {
  const [layer, setLayer] = useState<Layer>("none");
  const conversation = openConversation(state);
  const linkProblem = ofLink(state.link);
  const close = () => setLayer("none");

  // Bound with the drawing, not after it: a key means what is seen when it is pressed.
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || layer === "settings" || layer === "sheet") return;
      if (event.key === "Escape") {
        if (layer === "drawer") close();
        else if (state.page === "compare") isComparing(state.compare) && intents.stopSides();
        else if (activeTurn(conversation, state.tab)) intents.stop();
        return;
      }
      const command = commandFor({
        key: event.key,
        ctrl: event.ctrlKey || event.metaKey,
        alt: event.altKey,
        shift: event.shiftKey,
        writing: isWriting(event.target),
      });
      if (!command) return;
      event.preventDefault();
      if (command === "sheet") setLayer("sheet");
      else if (command === "sampling") setLayer("settings");
      else if (command === "search") {
        // On a narrow page the list lies in a drawer, which has to be there before anything in it takes the focus.
        if (matchMedia("(max-width: 820px)").matches) setLayer("drawer");
        requestAnimationFrame(() => document.getElementById("search")?.focus());
      } else obey(command, state, conversation, intents);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [layer, state, conversation, intents]);

  return (
    <div class="page">
      <Sidebar
        state={state}
        intents={intents}
        open={layer === "drawer"}
        onClose={close}
        onSheet={() => setLayer("sheet")}
      />
      <main class="main">
        <Header state={state} onMenu={() => setLayer("drawer")} onSampling={() => setLayer("settings")} />
        {linkProblem && state.signIn === "none" && (
          <Notice problem={linkProblem} action="Connect now" onAction={intents.reconnect} />
        )}
        {state.notice && <Notice problem={state.notice} action="Dismiss" onAction={intents.dismiss} />}
        <View state={state} conversation={conversation} intents={intents} />
      </main>
      {layer === "settings" && <Settings state={state} conversation={conversation} intents={intents} onClose={close} />}
      {layer === "sheet" && <Shortcuts onClose={close} />}
      <p class="visually-hidden" role="status" aria-live="polite">
        {announcement(state)}
      </p>
    </div>
  );
}

function View({ state, conversation, intents }: { state: State; conversation: Conversation; intents: Intents }) {
  if (state.signIn !== "none") return <SignIn why={state.signIn} onKey={intents.signIn} />;
  if (state.page === "live") return <LivePage state={state} />;
  if (state.page === "compare") return <ComparePage state={state} intents={intents} />;
  const pending = pendingTurn(conversation, state.tab);
  return (
    <>
      {conversation.turns.length ? (
        <Thread key={conversation.id} state={state} conversation={conversation} intents={intents} />
      ) : (
        <Welcome state={state} conversation={conversation} intents={intents} />
      )}
      <Composer
        key={`composer ${conversation.id}`}
        draft={conversation.draft}
        placeholder="Ask something"
        busy={pending === null ? null : pending.tab === state.tab ? "answering" : "elsewhere"}
        onDraft={intents.draft}
        onSend={intents.ask}
        onStop={intents.stop}
      />
    </>
  );
}

function isWriting(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=radio]), textarea, select");
}

function obey(command: Command, state: State, conversation: Conversation, intents: Intents): void {
  const last = state.page === "chat" ? lastShown(conversation) : null;
  switch (command) {
    case "write":
      return document.getElementById("message")?.focus();
    case "new":
      return intents.startNew();
    case "regenerate":
      return last ? intents.regenerate(last.id) : undefined;
    case "edit":
      return document.querySelector<HTMLElement>(".turn:last-of-type [aria-label='Edit the question']")?.click();
    case "copy":
      return void (last?.answer && navigator.clipboard?.writeText(last.answer));
    case "older-branch":
      return last ? intents.branch(last.id, -1) : undefined;
    case "newer-branch":
      return last ? intents.branch(last.id, 1) : undefined;
    case "chat":
    case "live":
    case "compare":
      return intents.go(command);
  }
}
