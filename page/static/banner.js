// The banner's link leads to the tab "About".
element.addEventListener("click", (e) => {
  if (!e.target.closest("a")) return;
  e.preventDefault();
  trigger("click");
});
