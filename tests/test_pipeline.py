"""The pipeline: answers, ranking, explanations, weights that cannot be had, the command line."""

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import InputError, MustiPipeline, WeightsError
from musti_model.__main__ import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (30 + 10 * i, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        paths.append(folder / f"{i}.png")
    return paths


TEXT = "The roses smelled sweet in the old house."


def test_batch_and_rank_agree_with_single(pipe, pictures):
    texts = [TEXT, "roses", "Die Hunde liefen über die Straße"]
    single = [pipe(p, t) for p, t in zip(pictures, texts)]
    assert np.allclose([s.logit for s in single], [b.logit for b in pipe.predict(pictures, texts)], atol=1e-4)
    ranked = pipe.rank(pictures[0], texts)
    assert sorted(i for i, _ in ranked) == [0, 1, 2]
    assert [a.probability for _, a in ranked] == sorted((a.probability for _, a in ranked), reverse=True)
    assert dict(ranked)[0].logit == pytest.approx(single[0].logit, abs=1e-4)
    assert dict(pipe.rank(pictures, TEXT))[1].logit == pytest.approx(pipe(pictures[1], TEXT).logit, abs=1e-4)


def test_the_one_picture_is_encoded_once(pipe, pictures, monkeypatch):
    calls = []
    encode = pipe.model.encode_images
    monkeypatch.setattr(pipe.model, "encode_images", lambda images: calls.append(1) or encode(images))
    pipe.rank(pictures[0], [TEXT] * 40)
    assert len(calls) == 1


def test_answer_is_consistent(pipe, pictures):
    answer = pipe(pictures[0], TEXT)
    assert answer.logit == pytest.approx(sum(answer.votes.values()) + answer.vote_bias, abs=1e-5)
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-answer.logit)), abs=1e-6)
    assert (answer.label == "YES") == (answer.probability >= answer.threshold)
    assert json.loads(json.dumps(answer.to_json())) == answer.to_json()


def test_bad_calls(pipe, pictures):
    with pytest.raises(InputError, match="3 pictures and 1 passages"):
        pipe.predict(pictures, [TEXT])
    with pytest.raises(InputError, match="Rank takes"):
        pipe.rank(pictures, [TEXT])
    with pytest.raises(InputError, match="empty"):
        pipe(pictures[0], "  ")


def test_explanation(pipe, tmp_path):
    picture = Image.effect_noise((60, 30), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with torch.no_grad():  # explaining needs gradients, whatever surrounds it
        e = pipe.explain(tmp_path / "turned.jpg", TEXT)
    assert e.prediction.logit == pytest.approx(pipe(tmp_path / "turned.jpg", TEXT).logit, abs=1e-4)
    assert set(e.maps) == {"gate:vit", "gate:resnet", "rollout:vit", "gradcam:resnet"}
    assert all(m.shape == (60, 30) and np.isfinite(m).all() for m in e.maps.values())
    assert e.words == TEXT.replace(".", " .").split()
    assert all(TEXT[a:b] == w for w, (a, b) in zip(e.words, e.word_spans))
    assert all(0 < s < 1 for g in e.gates.values() for s in g.words) and e.gates["vit"].patches.shape == (4, 4)
    assert e.gate_weights.w_image == pytest.approx(0.7)
    assert e.head_map("vit", 1).shape == (60, 30)
    assert not any(p.grad is not None for p in pipe.model.parameters())
    manifest = json.loads((e.save(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["settings"]["revision"] == pipe.revision and "torch" in manifest["settings"]["versions"]
    assert np.array_equal(np.load(tmp_path / "out" / "gate-vit.npy"), e.maps["gate:vit"])
    assert Image.open(tmp_path / "out" / "rollout-vit.png").size == (30, 60)


def test_command_line(folder, pictures, tmp_path, capsys):
    assert main([str(pictures[0]), TEXT, "--weights", str(folder), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"label", "probability", "threshold", "similarities", "notices"}
    assert main([str(tmp_path / "none.png"), TEXT, "--weights", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def damaged(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def test_weights_that_cannot_be_had(folder, tmp_path, monkeypatch):
    def load(change):
        return MustiPipeline.from_pretrained(damaged(folder, tmp_path / os.urandom(4).hex(), change))

    with pytest.raises(WeightsError, match="no weights at"):
        MustiPipeline.from_pretrained(tmp_path / "no" / "such" / "folder")
    with pytest.raises(WeightsError, match="no model.safetensors"):
        load(lambda f: (f / "model.safetensors").unlink())
    with pytest.raises(WeightsError, match="damaged"):
        load(lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:500]))
    with pytest.raises(WeightsError, match="colour"):
        load(lambda f: (f / "config.json").write_text(json.dumps(json.loads((f / "config.json").read_text()) | {"colour": 1})))
    with pytest.raises(WeightsError, match="incomplete or damaged"):
        load(lambda f: (f / "tokenizer.json").unlink())
    monkeypatch.setenv("MUSTI_MODEL", str(tmp_path / "gone"))
    with pytest.raises(WeightsError, match="gone"):
        MustiPipeline.from_pretrained()


HUB = {  # source: the Hub's answer, and words of the sentence that follows from it
    "me/missing": (404, "RepoNotFound", "no weights me/missing"),
    "me/gated": (401, "GatedRepo", "are gated"),
    "me/private": (401, "RepoNotFound", "are private"),
    "me/empty": (404, "EntryNotFound", "no config.json"),
    "me/model@v9": (404, "RevisionNotFound", "no revision v9"),
}


class Hub(BaseHTTPRequestHandler):
    """Answers like a Hub that does not hand the weights out, for one reason or another."""

    def do_HEAD(self):
        status, code, _ = next(answer for source, answer in HUB.items() if source.partition("@")[0] in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys, time
from musti_model import __main__ as program

for source in sys.argv[1:]:
    started = time.perf_counter()
    status = program.main(["x.png", "a rose", "--weights", source])
    print(status, time.perf_counter() - started)
"""


def fetch(sources, tmp_path, **environment):
    """[(status, sentence, seconds)] of the command line, in another process: the Hub client reads its settings at import."""
    settings = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1"} | environment
    done = subprocess.run([sys.executable, "-c", FETCH, *sources], capture_output=True, text=True, env=settings, timeout=120)
    sentences, results = done.stderr.splitlines(), [line.split() for line in done.stdout.splitlines()]
    assert len(sentences) == len(results) == len(sources), done.stderr
    return [(int(status), sentence, float(seconds)) for (status, seconds), sentence in zip(results, sentences)]


def test_hub_errors_are_sentences(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        results = fetch(HUB, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    for (_, _, words), (status, sentence, seconds) in zip(HUB.values(), results):
        assert status == 2 and words in sentence and seconds < 10, sentence


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_network_the_cache_is_used_and_the_rest_is_said_within_seconds(environment, folder, tmp_path):
    cache = tmp_path / "hub" / "models--me--cached"
    shutil.copytree(folder, cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    missing, cached = fetch(["me/model", "me/cached"], tmp_path, **environment)
    assert missing[0] == 2 and "cannot be reached" in missing[1] and missing[2] < 5
    assert "no picture file 'x.png'" in cached[1] and cached[2] < 20  # the weights were there; the picture is not


def test_the_batch_size_changes_nothing(pipe, pictures):
    texts = [TEXT, "roses", "Die Hunde liefen"]
    whole, split = pipe.predict(pictures, texts), pipe.predict(pictures, texts, batch=2)
    assert np.allclose([a.logit for a in whole], [a.logit for a in split], atol=1e-4)
    assert [i for i, _ in pipe.rank(pictures[0], texts, batch=2)] == [i for i, _ in pipe.rank(pictures[0], texts)]
    assert pipe.predict([], []) == [] == pipe.rank(pictures[0], [])


def test_threshold_and_temperature(pipe, pictures, monkeypatch):
    logit = pipe(pictures[0], TEXT).logit
    probability = 1 / (1 + np.exp(-logit / 4))
    for threshold, label in ((probability - 0.01, "YES"), (probability + 0.01, "NO")):
        monkeypatch.setattr(pipe, "config", replace(pipe.config, temperature=4.0, threshold=float(threshold)))
        answer = pipe(pictures[0], TEXT)
        assert answer.probability == pytest.approx(probability, abs=1e-5) and answer.label == label


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_maps_lie_on_the_upright_picture(pipe, tmp_path, guard):
    upright = Image.effect_noise((30, 60), 80).convert("RGB")
    upright.paste("red", (0, 0, 30, 15))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    expected = pipe.explain(tmp_path / "upright.png", TEXT)
    with guard():
        got = pipe.explain(tmp_path / "turned.png", TEXT)
    assert got.image.tobytes() == expected.image.tobytes()
    assert got.prediction.logit == pytest.approx(expected.prediction.logit, abs=1e-5)
    for name, values in expected.maps.items():
        assert np.allclose(got.maps[name], values, atol=1e-6), name
    assert expected.maps["gradcam:resnet"].max() > 0


def test_explaining_leaves_the_answer_alone(pipe, pictures):
    before = pipe(pictures[1], TEXT)
    explained = pipe.explain(pictures[1], TEXT).prediction
    assert explained.label == before.label and explained.notices == before.notices
    assert explained.similarities == pytest.approx(before.similarities, abs=1e-5)
    assert pipe(pictures[1], TEXT) == before


def test_a_passage_without_known_objects_says_so(pipe, pictures, monkeypatch):
    for bias, notices in ((50.0, 1), (-50.0, 0)):
        monkeypatch.setattr(pipe.model.none_logit, "data", torch.tensor(bias))
        answer = pipe(pictures[0], TEXT)
        assert sum("none of the 3 smell objects" in n for n in answer.notices) == notices
        assert bool(answer.objects_in_passage) != bool(notices)
    assert len(answer.objects_in_picture) == 3
