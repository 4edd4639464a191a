// Views that the page computes itself, by the engine's arithmetic; tests hold each to its twin in Python.
import type { View } from "../figures/types";

export type Compute = (base: never, values: never) => View;
const FUNCTIONS: Record<string, () => Promise<{ compute: unknown }>> = {
  lattice: () => import("./lattice"),
  levels: () => import("./levels"),
};

export async function computing(name: string): Promise<Compute> {
  const load = FUNCTIONS[name];
  if (!load) throw new Error(`nothing computes ${name}`);
  return (await load()).compute as Compute;
}
