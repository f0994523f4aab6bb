(place) => {
  // Where a step of the tour looks; once, so that nobody who reads on is taken away.
  if (place) document.querySelector(`#${place}`)?.scrollIntoView({block: "start"});
  return "";
}
