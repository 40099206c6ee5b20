"""README's "add your own", done: one Python file, one YAML file, from a folder of one's own."""

import re
from pathlib import Path

MODEL = '''
from torch import Tensor, nn

from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised


class TinyNet(Supervised):
    """A hidden layer with a squared nonlinearity."""

    def __init__(self, *, spec: LabeledImages, width: int = 32, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.hidden = nn.Linear(self.num_features, width)
        self.out = nn.Linear(width, self.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x.flatten(1)).square())
'''
OPTION = """# @package _global_
# A network of my own.
defaults:
  - override /optimizer: adamw
model:
  _target_: my_pkg.tiny.TinyNet
  width: 16
"""


def test_an_option_cannot_hide_a_shipped_one(dlx_call, here):
    Path("my_conf/optimizer").mkdir(parents=True)
    Path("my_conf/optimizer/adam.yaml").write_text("# Mine.\n_target_: torch.optim.Adam\nlr: 0.77\n")
    call = dlx_call("config", "--conf-dir", "my_conf", "optim=adam")
    assert call.code == 2
    assert "optimizer/adam.yaml has the name of a shipped option" in call.err


def test_a_model_of_ones_own(dlx_call, here):
    Path("my_pkg").mkdir()
    Path("my_pkg/__init__.py").touch()
    Path("my_pkg/tiny.py").write_text(MODEL)
    Path("my_conf/model").mkdir(parents=True)
    Path("my_conf/model/my_net.yaml").write_text(OPTION)
    mine = ("--conf-dir", "my_conf", "--trust", "my_pkg")
    call = dlx_call("train", *mine, "model=my_net", "trainer.epochs=5")
    assert call.code == 0, call.err
    assert re.search(r"dlx eval \S+ --trust my_pkg  ", call.out)
    assert "AdamW" in dlx_call("config", *mine, "model=my_net").out
    assert "A network of my own." in dlx_call("list", "model", "--conf-dir", "my_conf").out
    assert "did you mean width?" in dlx_call("train", *mine, "model=my_net", "model.widht=3").err
    assert "model.width" in dlx_call("train", *mine, "model=my_net", "model.width=0").err
    assert dlx_call("eval", "@last", "--trust", "my_pkg").code == 0
    refused = dlx_call("eval", "@last")
    assert refused.code == 2
    assert "--trust" in refused.err
