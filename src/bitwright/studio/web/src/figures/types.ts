// The shapes of views, as worker/figures.py checks them. Keys whose value is the default are left out.
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
  low: number; high: number; counts: number[]; second?: number[]; levels?: number[]; errors?: number[];
  clip?: [number, number]; scale?: "sqrt" | "linear" | "log"; x?: string; labels?: string[];
}
