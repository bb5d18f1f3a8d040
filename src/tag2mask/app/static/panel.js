// Classes, thresholds, refiner, opacity: what the person chooses at the right.

export const IGNORE = 255;
const byId = (id) => document.getElementById(id);

export class Panel {
  /**
   * Callbacks: `remake` the mask; `brush(value, whether the person chose it)`; `view(hidden values)`; `tags(change)`, where
   * `change(present classes, tags or null)` returns new tags or null; `folderTags()`.
   */
  constructor(page, calls) {
    this.page = page;
    this.calls = calls;
    this.hidden = new Set();
    this.brush = page.classes.length ? 1 : IGNORE;
    this.moved = new Set(); // sliders that the person moved; others keep the run's setting
    this.fill();
    this.listen();
    this.showSettings();
  }

  fill() {
    const page = this.page;
    byId("run").textContent = page.folder ? `${page.run} · ${page.folder}` : page.run;
    byId("known").replaceChildren(...page.classes.map(({ name }) => new Option(name)));
    byId("refiner").replaceChildren(...page.refiners.map((name) => new Option(plain(name), name)));
    byId("format").replaceChildren(...page.formats.map(({ name }) => new Option(name)));
    byId("saves").textContent = page.saves_to
      ? `Saved masks go to ${page.saves_to}, where training with data.true_masks=train finds them.`
      : "Masks of dropped images are kept until the page ends: download them.";
    this.rows = [...page.classes.map(({ name, color }, index) => [index + 1, name, color]),
      [IGNORE, "unsure (ignored)", [224, 224, 224]]].map((one) => this.row(...one));
    byId("brush").replaceChildren(...this.rows.map(({ name, value }) => new Option(name, value)));
    byId("classes").tBodies[0].replaceChildren(...this.rows.map(({ element }) => element));
    this.setDefaults();
  }

  setDefaults() {
    this.moved.clear();
    byId("background").value = this.page.background ?? 0.4;
    byId("threshold").value = this.page.class_threshold;
    byId("refiner").value = this.page.refiner;
    this.showSettings();
  }

  listen() {
    for (const id of ["background", "threshold", "refiner"]) {
      byId(id).addEventListener("input", () => {
        this.moved.add(id);
        this.showSettings();
        this.calls.remake();
      });
    }
    byId("brush").addEventListener("input", () => this.chooseBrush(Number(byId("brush").value)));
    byId("opacity").addEventListener("input", () => this.showSettings());
    byId("defaults").addEventListener("click", () => {
      this.setDefaults();
      this.calls.remake();
    });
    byId("format").addEventListener("input", () => this.showSettings());
    byId("tag-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = byId("tag").value.trim();
      if (name) this.calls.tags((names) => [...new Set([...names, name])]);
      this.followClasses([name]);
      byId("tag").value = "";
    });
    byId("auto-tags").addEventListener("click", () => {
      this.calls.tags((_, tags) => (tags === null ? this.calls.folderTags() : null));
    });
  }

  /** One line of the table of classes. */
  row(value, name, color) {
    const element = document.createElement("tr");
    const brush = document.createElement("button");
    const swatch = document.createElement("span");
    brush.type = "button";
    brush.className = "brush";
    brush.setAttribute("role", "radio");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color.join(",")})`;
    brush.append(swatch, name);
    if (value <= 9) {
      const key = document.createElement("kbd");
      key.textContent = value;
      brush.append(key);
    }
    brush.addEventListener("click", () => this.chooseBrush(value));
    const meter = document.createElement("meter");
    meter.max = 1;
    const shown = checkbox(`Show ${name}`, true);
    shown.addEventListener("change", () => {
      if (shown.checked) this.hidden.delete(value);
      else this.hidden.add(value);
      this.calls.view(this.hidden);
    });
    const inside = checkbox(`${name} is in the image`, false);
    inside.addEventListener("change", () => {
      this.calls.tags((names) => (inside.checked
        ? [...names, name] : names.filter((other) => other !== name)));
    });
    for (const content of [brush, meter, inside, shown]) {
      element.insertCell().append(value === IGNORE && (content === meter || content === inside) ? "" : content);
    }
    return { element, value, name, brush, meter, inside };
  }

  chooseBrush(value, isChosen = true) {
    this.brush = value;
    for (const row of this.rows) row.brush.setAttribute("aria-checked", String(row.value === value));
    byId("brush").value = value;
    const chosen = this.rows.find((row) => row.value === value);
    byId("brush-swatch").style.background = chosen.element.querySelector(".swatch").style.background;
    this.calls.brush(value, isChosen);
  }

  /** Take the first of some classes for the brush, unless it has one of them or paints unsure. */
  followClasses(names) {
    const rows = this.rows.filter(({ name }) => names.includes(name));
    if (!rows.length || this.brush === IGNORE || rows.some(({ value }) => value === this.brush)) return;
    this.chooseBrush(rows[0].value, false);
  }

  /** What `POST mask` takes; null keeps the run's setting. */
  settings() {
    return {
      background: this.moved.has("background") ? Number(byId("background").value) : null,
      class_threshold: this.moved.has("threshold") ? Number(byId("threshold").value) : null,
      refiner: this.moved.has("refiner") ? byId("refiner").value : null,
    };
  }

  showSettings() {
    const opacity = byId("opacity").value;
    byId("opacity-value").textContent = `${opacity} %`;
    byId("overlay").style.opacity = opacity / 100;
    const automatic = this.page.background === null && !this.moved.has("background");
    byId("background-value").textContent = automatic ? "automatic" : Number(byId("background").value).toFixed(2);
    byId("threshold-value").textContent = Number(byId("threshold").value).toFixed(2);
    const format = this.page.formats.find(({ name }) => name === byId("format").value);
    byId("format-about").textContent = format ? format.about : "";
  }

  /** Show nothing about the last image while the mask of the next one is made. */
  clearMask() {
    byId("source").textContent = "";
    for (const row of this.rows) {
      row.meter.value = 0;
      row.meter.title = "";
      row.inside.checked = false;
      row.inside.disabled = true;
    }
  }

  /** Show what the server says about a mask. */
  showMask(made) {
    const sources = { tags: "Classes come from tags.", classifier: "The network chose the classes." };
    byId("source").textContent = sources[made.class_source];
    for (const row of this.rows) {
      const score = made.scores[row.name];
      if (score === undefined) continue;
      row.meter.value = score;
      row.meter.title = `${Math.round(score * 100)} %`;
      row.inside.checked = made.selected.includes(row.name);
      row.inside.disabled = false;
    }
    for (const [id, used] of [["background", made.uses_background], ["threshold", made.uses_class_threshold]]) {
      byId(id).disabled = !used;
      byId(id).closest(".field").classList.toggle("unused", !used);
    }
  }
}

function plain(name) {
  const words = { none: "no", par: "PAR (colors nearby)", dense_crf: "dense CRF (slower)",
    random_walk: "random walk", pamr: "PAMR (colors nearby)" };
  return words[name] ?? name;
}

function checkbox(label, checked) {
  const made = document.createElement("input");
  made.type = "checkbox";
  made.checked = checked;
  made.setAttribute("aria-label", label);
  return made;
}
