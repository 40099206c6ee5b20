"""A classifier of texts on BERT (Devlin et al. 2018, arXiv:1810.04805, section 3.2): pre-trained, then fine-tuned.

Shapes: B batch, L tokens, D dim, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.bert import BERT, initialize
from dlx.random import uniform_rows
from dlx.tasks.spec import LabeledTokens, Streams
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import Objective

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Statistics


class BertClassifier(Supervised):
    """bert_from: the run whose BERT it begins with; bert: its block, which dlx writes into the configuration, or one
    that a person names. Without either it has a BERT of `size`, which it pre-trains in a first stage on the texts.

    pretrain: share of the steps that the first stage takes; 0 trains all from scratch. dropout: rate before the last
    layer. mlm_loss, that of hidden tokens, is measured throughout where there is a first stage.
    """

    def __init__(
        self,
        *,
        spec: LabeledTokens,
        bert: BERT | None = None,
        bert_from: str | None = None,
        size: Literal["mini", "base", "large"] = "mini",
        pretrain: float = 0.5,
        dropout: float = 0.1,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.between("[0, 1)", pretrain=pretrain, dropout=dropout)
        self.pretrain = pretrain if bert is None else 0.0
        self.bert = BERT(spec=Streams(tokens=spec.tokens), size=size) if bert is None else bert
        if not self.pretrain:
            for parameter in self.bert.pretraining():
                parameter.requires_grad_(False)  # they are not used here
        self.bert.pooler.requires_grad_(True)
        self.dropout = nn.Dropout(dropout)
        self.out = self.make_head(self.bert.dim)
        initialize(self.out)

    def stage_starts(self, total_steps: int) -> list[int]:
        if not self.pretrain:
            return [0]
        first = round(self.pretrain * total_steps)
        if not 0 < first < total_steps:
            raise ValueError(f"pretrain must leave a step for each stage, got {self.pretrain} of {total_steps} steps")
        return [0, first]

    def objectives(self, stage: int = 0) -> list[Objective]:
        if self.pretrain and stage == 0:
            pooler = set(self.bert.pooler.parameters())
            return [Objective("pretraining", [p for p in self.bert.parameters() if p not in pooler])]
        spared = set(self.bert.pretraining())
        params = [p for p in self.parameters() if p.requires_grad and p not in spared]
        return [Objective("classifier", params)]

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        if objective.name == "pretraining":
            return self.bert.training_loss(batch, objective)
        return super().training_loss(batch, objective)

    def evaluate(self, batch: Batch) -> Statistics:
        found = super().evaluate(batch)
        if not self.pretrain:
            return found
        draw_BL3 = uniform_rows("bert", batch["index"], batch["tokens"].shape[1], 3)
        hidden = self.bert.sums(batch, draw_BL3)
        return {**found, "mlm": hidden["mlm"].double(), "mlm_count": hidden["count"]}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        found = super().metrics({name: value for name, value in statistics.items() if not name.startswith("mlm")})
        if "mlm" in statistics:
            found["mlm_loss"] = float(statistics["mlm"]) / max(1, int(statistics["mlm_count"]))
        return found

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (*self.target.metric_names, *(("mlm_loss",) if self.pretrain else ()))

    def features(self, tokens_BL: Tensor) -> Tensor:
        """What the pooler makes of the mark that begins a text, [B, D]."""
        return self.bert.pool(self.bert.encode(tokens_BL))

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(tokens_BL)))
