/** A small line of the last samples as SVG paths. Pure geometry; gaps stay gaps. */

export interface ChartPicture {
  line: string;
  area: string;
  /** The newest point, where there is one at the right end. */
  tip: { x: number; y: number } | null;
  /** What the top of the picture stands for. */
  top: number;
}

/** `capacity`: samples that fill the width; the newest stands at the right. `fixedTop`: else that of the data. */
export function drawChart(
  values: readonly (number | null)[],
  width: number,
  height: number,
  capacity: number,
  fixedTop: number | null = null,
): ChartPicture {
  const known = values.filter((value) => value !== null);
  const top = fixedTop ?? niceTop(Math.max(0, ...known));
  const pad = 3;
  const x = (index: number) => round(width - pad - ((values.length - 1 - index) / (capacity - 1)) * (width - 2 * pad));
  const y = (value: number) => round(height - pad - Math.min(1, value / top) * (height - 2 * pad));
  let line = "";
  let area = "";
  runs(values).forEach(([start, end]) => {
    const points = values.slice(start, end).map((value, offset) => `${x(start + offset)} ${y(value!)}`);
    // A single point is drawn as a short stroke: with round ends it is a dot.
    if (points.length === 1) points.push(`${round(x(start) + 0.5)} ${y(values[start]!)}`);
    line += `M${points.join("L")}`;
    area += `M${x(start)} ${height}L${points.join("L")}L${x(end - 1)} ${height}Z`;
  });
  const last = values.at(-1);
  return { line, area, tip: last == null ? null : { x: x(values.length - 1), y: y(last) }, top };
}

/** Where values are known without a gap: [start, end). */
function runs(values: readonly (number | null)[]): [number, number][] {
  const found: [number, number][] = [];
  let start = -1;
  for (let index = 0; index <= values.length; index++) {
    const there = index < values.length && values[index] !== null;
    if (there && start < 0) start = index;
    if (!there && start >= 0) {
      found.push([start, index]);
      start = -1;
    }
  }
  return found;
}

/** The next 1, 2 or 5 times a power of ten. */
export function niceTop(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? 10 * power;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
