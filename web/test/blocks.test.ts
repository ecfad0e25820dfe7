import { describe, expect, it } from "vitest";
import { blocksOf } from "../src/model/blocks";
import { seeded } from "./seeded";

const html = (markdown: string) =>
  blocksOf(markdown)
    .map((block) => block.html)
    .join("");

describe("blocksOf", () => {
  it("renders Markdown", () => {
    expect(html("# A\n\n**b** `c`\n\n- d\n")).toBe(
      "<h1>A</h1>\n<p><strong>b</strong> <code>c</code></p>\n<ul>\n<li>d</li>\n</ul>\n",
    );
  });

  it("shows raw HTML as text", () => {
    expect(html("<script>alert(1)</script>")).not.toContain("<script");
    expect(html("a <b onclick=x>c</b>")).toContain("&lt;b onclick=x&gt;");
  });

  it("names an image and does not load it", () => {
    const image = html("![a chart](https://elsewhere.example/x.png)");
    expect(image).toContain("a chart");
    expect(image).not.toMatch(/<img|elsewhere/);
  });

  it("escapes code and its language", () => {
    expect(html('```a"><b\n<i>\n```')).toBe('<pre data-language="a"><code>&lt;i&gt;</code></pre>');
  });

  it("keeps the finished blocks of a growing answer", () => {
    const before = blocksOf("One.\n\nTw");
    const after = blocksOf("One.\n\nTwo.", before);
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
  });

  it("follows references whose definition comes later", () => {
    const before = blocksOf("See [a].\n\nx");
    expect(blocksOf("See [a].\n\nx\n\n[a]: https://a.example/", before)[0]!.html).toContain(
      'href="https://a.example/"',
    );
  });

  it("colours code of a known language, whole or not, and leaves very long code plain while it is written", () => {
    expect(html("```python\ndef f():\n    pass\n```")).toContain('<span class="hljs-keyword">def</span>');
    expect(html("```python\ndef f(")).toContain("hljs-keyword");
    expect(html("```nothing\ndef f(\n```")).not.toContain("hljs");
    const long = `\`\`\`python\n${"x = '<'\n".repeat(1500)}`;
    expect(html(long)).not.toContain("hljs");
    expect(html(`${long}\`\`\``)).toContain("hljs-string");
    expect(html(long)).toContain("x = &#39;&lt;&#39;");
  });

  it("of a text that grows in any steps are those of the whole text", () => {
    const parts = [
      "para\nline",
      "- a\n- b",
      "  more",
      "1. x",
      "> q",
      "```js\nlet x;\n```",
      "```\nopen",
      "| a |\n|---|\n| 1 |",
    ];
    parts.push(
      "# H",
      "---",
      "===",
      "    code",
      "<b>x</b>",
      "[l](http://a.b)",
      "[r]",
      "[r]: http://c.d",
      "**x",
      "* * *",
      "\\",
      "a\r\nb",
    );
    for (let seed = 0; seed < 60; seed++) {
      const random = seeded(seed);
      let text = "";
      let known = blocksOf("");
      for (let step = 0; step < 12; step++) {
        text += parts[Math.floor(random() * parts.length)]! + ["\n", "\n\n", " ", "\n\n\n"][Math.floor(random() * 4)]!;
        known = blocksOf(text, known);
        expect(known.map((block) => block.html)).toEqual(blocksOf(text).map((block) => block.html));
      }
    }
  });

  it("takes every prefix of a text", () => {
    const text =
      "# T\n\n| a | b |\n|---|---|\n| 1 | `2` |\n\n```js\nlet x = '<';\n```\n\n1. *x\n2. [l](http://a.b/c \"t\")";
    let known = blocksOf("");
    for (let end = 0; end <= text.length; end++) known = blocksOf(text.slice(0, end), known);
    expect(known).toEqual(blocksOf(text));
  });
});
