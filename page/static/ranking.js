// A row's button asks for its evidence.
element.addEventListener("click", (e) => {
  const b = e.target.closest("button[data-row]");
  if (b) trigger("select", {row: +b.dataset.row});
});
