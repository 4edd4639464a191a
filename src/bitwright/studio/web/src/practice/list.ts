// The list of problems: what is shown follows the filter, and the filter stands in the address.
import { find } from "../page";
import { problemOf, refused } from "../workbench/api";

export function start(): void {
  filter(find<HTMLFormElement>("#filter")!);
  bringing(find<HTMLInputElement>("#import")!);
}

function filter(form: HTMLFormElement): void {
  const rows = [...document.querySelectorAll<HTMLElement>(".pb-rows > li")];
  const tagsOf = (row: HTMLElement): string[] => row.dataset["tags"]!.split("|");
  const fields = [...form.querySelectorAll("select")];
  const tags = form.querySelector<HTMLSelectElement>('[name="tag"]')!;
  for (const tag of [...new Set(rows.flatMap(tagsOf))].filter(Boolean).sort((a, b) => a.localeCompare(b))) tags.add(new Option(tag));
  const asked = new URLSearchParams(location.search);
  for (const field of fields) field.value = [...field.options].find((each) => each.value === asked.get(field.name))?.value ?? "";

  const tests: Record<string, (row: HTMLElement, wanted: string) => boolean> = {
    difficulty: (row, wanted) => row.dataset["difficulty"] === wanted,
    tag: (row, wanted) => tagsOf(row).includes(wanted),
    state: (row, wanted) => (wanted === "due" ? "due" in row.dataset : row.dataset["state"] === wanted),
  };
  const apply = (): void => {
    const wanted = fields.filter((field) => field.value);
    for (const row of rows) row.hidden = !wanted.every((field) => tests[field.name]!(row, field.value));
    const shown = rows.filter((row) => !row.hidden).length;
    for (const section of document.querySelectorAll<HTMLElement>(".pb-collection:has(.pb-rows)")) section.hidden = wanted.length > 0 && !section.querySelector(".pb-rows > li:not([hidden])");
    find("#filter-none")!.hidden = shown > 0 || !rows.length;
    find(".pb-count", form)!.textContent = wanted.length ? `${shown} of ${rows.length} problems` : `${rows.length} problems`;
    find<HTMLButtonElement>("button", form)!.disabled = !wanted.length;
    const query = new URLSearchParams(wanted.map((field) => [field.name, field.value]));
    history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const field of fields) field.value = "";
    setTimeout(apply);
    fields[0]?.focus();
  });
  form.hidden = false;
  apply();
}

/** Bring an exported file back. */
function bringing(input: HTMLInputElement): void {
  const said = find("#import-said")!;
  find(`label[for="${input.id}"]`)!.hidden = false;
  input.addEventListener("change", async () => {
    const file = input.files?.[0];
    if (!file) return;
    input.value = "";
    said.textContent = `Reading ${file.name}…`;
    try {
      const type = file.name.endsWith(".json") ? "application/json" : "application/zip";
      const answer = await fetch("/api/practice/import", { method: "POST", headers: { "content-type": type }, body: file });
      if (!answer.ok) throw await refused(answer);
      const { counts } = (await answer.json()) as { counts: Record<string, number> };
      const parts = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
      said.textContent = `Brought back: ${parts.join(", ") || "nothing new"}. Reload the page to see it.`;
    } catch (error) {
      const { text, fix } = problemOf(error);
      said.textContent = `Not imported. ${text}${fix ? ` ${fix}.` : ""}`;
    }
  });
}
