// The shapes of views, as authoring/figures.py checks them. Keys whose value is the default are left out.
export type Tone = "float" | "quant" | "error" | "good" | "warn" | "mute" | "ink";
export interface Readout { label: string; value: string; tone?: Tone }
export interface View { say: string; readouts?: Readout[]; [key: string]: unknown }

export interface SliderControl { name: string; type: "slider"; label: string; values: (number | string)[]; start: number; unit?: string; labels?: string[] }
export interface ChoiceControl { name: string; type: "choice"; label: string; options: [string, string][]; start: number }
export interface StepsControl { name: string; type: "steps"; label?: string; captions: string[]; start: number }
export type Control = SliderControl | ChoiceControl | StepsControl;

export interface Payload { controls: Control[]; base: Record<string, unknown>; states: Record<string, unknown>[]; compute: string }

/** Draws a view into its host; called again with another view, it moves what is there. */
export type Draw = (host: HTMLElement, view: never) => void;

export interface Histogram extends View {
  low: number; high: number; counts: number[]; second?: number[] | null; levels?: number[]; errors?: number[] | null;
  clip?: [number, number] | null; scale?: "sqrt" | "linear" | "log"; x?: string; labels?: string[];
}

export interface Dot { id: string; at: number; to?: number | null; label?: string; tone?: Tone }
export interface Tick { at: number; label?: string; code?: string; tone?: Tone }
export interface Span { low: number; high: number; label?: string; tone?: Tone }
export interface NumberLine extends View { low: number; high: number; levels?: Tick[]; dots?: Dot[]; spans?: Span[]; x?: string }

export type Colours = "diverging" | "sequential";
export interface Mark { row: number; column: number; rows?: number; columns?: number; label?: string; tone?: Tone }
export interface HeatMap extends View {
  values: number[][]; peak: number; colours?: Colours; tone?: Tone; text?: boolean; digits?: number; marks?: Mark[];
  row_labels?: string[]; column_labels?: string[]; rows_name?: string; columns_name?: string;
}

export interface Field { label: string; bits: string; tone?: Tone }
export interface Word { id: string; fields: Field[]; label?: string; value?: string }
export interface Bits extends View { words: Word[] }

export type Shape = "circle" | "square" | "triangle" | "diamond";
export interface Point { id: string; x: number; y: number; label?: string }
export interface Series { name: string; points: Point[]; tone?: Tone; shape?: Shape; line?: boolean; front?: boolean }
export interface Axis { label: string; low: number; high: number; log?: boolean; unit?: string }
export interface Scatter extends View { x: Axis; y: Axis; series: Series[] }

export interface Bar { id: string; label: string; value: number; text: string; tone?: Tone }
export interface Bars extends View { bars: Bar[]; high: number; low?: number; log?: boolean; x?: string }

export type State = "todo" | "now" | "done" | "error";
export interface Stage { id: string; label: string; detail?: string; state?: State }
export interface Timeline extends View { stages: Stage[]; text: string; tone?: Tone }

export interface Node_ { id: string; label: string; column: number; row: number; value?: string; tone?: Tone }
export interface Link { source: string; target: string; label?: string; weight?: number; tone?: Tone }
export interface Flow extends View { nodes: Node_[]; links: Link[] }

export interface Picture { label: string; values: number[][]; tone?: Tone }
export interface Compare extends View { before: Picture; after: Picture; peak: number; colours?: Colours }

export interface Term { symbol: string; meaning: string; value?: string; tone?: Tone }
export interface Formula extends View { tex: string; terms?: Term[]; html?: string }
export interface Code extends View { source: string; html?: string; line?: number; variables?: Term[]; output?: string }

export type Spot = [number, number];
export interface Pick { id: string; at: Spot; tone: Tone }
export interface Lattice extends View { at: Spot; metric: [number, number, number]; cell: Spot[]; owner: string; picks: Pick[]; path: Spot[]; x: string; y: string }
