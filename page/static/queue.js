// Where the queue is full Gradio's own client gives up. Here the question stays in the browser and is asked again by itself until there is room; meanwhile the
// visitor is told how long the line is, in the sentence that came with the refusal.
() => {
  const RETRY = 3000, APART = 2000; // ms between two tries, and by how much visitors differ in it
  const PATIENCE = 600000; // ms after which the refusal is handed on
  if (window.fetch.waits) return;
  const fetched = window.fetch.bind(window);
  let waiting = 0; // questions of this page
  const tell = (line) => {
    let told = document.querySelector("#line");
    if (!told) {
      told = document.createElement("div");
      told.id = "line";
      told.setAttribute("role", "status");
      document.body.append(told);
    }
    told.textContent = line;
    told.hidden = !line;
  };
  const patient = async (...given) => {
    const address = String(given[0]?.url ?? given[0]), begun = Date.now();
    let answer = await fetched(...given);
    if (answer.status !== 429 || !address.includes("/queue/join")) return answer;
    waiting += 1;
    try {
      while (answer.status === 429 && Date.now() - begun < PATIENCE) {
        tell((await answer.clone().json()).line);
        await new Promise((done) => setTimeout(done, RETRY + APART * Math.random()));
        answer = await fetched(...given);
      }
    } finally {
      waiting -= 1;
      if (!waiting) tell("");
    }
    return answer;
  };
  patient.waits = true;
  window.fetch = patient;
}
