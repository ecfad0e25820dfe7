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
  /** Every version that may be asked for, newest first; empty where the server keeps only one. */
  versions: string[];
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
      versions: readVersions(item),
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

/** `versions` as names, numbers or objects that have one; a single `version` is no choice. */
function readVersions(item: Fields): string[] {
  const listed = Array.isArray(item.versions) ? item.versions : [];
  return listed
    .map((entry) => (typeof entry === "object" ? record(entry).version : entry))
    .filter((version) => typeof version === "string" || typeof version === "number")
    .map(String)
    .sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
}

function items(json: unknown): Fields[] {
  return records(record(json).data);
}

function string(value: unknown): string {
  return textOf(value) ?? "";
}
