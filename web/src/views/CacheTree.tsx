/** The radix tree: what prompts have in common runs together, and branches where they part. */
import { useMemo } from "preact/hooks";
import { formatCount } from "../model/cache";
import { colourOf, type Live } from "../model/live";
import type { CacheNode } from "../model/liveWire";
import { placeTree, type Placed } from "../model/treeLayout";
import { useWidth } from "./useWidth";

/** Branches that are drawn: a narrow page is a short one as well. */
const rowsFor = (width: number): number => (width < 600 ? 16 : 40);
const LABEL_FROM = 90;

export function CacheTreeView({ live }: { live: Live }) {
  const { box, width } = useWidth<HTMLDivElement>(800);
  const nodes = live.tree?.nodes ?? [];
  const picture = useMemo(() => placeTree(nodes, width, rowsFor(width)), [nodes, width]);
  const tokens = nodes.reduce((sum, node) => sum + node.tokens, 0);
  const words = `${formatCount(nodes.length)} runs of cached tokens, ${formatCount(tokens)} tokens in all`;
  return (
    <section class="card" aria-label="Cache">
      <div class="card-head">
        <h2>Cache</h2>
        <p>
          From left to right as a prompt is read. As long as it has tokens, as thick as branches run through it; it
          flashes when a request finds it and fades before it is evicted.
        </p>
      </div>
      <Legend live={live} />
      <div class="tree-box" ref={box} tabIndex={0} role="region" aria-label="The tree">
        {nodes.length === 0 ? (
          <p class="none">{live.tree ? "Nothing is cached yet. Ask something." : "Waiting for the server."}</p>
        ) : (
          <svg class="tree" width={picture.width} height={picture.height} role="img" aria-label={words}>
            {picture.placed.map(
              (placed) => placed.ribbon && <Ribbon key={placed.node.id} placed={placed} live={live} />,
            )}
            {picture.placed.map((placed) => (
              <NodeView key={placed.node.id} placed={placed} live={live} />
            ))}
          </svg>
        )}
      </div>
      <p class="tree-note">
        {nodes.length > 0 && `${words}.`}
        {picture.folded > 0 && ` ${formatCount(picture.folded)} branches are not drawn.`}
        {live.tree && live.tree.hiddenPages > 0 && ` ${formatCount(live.tree.hiddenPages)} more pages.`}
        {live.tree && live.tree.otherPages > 0 && ` ${formatCount(live.tree.otherPages)} pages are of other tenants.`}
      </p>
      {nodes.length > 0 && <AsList nodes={nodes} />}
    </section>
  );
}

function Legend({ live }: { live: Live }) {
  return (
    <ul class="cache-legend tree-legend">
      <li>
        <span class="swatch tenant--1" />
        public
      </li>
      {live.tenants.map((tenant) => (
        <li key={tenant}>
          <span class={`swatch tenant-${colourOf(live, tenant)}`} />
          {tenant}
        </li>
      ))}
    </ul>
  );
}

const fading = ({ life }: Placed) => ({ opacity: 0.35 + 0.65 * life });

function Ribbon({ placed, live }: { placed: Placed; live: Live }) {
  return (
    <path class={`ribbon tenant-${colourOf(live, placed.node.tenant)}`} d={placed.ribbon} style={fading(placed)} />
  );
}

function NodeView({ placed, live }: { placed: Placed; live: Live }) {
  const { node, x, y, length, thickness } = placed;
  const shape = {
    x,
    y: y - thickness / 2,
    width: length,
    height: thickness,
    rx: Math.min(5, thickness / 2, length / 2),
  };
  const pulses = live.pulses.get(node.id) ?? 0;
  const label = labelOf(node);
  return (
    <g>
      <title>{describe(node)}</title>
      <rect
        class={`node tenant-${colourOf(live, node.tenant)}`}
        data-held={node.locks > 0}
        data-pinned={node.pinned}
        style={fading(placed)}
        {...shape}
      />
      {pulses > 0 && <rect key={pulses} class="pulse" {...shape} />}
      {label && length > LABEL_FROM && thickness >= 13 && (
        <text class="node-label" data-faded={placed.life < 0.75} x={x + 8} y={y + 4}>
          {cut(label, Math.floor((length - 16) / 7))}
        </text>
      )}
    </g>
  );
}

/** How the node's text begins, without the role that a template writes before it. */
function labelOf(node: CacheNode): string {
  return (node.preview ?? "")
    .trim()
    .replace(/^(?:system|user|assistant)\n/, "")
    .replace(/\s+/g, " ");
}

function cut(text: string, characters: number): string {
  return text.length <= characters ? text : `${text.slice(0, characters - 1).trimEnd()}…`;
}

function describe(node: CacheNode): string {
  const parts = [`${formatCount(node.tokens)} tokens, ${node.tenant ?? "public"}`];
  if (node.pinned) parts.push(node.pinned === "hard" ? "pinned" : "softly pinned");
  if (node.locks) parts.push(`held by ${formatCount(node.locks)}`);
  if (node.hits) parts.push(`found ${formatCount(node.hits)} times`);
  if (node.preview) parts.push(`“${cut(labelOf(node), 120)}”`);
  return parts.join(" · ");
}

const LISTED = 20;

/** The same for those who read rather than look. */
function AsList({ nodes }: { nodes: readonly CacheNode[] }) {
  const largest = [...nodes].sort((a, b) => b.hits - a.hits || b.tokens - a.tokens).slice(0, LISTED);
  return (
    <details class="as-list">
      <summary>As a list</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">Begins with</th>
            <th scope="col">Whose</th>
            <th scope="col">Tokens</th>
            <th scope="col">Found</th>
            <th scope="col">Held by</th>
          </tr>
        </thead>
        <tbody>
          {largest.map((node) => (
            <tr key={node.id}>
              <td>{cut(labelOf(node), 60) || "–"}</td>
              <td>{node.tenant ?? "public"}</td>
              <td>{formatCount(node.tokens)}</td>
              <td>{formatCount(node.hits)}</td>
              <td>{formatCount(node.locks)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
