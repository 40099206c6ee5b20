"""What the loop costs: the same network and data through a bare PyTorch loop, dlx, Lightning and the HF Trainer.

    make bench                          all sides, 3 rounds
    python tests/benchmarks/loop.py --rounds 5 --sides bare,dlx

One thread, pinned to one core; the sides take turns within a round, and what is printed are medians of seconds and of
the ratio to the bare loop of the same round. Same epochs, batch size, optimizer (Adam, one kernel); no validation; the
clock stops before checkpoints. dlx writes its metrics as always. Data: Fashion-MNIST, or random images of its shape
where it is not at hand (the time does not depend on what is on them).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlx.config import compose
from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.mnist import MNIST
from dlx.models.mlp import MLP
from dlx.models.vision.cnn import CNN
from dlx.training import prepare as dlx_prepare
from dlx.training import run as dlx_run

BATCH = 128


def read_data() -> tuple[torch.Tensor, torch.Tensor]:
    """60,000 images (uint8 [N, 1, 28, 28]) and labels."""
    try:
        from dlx.data.mnist import FashionMNIST

        source = FashionMNIST(download=False).splits()["train"]
        batch = source.take(torch.arange(len(source)))
        return batch["image"], batch["label"]
    except UserError:
        rng = torch.Generator().manual_seed(0)
        image = torch.randint(256, (60000, 1, 28, 28), generator=rng, dtype=torch.uint8)
        return image, torch.randint(10, (60000,), generator=rng)


def make_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MLP(spec=MNIST.spec, hidden=(256,)) if name == "mlp" else CNN(spec=MNIST.spec)


def bare(name: str, epochs: int, channels_last: bool = False) -> float:
    """A loop over tensors, as one writes it by hand for speed."""
    network = make_network(name)
    images, labels = MNIST.spec.image.normalize(IMAGE), LABEL
    if channels_last:
        network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for index in order.split(BATCH):
            if len(index) < BATCH:
                break
            loss = nn.functional.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


class _All(Dataset):
    """The tensors as a dlx dataset whose training split is all of them."""

    spec = MNIST.spec

    def splits(self):
        few = TensorSource(image=IMAGE[:256], label=LABEL[:256])
        return {"train": TensorSource(image=IMAGE, label=LABEL), "val": few, "test": few}


def train_seconds(dataset: Dataset, words: list[str]) -> float:
    """The trainer as `dlx train WORDS` runs it on that dataset, timed from its first step to its last."""
    with tempfile.TemporaryDirectory() as root:
        config = compose([
            *words, "optim=adam", "optim.lr=1e-3", "scheduler=constant", "trainer.threads=1", "trainer.device=cpu",
            f"trainer.validate_every={10**9}", f"output_root={root}",
        ])  # fmt: skip
        build = dlx_prepare.build
        dlx_prepare.build = lambda config, group, **given: (
            dataset if group == "dataset" else build(config, group, **given)
        )
        try:
            result = dlx_run.train(config, quiet=True)
        finally:
            dlx_prepare.build = build
        return json.loads((result.run / "summary.json").read_text())["seconds"]


def dlx(name: str, epochs: int) -> float:
    hidden = ["model.hidden=[256]"] if name == "mlp" else []
    return train_seconds(_All(), [f"model={name}", *hidden, f"trainer.epochs={epochs}", f"data.batch_size={BATCH}"])


def lightning(name: str, epochs: int, loader: DataLoader) -> float:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_network(name)

        def training_step(self, batch, number):
            loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

        def on_train_start(self) -> None:
            self.start = time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.start

    module = Module()
    with tempfile.TemporaryDirectory() as root:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=root, logger=lightning.pytorch.loggers.CSVLogger(root),
        )  # fmt: skip
        trainer.fit(module, loader)
    return module.seconds


def lightning_tensors(name: str, epochs: int) -> float:
    """Lightning with a TensorDataset."""
    data = TensorDataset(MNIST.spec.image.normalize(IMAGE), LABEL)
    return lightning(name, epochs, DataLoader(data, BATCH, shuffle=True, drop_last=True))


class _Pictures(torch.utils.data.Dataset):
    """As torchvision's datasets give samples: a PIL image each, through ToTensor and Normalize."""

    def __init__(self) -> None:
        from torchvision import transforms

        self.images = IMAGE.squeeze(1).numpy()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(MNIST.spec.image.mean, MNIST.spec.image.std)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(LABEL[index])


def lightning_pictures(name: str, epochs: int) -> float:
    """Lightning with samples as torchvision's datasets give them."""
    return lightning(name, epochs, DataLoader(_Pictures(), BATCH, shuffle=True, drop_last=True))


def hf_seconds(module: nn.Module, rows: torch.utils.data.Dataset, batch: int, epochs: int = 1, **settings) -> float:
    """The HF Trainer, timed from its first step to its last. module: from the columns of rows to {"loss": ...}."""
    import transformers

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *arguments, **named) -> None:
            self.start = time.perf_counter()

        def on_train_end(self, *arguments, **named) -> None:
            self.seconds = time.perf_counter() - self.start

    clock = Clock()
    with tempfile.TemporaryDirectory() as root:
        arguments = transformers.TrainingArguments(
            output_dir=root, num_train_epochs=epochs, per_device_train_batch_size=batch, save_strategy="no",
            report_to=[], use_cpu=True, dataloader_drop_last=True, disable_tqdm=True, optim="adamw_torch_fused",
            logging_steps=50, learning_rate=1e-3, **settings,
        )  # fmt: skip
        transformers.Trainer(module, arguments, train_dataset=rows, callbacks=[clock]).train()
    return clock.seconds


def hf(name: str, epochs: int) -> float:
    """The HF Trainer with a dataset of tensors."""

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_network(name)

        def forward(self, image, labels):
            return {"loss": nn.functional.cross_entropy(self.network(image), labels)}

    images = MNIST.spec.image.normalize(IMAGE)

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"image": images[index], "labels": LABEL[index]}

    return hf_seconds(Module(), Rows(), BATCH, epochs)


SIDES: dict[str, Callable[[str, int], float]] = {
    "bare": bare,
    "bare channels_last": lambda name, epochs: bare(name, epochs, channels_last=True),
    "dlx": dlx,
    "lightning, tensors": lightning_tensors,
    "lightning, pictures": lightning_pictures,
    "hf trainer": hf,
}


def main() -> None:
    global IMAGE, LABEL
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", default="mlp,cnn")
    parser.add_argument("--sides", default=",".join(SIDES).replace(", ", "; "))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--samples", type=int, default=60000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(tempfile.mkdtemp())
    IMAGE, LABEL = (tensor[: asked.samples] for tensor in read_data())
    sides = [side.replace("; ", ", ") for side in asked.sides.split(",")]
    for name in asked.networks.split(","):
        seconds: dict[str, list[float]] = {side: [] for side in sides if name == "cnn" or "channels" not in side}
        for _ in range(asked.rounds):
            for side, times in seconds.items():
                times.append(SIDES[side](name, asked.epochs))
        print(f"\n{name}: {asked.epochs} epoch(s) of {len(IMAGE):,}, medians of {asked.rounds} rounds")  # noqa: T201
        for side, times in seconds.items():
            ratio = statistics.median(t / b for t, b in zip(times, seconds["bare"], strict=True))
            print(f"  {side:<22}{statistics.median(times):8.2f} s   {ratio:6.2f} x bare")  # noqa: T201
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
