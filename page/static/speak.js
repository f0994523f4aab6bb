(tag, title) => {
  document.documentElement.lang = tag;
  document.title = title;
  for (const [, button] of window.askAgain ?? []) document.querySelector(button).click();
  window.askAgain = [];
}
