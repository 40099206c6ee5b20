"""GPT (Radford et al. 2018, 2019; Brown et al. 2020, arXiv:2005.14165): a transformer whose steps read only backwards.

Shapes: B batch, L steps, D dim, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.sequence.attention import Positions, TransformerBlock
from dlx.models.sequence.steps import Steps
from dlx.models.vision.pretrained import read_weights
from dlx.tasks.sequence import AnySequences, SequenceModel

if TYPE_CHECKING:
    from dlx.tasks.generation import Cache

Size = Literal[
    "mini", "gpt1", "gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl", "gpt3_small", "gpt3_medium", "gpt3_large",
    "gpt3_xl", "gpt3_2_7b", "gpt3_6_7b", "gpt3_13b", "gpt3",
]  # fmt: skip
# size -> dim, depth, heads: those of the GPT papers; mini is dlx's. Table 2.1 of GPT-3's has two rows that contradict
# themselves: 24 heads of 128 for XL (16 make its width of 2048 and its 1.3B), and a width of 5140 for 40 heads of 128.
SIZES = {
    "mini": (128, 4, 4),
    "gpt1": (768, 12, 12),
    "gpt2": (768, 12, 12),
    "gpt2_medium": (1024, 24, 16),
    "gpt2_large": (1280, 36, 20),
    "gpt2_xl": (1600, 48, 25),
    "gpt3_small": (768, 12, 12),
    "gpt3_medium": (1024, 24, 16),
    "gpt3_large": (1536, 24, 16),
    "gpt3_xl": (2048, 24, 16),
    "gpt3_2_7b": (2560, 32, 32),
    "gpt3_6_7b": (4096, 32, 32),
    "gpt3_13b": (5120, 40, 40),
    "gpt3": (12288, 96, 96),
}


class GPT(SequenceModel):
    """size: sets dim (of a step), depth (blocks) and heads, each of which can be given apart; gpt1 normalizes after the
    addition, the others before, which `norm` sets apart. All attention is dense, where half of
    GPT-3's layers are sparse.

    context: steps that the model can read; None: as many as a sequence of the data has. dropout: rate after the
    positions, at the attention weights and after attention and MLP. weights: a .safetensors file of GPT-2 in the names
    of the transformers library. Sequences of numbers and rows of images are steps through a linear layer.
    """

    def __init__(
        self,
        *,
        spec: AnySequences,
        size: Size = "mini",
        dim: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        context: int | None = None,
        norm: Literal["pre", "post"] | None = None,
        dropout: float = 0.1,
        weights: str | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.one_of(SIZES, size=size)
        checks.at_least(1, dim=dim, depth=depth, heads=heads)
        checks.between("[0, 1)", dropout=dropout)
        dim, depth, heads = (given or usual for given, usual in zip((dim, depth, heads), SIZES[size], strict=True))
        self.steps = Steps(self.input, dim, default=dim)
        checks.at_least(self.steps.length, context=context)
        self.places = context or self.steps.length
        norm = norm or ("post" if size == "gpt1" else "pre")
        self.positions = Positions("learned", self.places, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim, heads, 4 * dim, norm=norm, activation="gelu_tanh", dropout=dropout, attention_dropout=dropout
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim) if norm == "pre" else nn.Identity()
        self.out = nn.Linear(dim, self.num_outputs, bias=False) if self.is_language_model else self.make_head(dim)
        self._initialize(depth)
        if self.is_language_model:
            self.out.weight = self.steps.embedding.weight
        if weights is not None:
            self._load(weights)

    def _initialize(self, depth: int) -> None:
        """N(0, 0.02), positions N(0, 0.01); what is added up over the blocks is smaller by sqrt(2 depth), so that the
        sum is not larger in a deeper network (GPT-2's report, section 2.3)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                adds = name.endswith(("attention.project", "mlp.2"))
                nn.init.normal_(module.weight, std=0.02 * ((2 * depth) ** -0.5 if adds else 1.0))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        assert self.positions.weight is not None
        nn.init.normal_(self.positions.weight, std=0.01)

    @property
    def context(self) -> int:
        return self.places

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Features [B, L, D] of each step. Raises UserError for more steps than the model has places.

        Padding follows the text, so that no step of the text reads it.
        """
        start = cache["0.self.key"].shape[2] if cache else 0
        h_BLD = self.steps(x)
        if start + h_BLD.shape[1] > self.places:
            raise UserError(f"tokens: {start + h_BLD.shape[1]} steps are more than the model's {self.places} places")
        h_BLD = self.dropout(self.positions(h_BLD, start))
        for number, block in enumerate(self.blocks):
            h_BLD = block(h_BLD, causal=True, cache=cache, name=str(number))
        return self.norm(h_BLD)

    def attention(self, x: Tensor) -> list[Tensor]:
        """The attention weights of each block, [B, A, L, L] per block."""
        h_BLD, found = self.dropout(self.positions(self.steps(x))), []
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            read_BLD = block.norm_attention(h_BLD) if block.pre else h_BLD
            found.append(block.attention.weights(read_BLD, causal=True))
            h_BLD = block(h_BLD, causal=True)
        return found

    def _load(self, path: str) -> None:
        """Raises ValueError naming `weights` for a file that does not fit."""
        if not self.is_language_model:
            raise ValueError("weights must be left out where the model predicts no tokens")
        theirs = {name.removeprefix("transformer."): tensor for name, tensor in read_weights(path).items()}
        own = from_gpt2(theirs)
        expected = {name: p for name, p in self.state_dict().items() if name != "out.weight"}
        if missing := sorted(set(expected) - set(own)):
            raise ValueError(f"weights must be GPT-2's of {len(self.blocks)} blocks, but {path} has no {missing[0]}")
        if extra := sorted(set(own) - set(expected)):
            raise ValueError(f"weights must be GPT-2's of {len(self.blocks)} blocks, but {path} also has {extra[0]}")
        for name, tensor in own.items():
            if tensor.shape != expected[name].shape:
                shapes = f"{list(tensor.shape)}, not {list(expected[name].shape)}"
                raise ValueError(f"weights must fit the model, but in {path} {name} is {shapes}")
        if self.device.type != "meta":
            self.load_state_dict({**own, "out.weight": own["steps.embedding.weight"]})


def from_gpt2(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's tensors under the names of `GPT`. Its linear layers are stored transposed, and q, k and v in one."""
    names = {
        "wte.weight": "steps.embedding.weight", "wpe.weight": "positions.weight",
        "ln_f.weight": "norm.weight", "ln_f.bias": "norm.bias",
    }  # fmt: skip
    parts = {
        "ln_1": "norm_attention", "attn.c_proj": "attention.project", "ln_2": "norm_mlp",
        "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2",
    }  # fmt: skip
    own = {}
    for name, tensor in theirs.items():
        if name in names:
            own[names[name]] = tensor
            continue
        if not name.startswith("h."):
            continue  # the output layer, which is the embedding
        _, number, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")
        if kind == "weight" and tensor.dim() == 2:
            tensor = tensor.T.contiguous()
        if part == "attn.c_attn":
            for key, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                own[f"blocks.{number}.attention.{key}.{kind}"] = piece
        elif part in parts:
            own[f"blocks.{number}.{parts[part]}.{kind}"] = tensor
    return own  # without the masks attn.bias and attn.masked_bias, which are no weights
