(query) => {
  // The whole address of a link; the page's language and how the board stands go along.
  const tag = new URLSearchParams(location.search).get("lang"), view = document.querySelector("#gate-board [data-view], #gate-board[data-view]")?.dataset.view;
  return location.origin + location.pathname + query + (view ? "&" + view : "") + (tag ? "&lang=" + encodeURIComponent(tag) : "");
}
