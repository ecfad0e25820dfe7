/** A modal layer: the browser keeps the focus in it, closes it with Esc and gives the focus back. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { IconButton } from "./Icon";

interface DialogProps {
  title: string;
  /** At the side, for what one changes while looking at the rest; else in the middle. */
  side?: boolean;
  onClose: () => void;
  children: ComponentChildren;
}

export function Dialog({ title, side = false, onClose, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      class={side ? "panel side" : "panel"}
      aria-label={title}
      onClose={onClose}
      // A click on the backdrop hits the dialog itself, one inside hits what is in it.
      onClick={(event) => event.target === event.currentTarget && onClose()}
    >
      <div class="panel-inside">
        <div class="panel-head">
          <h2>{title}</h2>
          <IconButton name="close" label="Close" onClick={onClose} />
        </div>
        {children}
      </div>
    </dialog>
  );
}
