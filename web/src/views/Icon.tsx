/** The few line icons of the page. Decoration only: the button around one carries its name. */
const PATHS = {
  menu: "M3 6h14M3 10h14M3 14h9",
  plus: "M10 4v12M4 10h12",
  close: "M5 5l10 10M15 5L5 15",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  down: "M10 4v12M5 11l5 5 5-5",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4z",
  check: "M4 10.5l4 4 8-9",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
