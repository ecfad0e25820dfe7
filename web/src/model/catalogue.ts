/**
 * What the server offers: its model and its system prompts. Knows the two JSON shapes; does not fetch them.
 */

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
}

type Fields = Record<string, unknown>;

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
      questions: list(item.questions)
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

function items(json: unknown): Fields[] {
  return typeof json === "object" && json !== null ? list((json as Fields).data) : [];
}

function list(value: unknown): Fields[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "object" && item !== null) : [];
}

function string(value: unknown): string {
  return typeof value === "string" ? value : "";
}
