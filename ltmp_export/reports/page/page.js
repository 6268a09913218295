"use strict";
const courses = [...document.querySelectorAll(".course")].map((figure) => {
  const slider = figure.querySelector("input");
  const told = figure.querySelector("output");
  const list = figure.querySelector(".frames");
  const frames = [...list.children];
  const show = (place) => {
    frames.forEach((frame, number) => { frame.hidden = number !== place; });
    slider.value = String(place);
    told.value = frames[place].dataset.told;
    slider.setAttribute("aria-valuetext", frames[place].dataset.told);
  };
  const unfolded = [...list.querySelectorAll("details")];
  unfolded.forEach((one) => one.addEventListener("toggle", () => {
    unfolded.forEach((other) => { other.open = one.open; });
  }));
  slider.addEventListener("input", () => show(Number(slider.value)));
  list.classList.add("one");
  figure.querySelector(".controls").hidden = false;
  show(Number(slider.value));
  return show;
});
const all = document.querySelector("#all-blocks");
if (all) {
  const told = document.querySelector("#all-told");
  const names = all.dataset.told.split("|");
  const tell = () => {
    const place = Number(all.value);
    told.value = names[place];
    all.setAttribute("aria-valuetext", names[place]);
  };
  all.addEventListener("input", () => {
    tell();
    courses.forEach((show) => show(Number(all.value)));
  });
  tell();
  all.closest(".controls").hidden = false;
}
