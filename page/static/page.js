() => {
  // Screen readers are told of what appears, and which sections are open. Views are built when they are opened, so the page is watched.
  const told = "#verdict, #told, #altered, #tour-text, .faithful, #many-told, #batch-told";
  const mark = () => {
    document.querySelectorAll(told).forEach((e) => e.setAttribute("aria-live", "polite"));
    document.querySelectorAll(".gr-accordion .label-wrap").forEach((b) => {
      const open = String(b.classList.contains("open"));
      if (b.getAttribute("aria-expanded") !== open) b.setAttribute("aria-expanded", open);
    });
  };
  new MutationObserver(mark).observe(document.body, {childList: true, subtree: true, attributes: true, attributeFilter: ["class"]});
  mark();
  document.addEventListener("keydown", (e) => {  // Ctrl+Enter asks
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey) && e.target.closest("#passage")) document.querySelector("#run").click();
  });
}
