/** The mark: many trunks, one tree. */
export function Mark({ size }: { size: number }) {
  return (
    <svg class="mark" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <g fill="currentColor">
        <circle cx="7" cy="12" r="5" />
        <circle cx="12.5" cy="8.2" r="5.6" />
        <circle cx="19.5" cy="8.2" r="5.6" />
        <circle cx="25" cy="12" r="5" />
        <path d="M7 10h18v7H7z" />
        <path d="M14 15h4c0 6 .4 9.5 3 12.5H11c2.6-3 3-6.5 3-12.5z" />
      </g>
      <g stroke="currentColor" stroke-linecap="round">
        <path d="M8 15v12M24 15v12" stroke-width="2" />
        <path d="M3.5 28h25" stroke-width="2" />
      </g>
    </svg>
  );
}
