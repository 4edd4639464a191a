// Text that is kept as it is typed: a moment after the last key, and when the page goes.
import { writable } from "svelte/store";
import { problemOf } from "./api";

/** Quiet time before a text is sent, in ms. */
const REST = 800;
/** How long a page that comes again trusts what the last one could not wait to see saved, in ms. */
const AGAIN = 10_000;

export interface Saving {
  state: ReturnType<typeof writable<{ words: string; failed: boolean }>>;
  changed: (text: string) => void;
  /** Forget what was not sent yet. */
  drop: () => void;
  /** Send what was not sent yet. */
  flush: () => void;
  /** What was typed just before this page was loaded again, where its saving may still be under way; it is sent once more. */
  again: () => string | undefined;
}

/** `name` is the text's own, among all that are kept. */
export function saving(name: string, send: (text: string, init: RequestInit) => Promise<unknown>): Saving {
  const state = writable({ words: "", failed: false });
  let waiting = 0;
  let unsent: string | undefined;
  const save = async (init: RequestInit = {}): Promise<void> => {
    clearTimeout(waiting);
    if (unsent === undefined) return;
    const text = unsent;
    unsent = undefined;
    if (init.keepalive) sessionStorage.setItem(name, JSON.stringify({ text, at: Date.now() }));
    try {
      await send(text, init);
      if (unsent === undefined) state.set({ words: "Saved", failed: false });
    } catch (error) {
      // What was typed since is newer.
      unsent ??= text;
      state.set({ words: `Not saved. ${problemOf(error).text}`, failed: true });
    }
  };
  // Before the next page is asked for, which may be this one again; and when a page goes without that.
  for (const end of ["beforeunload", "pagehide"]) addEventListener(end, () => void save({ keepalive: true }));
  addEventListener("visibilitychange", () => {
    if (document.hidden) void save({ keepalive: true });
  });
  return {
    state,
    changed: (text) => {
      unsent = text;
      state.update((before) => (before.failed ? before : { words: "", failed: false }));
      clearTimeout(waiting);
      waiting = window.setTimeout(() => void save(), REST);
    },
    drop: () => {
      clearTimeout(waiting);
      unsent = undefined;
      state.set({ words: "", failed: false });
    },
    flush: () => void save(),
    again: () => {
      const left = JSON.parse(sessionStorage.getItem(name) ?? "null") as { text: string; at: number } | null;
      sessionStorage.removeItem(name);
      if (!left || Date.now() - left.at > AGAIN) return undefined;
      unsent = left.text;
      void save();
      return left.text;
    },
  };
}
