/**
 * Reads what the server offers over HTTP, as whoever the key says. Knows the paths.
 *
 * Throws `Refused` where the server wants another key (401) or one that may do more (403), and `Error` where it does
 * not answer with JSON.
 */
import { readModel, readPrompts, readVersions, readVersionText, type Prompt } from "../model/catalogue";
import { record, text } from "../model/fields";

export class Refused extends Error {
  constructor(
    readonly status: 401 | 403,
    readonly code: string | null = null,
  ) {
    super(`refused with ${status}`);
  }
}

export async function fetchModel(key: string): Promise<string | null> {
  return readModel(await getJson("/v1/models", key));
}

export async function fetchPrompts(key: string): Promise<Prompt[]> {
  return readPrompts(await getJson("/v1/prompts", key));
}

export async function fetchVersions(key: string, id: string): Promise<string[]> {
  return readVersions(await getJson(`/v1/prompts/${encodeURIComponent(id)}/versions`, key));
}

export async function fetchVersionText(key: string, id: string, version: string): Promise<string> {
  const path = `/v1/prompts/${encodeURIComponent(id)}/versions/${encodeURIComponent(version)}`;
  return readVersionText(await getJson(path, key));
}

/** A ticket to open one socket with: a browser cannot send the key itself, and addresses are no place for one. */
export async function fetchTicket(key: string): Promise<string> {
  const ticket = text(record(await json("/v1/tickets", key, { method: "POST" })).ticket);
  if (ticket === null) throw new Error("POST /v1/tickets: no ticket in the answer");
  return ticket;
}

const getJson = (path: string, key: string): Promise<unknown> => json(path, key, {});

async function json(path: string, key: string, init: RequestInit): Promise<unknown> {
  const headers = { Accept: "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { ...init, headers });
  if (response.status === 401 || response.status === 403) throw new Refused(response.status, await codeIn(response));
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** The code of an error's body; null where somebody else than the server has answered. */
async function codeIn(response: Response): Promise<string | null> {
  return text(record(record(await response.json().catch(() => null)).error).code);
}
