/** Reads JSON of unknown shape field by field: what is missing or of another type becomes null, 0 or empty. */

export type Fields = Record<string, unknown>;

/** A message of the server as it arrives: only the fields it may have, each with a value yet to be looked at. */
export type Unread<Message> = { readonly [Field in FieldOf<Message>]?: unknown };
type FieldOf<Message> = Message extends unknown ? keyof Message : never;

export function record<Message = Fields>(value: unknown): Unread<Message> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Unread<Message>) : {};
}

export function records<Message = Fields>(value: unknown): Unread<Message>[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "object" && item !== null) : [];
}

export function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

export function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export function count(value: unknown): number {
  return Math.max(0, Math.round(number(value) ?? 0));
}
