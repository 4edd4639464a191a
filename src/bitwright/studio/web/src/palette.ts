// The command palette (Ctrl K) and the keyboard help (?): everything can be reached without a mouse.
import { find, typing } from "./page";

interface Entry { title: string; kind: string; href: string; words: string }

let entries: Promise<Entry[]> | undefined;

const load = (): Promise<Entry[]> => (entries ??= fetch("/api/palette").then((answer) => answer.json() as Promise<Entry[]>));

/** How well an entry answers a query: every word must occur; a hit in the title counts more, the very phrase most. */
function score(entry: Entry, query: string): number {
  const words = query.split(/\s+/).filter(Boolean);
  const title = entry.title.toLowerCase();
  const all = `${title} ${entry.words.toLowerCase()}`;
  if (!words.every((w) => all.includes(w))) return 0;
  const hits = words.reduce((sum, w) => sum + (title.startsWith(w) ? 3 : title.includes(w) ? 2 : 1), 1);
  return hits + (query && title.includes(query) ? 2 * words.length : 0);
}

export function startPalette(): void {
  const dialog = find<HTMLDialogElement>("#palette")!;
  const input = find<HTMLInputElement>("input", dialog)!;
  const list = find("ul", dialog)!;
  let shown: Entry[] = [];
  let at = 0;

  const mark = (): void => {
    [...list.children].forEach((li, i) => li.setAttribute("aria-selected", String(i === at)));
    const active = list.children[at];
    active?.scrollIntoView({ block: "nearest" });
    if (active) input.setAttribute("aria-activedescendant", active.id);
    else input.removeAttribute("aria-activedescendant");
  };
  const fill = async (): Promise<void> => {
    const all = await load();
    const query = input.value.trim().toLowerCase(); // as it is by now: answers may come in any order
    const found = all.map((e) => [score(e, query), e] as const).filter(([s]) => s > 0);
    shown = found.sort((a, b) => b[0] - a[0]).slice(0, 12).map(([, e]) => e);
    at = 0;
    list.replaceChildren(...shown.map((entry, i) => {
      const li = document.createElement("li");
      li.id = `palette-${i}`;
      li.setAttribute("role", "option");
      li.append(entry.title, Object.assign(document.createElement("small"), { textContent: entry.kind }));
      li.addEventListener("click", () => location.assign(entry.href));
      return li;
    }));
    mark();
  };
  input.addEventListener("input", () => void fill());
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      at = (at + step + shown.length) % Math.max(shown.length, 1);
      mark();
    } else if (event.key === "Enter" && shown[at]) {
      event.preventDefault();
      location.assign(shown[at]!.href);
    }
  });
  for (const button of document.querySelectorAll("[data-open]")) {
    button.addEventListener("click", () => open(button.getAttribute("data-open")!));
  }
  for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog")!.close());
  }
  function open(id: string): void {
    const wanted = find<HTMLDialogElement>(`#${id}`)!;
    if (wanted.open) return;
    wanted.showModal();
    if (id === "palette") {
      input.value = "";
      void fill();
    }
  }

  let prefix = "";
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      return open("palette");
    }
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
    const pair = prefix + event.key;
    prefix = "";
    const places: Record<string, string> = { gt: "/today", gl: "/learn", gp: "/practice", gw: "/workbench", gs: "/settings" };
    if (places[pair]) return location.assign(places[pair]);
    if (event.key === "g") prefix = "g";
    else if (event.key === "?") open("keys");
    else if (event.key === "/") {
      event.preventDefault();
      open("palette");
    } else if (event.key === "n" || event.key === "p") find<HTMLAnchorElement>(`a[rel="${event.key === "n" ? "next" : "prev"}"]`)?.click();
    else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  });
}

/** Go to the next or previous stop of the page: the items of its list, or its sections. It starts from the stop in use, or else from what is in view. */
function move(step: number): void {
  const all = [...document.querySelectorAll<HTMLElement>("main h2, main [data-stop]")].filter((each) => each.getClientRects().length);
  const items = all.filter((each) => each.hasAttribute("data-stop"));
  const stops = items.length ? items : all;
  const line = 90;
  const tops = stops.map((s) => s.getBoundingClientRect().top);
  const used = stops.indexOf(document.activeElement as HTMLElement);
  const seen = used >= 0 && tops[used]! >= 0 && tops[used]! < innerHeight;
  const next = seen ? used + step : step > 0 ? tops.findIndex((top) => top > line + 4) : tops.findLastIndex((top) => top < line - 4);
  const stop = stops[next];
  if (!stop) return;
  if (!stop.matches("a, button")) stop.tabIndex = -1;
  stop.focus({ preventScroll: true });
  stop.scrollIntoView({ block: items.length ? "nearest" : "start" });
}
