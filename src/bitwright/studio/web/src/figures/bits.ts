// Words bit by bit: fields coloured and named below, the value at the right. Bits keep their identity when they flip, fields when they move between words.
import { at, clamp, colour, keep, layer, SMALL, stage, stagger, textWidth, widthOf } from "./svg";
import type { Bits, Field, Word } from "./types";

const MOST_CELL = 30;
/** Cells narrower than `LEAST` make a word go on in the next line, with cells of at least `NEXT`. */
const LEAST = 12;
const NEXT = 15;
/** Below this a cell is too small to stand beside its word's name and value; these then get a line of their own. */
const BESIDE = 20;
const GAP = 4;
const LINE = 16;
const BRACE = 7;
const APART = 18;

interface Placed { key: string; full: string; label: string; word: string }
interface Cell { key: string; bit: string; x: number; y: number; field: Field }
interface Tag { key: string; text: string; x: number; y: number; kind: "name" | "value"; end: boolean }
interface Brace { key: string; field: Field; x: number; y: number; w: number; lx: number; ly: number }

const placed = new WeakMap<HTMLElement, Placed[]>();

/** A key for every field: its old one where the same word still has it, else that of a field of this name that left another word. */
function identify(host: HTMLElement, words: Word[]): Map<Field, string> {
  const before = placed.get(host) ?? [];
  const seen = new Map<string, number>();
  const now = words.flatMap((word) => word.fields.map((field) => {
    const name = `${word.id}/${field.label}`;
    const again = seen.get(name) ?? 0;
    seen.set(name, again + 1);
    return { field, word: word.id, label: field.label, full: again ? `${name}/${again}` : name, key: "" };
  }));
  const free = new Map(before.map((p) => [p.full, p]));
  const used = new Set<string>();
  const take = (one: (typeof now)[0], old?: Placed): void => {
    if (!old || used.has(old.key)) return;
    one.key = old.key;
    used.add(old.key);
    free.delete(old.full);
  };
  for (const one of now) take(one, free.get(one.full));
  for (const one of now) if (!one.key && one.label) take(one, [...free.values()].find((p) => p.label === one.label));
  for (const one of now) {
    if (one.key) continue;
    one.key = one.full;
    while (used.has(one.key)) one.key += "'";
    used.add(one.key);
  }
  placed.set(host, now.map(({ key, full, label, word }) => ({ key, full, label, word })));
  return new Map(now.map((one) => [one.field, one.key]));
}

/** The lengths of a field's parts where lines end after `first` bits and then every `most`. */
function split(bits: number, first: number, most: number): number[] {
  const parts: number[] = [];
  for (let room = first || most; bits > 0; bits -= room, room = most) parts.push(Math.min(bits, room));
  return parts;
}

const size = (word: Word): number => word.fields.reduce((sum, field) => sum + field.bits.length, 0);

export function draw(host: HTMLElement, view: Bits): void {
  const width = widthOf(host);
  const keys = identify(host, view.words);
  const most = keep(host, width, "bits", Math.max(1, ...view.words.map(size)));
  const gaps = keep(host, width, "gaps", Math.max(0, ...view.words.map((w) => w.fields.length - 1))) * GAP;
  const before = keep(host, width, "before", Math.max(0, ...view.words.map((w) => textWidth(w.label ?? "", 13, 600))));
  const after = keep(host, width, "after", Math.max(0, ...view.words.map((w) => textWidth(w.value ?? "", 13, 500, "mono"))));

  // Name and value stand beside the cells where these stay large, else above them. Words too long for a line go on in the next.
  const beside = (width - gaps - before - after - (before && APART) - (after && APART)) / most;
  const wide = beside >= BESIDE || (!before && !after);
  const left = wide && before ? before + APART : 0;
  const fits = wide ? beside : (width - gaps) / most;
  const perLine = fits >= LEAST ? most : Math.max(8, Math.floor((width - GAP * 6) / NEXT / 8) * 8);
  const cell = Math.min(MOST_CELL, Math.floor(fits >= LEAST ? fits : (width - GAP * 6) / perLine));
  const tall = clamp(cell * 1.25, 22, 34);

  // Many short words stand side by side, so that a packing story is seen at once.
  const breadth = (word: Word): number => {
    const bits = Math.min(size(word), perLine) * cell + (word.fields.length - 1) * GAP;
    const value = word.value ? textWidth(word.value, 13, 500, "mono") : 0;
    return wide ? left + bits + (value && APART) + value : Math.max(bits, before + (before && value && APART) + value);
  };
  const broad = Math.max(...view.words.map(breadth));
  const columns = view.words.length > 3 ? Math.max(1, Math.min(4, Math.floor((width + APART * 2) / (broad + APART * 2)))) : 1;
  const pitch = Math.floor((width + APART * 2) / columns);

  const cells: Cell[] = [];
  const braces: Brace[] = [];
  const texts: Tag[] = [];
  let y = 4;
  for (let i = 0; i < view.words.length; i += columns) {
    const row = view.words.slice(i, i + columns);
    y = Math.max(...row.map((word, j) => lay(word, j * pitch, y, columns > 1 ? pitch - APART * 2 : width)));
  }

  /** Places one word with its top left at (x0, top) in `room` px; says where the next one may begin. */
  function lay(word: Word, x0: number, top: number, room: number): number {
    let y = top;
    const head = !wide && (word.label || word.value);
    if (head) y += 20;
    const first = y;
    let x = x0 + left;
    let inLine = 0;
    let right = 0;
    let tags: Brace[] = [];
    const close = (): void => {
      // Names of fields below their braces, in as many rows as they need.
      const items = tags.filter((b) => b.field.label).map((b) => {
        const half = textWidth(b.field.label, SMALL, 600) / 2;
        const middle = clamp(b.x + b.w / 2, x0 + half, x0 + room - half);
        return { b, middle, from: middle - half, to: middle + half };
      }).sort((p, q) => p.from - q.from);
      const rows = stagger(items, 4, 8).map((row) => (row < 0 ? 3 : row));
      items.forEach(({ b, middle }, i) => {
        b.lx = middle;
        b.ly = y + tall + BRACE + 13 + rows[i]! * LINE;
      });
      y += tall + BRACE + (items.length ? 6 + (Math.max(...rows) + 1) * LINE : 0) + 6;
      braces.push(...tags);
      tags = [];
    };
    for (const field of word.fields) {
      const key = keys.get(field)!;
      let from = x;
      // Over a line's end a field has several parts; the longest bears its name.
      const parts = split(field.bits.length, perLine - inLine, perLine);
      const longest = parts.indexOf(Math.max(...parts));
      let part = 0;
      const brace = (): void => {
        if (x > from) tags.push({ key: part === longest ? key : `${key}:${part}`, field: part === longest ? field : { ...field, label: "" }, x: from, y: y + tall, w: x - from, lx: from + (x - from) / 2, ly: y + tall });
        part++;
      };
      [...field.bits].forEach((bit, i) => {
        if (inLine === perLine) {
          if (i) brace();
          close();
          [x, inLine] = [x0 + left, 0];
          from = x;
        }
        cells.push({ key: `${key}:${i}`, bit, x, y, field });
        x += cell;
        inLine++;
        right = Math.max(right, x);
      });
      brace();
      x += GAP;
    }
    close();
    const beside = first + tall / 2 + 5;
    const [name, value] = [textWidth(word.label ?? "", 13, 600), textWidth(word.value ?? "", 13, 500, "mono")];
    const below = head && name + value + 12 > room;
    const end = Math.min(x0 + room, Math.max(right, x0 + name + value + APART));
    if (word.label) texts.push({ key: `${word.id}/name`, text: word.label, x: x0, y: wide ? beside : first - 7, kind: "name", end: false });
    if (word.value) texts.push({ key: `${word.id}/value`, text: word.value, x: wide ? right + APART : below ? x0 : end, y: wide ? beside : below ? y + 10 : first - 7, kind: "value", end: !wide && !below });
    return y + (below && word.value ? 20 : 0) + 8;
  }

  const svg = stage(host, width, y);

  const boxes = layer(svg, "bits").selectAll<SVGGElement, Cell>("g.bit").data(cells, (c) => c.key).join((enter) => {
    const g = enter.append("g").attr("class", "bit");
    g.append("rect").attr("rx", 3).attr("x", 0.5).attr("y", 0.5);
    g.append("text").attr("text-anchor", "middle");
    return g;
  });
  boxes.attr("data-bit", (c) => c.bit).style("--tone", (c) => colour(c.field.tone ?? "ink")).style("transform", (c) => at(c.x, c.y));
  boxes.select("rect").attr("width", Math.max(1, cell - 1)).attr("height", tall - 1);
  boxes.select("text").attr("x", cell / 2).attr("y", tall / 2 + 4.5).style("font-size", cell >= 18 ? "14px" : "12px").text((c) => c.bit);

  const marks = layer(svg, "braces").selectAll<SVGGElement, Brace>("g.brace").data(braces, (b) => b.key).join((enter) => {
    const g = enter.append("g").attr("class", "brace");
    g.append("path");
    g.append("text").attr("class", "direct small").attr("text-anchor", "middle");
    return g;
  });
  marks.style("transform", (b) => at(b.x, b.y));
  marks.select("path").style("stroke", (b) => colour(b.field.tone ?? "ink")).attr("d", (b) => {
    const far = b.ly - b.y - BRACE - 13 > LINE / 2 ? `M${b.w / 2},${BRACE - 2}L${b.lx - b.x},${b.ly - b.y - 12}` : "";
    return `M1,2V${BRACE - 2}H${Math.max(2, b.w - 1)}V2${b.field.label ? far : ""}`;
  });
  marks.select("text").attr("x", (b) => b.lx - b.x).attr("y", (b) => b.ly - b.y).style("fill", (b) => colour(b.field.tone ?? "ink")).text((b) => b.field.label);

  layer(svg, "words").selectAll<SVGTextElement, Tag>("text").data(texts, (t) => t.key).join("text").attr("class", (t) => `word-${t.kind}`)
    .attr("text-anchor", (t) => (t.end ? "end" : "start")).style("transform", (t) => at(t.x, t.y)).text((t) => t.text);
}
