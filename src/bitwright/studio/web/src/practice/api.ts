// What the page of a problem asks the studio for.
import { ask, Problem, refused } from "../workbench/api";

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

/** Post `body` and hand on each server-sent event of the answer, with its name in `event`. */
async function stream<T extends { event: string }>(path: string, body: unknown, on: (event: T) => void, signal: AbortSignal): Promise<void> {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  if (!answer.ok || !answer.body) throw await refused(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop()!;
    for (const block of blocks) {
      const event = read(block);
      if (event) on(event as unknown as T);
    }
  }
}

/** One block of a stream: its data, named by its `event` line where the data do not say it. Raises Problem for an error that is not part of something else. */
function read(block: string): { event: string } | undefined {
  let name = "";
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("data:")) data.push(line.slice(5).trim());
    else if (line.startsWith("event:")) name = line.slice(6).trim();
  }
  if (!data.length) return undefined;
  const found = JSON.parse(data.join("\n")) as Fault & { event?: string };
  const event = found.event ?? name;
  if (!event || event === "error") {
    const { text, what, fix, kind } = found.error ?? found;
    throw new Problem(text ?? what ?? "The studio gave no reason.", fix ?? null, kind);
  }
  return { ...found, event };
}

interface Said { text?: string; what?: string; fix?: string | null; kind?: string }
interface Fault extends Said { error?: Said | null }
