// Another language without leaving the page, so that an uploaded picture and its answer stay. The address keeps the choice, and every message tells it
// to the server.
element.addEventListener("click", (e) => {
  const link = e.target.closest("a");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey) return;
  e.preventDefault();
  const asked = new URLSearchParams(location.search);
  asked.set("lang", link.lang);
  history.replaceState(history.state, "", location.pathname + "?" + asked);
  // What the model told stands in the language it was told in, so it is asked again.
  window.askAgain = [["#verdict .verdict, #verdict [role=alert]", "#run"], ["#ranking tbody tr", "#rank"]].filter(([told]) => document.querySelector(told));
  trigger("click");
});
