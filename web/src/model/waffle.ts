/** A prompt as squares, each of which stands for some tokens, by where they came from. Pure. */
import type { Origin, Split } from "./cache";

const SQUARES = 160;

/** The step at which the longest of several prompts has about 160 squares. */
export function tokensPerSquare(longestPrompt: number): number {
  return Math.max(1, Math.ceil(longestPrompt / SQUARES));
}

/** At least one square for whatever is there at all, so that a few computed tokens are seen. */
export function squaresOf(split: Split, perSquare: number): Origin[] {
  return split.shares.flatMap(({ origin, tokens }) =>
    Array.from({ length: tokens ? Math.max(1, Math.round(tokens / perSquare)) : 0 }, () => origin),
  );
}
