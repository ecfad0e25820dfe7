/** Light, dark, or as the system has it: kept in this browser, shown by an attribute that the style sheet reads. */
import type { Shelf } from "../model/archive";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEY = "banyan.theme";

export function keptTheme(shelf: Shelf): Theme {
  const kept = shelf.getItem(KEY);
  return THEMES.find((theme) => theme === kept) ?? "system";
}

export function setTheme(shelf: Shelf, theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    shelf.setItem(KEY, theme);
  } catch {
    // A full shelf forgets the choice with the visit.
  }
}
