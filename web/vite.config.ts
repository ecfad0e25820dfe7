/** How the page is built: plain files below dist/, nothing inlined, so that `default-src 'self'` holds. */
import { defineConfig } from "vite";

// `npm run dev` serves the page itself and hands /v1 to a running server.
const server = "http://127.0.0.1:8000";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist",
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/v1": { target: server, ws: true } } },
});
