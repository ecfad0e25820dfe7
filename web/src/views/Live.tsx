/** The server at work: its cache as a tree, its batch as lanes, and the figures of the last minute. */
import { useMemo } from "preact/hooks";
import { formatCount, formatMs, formatPercent, formatRate } from "../model/cache";
import { drawChart } from "../model/chart";
import { colourOf, overallHitRate, SAMPLES, type Live } from "../model/live";
import { LANE_STATES, type Lane, type LaneState } from "../model/liveWire";
import type { State } from "../model/state";
import { CacheTreeView } from "./CacheTree";
import { useWidth } from "./useWidth";

export function LivePage({ state: { live } }: { state: State }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Live">
      <div class="live">
        <h1 class="visually-hidden">Live</h1>
        {live.problem && (
          <div class="problem" role="group" aria-label="Problem">
            <p>
              <strong>{live.problem.title}.</strong> {live.problem.advice}
            </p>
          </div>
        )}
        {(live.tree || !live.problem) && (
          <>
            <Tiles live={live} />
            <CacheTreeView live={live} />
            <Batch live={live} />
          </>
        )}
      </div>
    </div>
  );
}

function Tiles({ live }: { live: Live }) {
  const { stats, samples } = live;
  const last = samples.at(-1);
  const overall = stats && overallHitRate(stats);
  return (
    <section class="tiles" aria-label="Figures">
      <Tile
        name="Found in the cache"
        value={overall == null ? "–" : formatPercent(overall)}
        note={stats ? `of ${formatCount(stats.foundTokens + stats.computedTokens)} prompt tokens` : "since start"}
        values={samples.map(({ hitRate }) => hitRate)}
        top={1}
        colour="system"
      />
      <Tile
        name="Step"
        value={stats?.stepMs == null ? "–" : formatMs(stats.stepMs)}
        note={last?.stepMs == null ? "the last one that ran" : "now"}
        values={samples.map(({ stepMs }) => stepMs)}
        colour="history"
      />
      <Tile
        name="Tokens drawn"
        value={stats?.tokensPerS == null ? "–" : `${formatRate(stats.tokensPerS)}/s`}
        note={stats ? `${formatCount(stats.running)} running, ${formatCount(stats.waiting)} waiting` : ""}
        values={samples.map(({ tokensPerS }) => tokensPerS)}
        colour="shared"
      />
      <Pages live={live} />
    </section>
  );
}

interface TileProps {
  name: string;
  value: string;
  note: string;
  values: readonly (number | null)[];
  top?: number;
  colour: string;
}

const CHART_HEIGHT = 64;

function Tile({ name, value, note, values, top, colour }: TileProps) {
  const { box, width } = useWidth<HTMLDivElement>(240);
  const chart = drawChart(values, width, CHART_HEIGHT, SAMPLES, top ?? null);
  return (
    <div class="tile">
      <h2>{name}</h2>
      <p class="tile-value">{value}</p>
      <p class="tile-note">{note}</p>
      <div class="chart-box" ref={box}>
        <svg class={`chart ${colour}-line`} width={width} height={CHART_HEIGHT} aria-hidden="true">
          <path class="chart-area" d={chart.area} />
          <path class="chart-line" d={chart.line} />
          {chart.tip && <circle cx={chart.tip.x} cy={chart.tip.y} r="2.5" />}
        </svg>
      </div>
    </div>
  );
}

function Pages({ live: { stats } }: { live: Live }) {
  const pages = stats?.pages;
  const parts = pages
    ? [
        { kind: "held", label: "in use", count: pages.held },
        { kind: "cached", label: "kept", count: pages.cached },
        ...(pages.free === null ? [] : [{ kind: "free", label: "free", count: pages.free }]),
      ]
    : [];
  const words = parts.map(({ label, count }) => `${formatCount(count)} ${label}`).join(", ");
  return (
    <div class="tile">
      <h2>KV pages</h2>
      <p class="tile-value">{pages ? formatCount(pages.held + pages.cached) : "–"}</p>
      <p class="tile-note">
        {pages?.total == null ? "of this tenant" : `of ${formatCount(pages.total)}`}
        {stats?.evictions ? `, ${formatCount(stats.evictions)} evicted` : ""}
      </p>
      <div class="pages-bar" role="img" aria-label={words ? `Pages: ${words}` : "Pages: nothing known yet"}>
        {parts.map(({ kind, count }) => count > 0 && <span key={kind} class={kind} style={{ flexGrow: count }} />)}
      </div>
      <ul class="cache-legend" aria-hidden="true">
        {parts.map(({ kind, label, count }) => (
          <li key={kind}>
            <span class={`swatch ${kind}`} />
            {label} <b>{formatCount(count)}</b>
          </li>
        ))}
      </ul>
    </div>
  );
}

const LANE_LABELS: Record<LaneState, string> = {
  running: "Running",
  prefilling: "Prefilling",
  waiting: "Waiting",
  preempted: "Preempted",
};
const MOST_LANES = 12;

function Batch({ live }: { live: Live }) {
  return (
    <section class="card" aria-label="Batch">
      <div class="card-head">
        <h2>Batch</h2>
        <p>Each bar is a request: read and written so far, of the most that it may come to.</p>
      </div>
      <div class="lanes">
        {LANE_STATES.map((state) => (
          <LaneGroup key={state} state={state} live={live} lanes={live.lanes.filter((lane) => lane.state === state)} />
        ))}
      </div>
    </section>
  );
}

function LaneGroup({ state, lanes, live }: { state: LaneState; lanes: readonly Lane[]; live: Live }) {
  const more = lanes.length - MOST_LANES;
  return (
    <div class="lane-group" data-state={state}>
      <h3>
        {LANE_LABELS[state]} <span class="count">{formatCount(lanes.length)}</span>
      </h3>
      {lanes.length === 0 && <p class="none">none</p>}
      <ul>
        {lanes.slice(0, MOST_LANES).map((lane) => (
          <LaneView key={lane.id} lane={lane} colour={colourOf(live, lane.tenant)} />
        ))}
      </ul>
      {more > 0 && <p class="none">and {formatCount(more)} more</p>}
    </div>
  );
}

function LaneView({ lane, colour }: { lane: Lane; colour: number }) {
  const { tenant, done, total, limit } = lane;
  return useMemo(() => {
    const most = Math.max(1, limit, total);
    const words = `${tenant}: ${formatCount(done)} of ${formatCount(total)} tokens, at most ${formatCount(most)}`;
    return (
      <li class="lane" title={words}>
        <span class="visually-hidden">{words}</span>
        <span class={`lane-bar tenant-${colour}`} aria-hidden="true">
          <span class="lane-total" style={{ width: `${(100 * total) / most}%` }} />
          <span class="lane-done" style={{ width: `${(100 * done) / most}%` }} />
        </span>
        <span class="lane-name" aria-hidden="true">
          {tenant}
          <b>{formatCount(done)}</b>
        </span>
      </li>
    );
  }, [tenant, done, total, limit, colour]);
}
