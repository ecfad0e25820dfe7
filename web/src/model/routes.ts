/** The page's views and their addresses. Pure. */

export type Page = "chat" | "live" | "compare";

export const PAGES: readonly Page[] = ["chat", "live", "compare"];

export function pageOf(hash: string): Page {
  return PAGES.find((page) => hash === addressOf(page)) ?? "chat";
}

export function addressOf(page: Page): string {
  return page === "chat" ? "#/" : `#/${page}`;
}
