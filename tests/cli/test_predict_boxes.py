"""dlx predict by detectors: regions that are proposed for a person's own images."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dlx.runs.folder import RunFolder
from dlx.tasks.detection import unpadded
from dlx.training.trained import open_all

WORDS = (
    "data=shapes", "data.samples=20", "data.side=64", "data.batch_size=4", "model.units=8",
    "data.proposals={name: windows, most: 12}", "trainer.max_steps=2", "optim.lr=1e-2",
)  # fmt: skip


def test_images_of_files_have_the_proposals_that_a_dataset_gives_them(dlx_call, only_run):
    assert dlx_call("train", "model=fast_rcnn", *WORDS).code == 0
    opened = open_all(RunFolder(only_run()))
    batch = next(opened.loader("test").eval_batches())
    expected = [unpadded(boxes) for boxes in opened.system.detect(batch)]
    assert sum(map(len, expected))
    Path("photos").mkdir()
    for number, pixels in enumerate(opened.system.spec.image.draw(batch["image"])):
        Image.fromarray(pixels.numpy()).save(f"photos/{number}.png")
    told = json.loads(dlx_call("predict", "@last", "photos", "--no-pictures", "--json").out)["predictions"]
    for one, wanted in zip(told, expected, strict=True):
        x, y, width, height = torch.tensor([found["bbox"] for found in one["detections"]]).view(-1, 4).T
        torch.testing.assert_close(torch.stack([x, y, x + width, y + height], 1), wanted[:, :4])


@pytest.mark.parametrize("model", ["rcnn", "sppnet"])
def test_svms_score_proposals_of_files(model, dlx_call, only_run):
    assert dlx_call("train", f"model={model}", *WORDS).code == 0
    Image.new("RGB", (64, 64), "red").save("red.png")
    call = dlx_call("predict", "@last", "red.png", "--json")
    assert call.code == 0, call.err
    (told,) = json.loads(call.out)["predictions"]
    assert Path(told["picture"]).exists()


def test_a_proposer_of_ones_own_must_be_trusted(dlx_call, write_files):
    write_files(
        {
            "corners.py": "import numpy as np\n"
            "from dlx.data.proposals import Proposer\n"
            "class Corner(Proposer):\n"
            "    def __init__(self, *, most: int = 2) -> None:\n"
            "        self.most = most\n"
            "    def __call__(self, image_HWC):\n"
            "        return np.array([[0, 0, 20, 20]], np.float32)\n",
            "own/proposals/corner.yaml": "proposals:\n  _target_: corners.Corner\n",
        }
    )
    words = ("model=fast_rcnn", *WORDS[:5], "data.proposals=corner", "trainer.max_steps=1", "--conf-dir", "own")
    call = dlx_call("train", *words, "--trust", "corners")
    assert call.code == 0, call.err
    Image.new("RGB", (64, 64), "red").save("red.png")
    assert "corners" in dlx_call("predict", "@last", "red.png").err
    call = dlx_call("predict", "@last", "red.png", "--trust", "corners", "--json")
    assert call.code == 0, call.err
