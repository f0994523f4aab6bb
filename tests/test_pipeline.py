"""The pipeline: answers, ranking, explanations, weights that cannot be had, the command line."""

import json
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from musti_model import ImageBranchConfig, InputError, MustiModel, MustiPipeline, MustiProcessor, WeightsError
from musti_model.__main__ import main
from musti_model.pipeline import _outdone
from tests.conftest import ANSWER, GATES, GRIDS, pipeline, tiny_model
from tests.hub import use_hub

RESNET_PUBLISHED = ImageBranchConfig(
    "resnet", "resnet18", {"channels": [8, 16, 32, 32]}, image_size=64, axes="published"
)


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
    assert (
        answer.probability == pytest.approx(1 / (1 + np.exp(-answer.logit / 1.6)), abs=1e-6)
        and answer.threshold == 0.37
    )
    assert (answer.label == "YES") == (answer.probability >= answer.threshold)
    assert json.loads(json.dumps(answer.to_json())) == answer.to_json()


def test_bad_calls(pipe, pictures):
    with pytest.raises(InputError, match="3 pictures and 1 passages"):
        pipe.predict(pictures, [TEXT])
    with pytest.raises(InputError, match="Rank takes"):
        pipe.rank(pictures, [TEXT])
    with pytest.raises(InputError, match="empty"):
        pipe(pictures[0], "  ")
    for call in (lambda: pipe.predict(pictures, [TEXT] * 3, batch=0), lambda: pipe.rank(pictures, TEXT, batch=-1)):
        with pytest.raises(ValueError, match="at least 1"):
            call()


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
    assert all(0 < s < 1 for g in e.gates.values() for s in g.words) and e.gates["vit"].meeting.shape == (
        len(e.words),
        *GRIDS["vit"],
    )
    assert e.gate_weights.w_image == pytest.approx(0.7)
    assert e.head_map("vit", 1).shape == (60, 30)
    assert not any(p.grad is not None for p in pipe.model.parameters())
    manifest = json.loads((e.save(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["settings"]["revision"] == pipe.revision and "torch" in manifest["settings"]["versions"]
    assert np.array_equal(np.load(tmp_path / "out" / "gate-vit.npy"), e.maps["gate:vit"])
    assert Image.open(tmp_path / "out" / "rollout-vit.png").size == (30, 60)


def test_command_line(folder, pictures, tmp_path, capsys):
    assert main([str(pictures[0]), TEXT, "--weights", str(folder), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == ANSWER
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
        load(
            lambda f: (f / "config.json").write_text(
                json.dumps(json.loads((f / "config.json").read_text()) | {"colour": 1})
            )
        )
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


def test_a_word_is_outdone_by_one_beside_it_that_names_the_same_more_surely():
    def outdone(*values, at, last=1):
        best = [SimpleNamespace(indices=1, values=v) for v in values[:-1]]
        return _outdone([*best, SimpleNamespace(indices=last, values=values[-1])], at)

    assert outdone(0.9, 0.5, 0.4, at=1) and outdone(0.4, 0.5, 0.9, at=1)  # the one before it, the one after it
    assert not outdone(0.5, 0.4, 0.9, at=0) and not outdone(0.9, 0.4, 0.5, at=2)  # two words away
    assert not outdone(0.5, 0.5, at=0) and not outdone(0.5, 0.9, at=0, last=2)  # no more surely; another thing


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch(sources, capsys):
    """[(status, sentence, seconds)] of the command line."""
    results = []
    for source in sources:
        started = time.perf_counter()
        status = main(["x.png", "a rose", "--weights", source])
        results.append((status, capsys.readouterr().err, time.perf_counter() - started))
    assert all(sentence.count("\n") == 1 for _, sentence, _ in results), results
    return results


class TroubledHub(BaseHTTPRequestHandler):
    """Does not hand the weights out, for one reason or another; breaks off in the middle of a file; is overloaded."""

    def do_HEAD(self):
        refused = next((a for source, a in HUB.items() if source.partition("@")[0] in self.path), None)
        if refused:
            self.answer(refused[0], {"X-Error-Code": refused[1]})
        elif "busy" in self.path:
            self.answer(503, {})
        else:
            self.answer(200, {"X-Repo-Commit": COMMIT, "ETag": '"1"', "Content-Length": "500"})

    def do_GET(self):
        self.do_HEAD()
        if "broken" in self.path:
            self.wfile.write(b"{" * 20)
            self.close_connection = True

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_hub_errors_are_sentences(tmp_path, monkeypatch, capsys):
    server = ThreadingHTTPServer(("127.0.0.1", 0), TroubledHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path, token=None)
    try:
        *refused, broken, busy = fetch([*HUB, "me/broken", "me/busy"], capsys)
    finally:
        server.shutdown()
        server.server_close()
    for (_, _, words), (status, sentence, seconds) in zip(HUB.values(), refused, strict=True):
        assert status == 2 and words in sentence and seconds < 10, sentence
    assert broken[0] == 2 and "could not be fetched" in broken[1]
    assert busy[0] == 2 and "status 503" in busy[1] and busy[2] < 10


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_cache_is_used_and_the_rest_is_said_within_seconds(
    offline, folder, tmp_path, monkeypatch, capsys
):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path, token=None)  # nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    cache = tmp_path / "models--me--cached"
    shutil.copytree(folder, cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    missing, cached = fetch(["me/model", "me/cached"], capsys)
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
    # of which Grad-CAM finds something
    upright = Image.fromarray(np.random.default_rng(5).integers(0, 255, (60, 30, 3), dtype=np.uint8))
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


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_a_picture_of_nothing_known_says_so(tokenizer, pictures, gate):
    pipe = pipeline(tokenizer, **GATES[gate])
    pipe.model.none_logit.data.fill_(-50.0)  # the passage is full of names
    for bias, unsure in ((50.0, True), (-50.0, False)):
        pipe.model.nothing_logit.data.fill_(bias)
        for answer in (
            pipe(pictures[0], TEXT),
            pipe.rank(pictures[0], [TEXT])[0][1],
            pipe(pipe.ask(pictures[0], TEXT)),
        ):
            assert (
                answer.unsure == unsure
                and (
                    "The model recognises nothing it knows in this picture, so its answer says little."
                    in answer.notices
                )
                == unsure
            )
            assert len(answer.objects_in_picture) == 3 and set(dict(answer.objects_in_picture)) == set(pipe.objects)
            assert answer.to_json()["unsure"] == unsure and answer.to_json()["objects_in_picture"][0] == list(
                answer.objects_in_picture[0]
            )
            assert not any("not sure what the picture shows" in n for n in answer.notices) or not unsure


def shows(pipe, monkeypatch, **shares: list[float]) -> None:
    """From now on pictures show the objects with these probabilities, the last of nothing known, by branch."""
    answers = iter([torch.tensor([shares[name]]).log() for name in pipe.model.branches] * 10)
    monkeypatch.setattr(pipe.model, "name_picture", lambda tokens: next(answers))


def test_a_doubtful_picture_is_said_to_be_one(pipe, pictures, monkeypatch):
    """Of which the best guess has less than SEEN, and still more than nothing."""
    doubt = "The model is not sure what the picture shows: its best guess, dog, has 38%."
    shows(pipe, monkeypatch, vit=[0.2, 0.38, 0.1, 0.32], resnet=[0.2, 0.38, 0.1, 0.32])
    answer = pipe(pictures[0], TEXT)
    assert doubt in answer.notices and answer.objects_in_picture[0] == ("dog", 0.38)
    shows(pipe, monkeypatch, vit=[0.2, 0.42, 0.1, 0.28], resnet=[0.2, 0.42, 0.1, 0.28])
    assert not any("not sure what the picture shows" in n for n in pipe(pictures[0], TEXT).notices)


def test_what_a_picture_shows_is_the_mean_of_its_branches_by_hand(pipe, pictures, monkeypatch):
    shows(pipe, monkeypatch, vit=[0.7, 0.1, 0.1, 0.1], resnet=[0.1, 0.3, 0.2, 0.4])
    assert pipe(pictures[0], TEXT).objects_in_picture == [("flower", 0.4), ("dog", 0.2), ("fish", 0.15)]


@pytest.mark.parametrize(("first", "others", "read"), [(0.45, 0.6, True), (0.99, 0.4, True), (0.9, 0.05, False)])
def test_a_word_names_what_its_pieces_name_on_the_average(pipe, pictures, monkeypatch, first, others, read):
    """Of a word of two to five pieces, where one piece alone would say something else than the mean."""
    passage = "The sweethouse stank."
    word = next(w for w in pipe.processor.passages([passage]).words[0] if w.text == "sweethouse")
    assert 2 <= len(word.pieces) <= 5

    def named(words):
        of_pieces = torch.full((*words.mask.shape, 4), 0.01)
        of_pieces[..., 3] = 0.97
        for piece in word.pieces:
            share = first if piece == word.pieces[0] else others
            of_pieces[:, piece] = torch.tensor([0.0025, share, 0.0025, 0.995 - share])
        return of_pieces.log()

    monkeypatch.setattr(pipe.model, "name_words", named)
    assert pipe(pictures[0], passage).objects_in_passage == ([("dog", word.text)] if read else [])


def test_what_a_picture_shows_is_the_mean_of_its_branches(word_pipe, pictures):
    question = word_pipe.ask(pictures[0], TEXT)
    shown = torch.stack([word_pipe.model.name_picture(t).softmax(-1) for t in question.encoded.values()]).mean(0)[0]
    assert dict(word_pipe(question).objects_in_picture) == pytest.approx(
        {o: float(p) for o, p in zip(word_pipe.objects, shown)}, abs=1e-3
    )
    assert len(shown) == 4 and float(shown.sum()) == pytest.approx(1, abs=1e-5)


def test_many_threads_share_one_pipeline(pipe, pictures):
    expected = [pipe.explain(p, TEXT).maps["rollout:vit"] for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (i % 3, pool.submit(pipe.explain if i % 2 else pipe.__call__, pictures[i % 3], TEXT)) for i in range(24)
        ]
    for row, job in jobs:
        result = job.result()
        if hasattr(result, "maps"):
            assert np.allclose(result.maps["rollout:vit"], expected[row], atol=1e-6)
    assert all(not m._forward_hooks for m in pipe.model.modules())


def test_each_side_is_read_once_when_ranking(pipe, pictures, monkeypatch):
    calls = []
    for name in ("encode_images", "name_words"):
        real = getattr(pipe.model, name)
        monkeypatch.setattr(pipe.model, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    pipe.rank(pictures, TEXT, batch=1)
    assert calls.count("name_words") == 1
    calls.clear()
    pipe.rank(pictures[0], [TEXT] * 3, batch=1)
    assert calls.count("encode_images") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": "none"},
        {"padding": "carry"},
        {"branches": (RESNET_PUBLISHED,), "padding": "carry"},
        *[GATES[g] for g in ("word", "linear", "word by place")],
    ],
)
def test_other_systems_rank_and_explain(changes, tokenizer, pictures):
    model = tiny_model(**changes)
    pipe = MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu", precision="float32")
    assert pipe.card == {} and pipe.revision == "unsaved"
    single = [pipe(p, TEXT).logit for p in pictures]
    ranked = dict(pipe.rank(pictures, TEXT))
    assert [ranked[i].logit for i in range(3)] == pytest.approx(single, abs=1e-4)
    turned = dict(pipe.rank(pictures[0], [TEXT, "roses"]))
    assert turned[0].logit == pytest.approx(single[0], abs=1e-4)
    e = pipe.explain(pictures[0], TEXT)
    assert all(len(v) == len(e.words) for v in e.word_attention.values()) and set(e.word_attention) == set(
        e.prediction.similarities
    )
    assert bool(e.gates) == (model.config.gate != "none")


def test_maps_of_a_large_picture_stay_small_until_drawn(pipe):
    e = pipe.explain(Image.effect_noise((3000, 1500), 80).convert("RGB"), TEXT)
    assert e.maps["gate:vit"].shape == (1500, 3000)
    small = e.fit(600)
    assert (
        small.image.size == (600, 300)
        and small.maps["rollout:vit"].shape == (300, 600) == small.head_map("vit", 0).shape
    )
    assert len(pickle.dumps(small)) < 2_000_000
    assert e.fit(5000).image.size == (3000, 1500)


@pytest.mark.parametrize("content", ["{broken", "[1]", '{"test": 3}', '{"test": {"f1_macro": "<b>", "pairs": {}}}'])
def test_a_card_that_makes_no_sense_does_not_stop_the_weights(folder, tmp_path, content):
    copy = damaged(folder, tmp_path, lambda f: (f / "metrics.json").write_text(content))
    assert isinstance(MustiPipeline.from_pretrained(copy).card, dict)


def test_the_model_class_itself_loads_strictly(folder, tmp_path):
    def drop(copy):
        state = load_file(copy / "model.safetensors")
        del state["fusion.scalars.weight"]
        save_file(state, copy / "model.safetensors")

    with pytest.raises(RuntimeError, match="fusion.scalars.weight"):
        MustiModel.from_pretrained(damaged(folder, tmp_path, drop))
    config = json.loads((folder / "config.json").read_text()) | {"thresold": 0.9}
    with pytest.raises(ValueError, match="thresold"):
        MustiModel.from_pretrained(
            damaged(folder, tmp_path / "b", lambda f: (f / "config.json").write_text(json.dumps(config)))
        )


def test_weights_that_give_no_number_say_so(tokenizer, pictures):
    model = tiny_model()
    model.scale.data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="no number"):
        MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu")(pictures[0], TEXT)


def test_an_unwritable_folder_is_a_sentence(folder, pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(pictures[0]), TEXT, "--weights", str(folder), "--explain", str(tmp_path / "file" / "out")]) == 2
    assert "could not be written" in capsys.readouterr().err
