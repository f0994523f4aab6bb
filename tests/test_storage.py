"""Weights in few bits: what is stored is what is read, and what does not fit is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from musti_model.folder import check_tensors
from musti_model.model import MustiModel
from musti_model.older import renamed_config, renamed_state
from musti_model.storage import compressed, restored

from .conftest import tiny_config, tiny_model


def test_eight_bits_by_hand():
    """The largest value of a row becomes 127; a value of half of it 64, which is read back as 64 / 127 of it."""
    weight = torch.zeros(2, 4096)
    weight[0, :3], weight[1, 0] = torch.tensor([1.0, 0.5, -1.0]), 8.0
    stored = compressed({"w": weight})
    assert stored["w.int8"][0, :4].tolist() == [127, 64, -127, 0] and stored["w.scale"].dtype == torch.float16
    back = restored(stored)["w"]
    assert back[0, :3].tolist() == pytest.approx([1.0, 64 / 127, -1.0], rel=1e-3) and back[1, 0] == pytest.approx(
        8.0, rel=1e-3
    )


def test_four_bits_by_hand():
    """In each group of 32 the value farthest from 0 becomes -8, whatever its sign; two values share a byte."""
    weight = torch.zeros(64, 64)
    weight[0, :4], weight[0, 32] = torch.tensor([4.0, -3.5, 0.5, 0.0]), -2.0
    stored = compressed({"w": weight}, ("w",))
    assert stored["w.int4"].shape == (64, 32) and stored["w.scale"][0].tolist() == [-0.5, 0.25]
    assert [int(b) for b in stored["w.int4"][0, :2]] == [(0) | (15 << 4), (7) | (8 << 4)]
    assert restored(stored)["w"][0, :4].tolist() == [4.0, -3.5, 0.5, 0.0] and restored(stored)["w"][0, 32] == -2.0


def test_stored_again_nothing_changes():
    state = {"a": torch.randn(70, 64), "b": torch.randn(80, 64), "small": torch.randn(3), "count": torch.tensor(7)}
    once = restored(compressed(state, ("b",)))
    assert torch.equal(once["count"], state["count"]) and once["small"].dtype == torch.float32
    for name, value in restored(compressed(once, ("b",))).items():
        assert torch.equal(value, once[name]), name
    assert (once["a"] - state["a"]).abs().max() < 0.02 < (once["b"] - state["b"]).abs().max() < 0.5


def test_a_scale_that_does_not_fit_is_refused(tmp_path):
    model = tiny_model()
    stored = compressed(model.state_dict())
    save_file(stored, tmp_path / "model.safetensors")
    check_tensors(tmp_path / "model.safetensors", model.state_dict())
    name = next(n for n in stored if n.endswith(".int8"))
    stored[name.replace(".int8", ".scale")] = torch.zeros(3, dtype=torch.float16)
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"missing: .*unexpected: .*\.int8"):
        check_tensors(tmp_path / "model.safetensors", model.state_dict())
    with pytest.raises(ValueError, match="another shape"):
        restored(stored)


def test_names_of_the_first_version():
    """Same tensors, same answers; a picture that shows nothing known was not known of."""
    model = tiny_model()
    names = {
        "text.embeddings.": "text_embedding.",
        "text.encoder.": "text_encoder.",
        "text.pooler.": "pooler.",
        "fusion.norm.": "hidden_norm.",
        "fusion.scalars.": "gate.",
    }
    old = {}
    for name, value in model.state_dict().items():
        begin = next((b for b in names if name.startswith(b)), "")
        old[names.get(begin, "") + name.removeprefix(begin)] = value
    del old["nothing_logit"]
    back = renamed_state(old)
    assert back["nothing_logit"] < -50 and all(
        torch.equal(v, back[n]) for n, v in model.state_dict().items() if n != "nothing_logit"
    )
    assert (
        back.keys() == model.state_dict().keys()
        and renamed_state(model.state_dict()).keys() == model.state_dict().keys()
    )
    assert renamed_config({"fusion": "tsf", "voting": "mean"}) == {
        "voting": "mean",
        "gate": "scalar",
        "meeting": "place",
    }
    assert renamed_config({"fusion": "none"})["gate"] == "none" and renamed_config({"gate": "word"}) == {"gate": "word"}
    assert renamed_config({"fusion": "sum"}) == {"fusion": "sum"}  # never was one: told as unknown


def test_a_hub_id_of_the_first_version_has_the_gate_it_had(tmp_path, monkeypatch):
    """The mixin drops keys that it does not know, and a model without a gate would come back with one."""
    old = {k: v for k, v in tiny_config().to_dict().items() if k not in ("gate", "meeting", "naming_scale")} | {
        "fusion": "none"
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    asked = []
    monkeypatch.setattr(
        "musti_model.model.hf_hub_download",
        lambda *given, **more: asked.append((given, more)) or str(tmp_path / "config.json"),
    )
    monkeypatch.setattr(
        "huggingface_hub.PyTorchModelHubMixin.from_pretrained", classmethod(lambda cls, source, **options: options)
    )
    assert MustiModel.from_pretrained("user/old", revision="v1")["config"].gate == "none"
    assert asked == [(("user/old", "config.json"), {"revision": "v1"})]
