// <bw-question>: choose, check, read why. The first try counts; the studio keeps every one.
import { find, post } from "../page";

export class QuestionElement extends HTMLElement {
  connectedCallback(): void {
    const form = find<HTMLFormElement>("form", this)!;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = find<HTMLInputElement>("input:checked", form);
      const verdict = find(".verdict", this)!;
      if (!chosen) {
        verdict.textContent = "Choose an answer first.";
        verdict.className = "verdict tone-warn";
        return;
      }
      const right = chosen.value === this.getAttribute("answer");
      for (const option of form.querySelectorAll(".option")) option.classList.remove("right", "wrong");
      chosen.closest(".option")!.classList.add(right ? "right" : "wrong");
      verdict.textContent = right ? "✓ Right." : "✗ Not this one. Try again, or read why.";
      verdict.className = `verdict tone-${right ? "good" : "error"}`;
      find(".why", this)!.hidden = false;
      const place = this.closest<HTMLElement>("[data-place]")?.dataset["place"];
      if (place) void post("/api/answers", { place, question: this.id, choice: Number(chosen.value) }).catch(() => undefined);
    });
  }
}

customElements.define("bw-question", QuestionElement);
