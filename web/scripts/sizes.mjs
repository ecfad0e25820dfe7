/** Prints what a first visit transfers (gzip) and fails above the budget. Knows dist/ only. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 150_000;
const dist = new URL("../dist/", import.meta.url).pathname;

let total = 0;
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  const size = gzipSync(readFileSync(path)).length;
  total += size;
  console.log(`${(size / 1000).toFixed(1).padStart(7)} kB  ${relative(dist, path)}`);
}
console.log(`${(total / 1000).toFixed(1).padStart(7)} kB  compressed in all (budget ${BUDGET_BYTES / 1000} kB)`);
if (total > BUDGET_BYTES) {
  console.error("The page is over its budget.");
  process.exit(1);
}
