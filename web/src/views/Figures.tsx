/** Below an answer: time to first token, speed, tokens, and where the prompt's tokens came from. */
import { describeSplit, formatCount, formatMs, formatPercent, formatRate, splitOf, type Split } from "../model/cache";
import type { Turn } from "../model/conversation";

export function Figures({ turn }: { turn: Turn }) {
  const split = splitOf(turn);
  if (!split) return null;
  const { timing, usage, cache } = turn;
  return (
    <footer class="figures" data-testid="figures">
      <dl class="numbers">
        {timing?.ttftMs != null && <Figure term="First token" value={formatMs(timing.ttftMs)} />}
        {timing?.tokensPerS != null && <Figure term="Tokens/s" value={formatRate(timing.tokensPerS)} />}
        <Figure term="In" value={formatCount(split.promptTokens)} />
        {usage && <Figure term="Out" value={formatCount(usage.outputTokens)} />}
        <Figure term="From cache" value={fromCache(split)} strong={split.cachedTokens > 0} />
        {cache && cache.savedMs >= 1 && <Figure term="Saved about" value={formatMs(cache.savedMs)} />}
      </dl>
      <Bar split={split} />
    </footer>
  );
}

function fromCache(split: Split): string {
  if (!split.cachedTokens) return "0";
  return `${formatCount(split.cachedTokens)} (${formatPercent(split.cachedTokens / split.promptTokens)})`;
}

function Figure({ term, value, strong = false }: { term: string; value: string; strong?: boolean }) {
  return (
    <div class={strong ? "figure strong" : "figure"}>
      <dt>{term}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Bar({ split }: { split: Split }) {
  const shares = split.shares.filter((share) => share.tokens > 0);
  return (
    <div class="cache">
      <div class="cache-bar" role="img" aria-label={describeSplit(split)}>
        {shares.map(({ origin, fraction }) => (
          // Set through the object model, which a strict content policy allows; a style attribute it would not.
          <span key={origin} class={`share ${origin}`} style={{ flexGrow: fraction }} />
        ))}
      </div>
      <ul class="cache-legend" aria-hidden="true">
        {shares.map(({ origin, label, tokens }) => (
          <li key={origin}>
            <span class={`swatch ${origin}`} />
            {label} <b>{formatCount(tokens)}</b>
          </li>
        ))}
      </ul>
    </div>
  );
}
