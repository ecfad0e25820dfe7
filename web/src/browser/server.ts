/** Reads what the server offers over HTTP. Knows the two paths; throws where the server does not answer with JSON. */
import { readModel, readPrompts, type Prompt } from "../model/catalogue";

export async function fetchModel(): Promise<string | null> {
  return readModel(await getJson("/v1/models"));
}

export async function fetchPrompts(): Promise<Prompt[]> {
  return readPrompts(await getJson("/v1/prompts"));
}

async function getJson(path: string): Promise<unknown> {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`GET ${path}: ${response.status}`);
  return response.json();
}
