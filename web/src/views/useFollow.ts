/** Ties `model/follow.ts` to a scrolling element. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { follows, type Scroll } from "../model/follow";

/** `anchor`: with another one (a new question) the end is followed again. */
export function useFollow(anchor: string) {
  const box = useRef<HTMLDivElement>(null);
  const before = useRef<Scroll>({ top: 0, height: 0, viewport: 0 });
  const [following, setFollowing] = useState(true);

  useLayoutEffect(() => setFollowing(true), [anchor]);

  // After every drawing: whatever has been added, the end stays in view.
  useLayoutEffect(() => {
    if (following) scrollToEnd(box.current);
  });

  return {
    box,
    following,
    onScroll() {
      if (!box.current) return;
      const now = measure(box.current);
      setFollowing(follows(following, before.current, now));
      before.current = now;
    },
    toEnd: () => setFollowing(true),
  };
}

function measure(element: HTMLElement): Scroll {
  return { top: element.scrollTop, height: element.scrollHeight, viewport: element.clientHeight };
}

function scrollToEnd(element: HTMLElement | null): void {
  if (element) element.scrollTop = element.scrollHeight;
}
