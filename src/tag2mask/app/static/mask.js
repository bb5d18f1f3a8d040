// A mask and the strokes over it. Strokes are a layer of their own: when a slider changes the mask
// of the network, corrected pixels stay.

export const BACKGROUND = 0;
export const IGNORE = 255;
const UNTOUCHED = 254;
const MOST_STROKES = 200;
const MOST_BYTES = 128 * 1024 * 1024;

/** Turn [value, length, ...] into one value per pixel. */
export function decodeRuns(runs, size) {
  const mask = new Uint8Array(size);
  let at = 0;
  for (let index = 0; index < runs.length; index += 2) {
    mask.fill(runs[index], at, at + runs[index + 1]);
    at += runs[index + 1];
  }
  return mask;
}

/** Turn one value per pixel into [value, length, ...]. */
export function encodeRuns(mask) {
  const runs = [];
  let start = 0;
  for (let at = 1; at <= mask.length; at += 1) {
    if (at === mask.length || mask[at] !== mask[start]) {
      runs.push(mask[start], at - start);
      start = at;
    }
  }
  return runs;
}

export class Correction {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.made = new Uint8Array(width * height); // the mask of the network
    this.edit = new Uint8Array(width * height).fill(UNTOUCHED);
    this.done = [];
    this.undone = [];
    this.before = null;
    this.box = null;
    this.unsaved = false;
  }

  value(index) {
    return this.edit[index] === UNTOUCHED ? this.made[index] : this.edit[index];
  }

  composed() {
    return this.edit.map((value, index) => (value === UNTOUCHED ? this.made[index] : value));
  }

  /** Whether a person changed a pixel. */
  get isEdited() {
    return this.edit.some((value) => value !== UNTOUCHED);
  }

  begin() {
    this.before = this.edit.slice();
    this.box = null;
  }

  /** Paint the pixels whose center is within `radius` of a line; return the changed rectangle. */
  line(x0, y0, x1, y1, radius, value) {
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const right = Math.min(this.width, Math.ceil(Math.max(x0, x1) + radius) + 1);
    const bottom = Math.min(this.height, Math.ceil(Math.max(y0, y1) + radius) + 1);
    if (left >= right || top >= bottom) return null;
    const dx = x1 - x0;
    const dy = y1 - y0;
    const length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        const px = x + 0.5 - x0;
        const py = y + 0.5 - y0;
        const share = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const ox = px - share * dx;
        const oy = py - share * dy;
        if (ox * ox + oy * oy <= radius * radius) this.edit[y * this.width + x] = value;
      }
    }
    const box = { left, top, right, bottom };
    this.box = this.box ? union(this.box, box) : box;
    return box;
  }

  end() {
    if (this.box) {
      this.push({ ...this.box, before: this.crop(this.before, this.box), after: this.crop(this.edit, this.box) });
    }
    this.before = null;
    this.box = null;
  }

  undo() {
    return this.step(this.done, this.undone, "before");
  }

  redo() {
    return this.step(this.undone, this.done, "after");
  }

  /** Put a complete mask over that of the network, such as the saved one. */
  cover(mask) {
    this.edit.set(mask);
  }

  /** Remove all strokes; can be undone. */
  clear() {
    const box = { left: 0, top: 0, right: this.width, bottom: this.height };
    const before = this.edit.slice();
    this.edit.fill(UNTOUCHED);
    this.push({ ...box, before, after: this.edit.slice() });
  }

  push(stroke) {
    this.done.push(stroke);
    this.undone = [];
    this.unsaved = true;
    const bytes = () => this.done.reduce((sum, one) => sum + 2 * one.before.length, 0);
    while (this.done.length > 1 && (this.done.length > MOST_STROKES || bytes() > MOST_BYTES)) {
      this.done.shift();
    }
  }

  step(from, to, side) {
    const stroke = from.pop();
    if (!stroke) return null;
    to.push(stroke);
    const width = stroke.right - stroke.left;
    for (let y = stroke.top; y < stroke.bottom; y += 1) {
      const at = (y - stroke.top) * width;
      this.edit.set(stroke[side].subarray(at, at + width), y * this.width + stroke.left);
    }
    this.unsaved = true;
    return stroke;
  }

  crop(layer, box) {
    const width = box.right - box.left;
    const part = new Uint8Array(width * (box.bottom - box.top));
    for (let y = box.top; y < box.bottom; y += 1) {
      const at = y * this.width + box.left;
      part.set(layer.subarray(at, at + width), (y - box.top) * width);
    }
    return part;
  }
}

function union(one, other) {
  return {
    left: Math.min(one.left, other.left),
    top: Math.min(one.top, other.top),
    right: Math.max(one.right, other.right),
    bottom: Math.max(one.bottom, other.bottom),
  };
}
