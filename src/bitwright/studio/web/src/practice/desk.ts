// What the two sides of the page share: the editor once it is there, what was submitted, whether it is solved.
import { tick } from "svelte";
import { writable } from "svelte/store";
import { calls } from "./api";
import type { Editor } from "./editor";
import type { Problem, Submission } from "./types";

export function desk(problem: Problem) {
  const said = writable("");
  return {
    problem,
    api: calls(problem.slug),
    editor: undefined as Editor | undefined,
    past: writable<Submission[]>([...problem.submissions].sort((a, b) => b.at.localeCompare(a.at))),
    solved: writable(problem.solved),
    said,
    /** Say a sentence to those who hear the page, once it is polite. */
    say(text: string): void {
      said.set("");
      void tick().then(() => said.set(text));
    },
  };
}
export type Desk = ReturnType<typeof desk>;
