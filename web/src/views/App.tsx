/** The whole page: sidebar, header, conversation, composer. Keeps only whether the sidebar is open (small screens). */
import { useEffect, useState } from "preact/hooks";
import { announcement } from "../model/announce";
import { ofLink } from "../model/problems";
import { isAnswering, openConversation, type State } from "../model/state";
import { Composer } from "./Composer";
import { Header } from "./Header";
import type { Intents } from "./intents";
import { Notice } from "./Notice";
import { Sidebar } from "./Sidebar";
import { Thread } from "./Thread";
import { Welcome } from "./Welcome";

export function App({ state, intents }: { state: State; intents: Intents }) {
  const [drawer, setDrawer] = useState(false);
  const conversation = openConversation(state);
  const answering = isAnswering(conversation);
  const linkProblem = ofLink(state.link);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      if (drawer) setDrawer(false);
      else if (answering) intents.stop();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [drawer, answering, intents]);

  return (
    <div class="page">
      <Sidebar state={state} intents={intents} open={drawer} onClose={() => setDrawer(false)} />
      <main class="main">
        <Header state={state} onMenu={() => setDrawer(true)} />
        {linkProblem && <Notice problem={linkProblem} action="Connect now" onAction={intents.reconnect} />}
        {state.notice && <Notice problem={state.notice} action="Dismiss" onAction={intents.dismiss} />}
        {conversation.turns.length ? (
          <Thread key={conversation.id} state={state} conversation={conversation} intents={intents} />
        ) : (
          <Welcome state={state} conversation={conversation} intents={intents} />
        )}
        <Composer
          key={`composer ${conversation.id}`}
          conversation={conversation}
          answering={answering}
          intents={intents}
        />
      </main>
      <p class="visually-hidden" role="status" aria-live="polite">
        {announcement(state)}
      </p>
    </div>
  );
}
