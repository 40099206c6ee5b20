"""Classification: logits [B, K] against class labels, hard (int64 [B]) or soft (float [B, K])."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.runs.draw import drawable, subplots
from dlx.runs.media import Table
from dlx.tasks import explain
from dlx.tasks.confusion import draw_confusion, draw_mistakes, find_mistakes, per_class, worst
from dlx.tasks.spec import Image, Label
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Statistics, System

TOP5_CLASSES = 100  # from here on there is a top-5 error; among few classes it says little
HUMAN_TOP5_ERROR = 0.051  # on ImageNet's 1,000 classes, by a trained annotator (Russakovsky et al. 2015, section 6.4)


def soft_labels(label: Tensor, num_classes: int) -> Tensor:
    """Labels as distributions, float32 [B, K]; labels that are soft already pass through."""
    if label.is_floating_point():
        return label
    return (label.unsqueeze(-1) == torch.arange(num_classes, device=label.device)).float()


class Classification:
    """The target of a classifier.

    input_name, target_name: of the spec's entries. loss: cross_entropy is softmax cross-entropy, in nats; mse and l1
    are the distance of the logits to the one-hot label, mean over classes (least-squares classification).
    Metrics: loss, accuracy, nll (of the softmax, in nats), from 100 classes up top5_error, and for 1,000 classes,
    beside it, top5_error_human (arXiv:1409.0575).
    """

    losses = ("cross_entropy", "mse", "l1")
    monitor = ("val/accuracy", "max")
    gaps: ClassVar[dict[str, int]] = {"accuracy": 1, "loss": -1}

    def __init__(self, spec: Spec, input_name: str, target_name: str, loss: str) -> None:
        if loss not in self.losses:
            raise ValueError(f"loss must be one of {', '.join(self.losses)} for class labels, got {loss!r}")
        label = spec.entries[target_name]
        assert isinstance(label, Label)
        self.classes, self.input = label.classes, spec.entries[input_name]
        self.input_name, self.target_name = input_name, target_name
        self.num_classes = len(label.classes)
        self.name = loss
        top5 = ("top5_error",) if self.num_classes >= TOP5_CLASSES else ()
        human = ("top5_error_human",) if self.num_classes == 1000 else ()
        self.metric_names: tuple[str, ...] = ("loss", "accuracy", "nll", *top5, *human)

    def _per_sample(self, logits_BK: Tensor, label: Tensor) -> Tensor:
        if self.name == "cross_entropy":
            return F.cross_entropy(logits_BK, label, reduction="none")
        target_BK = soft_labels(label, self.num_classes)
        distance = F.mse_loss if self.name == "mse" else F.l1_loss
        return distance(logits_BK, target_BK, reduction="none").mean(-1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if "weight" in batch:
            loss_B: Tensor = self._per_sample(output, batch[self.target_name]) * batch["weight"]
            return loss_B.mean()
        if self.name == "cross_entropy":
            return F.cross_entropy(output, batch[self.target_name])
        return self._per_sample(output, batch[self.target_name]).mean()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Accuracy on the training batches, as augmented. Under soft labels (mixup, CutMix, smoothing) it is the
        predicted class's share of the label, and bears another name, since it cannot reach 1."""
        label = batch[self.target_name]
        predicted_B = output.argmax(-1)
        if label.is_floating_point():
            return {"soft_accuracy": label.gather(-1, predicted_B.unsqueeze(-1)).mean()}
        return {"accuracy": (predicted_B == label).float().mean()}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        logits_BK, label_B = output.float(), batch[self.target_name]
        predicted_B = logits_BK.argmax(-1)
        cell_B = label_B * self.num_classes + predicted_B
        counts = torch.zeros(self.num_classes**2, dtype=torch.int64, device=label_B.device)
        found: Statistics = {}
        if self.num_classes >= TOP5_CLASSES:
            found["top5"] = (logits_BK.topk(5).indices == label_B.unsqueeze(1)).sum()
        if "report" in batch and isinstance(self.input, Image):
            found["mistakes"] = find_mistakes(logits_BK, label_B, batch["index"], batch[self.input_name])
        return {
            **found,
            "loss": self._per_sample(logits_BK, label_B).double().sum(),
            "nll": F.cross_entropy(logits_BK, label_B, reduction="none").double().sum(),
            "confusion": counts.scatter_add(0, cell_B, torch.ones_like(cell_B)).view(self.num_classes, -1),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """Metrics from the sums; rows of `confusion` are true classes, columns predicted ones."""
        confusion_KK = statistics["confusion"].double()
        count = confusion_KK.sum()
        sums = {"loss": statistics["loss"], "accuracy": confusion_KK.trace(), "nll": statistics["nll"]}
        if "top5" in statistics:
            sums["top5_error"] = count - statistics["top5"]
        means = torch.stack(list(sums.values())) / count
        found = dict(zip(sums, means.tolist(), strict=True))
        return found | ({"top5_error_human": HUMAN_TOP5_ERROR} if self.num_classes == 1000 else {})

    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"label": output.argmax(-1), "probability": output.float().softmax(-1)}

    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """The three most probable classes; the picture of an image shows what the network looked at."""

        def picture(number: int, title: str) -> Figure:
            image_1CHW = batch[self.input_name][number : number + 1]
            assert isinstance(self.input, Image)
            seen = explain.explain(system, image_1CHW)
            found = (seen[0], seen[1][0]) if seen else None
            return explain.draw(self.input, self.classes, image_1CHW[0], predicted["probability"][number], found, title)

        answers = []
        for number, probability_K in enumerate(predicted["probability"]):
            top = explain.top_classes(self.classes, probability_K, 3)
            line = "  ".join(f"{name} {probability:.1%}" for name, probability in top.items())
            drawn = partial(picture, number) if isinstance(self.input, Image) else None
            answers.append(Answer(line, {"classes": top}, drawn))
        return answers

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """A sheet of images with the predicted class; wrong ones come first, in red, with the true class. Of other
        inputs a table."""
        wrong_first = (output.argmax(-1) == batch[self.target_name]).int().argsort(stable=True)[:32]
        predicted, label = output.argmax(-1)[wrong_first].tolist(), batch[self.target_name][wrong_first].tolist()
        inputs = batch[self.input_name][wrong_first]
        names = [(self.classes[guess], self.classes[truth]) for guess, truth in zip(predicted, label, strict=True)]
        if not isinstance(self.input, Image):
            rows = [(text, *pair) for text, pair in zip(self.input.draw(inputs), names, strict=True)]
            return {"predictions": Table([self.input_name, "predicted", "true"], rows)}
        titles = [guess if guess == truth else f"{guess} ({truth})" for guess, truth in names]
        colors = ["black" if guess == truth else "firebrick" for guess, truth in names]
        images_BCHW = self.input.denormalize(inputs).clamp(0, 1).cpu()
        shown = "predicted classes; the wrong ones first, in red, with the true class"
        return {"predictions": sheet(images_BCHW, titles, colors, shown)}

    def report(self, statistics: Statistics) -> Report:
        """Precision, recall and F1 of each class, the confusion matrix, and of images the worst mistakes."""
        confusion_KK = statistics["confusion"]
        media: dict[str, Any] = {"confusion": draw_confusion(confusion_KK, self.classes)}
        if isinstance(self.input, Image):
            media["confused"] = draw_mistakes(worst(statistics["mistakes"]), self.input, self.classes)
        rows = per_class(confusion_KK, self.classes)
        return Report({"per_class": rows}, media, {"per_class": rows, "confusion": confusion_KK.tolist()})


TITLE = 13  # letters that fit above an image


def sheet(images_BCHW: Tensor, titles: Sequence[str], colors: Sequence[str], shown: str, columns: int = 8) -> Figure:
    """Images in rows, each with a title; `shown` above says what they are. As one picture with texts on it: 32 axes
    would take ten times as long to draw, and a small training less time than its picture."""
    count, channels, height, width = images_BCHW.shape
    titles = [text if len(text) <= TITLE else text.replace(" (", "\n(") for text in titles]
    title = 0.36 if any("\n" in text for text in titles) else 0.2  # in sides of an image
    rows, gap = -(-count // columns), 0.08
    step_y, step_x = round(height * (1 + title)), round(width * (1 + gap)) + 1
    canvas_HWC = torch.ones(rows * step_y, columns * step_x, channels)
    tall = 8 * rows * step_y / (columns * step_x)
    figure, axes = subplots(size=(8, tall + 0.3))
    figure.set_layout_engine("none")  # which takes as long as all the rest
    axes.set_position((0, 0, 1, tall / (tall + 0.3)))
    figure.suptitle(shown, fontsize=9, y=1 - 0.15 / (tall + 0.3), va="center")
    for number, (image_CHW, text, color) in enumerate(zip(images_BCHW, titles, colors, strict=True)):
        y, x = number // columns * step_y + step_y - height, number % columns * step_x
        canvas_HWC[y : y + height, x : x + width] = image_CHW.permute(1, 2, 0)
        axes.text(
            x + width / 2, y - 0.05 * height - 0.5, drawable(text), fontsize=7, color=color, ha="center", va="bottom"
        )
    axes.imshow(canvas_HWC.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure
