/** One question and its answer, with its branches, what went wrong, what can be done with it, and the figures. */
import { useMemo, useState } from "preact/hooks";
import { limitLabel, waitingLabel } from "../model/announce";
import { isActive, type Turn } from "../model/conversation";
import { Answer } from "./Answer";
import { CopyButton } from "./CopyButton";
import { Figures } from "./Figures";
import { Icon, IconButton } from "./Icon";
import type { Intents } from "./intents";

interface TurnProps {
  turn: Turn;
  /** Its place among the branches that begin here, from 0, and how many they are. */
  place: number;
  branches: number;
  last: boolean;
  /** An answer is being written in this conversation: nothing else is asked meanwhile. */
  busy: boolean;
  intents: Intents;
}

export function TurnView(props: TurnProps) {
  const { turn, place, branches, last, busy, intents } = props;
  // Turns are immutable: an equal turn is not drawn again while a later one streams.
  return useMemo(() => <Drawn {...props} />, [turn, place, branches, last, busy, intents]);
}

function Drawn({ turn, place, branches, last, busy, intents }: TurnProps) {
  const [editing, setEditing] = useState(false);
  return (
    <article class="turn" data-status={turn.status} data-turn={turn.id}>
      <h2 class="visually-hidden">You asked</h2>
      {editing ? (
        <Editor
          question={turn.question}
          onCancel={() => setEditing(false)}
          onSend={(text) => {
            setEditing(false);
            intents.edit(turn.id, text);
          }}
        />
      ) : turn.continues ? (
        <p class="continued">
          <Icon name="forward" />
          Continued
        </p>
      ) : (
        <div class="question-row">
          {!busy && <IconButton small name="pencil" label="Edit the question" onClick={() => setEditing(true)} />}
          <p class="question">{turn.question}</p>
        </div>
      )}
      {!editing && branches > 1 && (
        <div class="branches" role="group" aria-label="Branches">
          <IconButton
            small
            name="left"
            label="Earlier branch"
            disabled={place === 0}
            onClick={() => intents.branch(turn.id, -1)}
          />
          <span class="branch-place">
            <span class="visually-hidden">Branch </span>
            {place + 1}/{branches}
          </span>
          <IconButton
            small
            name="right"
            label="Later branch"
            disabled={place === branches - 1}
            onClick={() => intents.branch(turn.id, 1)}
          />
        </div>
      )}
      <h2 class="visually-hidden">Answer</h2>
      {turn.answer ? <Answer turn={turn} /> : <Waiting turn={turn} />}
      {turn.answer && turn.status === "lost" && <Waiting turn={turn} />}
      {turn.status === "cut" && <p class="aside">{limitLabel(turn.endedBy)}</p>}
      {turn.status === "stopped" && <p class="aside">{turn.answer ? "Stopped." : "Stopped before an answer."}</p>}
      {turn.problem && (
        <div class="problem" role="group" aria-label="Problem">
          <p>
            <strong>{turn.problem.title}.</strong> {turn.problem.advice}
          </p>
          {turn.problem.retry && last && !busy && (
            <button type="button" class="small" onClick={intents.retry}>
              Try again
            </button>
          )}
        </div>
      )}
      <div class="below">
        <Figures turn={turn} />
        {!isActive(turn) && <Tools turn={turn} last={last} busy={busy} intents={intents} />}
      </div>
    </article>
  );
}

function Tools({ turn, last, busy, intents }: Pick<TurnProps, "turn" | "last" | "busy" | "intents">) {
  const [asking, setAsking] = useState(false);
  if (asking) {
    return (
      <div class="tools asking" role="group" aria-label="Delete">
        <span>{last ? "Delete this turn?" : "Delete this turn and all that follows it?"}</span>
        <button type="button" class="small danger" onClick={() => intents.removeTurn(turn.id)}>
          Delete
        </button>
        <button type="button" class="small" ref={focus} onClick={() => setAsking(false)}>
          Keep
        </button>
      </div>
    );
  }
  const unfinished = turn.status === "cut" || turn.status === "stopped";
  return (
    <div class="tools" role="group" aria-label="With this answer">
      {turn.answer && <CopyButton text={turn.answer} />}
      {!busy && <IconButton small name="again" label="Answer once more" onClick={() => intents.regenerate(turn.id)} />}
      {!busy && last && unfinished && turn.answer && (
        <IconButton small name="forward" label="Continue the answer" onClick={intents.goOn} />
      )}
      <IconButton small name="trash" label="Delete the turn" onClick={() => setAsking(true)} />
    </div>
  );
}

function focus(element: HTMLElement | null): void {
  element?.focus();
}

interface EditorProps {
  question: string;
  onSend: (text: string) => void;
  onCancel: () => void;
}

function Editor({ question, onSend, onCancel }: EditorProps) {
  const [text, setText] = useState(question);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) onSend(text);
      }}
    >
      <textarea
        ref={focusOnce}
        aria-label="Edit the question"
        value={text}
        rows={2}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") {
            event.preventDefault();
            onCancel();
          } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            if (text.trim()) onSend(text);
          }
        }}
      />
      <div class="editor-buttons">
        <span class="hint">The question before it stays as a branch</span>
        <button type="button" class="small" onClick={onCancel}>
          Cancel
        </button>
        <button type="submit" class="small primary" disabled={!text.trim()}>
          Send
        </button>
      </div>
    </form>
  );
}

// One function for all drawings: a new one each time would take the focus back with every letter.
function focusOnce(field: HTMLTextAreaElement | null): void {
  if (!field) return;
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
}

function Waiting({ turn }: { turn: Turn }) {
  if (turn.status !== "queued" && turn.status !== "waiting" && turn.status !== "lost") return null;
  return (
    <p class="waiting">
      <span class="roots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      {waitingLabel(turn)}
    </p>
  );
}
