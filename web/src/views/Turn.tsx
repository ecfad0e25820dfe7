/** One question and its answer, with what went wrong and the figures. */
import { useMemo } from "preact/hooks";
import { limitLabel } from "../model/announce";
import type { Turn } from "../model/conversation";
import { Answer } from "./Answer";
import { CopyButton } from "./CopyButton";
import { Figures } from "./Figures";

export function TurnView({ turn, onRetry }: { turn: Turn; onRetry: (() => void) | null }) {
  // Turns are immutable: an equal turn is not drawn again while a later one streams.
  return useMemo(() => <Drawn turn={turn} onRetry={onRetry} />, [turn, onRetry]);
}

function Drawn({ turn, onRetry }: { turn: Turn; onRetry: (() => void) | null }) {
  const ended = turn.status === "done" || turn.status === "cut" || turn.status === "stopped";
  return (
    <article class="turn" data-status={turn.status}>
      <h2 class="visually-hidden">You asked</h2>
      <p class="question">{turn.question}</p>
      <h2 class="visually-hidden">Answer</h2>
      {turn.answer ? <Answer turn={turn} /> : <Waiting turn={turn} />}
      {turn.status === "cut" && <p class="aside">{limitLabel(turn.endedBy)}</p>}
      {turn.status === "stopped" && <p class="aside">Stopped.</p>}
      {turn.problem && (
        <div class="problem" role="group" aria-label="Problem">
          <p>
            <strong>{turn.problem.title}.</strong> {turn.problem.advice}
          </p>
          {turn.problem.retry && onRetry && (
            <button type="button" class="small" onClick={onRetry}>
              Try again
            </button>
          )}
        </div>
      )}
      <div class="below">
        <Figures turn={turn} />
        {ended && turn.answer && <CopyButton text={turn.answer} />}
      </div>
    </article>
  );
}

function Waiting({ turn }: { turn: Turn }) {
  if (turn.status !== "queued" && turn.status !== "waiting") return null;
  return (
    <p class="waiting">
      <span class="roots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      {turn.status === "queued" ? "Waiting for the connection" : "Reading"}
    </p>
  );
}
