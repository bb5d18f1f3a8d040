// The image, its mask as a transparent layer, the brush, and zoom.

import { BACKGROUND, IGNORE } from "/static/mask.js";

const ZOOM_STEP = 1.25;
const MOST_ZOOM = 32;
const IGNORE_COLOR = [224, 224, 224];

export class Stage {
  /** `palette`: RGB per mask value; `onStroke`: called after each stroke. */
  constructor(palette, onStroke) {
    this.viewport = document.getElementById("viewport");
    this.sheet = document.getElementById("sheet");
    this.picture = document.getElementById("picture");
    this.canvas = document.getElementById("overlay");
    this.cursor = document.getElementById("cursor");
    this.context = this.canvas.getContext("2d");
    this.palette = palette;
    this.onStroke = onStroke;
    this.hidden = new Set();
    this.shown = true;
    this.tool = "draw";
    this.value = 1;
    this.size = 24; // diameter of the brush in pixels of the image
    this.zoom = 0; // 0: fits the window
    this.correction = null;
    this.last = null; // where the pointer was while it is pressed
    this.stroked = null; // what is painted while it is pressed, also if another image opens meanwhile
    this.listen();
  }

  show(correction) {
    this.correction = correction;
    document.getElementById("empty").hidden = true;
    this.sheet.hidden = false;
    this.canvas.width = correction.width;
    this.canvas.height = correction.height;
    this.resize();
    this.draw();
  }

  /** Show a line in place of an image. */
  clear(line) {
    this.correction = null;
    this.sheet.hidden = true;
    document.getElementById("empty").hidden = false;
    document.getElementById("empty").textContent = line;
  }

  get scale() {
    if (!this.correction) return 1;
    if (this.zoom) return this.zoom;
    const { width, height } = this.correction;
    const box = this.viewport;
    return Math.min((box.clientWidth - 16) / width, (box.clientHeight - 16) / height);
  }

  resize() {
    if (!this.correction) return;
    const scale = this.scale;
    this.sheet.style.width = `${this.correction.width * scale}px`;
    this.sheet.style.height = `${this.correction.height * scale}px`;
    this.drawCursor(null);
  }

  /** Zoom by steps, around the middle of the window; 0 fits. */
  zoomBy(steps) {
    if (!this.correction) return;
    const box = this.viewport;
    const x = (box.scrollLeft + box.clientWidth / 2) / Math.max(1, box.scrollWidth);
    const y = (box.scrollTop + box.clientHeight / 2) / Math.max(1, box.scrollHeight);
    this.zoom = steps ? Math.min(MOST_ZOOM, Math.max(0.05, this.scale * ZOOM_STEP ** steps)) : 0;
    this.resize();
    box.scrollLeft = x * box.scrollWidth - box.clientWidth / 2;
    box.scrollTop = y * box.scrollHeight - box.clientHeight / 2;
  }

  setTool(tool) {
    this.tool = tool;
    this.canvas.classList.toggle("move", tool === "move");
    this.drawCursor(null);
  }

  /** Draw the mask again, all of it or a rectangle. */
  draw(box) {
    const one = this.correction;
    if (!one) return;
    const { left, top, right, bottom } = box || { left: 0, top: 0, right: one.width, bottom: one.height };
    const pixels = this.context.createImageData(right - left, bottom - top);
    const colors = this.colors();
    const words = new Uint32Array(pixels.data.buffer);
    let at = 0;
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        words[at] = colors[one.value(y * one.width + x)];
        at += 1;
      }
    }
    this.context.putImageData(pixels, left, top);
  }

  /** Colors of mask values as the words of image data; 0 is transparent. */
  colors() {
    const colors = new Uint32Array(256);
    const bytes = new Uint8Array(colors.buffer);
    for (let value = 1; value < 256; value += 1) {
      const color = value === IGNORE ? IGNORE_COLOR : this.palette[value];
      if (color && this.shown && !this.hidden.has(value)) bytes.set([...color, 255], 4 * value);
    }
    return colors;
  }

  listen() {
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(kind, () => this.release());
    }
    this.canvas.addEventListener("pointerleave", () => { this.cursor.hidden = true; });
    this.viewport.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
    window.addEventListener("resize", () => this.resize());
  }

  press(event) {
    if (!this.correction || this.stroked || event.button > 0) return;
    const isTouch = event.pointerType === "touch";
    if (this.tool === "move" && isTouch) return; // the browser scrolls
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.point(event);
    if (this.tool === "move") return;
    this.stroked = this.correction;
    this.stroked.begin();
    this.paint(this.last);
  }

  move(event) {
    const point = this.point(event);
    this.drawCursor(point);
    if (!this.last) return;
    if (!this.stroked) {
      this.viewport.scrollBy(-event.movementX, -event.movementY);
      return;
    }
    for (const part of event.getCoalescedEvents?.() ?? []) this.paint(this.point(part));
    this.paint(point);
  }

  release() {
    this.last = null;
    if (!this.stroked) return;
    this.stroked.end();
    this.stroked = null;
    this.onStroke();
  }

  paint(point) {
    const value = this.tool === "erase" ? BACKGROUND : this.value;
    const { x, y } = this.last;
    const box = this.stroked.line(x, y, point.x, point.y, this.size / 2, value);
    this.last = point;
    if (box && this.stroked === this.correction) this.draw(box);
  }

  /** Position of a pointer in pixels of the image. */
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * this.canvas.width) / box.width,
      y: ((event.clientY - box.top) * this.canvas.height) / box.height,
    };
  }

  drawCursor(point) {
    this.cursor.hidden = point === null || this.tool === "move";
    if (this.cursor.hidden) return;
    const scale = this.scale;
    this.cursor.style.width = `${this.size * scale}px`;
    this.cursor.style.height = this.cursor.style.width;
    this.cursor.style.left = `${point.x * scale}px`;
    this.cursor.style.top = `${point.y * scale}px`;
  }
}
