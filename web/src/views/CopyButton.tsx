/** Copies the Markdown of an answer. Absent where the page may not write to the clipboard (plain HTTP on a network). */
import { useState } from "preact/hooks";
import { IconButton } from "./Icon";

export function CopyButton({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  if (!navigator.clipboard) return null;
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  return (
    <IconButton
      small
      name={copied ? "check" : "copy"}
      label={copied ? "Copied" : "Copy the answer"}
      onClick={() => void copy()}
    />
  );
}
