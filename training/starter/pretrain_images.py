"""Stage "images": each image backbone learns to name the objects of the pictures, before the model is put together."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .augment import plain_view, random_view
from .pictures import Pictures


@dataclass(frozen=True)
class ImageSchedule:
    """How one backbone is trained. Sizes are px; the first ``small_epochs`` use ``small_size`` (cheaper, nearly as good)."""

    epochs: int
    lr: float
    small_epochs: int = 0
    small_size: int = 64
    size: int = 96
    batch: int = 128
    weight_decay: float = 0.05
    patch_drop: float = 0.0
    strength: float = 1.0
    smoothing: float = 0.1
    seed: int = 0


class NamingNet(torch.nn.Module):
    """A timm backbone with two linear heads: one on the pooled (or class-token) vector, one on the mean of the places.

    The second head makes single places carry what they show, which the gate and the overlays live on.
    """

    def __init__(self, backbone: torch.nn.Module, n_objects: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.global_head = torch.nn.Linear(backbone.num_features, n_objects)
        self.local_head = torch.nn.Linear(backbone.num_features, n_objects)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [B, 3, S, S] -> two sets of logits [B, n_objects]."""
        features = self.backbone.forward_features(x)
        if features.ndim == 4:  # CNN: [B, C, h, w]; both heads read the mean
            pooled = local = features.mean((2, 3))
        else:  # ViT: [B, 1 + places, C]
            pooled, local = features[:, 0], features[:, 1:].mean(1)
        return self.global_head(pooled), self.local_head(local)


def sampling_weights(pictures: Pictures) -> np.ndarray:
    """Weight of each picture: rare objects more often (inverse square root of their number), paintings twice."""
    counts = np.bincount(pictures.labels, minlength=len(pictures.objects))
    weights = 1 / np.sqrt(counts[pictures.labels])
    weights *= np.where(pictures.sources == "pacs-art", 2.0, 1.0)
    return weights / weights.sum()


@torch.inference_mode()
def top1(net: NamingNet, pictures: Pictures, size: int, batch: int = 256) -> float:
    """Share of the pictures whose object gets the highest logit (both heads added)."""
    device = next(net.parameters()).device
    net.eval()
    hits = 0
    for start in range(0, len(pictures), batch):
        x = plain_view(torch.from_numpy(np.array(pictures.pixels[start : start + batch])), size)
        with torch.autocast(device.type, torch.bfloat16):
            a, b = net((x.to(device) - 0.5) / 0.5)
        guess = (a.float().log_softmax(1) + b.float().log_softmax(1)).argmax(1)
        hits += int((guess.cpu().numpy() == pictures.labels[start : start + batch]).sum())
    return hits / len(pictures)


def pretrain(
    name: str, arch: str, kwargs: dict, schedule: ImageSchedule, train: Pictures, dev: Pictures, work: Path,
    teacher: NamingNet | None = None, start: NamingNet | None = None,
) -> NamingNet:
    """Trains one backbone, resumable after each epoch; returns it trained.

    Args:
        name: of the branch; files are ``work/<name>.pt`` and ``work/<name>.jsonl``.
        arch, kwargs: ``timm.create_model`` arguments.
        start: a net of the same kind to go on from.
        teacher: a trained net whose softened answers are learned too (Hinton et al. 2015), which a small ViT needs.
    """
    torch.manual_seed(schedule.seed)
    extra = {"patch_drop_rate": schedule.patch_drop} if schedule.patch_drop else {}
    net = NamingNet(timm.create_model(arch, num_classes=0, **kwargs, **extra), len(train.objects))
    if start is not None:
        net.load_state_dict(start.state_dict())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = net.to(device, memory_format=torch.channels_last)
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr)
    steps = len(train) // schedule.batch
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.lr, total_steps=steps * schedule.epochs, pct_start=0.15
    )
    checkpoint = work / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        if state["schedule"] != asdict(schedule):
            raise ValueError(f"{checkpoint} was trained on another schedule; remove it, or choose another work folder.")
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["epoch"]
    weights = sampling_weights(train)
    for epoch in range(first, schedule.epochs):
        started = time.time()
        size = schedule.small_size if epoch < schedule.small_epochs and not hasattr(net.backbone, "blocks") else schedule.size
        if hasattr(net.backbone, "patch_drop") and epoch >= schedule.epochs * 0.7:
            net.backbone.patch_drop = torch.nn.Identity()  # the last epochs see every patch
        torch.manual_seed(1000 * schedule.seed + epoch)  # patch drop and dropout of this epoch, resumed or not
        rng = np.random.default_rng((schedule.seed, epoch))
        generator = torch.Generator().manual_seed(1000 * schedule.seed + epoch)
        order = rng.choice(len(train), size=steps * schedule.batch, p=weights)
        net.train()
        total = 0.0
        bar = tqdm(range(steps), desc=f"{name} {epoch + 1}/{schedule.epochs}", mininterval=10)
        for step in bar:
            rows = order[step * schedule.batch : (step + 1) * schedule.batch]
            x = random_view(torch.from_numpy(train.pixels[rows]), size, generator, schedule.strength)
            x = ((x.to(device) - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
            y = torch.from_numpy(train.labels[rows]).to(device)
            loss = _loss(net, x, y, teacher, schedule.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            total += loss.item()
            bar.set_postfix(loss=f"{total / (step + 1):.3f}", refresh=False)
        row = {"epoch": epoch + 1, "size": size, "loss": total / steps, "seconds": time.time() - started}
        row["dev_top1"] = top1(net, dev, schedule.size)
        with open(work / f"{name}.jsonl", "a") as log:
            log.write(json.dumps(row) + "\n")
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        torch.save(state | {"epoch": epoch + 1, "schedule": asdict(schedule)}, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        print(json.dumps({name: row}), flush=True)
    return net.eval()


def _loss(net: NamingNet, x: torch.Tensor, y: torch.Tensor, teacher: NamingNet | None, smoothing: float) -> torch.Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        logits = net(x)
    loss = sum(F.cross_entropy(z.float(), y, label_smoothing=smoothing) for z in logits) / 2
    if teacher is not None:
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16):
            a, b = teacher(x)
        target = ((a.float() + b.float()) / 2).softmax(1)
        loss = loss / 2 + sum(F.cross_entropy(z.float(), target) for z in logits) / 4
    return loss
