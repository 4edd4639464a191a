// What the page of a problem asks the studio for.
import { ask, stream } from "../workbench/api";

export { aborted, Problem, problemOf } from "../workbench/api";

/** Requests about one problem. */
export function calls(slug: string) {
  const base = `/api/practice/${encodeURIComponent(slug)}`;
  return {
    /** Ask for JSON, by POST where there is a body and no other method is given. */
    ask: <T>(path: string, body?: unknown, init: RequestInit = {}): Promise<T> => ask<T>(`${base}/${path}`, body, init),
    stream: <T extends { event: string }>(path: string, body: unknown, on: (event: T) => void, signal: AbortSignal): Promise<void> => stream(`${base}/${path}`, body, on, signal),
  };
}
export type Calls = ReturnType<typeof calls>;
