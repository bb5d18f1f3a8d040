// Puts the page together: which image is open, its mask, its tags, saving and downloading.

import { api } from "/static/api.js";
import { Gallery } from "/static/gallery.js";
import { listenToKeys } from "/static/keys.js";
import { Correction, decodeRuns, encodeRuns } from "/static/mask.js";
import { IGNORE, Panel } from "/static/panel.js";
import { Stage } from "/static/stage.js";

const byId = (id) => document.getElementById(id);
const POLL_MS = 300;
const opened = new Map(); // id -> what this visitor did with an image

let page;
let stage;
let panel;
let gallery;
let asking = false; // one request for a mask at a time; the newest settings win
let askAgain = false;
let justOpened = false; // the brush follows the classes of an image once, when its mask comes

function say(text, isBad = false) {
  byId("message").textContent = text;
  byId("message").classList.toggle("bad", isBad);
}

function current() {
  return opened.get(gallery.current);
}

function showState() {
  const one = current();
  const image = gallery.find(gallery.current);
  byId("undo").disabled = !one?.correction?.done.length;
  byId("redo").disabled = !one?.correction?.undone.length;
  byId("reset").disabled = !one?.correction?.isEdited;
  for (const id of ["save", "save-next", "download"]) byId(id).disabled = !one?.correction;
  byId("previous").disabled = !gallery.neighbor(-1);
  byId("next").disabled = !one || !gallery.neighbor(1);
  const edited = one?.correction?.isEdited ? (one.correction.unsaved ? ", corrected, not saved" : ", corrected") : "";
  const fromFolder = one && one.tags === null && image.tags !== null;
  byId("auto-tags").textContent = fromFolder
    ? "Use the folder's tags again" : "Let the network choose the classes";
  byId("caption").textContent = image ? `${image.name}${edited}` : "";
  if (one) {
    const isUnsaved = Boolean(one.correction?.unsaved && one.correction.isEdited);
    if (isUnsaved !== gallery.unsaved.has(gallery.current)) {
      if (isUnsaved) gallery.unsaved.add(gallery.current);
      else gallery.unsaved.delete(gallery.current);
      gallery.draw();
    }
  }
}

async function openImage(id) {
  const image = gallery.find(id);
  if (!image) return;
  stage.release(); // a stroke that is still being drawn belongs to the old image
  gallery.choose(id);
  say("");
  justOpened = true;
  if (!opened.has(id)) opened.set(id, { tags: image.tags, correction: null, version: null, saved: null });
  const one = opened.get(id);
  if (one.correction) {
    byId("picture").src = api.picture(id, page.token);
    stage.show(one.correction);
  } else {
    one.saved = api.saved(id);
    one.saved.catch(() => {}); // told when the mask has come
    stage.clear("Making the mask ...");
    panel.clearMask();
    byId("timing").textContent = "";
  }
  showState();
  await remake();
}

/** Ask for the mask of the open image with the present settings. */
async function remake() {
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  do {
    askAgain = false;
    await remakeOnce();
  } while (askAgain);
  asking = false;
}

async function remakeOnce() {
  const id = gallery.current;
  const one = opened.get(id);
  if (!one) return;
  byId("sheet").classList.add("busy");
  const start = performance.now();
  const { tags } = one; // they may change before the answer comes
  try {
    const made = await api.mask(id, { ...panel.settings(), tags });
    one.lastTags = tags;
    accept(id, one, made, await one.saved);
    if (id === gallery.current) {
      byId("timing").textContent = `Mask in ${((performance.now() - start) / 1000).toFixed(1)} s, `
        + `${Math.round(made.uncertainty * 100)} % uncertain`;
    }
  } catch (error) {
    if (tags?.length && one.tags === tags && error.status === 400) {
      one.tags = one.lastTags ?? null;
      askAgain ||= !one.correction;
    }
    say(error.message, true);
    if (!one.correction && id === gallery.current) stage.clear("There is no mask of this image.");
  }
  byId("sheet").classList.toggle("busy", askAgain);
}

function accept(id, one, made, saved) {
  const isNew = !one.correction;
  if (isNew) one.correction = new Correction(made.width, made.height);
  one.correction.made = decodeRuns(made.runs, made.width * made.height);
  if (isNew && saved?.runs) {
    one.correction.cover(decodeRuns(saved.runs, made.width * made.height));
    one.version = saved.version || null;
    say(saved.own ? "" : "This is the mask that was already saved. 'Start over' shows the network's.");
  }
  if (id !== gallery.current) return;
  if (isNew || stage.correction !== one.correction) {
    byId("picture").src = api.picture(id, page.token);
    stage.show(one.correction);
  } else {
    stage.draw();
  }
  panel.showMask(made);
  if (one.lastTags !== one.tags) return; // the mask for the new tags comes next
  if (justOpened) panel.followClasses(made.selected);
  justOpened = false;
  showState();
}

/** Change the tags of the open image; see `Panel`. */
function changeTags(change) {
  const one = current();
  if (!one) return;
  const present = panel.rows.filter((row) => row.inside.checked).map((row) => row.name);
  say("");
  one.tags = change(one.tags ?? present, one.tags);
  remake();
}

async function save() {
  const id = gallery.current;
  const one = current();
  if (!one?.correction) return false;
  const runs = encodeRuns(one.correction.composed());
  one.correction.unsaved = false; // a stroke from now on is not in what is sent
  let isSaved = false;
  try {
    let saved;
    try {
      saved = await api.save(id, { runs, replaces: one.version, confirmed: false });
    } catch (error) {
      if (error.status !== 409) throw error;
      if (!(await mayReplace(error.message))) {
        say("Not saved; the old mask is still there.");
        return false;
      }
      saved = await api.save(id, { runs, replaces: one.version, confirmed: true });
    }
    one.version = saved.version ?? null;
    isSaved = true;
    gallery.find(id).saved = true;
    gallery.unsaved.delete(id);
    gallery.draw();
    say(`Saved: ${saved.where}`);
  } catch (error) {
    say(error.message, true);
  } finally {
    if (!isSaved) one.correction.unsaved = true;
    showState();
  }
  return isSaved;
}

function mayReplace(question) {
  const dialog = byId("replace");
  byId("replace-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function saveNext() {
  const next = gallery.neighbor(1);
  const message = (await save()) ? byId("message").textContent : null;
  if (message === null || !next) return;
  await openImage(next.id);
  if (!byId("message").textContent) say(message);
}

function go(step) {
  const image = gallery.neighbor(step);
  if (image) openImage(image.id);
}

async function download() {
  const scope = byId("scope").value;
  const images = gallery.images.filter(({ id, saved }) => (
    scope === "all" || (scope === "one" ? id === gallery.current : saved)));
  const tags = {};
  for (const { id } of images) if (opened.get(id)?.tags) tags[id] = opened.get(id).tags;
  const bar = byId("progress");
  byId("download").disabled = true;
  try {
    if (!images.length) throw new Error("No image is saved yet.");
    const unsaved = images.find(({ id }) => gallery.unsaved.has(id));
    if (unsaved) throw new Error(`${unsaved.name} has strokes that are not saved. Save them first.`);
    let state = await api.startDownload({
      format: byId("format").value, images: images.map(({ id }) => id), settings: panel.settings(), tags,
    });
    bar.hidden = false;
    bar.max = state.total;
    while (!state.ready) {
      if (state.error) throw new Error(state.error);
      bar.value = state.done;
      await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
      state = await api.download(state.id);
    }
    const link = document.createElement("a");
    link.href = api.file(state.id);
    link.download = "";
    link.click();
    say("");
  } catch (error) {
    say(error.message, true);
  }
  bar.hidden = true;
  byId("download").disabled = false;
}

function setTool(tool) {
  stage.setTool(tool);
  for (const name of ["draw", "erase", "move"]) {
    byId(`tool-${name}`).setAttribute("aria-checked", String(name === tool));
  }
}

function setSize(size) {
  byId("size").value = Math.min(120, Math.max(1, size));
  stage.size = Number(byId("size").value);
  byId("size-value").textContent = `${stage.size} px`;
}

function step(direction) {
  const one = current();
  const box = one?.correction?.[direction]();
  if (box) stage.draw(box);
  showState();
}

function chooseBrush(value) {
  if (value > page.classes.length && value !== IGNORE) return;
  panel.chooseBrush(value);
}

function listen() {
  const actions = {
    draw: () => setTool("draw"),
    erase: () => setTool("erase"),
    move: () => setTool("move"),
    brush: chooseBrush,
    unsure: () => chooseBrush(IGNORE),
    smaller: () => setSize(Math.min(stage.size - 1, Math.round(stage.size / 1.25))),
    larger: () => setSize(Math.max(stage.size + 1, Math.round(stage.size * 1.25))),
    undo: () => step("undo"),
    redo: () => step("redo"),
    toggleMask: () => { stage.shown = !stage.shown; stage.draw(); },
    zoomIn: () => stage.zoomBy(1),
    zoomOut: () => stage.zoomBy(-1),
    fit: () => stage.zoomBy(0),
    save,
    saveNext,
    next: () => go(1),
    previous: () => go(-1),
    help: () => byId("keys").showModal(),
  };
  listenToKeys(actions);
  const buttons = {
    "tool-draw": actions.draw, "tool-erase": actions.erase, "tool-move": actions.move,
    undo: actions.undo, redo: actions.redo, "zoom-in": actions.zoomIn, "zoom-out": actions.zoomOut,
    "zoom-fit": actions.fit, save, "save-next": saveNext, next: actions.next,
    previous: actions.previous, help: actions.help, download,
  };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);
  byId("size").addEventListener("input", () => setSize(Number(byId("size").value)));
  byId("reset").addEventListener("click", () => {
    current().correction.clear();
    stage.draw();
    showState();
  });
  // After a click the keys belong to the page again; who walks with Tab keeps the focus.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest("button")?.blur();
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select")) event.target.blur();
  });
  window.addEventListener("beforeunload", (event) => {
    if (gallery.unsaved.size) event.preventDefault();
  });
}

async function start() {
  page = await api.page();
  document.title = `${page.run} – tag2mask`;
  const palette = [null, ...page.classes.map(({ color }) => color)];
  stage = new Stage(palette, () => {
    say("");
    showState();
  });
  panel = new Panel(page, {
    remake,
    brush: (value, isChosen) => {
      stage.value = value;
      if (isChosen && stage.tool !== "draw") setTool("draw");
    },
    tags: changeTags,
    folderTags: () => gallery.find(gallery.current).tags,
    view: (hidden) => {
      stage.hidden = hidden;
      stage.draw();
    },
  });
  gallery = new Gallery(page, { open: openImage, say });
  listen();
  setTool("draw");
  setSize(24);
  panel.chooseBrush(panel.brush);
  await gallery.refresh();
  const first = gallery.images.find(({ saved }) => !saved) ?? gallery.images[0];
  if (first) await openImage(first.id);
  else showState();
}

start().catch((error) => say(error.message, true));
