/** The drawer of one conversation: how its tokens are drawn, and what the model is told first. */
import { useEffect, useState } from "preact/hooks";
import type { Conversation } from "../model/conversation";
import { FIELDS, readNumber, readStops, serversOwn, STOP_STRINGS, writeStops, type FieldRule } from "../model/sampling";
import { systemText, type State } from "../model/state";
import { Dialog } from "./Dialog";
import type { Intents } from "./intents";
import { SystemChoice } from "./SystemChoice";

interface SettingsProps {
  state: State;
  conversation: Conversation;
  intents: Intents;
  onClose: () => void;
}

export function Settings({ state, conversation, intents, onClose }: SettingsProps) {
  const { sampling, system } = conversation;
  const fixed = conversation.turns.length > 0;
  return (
    <Dialog side title="Settings of this chat" onClose={onClose}>
      <section aria-label="Sampling" class="fields">
        <h3>Sampling</h3>
        {FIELDS.map((rule) => (
          <NumberField
            key={rule.field}
            rule={rule}
            value={sampling[rule.field]}
            placeholder={defaultOf(state, rule)}
            onValue={(value) => intents.sample({ [rule.field]: value })}
          />
        ))}
        <StopField value={sampling.stop} onValue={(stop) => intents.sample({ stop })} />
        <button type="button" class="small" onClick={() => intents.sample(serversOwn)}>
          All as the server has it
        </button>
      </section>
      <section aria-label="System prompt" class="fields">
        <h3>System prompt</h3>
        {fixed ? (
          <>
            <p class="field-help">
              <strong>{system?.kind === "prompt" ? system.name : "Your own"}</strong>
              {system?.kind === "prompt" && system.version !== null && ` (version ${system.version})`}. The first
              question fixes it; begin a new conversation to choose another one.
            </p>
            <pre class="prompt-body" tabIndex={0}>
              {systemText(state, system) || (system?.kind === "prompt" ? "Not known to this page." : "None.")}
            </pre>
          </>
        ) : (
          <SystemChoice
            prompts={state.prompts}
            system={system}
            onChoose={intents.choose}
            onVersions={intents.wantVersions}
          />
        )}
      </section>
    </Dialog>
  );
}

function defaultOf(state: State, rule: FieldRule): string {
  const value = state.defaults[rule.field];
  return value === undefined ? rule.unset : `${value} (the server’s)`;
}

interface NumberFieldProps {
  rule: FieldRule;
  value: number | null;
  placeholder: string;
  onValue: (value: number | null) => void;
}

function NumberField({ rule, value, placeholder, onValue }: NumberFieldProps) {
  const written = value === null ? "" : String(value);
  const [typed, setTyped] = useState(written);
  const read = readNumber(rule, typed);
  // What is typed stays as it is typed, unless another value has come from elsewhere.
  useEffect(() => {
    if (!("value" in read && read.value === value)) setTyped(written);
  }, [written]);
  const wrong = "wrong" in read ? read.wrong : null;
  const help = `help-${rule.field}`;
  return (
    <div class="field">
      <label for={`field-${rule.field}`}>{rule.label}</label>
      <input
        id={`field-${rule.field}`}
        inputMode="decimal"
        autocomplete="off"
        value={typed}
        placeholder={placeholder}
        aria-invalid={wrong !== null}
        aria-describedby={help}
        onInput={(event) => {
          const text = event.currentTarget.value;
          setTyped(text);
          const next = readNumber(rule, text);
          if ("value" in next) onValue(next.value);
        }}
      />
      <p id={help} class={wrong ? "field-help wrong" : "field-help"}>
        {wrong ?? rule.help}
      </p>
    </div>
  );
}

function StopField({ value, onValue }: { value: readonly string[]; onValue: (value: string[]) => void }) {
  const written = writeStops(value);
  const [typed, setTyped] = useState(written);
  const read = readStops(typed);
  useEffect(() => {
    if (!("value" in read && writeStops(read.value) === written)) setTyped(written);
  }, [written]);
  const wrong = "wrong" in read ? read.wrong : null;
  return (
    <div class="field">
      <label for="field-stop">Stop strings</label>
      <textarea
        id="field-stop"
        rows={2}
        value={typed}
        placeholder="none"
        aria-invalid={wrong !== null}
        aria-describedby="help-stop"
        onInput={(event) => {
          const text = event.currentTarget.value;
          setTyped(text);
          const next = readStops(text);
          if ("value" in next) onValue(next.value);
        }}
      />
      <p id="help-stop" class={wrong ? "field-help wrong" : "field-help"}>
        {wrong ?? `An answer ends before the first of them. One a line, at most ${STOP_STRINGS}; \\n is a line break.`}
      </p>
    </div>
  );
}
