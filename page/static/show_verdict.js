() => {
  // On a narrow screen the answer may lie below what is in sight; screen readers are told of it.
  const verdict = document.querySelector("#verdict");
  if (verdict.getBoundingClientRect().top > innerHeight * 0.7) verdict.scrollIntoView({block: "start"});
}
