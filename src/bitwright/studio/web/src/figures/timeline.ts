// A process in stages: stops on a line, their state by shape, colour and word, and what happens now below.
import { select } from "d3-selection";
import { asGroup, colour, keep, part, textWidth, widthOf } from "./svg";
import type { Stage, State, Timeline } from "./types";

/** Least width in px of a stop of a horizontal line. */
const STOP = 104;

const WORDS: Record<State, string> = { todo: "to do", now: "now", done: "done", error: "failed" };
const SIGNS: Record<State, string> = {
  todo: '<circle cx="10" cy="10" r="7.5"/>',
  now: '<circle cx="10" cy="10" r="8.5"/><circle class="dot" cx="10" cy="10" r="4"/>',
  done: '<circle class="full" cx="10" cy="10" r="9"/><path d="M5.8 10.4l2.9 2.9 5.6-6.2"/>',
  error: '<rect class="full" x="2" y="2" width="16" height="16" rx="3"/><path d="M6.5 6.5l7 7m0-7l-7 7"/>',
};

export function draw(host: HTMLElement, view: Timeline): void {
  asGroup(host);
  const width = widthOf(host);
  const longest = Math.max(...view.stages.flatMap((s) => [...s.label.split(" ").map((w) => textWidth(w, 14, 600)), ...(s.detail ?? "").split(" ").map((w) => textWidth(w))]));
  const list = part(host, "ol", "stops");
  list.classList.toggle("across", width / view.stages.length >= Math.max(STOP, longest + 14));

  const stops = select(list).selectAll<HTMLLIElement, Stage>("li").data(view.stages, (s) => s.id).join((enter) => {
    const li = enter.append("li");
    li.append("span").attr("class", "sign");
    const words = li.append("div");
    words.append("strong");
    words.append("span").attr("class", "visually-hidden");
    words.append("span").attr("class", "detail");
    return li;
  }).order();
  stops.attr("data-state", (s) => s.state ?? "todo").attr("aria-current", (s) => (s.state === "now" ? "step" : null));
  stops.each(function (s) {
    const sign = this.querySelector<HTMLElement>(".sign")!;
    const state = s.state ?? "todo";
    if (sign.dataset["state"] === state) return;
    sign.dataset["state"] = state;
    sign.innerHTML = `<svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">${SIGNS[state]}</svg>`;
  });
  stops.select("strong").text((s) => s.label);
  stops.select(".visually-hidden").text((s) => ` (${WORDS[s.state ?? "todo"]})`);
  stops.select(".detail").text((s) => s.detail ?? "");

  const text = part(host, "p", "stops-text");
  text.textContent = view.text;
  text.style.minHeight = `${keep(host, width, "text", text.scrollHeight)}px`;
  text.style.setProperty("--tone", colour(view.tone ?? "ink"));
}
