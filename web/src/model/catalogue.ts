/**
 * What the server offers: its model and its system prompts. Knows the two JSON shapes; does not fetch them.
 */
import { record, records, text as textOf, type Fields } from "./fields";

export interface Sample {
  question: string;
  answer: string;
}

export interface Prompt {
  id: string;
  name: string;
  description: string;
  text: string;
  questions: Sample[];
  /** Every version that may be asked for, newest first; null until somebody wanted to know. */
  versions: readonly string[] | null;
  /** Texts of earlier versions, as far as they have been read. */
  texts: Readonly<Record<string, string>>;
}

/** `GET /v1/models`: the id of the first one, or null. */
export function readModel(json: unknown): string | null {
  const id = items(json)[0]?.id;
  return typeof id === "string" ? id : null;
}

/** `GET /v1/prompts`; entries without an id are left out. */
export function readPrompts(json: unknown): Prompt[] {
  return items(json)
    .filter((item) => typeof item.id === "string")
    .map((item) => ({
      id: String(item.id),
      name: string(item.name) || String(item.id),
      description: string(item.description),
      text: string(item.text),
      versions: null,
      texts: {},
      questions: records(item.questions)
        .map((sample) => ({ question: string(sample.question), answer: string(sample.answer) }))
        .filter((sample) => sample.question),
    }));
}

/**
 * At most `limit` questions to begin with, the first and then evenly spread: neighbours in the list tend to ask for the
 * same in other words.
 */
export function suggestionsOf(prompt: Prompt, limit: number): string[] {
  const step = Math.max(1, prompt.questions.length / limit);
  const chosen = Array.from({ length: limit }, (_, index) => prompt.questions[Math.floor(index * step)]?.question);
  return [...new Set(chosen.filter((question) => question !== undefined))];
}

/** `GET /v1/prompts/{id}/versions`: their names, newest first. */
export function readVersions(json: unknown): string[] {
  return items(json)
    .map(({ version }) => version)
    .filter((version) => typeof version === "string" || typeof version === "number")
    .map(String)
    .sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
}

/** `GET /v1/prompts/{id}/versions/{version}`: its text. */
export function readVersionText(json: unknown): string {
  return string(record(json).text);
}

/** What `version` (null: the latest) says; null while that has not been read. */
export function textAt(prompt: Prompt, version: string | null): string | null {
  if (version === null || version === prompt.versions?.[0]) return prompt.text;
  return prompt.texts[version] ?? null;
}

/** The catalogue with something more known of one prompt. */
export function learned(
  prompts: readonly Prompt[],
  id: string,
  more: Partial<Pick<Prompt, "versions" | "texts">>,
): readonly Prompt[] {
  return prompts.map((prompt) =>
    prompt.id === id ? { ...prompt, ...more, texts: { ...prompt.texts, ...more.texts } } : prompt,
  );
}

function items(json: unknown): Fields[] {
  return records(record(json).data);
}

function string(value: unknown): string {
  return textOf(value) ?? "";
}
