/**
 * Whether the page keeps the end of the answer in view. Pure: numbers in, a decision out.
 */

export interface Scroll {
  top: number;
  height: number;
  viewport: number;
}

const NEAR_END_PX = 32;

export function distanceToEnd({ top, height, viewport }: Scroll): number {
  return height - viewport - top;
}

/**
 * After a scroll event. Going up lets go at once, by however little; arriving near the end takes hold again; content
 * that grows below (top unchanged) changes nothing.
 */
export function follows(following: boolean, before: Scroll, now: Scroll): boolean {
  // A shrinking page moves the top up without the person having done anything.
  if (now.top < before.top && now.height >= before.height) return false;
  return distanceToEnd(now) <= NEAR_END_PX || following;
}
