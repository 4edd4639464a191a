// <bw-wait src>: asks until something is ready, then shows the page again. A failure is said in its own words.
import { find } from "../page";

export class WaitElement extends HTMLElement {
  async connectedCallback(): Promise<void> {
    try {
      const answer = await fetch(this.getAttribute("src")!);
      if (answer.ok) return location.reload();
      const { error } = (await answer.json()) as { error: { text: string } };
      this.tell(error.text);
    } catch {
      this.tell("The studio does not answer. Is it still running in your terminal?");
    }
  }

  private tell(text: string): void {
    const line = find(".wait-text", this)!;
    line.textContent = text;
    line.className = "wait-text notice error";
  }
}

customElements.define("bw-wait", WaitElement);
