"use strict";
for (const slider of document.querySelectorAll(".compare input")) {
  const move = () => slider.parentElement.style.setProperty("--left", slider.value + "%");
  slider.addEventListener("input", move);
  move();
}
