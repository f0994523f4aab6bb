(name) => {
  // Where a step of the tour leads.
  if (name) document.querySelector(`#section-${name}`)?.scrollIntoView({block: "start"});
}
