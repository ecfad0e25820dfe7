/** An empty conversation: who should answer, and what one might ask them. */
import { suggestionsOf } from "../model/catalogue";
import type { Conversation, System } from "../model/conversation";
import { promptOf, systemText, type State } from "../model/state";
import type { Intents } from "./intents";
import { Mark } from "./Mark";
import { VersionChoice } from "./SystemChoice";

const SUGGESTIONS = 6;

export function Welcome({
  state,
  conversation,
  intents,
}: {
  state: State;
  conversation: Conversation;
  intents: Intents;
}) {
  const { system } = conversation;
  const prompt = promptOf(state, system);
  const own = system?.kind === "own";

  return (
    <div class="scroll">
      <div class="column welcome">
        <div class="hero">
          <Mark size={56} />
          <div>
            <h1>Who should answer?</h1>
            <p>Everybody who picks the same system prompt shares what the server has already read of it.</p>
          </div>
        </div>
        <fieldset class="choices">
          <legend class="visually-hidden">System prompt</legend>
          {state.prompts.map(({ id, name, description }) => (
            <Choice
              key={id}
              checked={system?.kind === "prompt" && system.id === id}
              name={name}
              description={description}
              onChoose={() => intents.choose({ kind: "prompt", id, name, version: null })}
            />
          ))}
          <Choice
            checked={own}
            name="Your own"
            description="Write what the model should know and how it should answer."
            onChoose={() => !own && intents.choose({ kind: "own", text: "" })}
          />
        </fieldset>
        {own && <OwnText system={system} intents={intents} />}
        {prompt && (
          <>
            <section class="suggestions" aria-label="Suggestions">
              {suggestionsOf(prompt, SUGGESTIONS).map((question) => (
                <button key={question} type="button" onClick={() => intents.ask(question)}>
                  {question}
                </button>
              ))}
            </section>
            <details class="prompt-text">
              <summary>Read the system prompt</summary>
              {system?.kind === "prompt" && (
                <VersionChoice
                  prompt={prompt}
                  system={system}
                  onChoose={intents.choose}
                  onVersions={intents.wantVersions}
                />
              )}
              <div class="prompt-body" tabIndex={0}>
                {systemText(state, system) ?? "Reading…"}
              </div>
            </details>
          </>
        )}
      </div>
    </div>
  );
}

interface ChoiceProps {
  checked: boolean;
  name: string;
  description: string;
  onChoose: () => void;
}

function Choice({ checked, name, description, onChoose }: ChoiceProps) {
  return (
    <label class="choice">
      <input type="radio" name="system" checked={checked} onChange={onChoose} />
      <span class="choice-name">{name}</span>
      <span class="choice-description">{description}</span>
    </label>
  );
}

function OwnText({ system, intents }: { system: Extract<System, { kind: "own" }>; intents: Intents }) {
  return (
    <label class="own">
      <span>System prompt</span>
      <textarea
        rows={5}
        value={system.text}
        placeholder={"You are the assistant of Alda, a bakery.\nThe croissant costs 2.40 euros."}
        onInput={(event) => intents.choose({ kind: "own", text: event.currentTarget.value })}
      />
    </label>
  );
}
