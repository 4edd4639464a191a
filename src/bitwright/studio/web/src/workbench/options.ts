// The options of a run by their keys in the recipe. What there is, and what goes with what, the server says.
import type { Problem } from "./api";

export type Group = number | string;
/** One way in which a container holds a format; `block` is the group that it has where none is chosen. */
export interface Fit { container: string; format: string; symmetric: boolean; activations: string; groups: Group[]; block: Group; methods: string[] }
/** A key of a recipe's table, as JSON Schema has it. */
export interface Setting { type?: string; default?: Value; description?: string; enum?: string[]; minimum?: number; maximum?: number; title?: string }
export interface Method { name: string; title: string; source: string; needs: string; formats: string[]; options: Record<string, Setting> }
/** What can be chosen for one kind of model; defaults come first. */
export interface Choices {
  title: string; words: Record<"whole" | "part" | "parts" | "data" | "sample" | "drop", string>;
  containers: { name: string; title: string; study: boolean; integer: boolean; spends: boolean }[];
  /** llama.cpp's mixes, where a model of this kind can be written as GGUF. */
  mixes: string[];
  formats: { name: string; title: string; family: string; bits: number; levels: number[] | null }[];
  methods: Method[]; fits: Fit[]; settings: Record<string, Record<string, Setting>>; defaults: Table;
}
export type Value = string | number | boolean | null | unknown[];
export type Table = { [key: string]: unknown };
export type Options = Record<string, Value>;

/** What a budget limits, as the recipe calls it. */
export const LIMITS = ["size", "bpw", "kl"] as const;
export type Limit = (typeof LIMITS)[number];
/** What gives matrices their formats. */
export type Spending = "same" | "budget" | "mix";
export const limitOf = (o: Options): Limit | undefined => LIMITS.find((each) => (o[`budget.${each}`] ?? null) !== null);
export const spendingOf = (o: Options): Spending => (o["type"] ? "mix" : limitOf(o) ? "budget" : "same");
/** Options that choose one format for all. */
const FORMAT = ["layer.format", "layer.group", "layer.symmetric", "layer.activations"];

/** A table's values by their whole keys: `layer.format`. */
export function flat(table: Table, prefix = ""): Options {
  const parts = Object.entries(table).map(([key, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value) ? flat(value as Table, `${prefix}${key}.`) : { [prefix + key]: value as Value });
  return Object.assign({}, ...parts) as Options;
}

/** The fit that is nearest to the options; those in `kept` were chosen last and stay. The first container that fits is taken unless one was chosen. */
export function fitOf(c: Choices, o: Options, kept: string[] = []): Fit {
  const bits = (name: Value): number => c.formats.find((each) => each.name === name)?.bits ?? 0;
  const worth = (fit: Fit): number => {
    const same: [string, boolean][] = [
      ["layer.group", o["layer.group"] === null || fit.groups.includes(o["layer.group"] as Group)], ["layer.activations", fit.activations === o["layer.activations"]],
      ["layer.symmetric", fit.symmetric === o["layer.symmetric"]], ["output", o["output"] === null || fit.container === o["output"]], ["layer.format", fit.format === o["layer.format"]],
    ];
    return same.reduce((sum, [key, is], i) => sum + (is ? (kept.includes(key) ? 100 : 2 ** i) : 0), 0) - Math.abs(bits(fit.format) - bits(o["layer.format"]!)) / 100;
  };
  return c.fits.reduce((best, fit) => (worth(fit) > worth(best) ? fit : best));
}

/** The same options, with those replaced that the others leave no room for. */
export function settle(c: Choices, o: Options, kept: string[] = []): Options {
  const fit = fitOf(c, o, kept);
  const usual = flat(c.defaults)["layer.method"] as string;
  return {
    ...o, "layer.format": fit.format, "layer.symmetric": fit.symmetric, "layer.activations": fit.activations, "output": fit.container === o["output"] ? fit.container : null,
    "layer.group": fit.groups.includes(o["layer.group"] as Group) ? o["layer.group"]! : fit.block,
    "layer.method": fit.methods.includes(o["layer.method"] as string) ? o["layer.method"]! : fit.methods.includes(usual) ? usual : fit.methods[0]!,
  };
}

/** What a run begins with: what its kind of model has by default, and on top of it what `tables` say. */
export const begin = (c: Choices, ...tables: Table[]): Options => settle(c, Object.assign(flat(c.defaults), ...tables.map((table) => flat(table))) as Options);

/** The recipe's tables: what differs from the defaults, and always what a run is named after. */
export function recipe(c: Choices, o: Options): Table {
  const usual = flat(c.defaults);
  const fit = fitOf(c, o);
  const own = c.methods.find((each) => each.name === o["layer.method"])?.options ?? {};
  const made: Table = {};
  for (const [key, value] of Object.entries({ ...o, output: fit.container === c.containers[0]!.name ? null : fit.container })) {
    const option = /^layer\.options\.(.*)/.exec(key)?.[1];
    const always = key === "layer.format" || key === "layer.group" || key === "layer.method";
    if (spendingOf(o) !== "same" && FORMAT.includes(key)) continue;
    if (value === null || (option && !own[option]) || (!always && JSON.stringify(value) === JSON.stringify(usual[key] ?? own[option ?? ""]?.default))) continue;
    const path = key.split(".");
    const last = path.pop()!;
    path.reduce((table, step) => (table[step] ??= {}) as Table, made)[last] = value;
  }
  return made;
}

/** An error beside its option: without the name of the recipe's key, which the option has already. */
export function told({ text, fix }: Problem): string {
  const what = text.replace(/^(recipe: [\w.]+( '[^']*')?|--[\w-]+): /, "");
  return [what.charAt(0).toUpperCase() + what.slice(1), fix?.startsWith("Correct it, or leave it out") ? "" : fix].filter(Boolean).join(" ");
}
