import { getContext } from "svelte";

export interface Workbench {
  /** Show another screen of the workbench. */
  go: (href: string, replace?: boolean) => void;
  /** Say a sentence to those who hear the page. */
  say: (text: string) => void;
}
export const workbench = (): Workbench => getContext<Workbench>("workbench");
