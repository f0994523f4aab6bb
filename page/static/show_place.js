(place) => {
  // Where a step of the tour looks, when its answer is there.
  if (place) document.querySelector(`#${place}`)?.scrollIntoView({block: "start"});
}
