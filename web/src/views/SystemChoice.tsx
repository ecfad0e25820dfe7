/** A system prompt in small: one of the registry, at a version, or one's own text. */
import type { Prompt } from "../model/catalogue";
import type { System } from "../model/conversation";

interface SystemChoiceProps {
  prompts: readonly Prompt[];
  system: System | null;
  onChoose: (system: System) => void;
  /** Absent where versions are not chosen. */
  onVersions?: (promptId: string) => void;
  /** Told apart from other choices on the page. */
  label?: string;
}

const OWN = "";

export function SystemChoice({ prompts, system, onChoose, onVersions, label = "System prompt" }: SystemChoiceProps) {
  const chosen = system?.kind === "prompt" ? system : null;
  const prompt = prompts.find(({ id }) => id === chosen?.id);
  return (
    <>
      <label class="field">
        <span class="visually-hidden">{label}</span>
        <select
          aria-label={label}
          value={chosen?.id ?? OWN}
          onChange={(event) => {
            const { value } = event.currentTarget;
            const next = prompts.find(({ id }) => id === value);
            onChoose(
              next ? { kind: "prompt", id: next.id, name: next.name, version: null } : { kind: "own", text: "" },
            );
          }}
        >
          {prompts.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
          {chosen && !prompt && <option value={chosen.id}>{chosen.name}</option>}
          <option value={OWN}>Your own text</option>
        </select>
      </label>
      {chosen && prompt && onVersions && (
        <VersionChoice prompt={prompt} system={chosen} onChoose={onChoose} onVersions={onVersions} />
      )}
      {system?.kind === "own" && (
        <textarea
          class="own-text"
          rows={4}
          aria-label={`${label}: your own text`}
          value={system.text}
          placeholder="You are the assistant of Alda, a bakery."
          onInput={(event) => onChoose({ kind: "own", text: event.currentTarget.value })}
        />
      )}
    </>
  );
}

interface VersionChoiceProps {
  prompt: Prompt;
  system: Extract<System, { kind: "prompt" }>;
  onChoose: (system: System) => void;
  onVersions: (promptId: string) => void;
}

/** Asks the server which versions there are only when somebody wants another one than the latest. */
export function VersionChoice({ prompt, system, onChoose, onVersions }: VersionChoiceProps) {
  const { versions } = prompt;
  if (versions === null)
    return (
      <button type="button" class="small version" onClick={() => onVersions(prompt.id)}>
        {system.version === null ? "Latest version" : `Version ${system.version}`}: choose another
      </button>
    );
  if (versions.length < 2) return <p class="field-help version">There is only this version.</p>;
  return (
    <label class="field version">
      <span>Version</span>
      <select
        value={system.version ?? ""}
        onChange={(event) => onChoose({ ...system, version: event.currentTarget.value || null })}
      >
        <option value="">Always the latest ({versions[0]})</option>
        {versions.map((version) => (
          <option key={version} value={version}>
            {version}
          </option>
        ))}
      </select>
    </label>
  );
}
