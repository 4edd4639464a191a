// One file = one kind of figure, loaded when a page has one.
import type { Draw } from "./types";

type Loader = () => Promise<{ draw: unknown }>;
const KINDS: Record<string, Loader> = {
  histogram: () => import("./histogram"),
  numberline: () => import("./numberline"),
  heatmap: () => import("./heatmap"),
  bits: () => import("./bits"),
  scatter: () => import("./scatter"),
  bars: () => import("./bars"),
  timeline: () => import("./timeline"),
  flow: () => import("./flow"),
  compare: () => import("./compare"),
  formula: () => import("./formula"),
  code: () => import("./code"),
  lattice: () => import("./lattice"),
};

export async function drawing(kind: string): Promise<Draw> {
  const load = KINDS[kind];
  if (!load) throw new Error(`no figure is called ${kind}`);
  return (await load()).draw as Draw;
}
