/** The same question on two sides, and what each of them had to compute for it. */
import { useState } from "preact/hooks";
import { waitingLabel } from "../model/announce";
import { describeSplit, formatCount, formatMs, formatRate, splitOf, type Split } from "../model/cache";
import { suggestionsOf } from "../model/catalogue";
import { isComparing, longestPrompt, SIDES, type Side, type SideName } from "../model/compare";
import { isRunning, type Turn } from "../model/conversation";
import { keyRefused } from "../model/problems";
import type { State } from "../model/state";
import { squaresOf, tokensPerSquare } from "../model/waffle";
import { Answer } from "./Answer";
import { Composer } from "./Composer";
import { Icon } from "./Icon";
import type { Intents } from "./intents";
import { SystemChoice } from "./SystemChoice";

const NAMES: Record<SideName, string> = { left: "Left", right: "Right" };

export function ComparePage({ state, intents }: { state: State; intents: Intents }) {
  const [draft, setDraft] = useState("");
  const { compare } = state;
  const comparing = isComparing(compare);
  const ask = (question: string) => {
    if (!question.trim()) return;
    intents.compare(question);
    setDraft("");
  };
  const asked = SIDES.some((name) => compare[name].turn !== null);
  const question = compare.left.turn?.question ?? compare.right.turn?.question;
  const perSquare = tokensPerSquare(longestPrompt(compare));
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label="Side by side">
        <div class="compare">
          <div class="compare-head">
            <h1>Side by side</h1>
            <p>The same question to two system prompts, or to two tenants, and what each had to compute for it.</p>
          </div>
          {question && <p class="question compare-question">{question}</p>}
          <div class="sides">
            {SIDES.map((name) => (
              <SideView
                key={name}
                name={name}
                side={compare[name]}
                perSquare={perSquare}
                state={state}
                intents={intents}
              />
            ))}
          </div>
          {!asked && <Suggestions state={state} onAsk={ask} />}
        </div>
      </div>
      <Composer
        draft={draft}
        placeholder="Ask both"
        busy={comparing ? "answering" : null}
        onDraft={setDraft}
        onSend={ask}
        onStop={intents.stopSides}
      />
    </>
  );
}

function Suggestions({ state, onAsk }: { state: State; onAsk: (question: string) => void }) {
  const { system } = state.compare.left;
  const prompt = state.prompts.find(({ id }) => system?.kind === "prompt" && id === system.id);
  if (!prompt) return null;
  return (
    <section class="suggestions" aria-label="Suggestions">
      {suggestionsOf(prompt, 4).map((question) => (
        <button key={question} type="button" onClick={() => onAsk(question)}>
          {question}
        </button>
      ))}
    </section>
  );
}

interface SideViewProps {
  name: SideName;
  side: Side;
  perSquare: number;
  state: State;
  intents: Intents;
}

function SideView({ name, side, perSquare, state, intents }: SideViewProps) {
  const { turn } = side;
  return (
    <section class="card side-card" aria-label={NAMES[name]} data-status={turn?.status}>
      <div class="side-head">
        <SystemChoice
          label={`System prompt, ${name}`}
          prompts={side.prompts ?? state.prompts}
          system={side.system}
          onChoose={(system) => intents.chooseSide(name, system)}
        />
        <KeyField name={name} side={side} onKey={(key) => intents.signInSide(name, key)} />
      </div>
      {turn && (
        <>
          <Computed turn={turn} perSquare={perSquare} />
          {turn.answer ? (
            <Answer key={turn.id} turn={turn} />
          ) : (
            turn.status !== "failed" && <p class="waiting">{isRunning(turn) ? waitingLabel(turn) : "No answer."}</p>
          )}
          {turn.problem && (
            <div class="problem" role="group" aria-label="Problem">
              <p>
                <strong>{turn.problem.title}.</strong> {turn.problem.advice}
              </p>
            </div>
          )}
        </>
      )}
    </section>
  );
}

function KeyField({ name, side, onKey }: { name: SideName; side: Side; onKey: (key: string) => void }) {
  const [open, setOpen] = useState(false);
  if (side.key && !side.refused && !open) {
    return (
      <p class="side-tenant">
        <Icon name="key" />
        {side.tenant ? `Tenant ${side.tenant}` : "With a key of its own"}
        <button type="button" class="small" onClick={() => onKey("")}>
          Remove the key
        </button>
      </p>
    );
  }
  if (!open && !side.refused) {
    return (
      <button type="button" class="small side-key" onClick={() => setOpen(true)}>
        <Icon name="key" />
        As another tenant
      </button>
    );
  }
  return (
    <form
      class="side-key-form"
      onSubmit={(event) => {
        event.preventDefault();
        onKey(String(new FormData(event.currentTarget).get("key") ?? ""));
        setOpen(false);
      }}
    >
      <input
        name="key"
        type="password"
        autocomplete="off"
        spellcheck={false}
        aria-label={`Key, ${name}`}
        placeholder="sk-…"
        aria-invalid={side.refused}
      />
      <button type="submit" class="small">
        Use
      </button>
      {side.refused && (
        <p class="field-help wrong">
          {keyRefused.title}. {keyRefused.advice}
        </p>
      )}
    </form>
  );
}

/** The prompt as squares on one scale for both sides: what was found is pale, what had to be computed is not. */
function Computed({ turn, perSquare }: { turn: Turn; perSquare: number }) {
  const split = splitOf(turn);
  if (!split) return <div class="computed-empty" />;
  const computed = split.promptTokens - split.cachedTokens;
  return (
    <div class="had-to-compute">
      <p class="computed-count">
        <b>{formatCount(computed)}</b> of {formatCount(split.promptTokens)} prompt tokens computed
      </p>
      <Squares split={split} perSquare={perSquare} />
      <ul class="cache-legend" aria-hidden="true">
        {split.shares
          .filter(({ tokens }) => tokens > 0)
          .map(({ origin, label, tokens }) => (
            <li key={origin}>
              <span class={`swatch square-${origin}`} />
              {label} <b>{formatCount(tokens)}</b>
            </li>
          ))}
      </ul>
      <dl class="numbers">
        <Figure term="First token" value={turn.timing?.ttftMs == null ? "–" : formatMs(turn.timing.ttftMs)} />
        <Figure term="Tokens/s" value={turn.timing?.tokensPerS == null ? "–" : formatRate(turn.timing.tokensPerS)} />
        <Figure term="Out" value={turn.usage ? formatCount(turn.usage.outputTokens) : "–"} />
      </dl>
    </div>
  );
}

function Squares({ split, perSquare }: { split: Split; perSquare: number }) {
  return (
    <div class="squares" role="img" aria-label={describeSplit(split)} title={`${formatCount(perSquare)} tokens each`}>
      {squaresOf(split, perSquare).map((origin, index) => (
        <i key={index} class={`square-${origin}`} />
      ))}
    </div>
  );
}

function Figure({ term, value }: { term: string; value: string }) {
  return (
    <div class="figure">
      <dt>{term}</dt>
      <dd>{value}</dd>
    </div>
  );
}
