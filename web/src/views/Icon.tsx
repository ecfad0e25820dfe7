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
  again: "M16 10a6 6 0 1 1-2-4.5M14.5 2.5v3.5H11",
  pencil: "M4 16l.8-3.4L13 4.4l2.6 2.6-8.2 8.2zM11.4 6l2.6 2.6",
  forward: "M4 5l6 5-6 5zM11 5l6 5-6 5z",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  more: "M4.5 10h.01M10 10h.01M15.5 10h.01",
  search: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l4 4",
  sliders: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  chat: "M4 4h12v9H9l-3.5 3v-3H4z",
  tree: "M3 10h4M7 10c3 0 2-5 5-5h5M7 10h10M7 10c3 0 2 5 5 5h5",
  sides: "M3.5 4h5.5v12H3.5zM11 4h5.5v12H11z",
  sun: "M10 13.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4zM10 2.5v1.6M10 15.9v1.6M2.5 10h1.6M15.9 10h1.6M4.7 4.7l1.1 1.1M14.2 14.2l1.1 1.1M15.3 4.7l-1.1 1.1M5.8 14.2l-1.1 1.1",
  moon: "M16 11.6A6.5 6.5 0 0 1 8.4 4a6.3 6.3 0 1 0 7.6 7.6z",
  half: "M10 3.5a6.5 6.5 0 1 0 0 13zM10 3.5a6.5 6.5 0 0 1 0 13",
  keys: "M3 5.5h14v9H3zM6 8.5h.01M10 8.5h.01M14 8.5h.01M7 11.8h6",
  import: "M10 3v9M6 8.5l4 4 4-4M4 16h12",
  export: "M10 12.5V3.5M6 7l4-4 4 4M4 16h12",
  key: "M7.5 15a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM10 9l6-6M13.5 5.5L16 8",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A button that shows an icon only; its name is told to screen readers and on hover. */
export function IconButton({
  name,
  label,
  onClick,
  disabled = false,
  small = false,
}: {
  name: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  small?: boolean;
}) {
  return (
    <button
      type="button"
      class={small ? "quiet tight" : "quiet"}
      aria-label={label}
      title={label}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={name} />
    </button>
  );
}
