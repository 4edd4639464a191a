// A problem's page: what helps stands below the statement, the work beside it.
import { mount } from "svelte";
import Aids from "./Aids.svelte";
import { desk } from "./desk";
import type { open } from "./editor";
import type { Problem } from "./types";
import Work from "./Work.svelte";

export function start(problem: Problem, editor: Promise<{ open: typeof open }>): void {
  const shared = desk(problem);
  mount(Aids, { target: document.querySelector("#aids")!, props: { desk: shared } });
  const work = document.querySelector("#work")!;
  const still = work.firstElementChild;
  mount(Work, { target: work, props: { desk: shared, module: editor, ready: () => still?.remove() } });
}
