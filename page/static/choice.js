// Weights that are not loaded yet may take minutes. Meanwhile this page stays, and it is left only for a page that is there.
let choices = 0; // the last one counts

// What the address asks for, an example or a language, goes along.
const linkOf = (e) => {
  const link = e.target.closest("a");
  if (link) link.search = location.search;
  return link;
};
element.addEventListener("pointerover", linkOf);
element.addEventListener("focusin", linkOf);
element.addEventListener("click", async (e) => {
  const link = linkOf(e), told = element.querySelector("[role=status]");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey) return;  // a new tab says by itself that it waits
  e.preventDefault();
  const choice = ++choices;
  told.textContent = told.dataset.loading;
  let answer, failed = told.dataset.failed;
  try {
    do answer = await fetch(link.href, {headers: {Accept: "text/html"}}); while (answer.status === 202 && choice === choices);
    if (!answer.ok) failed = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("p").textContent;
  } catch {}  // no answer at all
  if (choice !== choices) return;
  told.textContent = answer?.ok ? "" : failed;
  if (answer?.ok) location.assign(link.href);
});
