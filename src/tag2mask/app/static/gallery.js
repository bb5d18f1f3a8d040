// The list of images: pictures, how uncertain each mask is, what is saved.

import { api } from "/static/api.js";

const SHOWN_AT_ONCE = 60;
const ASK_AGAIN_MS = 2500;

export class Gallery {
  constructor(page, { open, say }) {
    this.page = page;
    this.open = open;
    this.say = say;
    this.images = [];
    this.unsaved = new Set();
    this.current = null;
    this.shown = SHOWN_AT_ONCE;
    this.list = document.getElementById("images");
    this.listen();
  }

  listen() {
    const drop = document.getElementById("drop");
    const files = document.getElementById("files");
    files.disabled = false;
    files.addEventListener("change", (event) => {
      this.upload([...event.target.files]);
      event.target.value = "";
    });
    for (const kind of ["dragenter", "dragover"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) drop.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      this.upload([...event.dataTransfer.files]);
    });
    document.getElementById("more").addEventListener("click", () => {
      this.shown += SHOWN_AT_ONCE;
      this.draw();
    });
  }

  async refresh() {
    const { images, ranked, ranking } = await api.images();
    this.images = images;
    this.draw();
    const folder = images.filter((image) => !image.uploaded).length;
    document.getElementById("ranking").textContent = ranking
      ? `Looking for uncertain masks: ${ranked} of ${folder}`
      : folder ? "Most uncertain first" : "";
    if (ranking) {
      setTimeout(() => this.refresh().catch((error) => this.say(error.message, true)), ASK_AGAIN_MS);
    }
  }

  async upload(files) {
    const problems = [];
    let first = null;
    for (const [index, file] of files.entries()) {
      if (files.length > 1) this.say(`Reading ${index + 1} of ${files.length} ...`);
      try {
        if (file.size > this.page.upload_mib * 1024 * 1024) {
          throw new Error(`${file.name}: larger than ${this.page.upload_mib} MiB; shrink the image`);
        }
        const added = await api.upload(file);
        first = first || added.id;
      } catch (error) {
        problems.push(error.message);
      }
    }
    if (first) {
      await this.refresh();
      this.open(first); // it clears the line above the page, so problems come behind it
    }
    if (problems.length) this.say(problems.join(" "), true);
  }

  async remove(id) {
    try {
      await api.remove(id);
      await this.refresh();
    } catch (error) {
      this.say(error.message, true);
    }
  }

  find(id) {
    return this.images.find((image) => image.id === id);
  }

  /** Return the image `step` places after the current one. */
  neighbor(step) {
    const at = this.images.findIndex((image) => image.id === this.current);
    return this.images[at + step];
  }

  choose(id) {
    this.current = id;
    const at = this.images.findIndex((image) => image.id === id);
    if (at >= this.shown) this.shown = at + SHOWN_AT_ONCE;
    this.draw();
    this.list.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  draw() {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    this.list.replaceChildren(...this.images.slice(0, this.shown).map((image) => this.row(image)));
    document.getElementById("more").hidden = this.images.length <= this.shown;
    if (focused) this.list.querySelector(`[data-id="${focused}"]`)?.focus({ preventScroll: true });
  }

  row(image) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.id = image.id;
    button.title = image.name;
    if (image.id === this.current) button.setAttribute("aria-current", "true");
    const picture = document.createElement("img");
    picture.src = api.thumbnail(image.id, this.page.token);
    picture.loading = "lazy";
    picture.alt = "";
    const state = this.unsaved.has(image.id) ? "not saved" : image.saved ? "saved" : "";
    button.append(picture, span("name", image.name), facts(image, state));
    button.addEventListener("click", () => this.open(image.id));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}

function facts(image, state) {
  const row = span("facts", "");
  const uncertainty = image.uncertainty === null ? "" : `${Math.round(image.uncertainty * 100)} % uncertain`;
  row.append(span("", image.uploaded ? "dropped" : uncertainty));
  row.append(span(state === "not saved" ? "unsaved" : "", state));
  return row;
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}
