"""Identities of the model."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from musti_model import ImageBranchConfig, MustiConfig, MustiModel, preset
from musti_model.image_tower import ImageTokens
from tests.conftest import BIAS, GATES, GRIDS, SCALE, SIZES, VOTES, VOTING_BIAS, WORD, tiny_config, tiny_model


def inputs(batch: int = 2, width: int = 20, sizes=None):
    generator = torch.Generator().manual_seed(1)
    sizes = sizes or SIZES
    images = {n: torch.randn(batch, 3, s, s, generator=generator) for n, s in sizes.items()}
    ids = torch.randint(5, 300, (batch, width), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, width // 2 :] = 0
    return images, ids, mask


def test_without_a_gate_the_text_side_is_plain_bert():
    model = tiny_model(gate="none")
    images, ids, mask = inputs()
    from transformers import BertModel

    bert = BertModel(model.text.encoder.config)
    bert.embeddings, bert.encoder, bert.pooler = model.text.embeddings, model.text.encoder, model.text.pooler
    text = bert.eval()(input_ids=ids, attention_mask=mask).pooler_output
    image = model.image_vector(model.encode_images(images)["vit"])
    expected = F.cosine_similarity(text, image)
    assert torch.allclose(model(images, ids, mask).similarities[:, 0], expected, atol=1e-5)


def test_the_picture_reaches_the_text_through_the_gate():
    images, ids, mask = inputs()
    other = {n: t.flip(0) for n, t in images.items()}
    model = tiny_model()
    a, b = (model(i, ids, mask, return_internals=True).internals.text_attention["vit"] for i in (images, other))
    assert (a - b).abs().max() > 1e-4
    with torch.no_grad():
        model.fusion.scalars.weight[0, 0] = 0  # gate shut for the picture
    a, b = (model(i, ids, mask, return_internals=True).internals.text_attention["vit"] for i in (images, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize("gate", GATES)
def test_asking_for_internals_changes_nothing(gate):
    model = tiny_model(**GATES[gate])
    images, ids, mask = inputs()
    plain, asked = model(images, ids, mask), model(images, ids, mask, return_internals=True)
    assert plain.internals is None
    assert torch.equal(plain.logits, asked.logits)
    inside = asked.internals
    # 5 x 4 places and the class token, without the registers
    assert torch.allclose(inside.image_attention["vit"].sum(-1), torch.ones(2, 2, 2, 21), atol=1e-5)
    attention = inside.text_attention["resnet"]
    assert torch.allclose(attention.sum(-1), torch.ones_like(attention[..., 0]), atol=1e-5)
    assert attention[1, ..., 10:].abs().max() == 0  # padding is not attended to


def test_captured_attention_is_the_attention_used():
    model = tiny_model(branches=tiny_config().branches[:1])
    images, ids, mask = inputs()
    maps = model(images, ids, mask, return_internals=True).internals.text_attention["vit"]
    model.text.encoder.config._attn_implementation = "eager"  # which hands out its weights
    seen = []
    hooks = [
        la.attention.self.register_forward_hook(lambda m, i, o: seen.append(o[1])) for la in model.text.encoder.layer
    ]
    model(images, ids, mask)
    for hook in hooks:
        hook.remove()
    assert torch.allclose(maps, torch.stack(seen, 1), atol=1e-5)


def test_hooks_are_gone_after_an_error():
    model = tiny_model()
    images, ids, mask = inputs()
    with pytest.raises(IndexError):
        model(images, ids + 10_000, mask, return_internals=True)
    with pytest.raises(RuntimeError):
        model({n: t[:, :1] for n, t in images.items()}, ids, mask, return_internals=True)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("gate", [*GATES, "none"])
def test_batch_equals_single(gate):
    model = tiny_model(**GATES.get(gate, {"gate": "none"}))
    images, ids, mask = inputs()
    together = model(images, ids, mask).logits
    alone = model({n: t[1:] for n, t in images.items()}, ids[1:, :10], mask[1:, :10]).logits
    assert torch.allclose(together[1:], alone, atol=1e-4)


def test_votes_add_up():
    out = tiny_model()(*inputs())
    expected = SCALE * (out.similarities @ torch.tensor(VOTES[:2]) + VOTING_BIAS) + BIAS
    assert torch.allclose(out.votes, SCALE * torch.tensor(VOTES[:2]) * out.similarities, atol=1e-5)
    assert torch.allclose(out.logits, expected, atol=1e-5)
    assert torch.allclose(out.votes.sum(1) + out.vote_bias, out.logits)


def test_published_one_branch_logit_is_the_cosine():
    model = tiny_model(branches=tiny_config().branches[:1], logit="published")
    images, ids, mask = inputs()
    out = model({"vit": images["vit"]}, ids, mask)
    assert torch.equal(out.logits, out.similarities[:, 0])
    affine = tiny_model(branches=tiny_config().branches[:1])
    out = affine({"vit": images["vit"]}, ids, mask)
    assert torch.allclose(out.logits, SCALE * (VOTES[0] * out.similarities[:, 0] + VOTING_BIAS) + BIAS, atol=1e-5)


def test_published_axes_and_carry():
    vit, resnet = tiny_config().branches
    model = tiny_model(
        branches=(vit, replace(resnet, axes="published")),
        padding="carry",
        text_length=21,
        logit="published",
        voting="mean",
    )
    images, ids, mask = inputs(width=21)
    out = model(images, ids, mask, return_internals=True)
    assert out.internals.met["resnet"].weights is None and out.internals.grid["resnet"] is None
    assert torch.allclose(out.internals.met["vit"].weights[0], torch.eye(21), atol=1e-5)
    assert torch.allclose(out.logits, out.similarities.mean(1))
    # by the equations: channels become tokens, places become features
    branch = model.branches["resnet"]
    x = branch.backbone.forward_features(images["resnet"]).flatten(2)
    x = model.grid_norm(branch.channels_to_grid(x.transpose(1, 2))).transpose(1, 2)
    expected = model.fusion.norm(branch.places_to_hidden(x))
    assert torch.allclose(model.encode_images(images)["resnet"].tokens, expected, atol=1e-5)


def test_swin_branch_has_places():
    swin = ImageBranchConfig(
        "swin",
        "swin_tiny_patch4_window7_224",
        {"img_size": 64, "window_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]},
        image_size=64,
    )
    model = tiny_model(branches=(swin,))
    images, ids, mask = inputs(sizes={"swin": 64})
    assert model(images, ids, mask, return_internals=True).internals.grid["swin"] == (8, 8)


@pytest.mark.parametrize("gate", ["scalar", "word", "linear"])
def test_save_and_load(tmp_path, gate):
    model = tiny_model(threshold=0.37, **GATES[gate])
    model.save_pretrained(tmp_path)
    again = MustiModel.from_pretrained(tmp_path, strict=True)
    assert again.config == model.config
    assert torch.equal(model(*inputs()).logits, again(*inputs()).logits)


def test_bfloat16_agrees_with_float32():
    model = tiny_model()
    exact = model(*inputs()).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(*inputs()).logits
    assert (exact - rough).abs().max() < 0.03 and not torch.equal(exact, rough)


def test_configs_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="colour"):
        MustiConfig.from_dict(tiny_config().to_dict() | {"colour": "red"})
    for changes in ({"gate": "sum"}, {"meeting": "chance"}, {"text": tiny_config().text | {"model_type": "gpt2"}}):
        with pytest.raises(ValueError, match="gate|meeting|model_type"):
            MustiModel(tiny_config(**changes))
    with pytest.raises(ValueError, match="No preset"):
        preset("huge")
    for name in ("musti-base", "musti-word", "published", "published-all", "compact", "starter"):
        assert MustiConfig.from_dict(preset(name).to_dict()) == preset(name)


def test_without_a_gate_the_text_vector_does_not_depend_on_the_picture():
    images, ids, mask = inputs()
    other = {n: -t for n, t in images.items()}
    for changes, same in (({}, False), (WORD, False), ({"gate": "none"}, True)):
        model = tiny_model(**changes)
        a, b = model(images, ids, mask), model(other, ids, mask)
        assert torch.equal(a.text_vectors, b.text_vectors) == same
        assert not torch.equal(a.logits, b.logits)


def test_captured_picture_attention_is_the_attention_used():
    model = tiny_model()
    images, ids, mask = inputs()
    maps = model(images, ids, mask, return_internals=True).internals.image_attention["vit"]
    seen = []
    for block in model.branches["vit"].backbone.blocks:
        block.attn.fused_attn = False  # timm then computes the weights, and drops out on them
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images, ids, mask)
    # without the two registers after the class token, and what is left of a row adds up to 1 again
    keep = [0, *range(3, 23)]
    used = torch.stack(seen, 1)[..., keep, :][..., keep]
    assert torch.allclose(maps, used / used.sum(-1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(("padding", "same"), [("mask", True), ("carry", False)])
def test_padding_takes_part_only_where_it_is_carried(padding, same):
    model = tiny_model(padding=padding)
    images, ids, mask = inputs(width=32)
    changed = torch.where(mask == 0, 7, ids)
    a, b = model(images, ids, mask).logits[1], model(images, changed, mask).logits[1]
    assert torch.isclose(a, b, atol=1e-6) == same


def test_weights_saved_in_half_precision_load_as_float32(tmp_path):
    model = tiny_model()
    exact = model(*inputs()).logits
    model.half().save_pretrained(tmp_path)
    again = MustiModel.from_pretrained(tmp_path, strict=True)
    for name, value in again.state_dict().items():
        saved = model.state_dict()[name]
        assert torch.equal(value, saved.to(value.dtype)), name
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.allclose(again(*inputs()).logits, exact, atol=0.05)


def test_one_picture_in_training_leaves_the_mode_alone():
    model = tiny_model().train()
    model.encode_images(inputs(1)[0])
    assert model.branches["resnet"].backbone.training
    frozen = model.branches["resnet"].backbone.bn1.eval()  # one part in eval stays in eval, with one picture or two
    for count in (1, 2):
        before = frozen.running_mean.clone()
        model.encode_images(inputs(count)[0])
        assert not frozen.training and torch.equal(frozen.running_mean, before)


def test_batch_norm_learns_nothing_from_one_picture():
    """The statistics of one picture are none: neither used nor kept, though all else is in training."""
    model = tiny_model().train()
    norm, images = model.branches["resnet"].backbone.bn1, inputs(2)[0]["resnet"]
    start, seen = norm.running_mean.clone(), []
    for count in (1, 2):
        model.encode_image("resnet", images[:count])
        seen.append(torch.equal(norm.running_mean, start))
    assert seen == [True, False]
    with torch.no_grad():
        learning = model.encode_image("resnet", images[:1]).tokens
        assert torch.allclose(learning, model.eval().encode_image("resnet", images[:1]).tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "backbone", "words"),
    [("a.b", "resnet18", "letters"), ("type", "resnet18", "cannot be called"), ("a", "hf-hub:x/y", "address")],
)
def test_branches_that_cannot_be(name, backbone, words):
    with pytest.raises(ValueError, match=words):
        tiny_model(branches=(ImageBranchConfig(name, backbone),))


@pytest.mark.parametrize("gate", [*GATES, "none"])
def test_one_row_stands_for_all(gate):
    model = tiny_model(**GATES.get(gate, {"gate": "none"}))
    images, ids, mask = inputs(3)
    with torch.no_grad():
        pairs = model(images, ids[:1].expand(3, -1), mask[:1].expand(3, -1)).logits
        one_text = model(images, ids[:1], mask[:1]).logits
        one_image = model({n: t[:1] for n, t in images.items()}, ids, mask).logits
        expected = model({n: t[:1].expand(3, -1, -1, -1) for n, t in images.items()}, ids, mask).logits
    assert torch.allclose(one_text, pairs, atol=1e-5) and torch.allclose(one_image, expected, atol=1e-5)


def test_a_vit_without_a_class_token():
    """The whole picture is the mean of the places, and reads what they read."""
    args = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "class_token": False,
        "global_pool": "avg",
    }
    model = tiny_model(branches=(ImageBranchConfig("vit", "vit_base_patch16_224", args, image_size=32),))
    images, ids, mask = inputs(sizes={"vit": 32})
    maps = model(images, ids, mask, return_internals=True).internals.image_attention["vit"]
    assert maps.shape[-2:] == (17, 17)
    assert torch.allclose(maps[..., 0, 1:], maps[..., 1:, 1:].mean(-2), atol=1e-6) and maps[..., 0].abs().max() == 0
    assert torch.allclose(maps.sum(-1), torch.ones_like(maps[..., 0]), atol=1e-5)


def test_a_swin_of_published_axes_is_a_mix_of_its_places():
    """As the published code has it: last hidden state transposed -> Linear over the places -> LayerNorm over the grid
    -> transposed."""
    args = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    branch = ImageBranchConfig("swin", "swin_tiny_patch4_window7_224", args, image_size=32, axes="published")
    model = tiny_model(branches=(branch,), padding="carry")
    image = torch.randn(2, 3, 32, 32)
    states = model.branches["swin"].backbone.forward_features(image)  # [B, rows, columns, C]
    places = states.flatten(1, 2).transpose(1, 2)
    by_hand = model.grid_norm(model.branches["swin"].places_to_grid(places)).transpose(1, 2)
    assert torch.allclose(model.encode_images({"swin": image})["swin"].tokens, by_hand, atol=1e-6)


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
KINDS = {  # of ViT: backbone, its arguments beside SMALL, tokens before the places
    "class token": ("vit_base_patch16_224", {}, 1),
    "class token and registers": ("vit_base_patch16_224", {"reg_tokens": 3}, 4),
    "class token and registers, places alone embedded": (
        "vit_base_patch16_224",
        {"reg_tokens": 3, "no_embed_class": True, "qkv_bias": False},
        4,
    ),
    "class and distillation token": ("deit_tiny_distilled_patch16_224", {}, 2),
    "registers": ("vit_base_patch16_reg4_gap_256", {}, 4),
    "one register": ("vit_betwixt_patch16_reg1_gap_256", {}, 1),
    "places alone": ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg"}, 0),
    "no positions, oblong patches": (
        "vit_base_patch16_224",
        {"pos_embed": "none", "patch_size": [4, 8], "pre_norm": True},
        1,
    ),
    "any size": ("vit_base_patch16_224", {"img_size": 64, "dynamic_img_size": True}, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_vit_has_its_whole_its_places_and_its_attention(kind):
    """The whole is the class token or else the mean of the places, never a register; maps are the softmax that the
    unfused blocks compute."""
    backbone, more, prefix = KINDS[kind]
    model = tiny_model(branches=(ImageBranchConfig("vit", backbone, SMALL | more, image_size=32),))
    branch, (images, ids, mask) = model.branches["vit"], inputs(sizes={"vit": 32})
    vit = branch.backbone
    with torch.no_grad():
        for p in vit.parameters():  # unequal tokens, far from uniform attention
            p.add_(torch.randn_like(p) * 0.3)
        inside = model(images, ids, mask, return_internals=True).internals
        tokens = model.encode_images(images)["vit"].tokens
        seen = []
        for block in vit.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
        features = vit.forward_features(images["vit"])
    assert vit.num_prefix_tokens == prefix
    whole = "class" in kind or "positions" in kind or "any" in kind
    places, eager = features[:, prefix:], torch.stack(seen, 1)
    assert torch.allclose(tokens[:, 0], features[:, 0] if whole else places.mean(1), atol=1e-5)
    assert torch.allclose(tokens[:, 1:], places, atol=1e-5)
    keep = [0] * whole + list(range(prefix, features.shape[1]))
    expected = eager[..., keep, :][..., keep]
    expected = expected / expected.sum(-1, keepdim=True)
    maps = inside.image_attention["vit"]
    rows, columns = inside.grid["vit"]
    assert maps.shape[-1] == 1 + rows * columns and (rows, columns) == ((8, 4) if "oblong" in kind else (4, 4))
    if whole:
        assert torch.allclose(maps, expected, atol=1e-5)
    else:
        assert torch.allclose(maps[..., 1:, 1:], expected, atol=1e-5) and maps[..., 0].abs().max() == 0
        assert torch.allclose(maps[..., 0, 1:], expected.mean(-2), atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "args", "size", "grid"),
    [
        ("vit_base_patch16_224", SMALL | {"dynamic_img_size": True}, 48, (6, 6)),
        ("vit_base_patch16_224", SMALL | {"dynamic_img_size": True}, 16, (2, 2)),
        ("vit_base_patch16_224", SMALL | {"dynamic_img_size": True, "dynamic_img_pad": True}, 44, (6, 6)),
        ("vit_base_patch16_224", SMALL | {"img_size": [32, 64], "dynamic_img_size": True}, 32, (4, 4)),
        ("resnet18", {"channels": [8, 16, 32, 32]}, 70, (3, 3)),
        ("resnet18", {"channels": [8, 16, 32, 32]}, 17, (1, 1)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 40, "window_size": 3, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 2]},
            40,
            (5, 5),
        ),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 16]}, 65, (2, 2)),
    ],
)
def test_a_backbone_at_its_own_size_has_a_grid_of_its_own(backbone, args, size, grid):
    model = tiny_model(branches=(ImageBranchConfig("one", backbone, args, image_size=size),))
    inside = model(*inputs(sizes={"one": size}), return_internals=True).internals
    assert inside.grid["one"] == grid == model.branches["one"].grid
    assert inside.met["one"].weights.shape[-1] == 1 + grid[0] * grid[1]


def test_a_picture_of_another_size_is_not_given_a_wrong_grid():
    branch = ImageBranchConfig("vit", "vit_base_patch16_224", SMALL | {"dynamic_img_size": True}, image_size=32)
    with pytest.raises(ValueError, match="64 patches and the branch 4 x 4"):
        tiny_model(branches=(branch,)).encode_images({"vit": torch.zeros(1, 3, 64, 64)})


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        (
            ImageBranchConfig(
                "vit", "vit_base_patch16_224", {"embed_dim": 32, "depth": 1, "num_heads": 2, "qk_norm": True}
            ),
            "not a plain ViT",
        ),
        (
            ImageBranchConfig("vit", "beit_base_patch16_224", {"embed_dim": 32, "depth": 1, "num_heads": 2}),
            "not a plain ViT",
        ),
        (ImageBranchConfig("vit", "eva02_tiny_patch14_224", {"depth": 1}), "not a plain ViT"),
        (
            ImageBranchConfig("vit", "vit_relpos_base_patch16_224", {"embed_dim": 32, "depth": 1, "num_heads": 2}),
            "not a plain ViT",
        ),
        (
            ImageBranchConfig("vit", "naflexvit_base_patch16_gap", {"embed_dim": 32, "depth": 1, "num_heads": 2}),
            "not a plain ViT",
        ),
        # differential attention
        (ImageBranchConfig("vit", "vit_dpwee_patch16_reg1_gap_256", {"depth": 1}, image_size=256), "not a plain ViT"),
        (ImageBranchConfig("vit", "vit_dwee_patch16_reg1_gap_256", {"depth": 1}, image_size=256), "not a plain ViT"),
        (ImageBranchConfig("vit", "vit_base_patch16_xp_224", {"depth": 1}), "not a plain ViT"),  # parallel blocks
        (ImageBranchConfig("vit", "cait_xxs24_224", {"depth": 1}), "not a plain ViT"),
        (ImageBranchConfig("vit", "mixer_s32_224"), "not a plain ViT"),
        (ImageBranchConfig("vit", "crossvit_tiny_240", image_size=240), "not a plain ViT"),
        (ImageBranchConfig("vit", "vit_base_patch16_224", SMALL, image_size=48), "does not take pictures of 48 px"),
        (
            ImageBranchConfig("vit", "vit_base_patch16_224", SMALL | {"dynamic_img_size": True}, image_size=44),
            "does not take pictures of 44 px",
        ),
        (
            ImageBranchConfig("vit", "vit_base_patch16_224", SMALL | {"img_size": [32, 64]}, image_size=64),
            "does not take pictures of 64 px",
        ),
        (ImageBranchConfig("swin", "swin_tiny_patch4_window7_224", image_size=96), "does not take pictures of 96 px"),
        (
            ImageBranchConfig("vit", "vit_base_patch16_224", SMALL | {"img_size": 512}, image_size=512),
            "choose a smaller image_size",
        ),
        (
            ImageBranchConfig("vit", "vit_base_patch16_224", SMALL | {"num_heads": 3}),
            "cannot be made of its backbone_args",
        ),
        (ImageBranchConfig("vit", "vit_base_patch16_224.no_such_tag"), "cannot be made"),
        (ImageBranchConfig("vit", "no_such_backbone"), "timm has no architecture"),
        (ImageBranchConfig("swin", "swin_tiny_patch4_window7_224", {"embed_dim": 8}, axes="published"), "hidden size"),
    ],
)
def test_backbones_that_could_not_be_explained_are_refused(branch, words):
    with pytest.raises(ValueError, match=words):
        tiny_model(branches=(branch,), padding="carry")


def test_finding_the_grid_leaves_the_backbone_as_it_was():
    branch = tiny_model().train().branches["resnet"]
    assert branch.grid == GRIDS["resnet"] and all(m.training for m in branch.modules())
    assert branch.backbone.bn1.num_batches_tracked == 0 and branch.backbone.conv1.weight.device.type == "cpu"


def test_a_vectors_names_are_its_cosines_with_the_prototypes():
    model = tiny_model(naming_scale=5.0)
    with torch.no_grad():
        model.known_prototypes().zero_()
        model.known_prototypes()[0, 0], model.known_prototypes()[1, 1] = 3.0, -7.0
    vectors = torch.zeros(2, 3, 32)
    vectors[0, 1, :2], vectors[1, 2, :2] = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    logits = model.name_vector(vectors)
    assert logits.shape[:2] == (2, 3)
    assert torch.allclose(logits[0, 1, :2], 5 * torch.tensor([0.6, -0.8]), atol=1e-6)
    assert torch.allclose(logits[1, 2, :2], 5 * torch.tensor([0.0, -1.0]), atol=1e-6)


def test_pictures_are_chosen_with_all_that_belongs_to_them():
    tokens, features = torch.rand(3, 6, 4), torch.rand(3, 5, 2, 3)
    chosen = ImageTokens(tokens, (2, 3), features).select(torch.tensor([2, 0, 2]))
    assert chosen.grid == (2, 3) and torch.equal(chosen.tokens, tokens[[2, 0, 2]])
    assert torch.equal(chosen.feature_map, features[[2, 0, 2]])
    assert ImageTokens(tokens, None, None).select(torch.tensor([1])).feature_map is None
