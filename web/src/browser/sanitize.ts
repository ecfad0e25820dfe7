/**
 * The last gate before HTML enters the page. Knows which elements and attributes an answer may consist of.
 */
import DOMPurify from "dompurify";

const purifier = DOMPurify(window);

purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const ALLOWED_TAGS = [
  ..."p br hr strong em del code pre blockquote ul ol li a span".split(" "),
  ..."h1 h2 h3 h4 h5 h6 table thead tbody tr th td input".split(" "),
];
// `input` is the checkbox of a task list; `align` that of a table's column.
const ALLOWED_ATTR = ["href", "title", "start", "class", "align", "type", "checked", "disabled", "data-language"];

export function sanitize(html: string): string {
  return purifier.sanitize(html, {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ALLOW_DATA_ATTR: false,
    // Values that are no addresses: without this they would be held against the pattern below.
    ADD_URI_SAFE_ATTR: ["start", "align", "type", "data-language"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  });
}
