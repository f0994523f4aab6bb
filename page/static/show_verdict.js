() => {
  // On a narrow screen the answer may lie below what is in sight; screen readers are told of it.
  const verdict = document.querySelector("#verdict");
  if (verdict.getBoundingClientRect().top > innerHeight) verdict.scrollIntoView({block: "start"});
}
