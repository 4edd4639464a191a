// The workbench's page: what stands in it without a script makes room for its screens.
import { mount } from "svelte";
import App from "./workbench/App.svelte";

const target = document.querySelector("#workbench")!;
target.replaceChildren();
mount(App, { target });
