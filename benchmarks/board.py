"""How fast the gate board follows the hand: ``python -m benchmarks.board [--words 350] [--steps 100]``.

Opens the page in Chromium with the embedded weights, asks about a long passage, and lets the pointer go over words and
places. A step is timed from the event until its style and layout are done, and until the frame after it has begun.
Nothing is asked of the server meanwhile (that too is counted). The server explains the passage first, which
takes some minutes on two cores. Needs Chromium and playwright.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

PICTURE = Path(__file__).parents[1] / "assets" / "examples" / "china.jpg"
SENTENCE = (
    "The old house stood among flowers, and the smell of fish and bread came from the harbour, where a ship "
    "lay with oranges and wine; a dog slept."
)
STEPS = """async (steps) => {
  const words = [...document.querySelectorAll('.gate-word')], picture = document.querySelector('.gate-picture'), box = \
picture.getBoundingClientRect();
  const frame = () => new Promise((done) => requestAnimationFrame(done)), drawn = {words: [], places: []}, seen = \
{words: [], places: []};
  const step = async (kind, target, event) => {
    const start = performance.now();
    target.dispatchEvent(event);
    document.body.getBoundingClientRect();
    drawn[kind].push(performance.now() - start);
    await frame();
    seen[kind].push(performance.now() - start);
  };
  for (let n = 0; n < steps; n++) {
    await step('words', words[Math.floor(n * words.length / steps)], new PointerEvent('pointerover', {bubbles: true, \
pointerType: 'mouse'}));
    const at = {clientX: box.left + box.width * (n % 10 + .5) / 10, clientY: box.top + box.height * (Math.floor(n / \
10) % 10 + .5) / 10};
    await step('places', picture, new PointerEvent('pointermove', {bubbles: true, pointerType: 'mouse', ...at}));
  }
  return {drawn, seen, words: words.length};
}"""


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board", description=__doc__.split("\n\n")[0])
    parser.add_argument("--words", type=int, default=350)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    words = SENTENCE.split()
    passage = " ".join(words[n % len(words)] for n in range(options.words))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from playwright.sync_api import sync_playwright

        import app
        from tools.chromium import chromium

        demo = app.build(*app.load_pipeline())
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.launch_settings())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(url)
            page.locator("#picture input[type=file]").set_input_files(str(PICTURE))
            page.get_by_label("Passage").fill(passage)
            page.locator("#run").click()
            page.locator(".gate-word").first.wait_for(timeout=900_000)
            # the server is done with this pair, and disturbs no step
            page.wait_for_function("() => !document.querySelector('#told').innerText.trim()", timeout=900_000)
            page.wait_for_timeout(2000)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            times = page.evaluate(STEPS, options.steps)
            browser.close()
        demo.close()
    print(f"{times['words']} words, {2 * options.steps} steps, {len(asked)} requests meanwhile\n")
    print(
        "| step to | drawn, median | drawn, slowest | next frame, median | next frame, slowest |\n| --- | --- | "
        "--- | --- | --- |"
    )
    for kind in ("words", "places"):
        cells = [f"{f(times[what][kind]):.1f} ms" for what in ("drawn", "seen") for f in (np.median, np.max)]
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
