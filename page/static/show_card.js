() => {
  // The tab "About" may have to be built first.
  const show = (tries) => {
    const card = document.querySelector("#card-title");
    if (card?.checkVisibility()) card.scrollIntoView({block: "start"});
    else if (tries) setTimeout(() => show(tries - 1), 100);
  };
  show(30);
}
