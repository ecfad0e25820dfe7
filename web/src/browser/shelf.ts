/** Storage where the browser allows it, and a forgetful stand-in where it does not. */
import type { Shelf } from "../model/archive";

export function openShelf(name: "localStorage" | "sessionStorage"): Shelf {
  try {
    // Where storage is forbidden, already reading the property throws.
    return window[name];
  } catch {
    return forgetful();
  }
}

function forgetful(): Shelf {
  const entries = new Map<string, string>();
  return {
    get length() {
      return entries.size;
    },
    key: (index) => [...entries.keys()][index] ?? null,
    getItem: (key) => entries.get(key) ?? null,
    setItem: (key, value) => void entries.set(key, value),
    removeItem: (key) => void entries.delete(key),
  };
}
