// Keyboard shortcuts, and the dialog that lists them.

export function listenToKeys(actions) {
  const keys = [
    ["b", "B", "Draw", actions.draw],
    ["e", "E", "Erase", actions.erase],
    ["h", "H", "Move the enlarged image", actions.move],
    ["1", "1 to 9", "Class of the brush", null],
    ["u", "U", "Brush: unsure, ignored by training", actions.unsure],
    ["[", "[", "Smaller brush", actions.smaller],
    ["]", "]", "Larger brush", actions.larger],
    ["z", "Z", "Undo", actions.undo],
    ["y", "Y or Shift+Z", "Redo", actions.redo],
    ["m", "M", "Hide or show the mask", actions.toggleMask],
    ["+", "+", "Zoom in", actions.zoomIn],
    ["-", "−", "Zoom out", actions.zoomOut],
    ["f", "F", "Fit the window", actions.fit],
    ["s", "S", "Save the mask", actions.save],
    ["enter", "Enter", "Save, and show the next image", actions.saveNext],
    ["n", "N or →", "Next image", actions.next],
    ["p", "P or ←", "Previous image", actions.previous],
    ["?", "?", "Show these keys", actions.help],
  ];
  const list = document.querySelector("#keys dl");
  for (const [, label, meaning] of keys) {
    const term = document.createElement("dt");
    const key = document.createElement("kbd");
    const about = document.createElement("dd");
    key.textContent = label;
    about.textContent = meaning;
    term.append(key);
    list.append(term, about);
  }
  const known = new Map(keys.map(([key, , , action]) => [key, action]));
  known.set("arrowright", actions.next);
  known.set("arrowleft", actions.previous);
  known.set("=", actions.zoomIn);

  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey || document.querySelector("dialog[open]") || isTyping(event.target, key)) return;
    if (command && !["z", "y", "s"].includes(key)) return; // the browser's own
    const action = key === "z" && event.shiftKey ? actions.redo
      : /^[1-9]$/.test(key) ? () => actions.brush(Number(key)) : known.get(key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Whether a key belongs to the element that has the focus. */
function isTyping(target, key) {
  if (target.matches("input[type=range]")) return key.startsWith("arrow");
  if (target.matches("button, a, [role=radio]")) return key === "enter" || key === " ";
  return target.matches("input:not([type=checkbox]), select, textarea");
}
