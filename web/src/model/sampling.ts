/**
 * How tokens are drawn, as one conversation wants it. Where nothing is set the server's own default holds.
 *
 * Pure. Knows the fields, their bounds and how a person writes them. Does not know the wire.
 */

export interface Sampling {
  temperature: number | null;
  topP: number | null;
  maxTokens: number | null;
  seed: number | null;
  /** Empty: none of one's own. */
  stop: readonly string[];
}

/** What the server does where nothing is asked for, as far as it has said so. */
export type Defaults = Partial<Record<NumberField, number>>;

export type NumberField = "temperature" | "topP" | "maxTokens" | "seed";

export const serversOwn: Sampling = { temperature: null, topP: null, maxTokens: null, seed: null, stop: [] };

export interface FieldRule {
  field: NumberField;
  label: string;
  help: string;
  min: number;
  max: number;
  step: number;
  whole: boolean;
  /** What is shown in an empty field while the server has named no default. */
  unset: string;
}

export const FIELDS: readonly FieldRule[] = [
  {
    field: "temperature",
    label: "Temperature",
    help: "0 always takes the likeliest token; higher is more varied.",
    min: 0,
    max: 2,
    step: 0.1,
    whole: false,
    unset: "the server’s",
  },
  {
    field: "topP",
    label: "Top p",
    help: "Draws only from the likeliest tokens that together have this probability.",
    min: 0,
    max: 1,
    step: 0.05,
    whole: false,
    unset: "the server’s",
  },
  {
    field: "maxTokens",
    label: "Longest answer",
    help: "Tokens after which an answer is cut.",
    min: 1,
    max: 1_000_000,
    step: 1,
    whole: true,
    unset: "as long as fits",
  },
  {
    field: "seed",
    label: "Seed",
    help: "The same seed draws the same answer again.",
    min: 0,
    max: 2 ** 53 - 1,
    step: 1,
    whole: true,
    unset: "a new one each time",
  },
];

export const STOP_STRINGS = 4;
const STOP_LENGTH = 256;

/** What was typed for a number: the value (null for an empty field), or what is wrong with it. */
export function readNumber(rule: FieldRule, typed: string): { value: number | null } | { wrong: string } {
  const text = typed.trim().replace(",", ".");
  if (!text) return { value: null };
  const value = Number(text);
  if (!Number.isFinite(value)) return { wrong: `${rule.label} is a number.` };
  if (rule.whole && !Number.isInteger(value)) return { wrong: `${rule.label} is a whole number.` };
  if (value < rule.min || value > rule.max || (rule.field === "topP" && value === 0))
    return { wrong: `${rule.label} lies between ${rule.field === "topP" ? "above 0" : rule.min} and ${rule.max}.` };
  return { value };
}

/** Stop strings as they are typed: one a line, `\n` for a line break. */
export function readStops(typed: string): { value: string[] } | { wrong: string } {
  const value = typed
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replaceAll("\\n", "\n"));
  if (value.length > STOP_STRINGS) return { wrong: `At most ${STOP_STRINGS} stop strings, one a line.` };
  if (value.some((stop) => stop.length > STOP_LENGTH)) return { wrong: `At most ${STOP_LENGTH} characters each.` };
  return { value };
}

export function writeStops(stops: readonly string[]): string {
  return stops.map((stop) => stop.replaceAll("\n", "\\n")).join("\n");
}

/** How many fields differ from the server's. */
export function countSet(sampling: Sampling): number {
  return FIELDS.filter(({ field }) => sampling[field] !== null).length + (sampling.stop.length ? 1 : 0);
}
