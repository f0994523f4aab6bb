(query) => {
  // The whole address of a link; the page's language goes along.
  const tag = new URLSearchParams(location.search).get("lang");
  return location.origin + location.pathname + query + (tag ? "&lang=" + encodeURIComponent(tag) : "");
}
