"""Attention and blocks against torch.nn with the same weights; masks, caches, the course's two forms."""

import math

import pytest
import torch
from torch import nn

from dlx.models.sequence.attention import MultiHeadAttention, Positions, TransformerBlock, sinusoidal

D, A, L, S = 24, 4, 7, 9


def copy_attention(theirs: nn.MultiheadAttention, ours: MultiHeadAttention) -> None:
    for part, name in enumerate(("query", "key", "value")):
        rows = slice(part * D, (part + 1) * D)
        getattr(ours, name).weight.data = theirs.in_proj_weight.data[rows]
        getattr(ours, name).bias.data = torch.randn(D) * 0.1
        theirs.in_proj_bias.data[rows] = getattr(ours, name).bias.data
    ours.project.load_state_dict(theirs.out_proj.state_dict())


@pytest.fixture
def pair():
    theirs, ours = nn.MultiheadAttention(D, A, batch_first=True), MultiHeadAttention(D, A)
    copy_attention(theirs, ours)
    return theirs.double(), ours.double()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_torch(pair, causal):
    theirs, ours = pair
    x, memory = torch.randn(3, L, D).double(), torch.randn(3, L if causal else S, D).double()
    blocked = torch.ones(L, memory.shape[1], dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(x, memory, memory, attn_mask=blocked, average_attn_weights=False)
    torch.testing.assert_close(ours(x, memory, causal=causal), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.weights(x, memory, causal=causal), weights, atol=1e-10, rtol=0)


def test_padding_is_not_read(pair):
    theirs, ours = pair
    x, memory = torch.randn(3, L, D).double(), torch.randn(3, S, D).double()
    valid = torch.arange(S) < torch.tensor([[2], [S], [5]])
    expected, _ = theirs(x, memory, memory, key_padding_mask=~valid)
    found = ours(x, memory, valid_BS=valid)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    memory[~valid] = 1e3
    torch.testing.assert_close(ours(x, memory, valid_BS=valid), found, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours(x[:1], memory[:1, :2]), found[:1], atol=1e-12, rtol=0)


def test_a_step_that_may_read_nothing_reads_zero():
    layer = MultiHeadAttention(D, A)
    x = torch.randn(2, L, D, requires_grad=True)
    valid = torch.ones(2, L, dtype=torch.bool)
    valid[0] = False
    y = layer(x, valid_BS=valid)
    torch.testing.assert_close(y[0], layer.project.bias.expand(L, D))
    assert not layer.weights(x, valid_BS=valid)[0].any()
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_the_two_forms_of_the_course():
    """Split: 4 D^2 + 4 D, however many heads. Full: each head has three D x D matrices, and D x D to join it."""

    def count(**arguments):
        return sum(p.numel() for p in MultiHeadAttention(D, A, **arguments).parameters())

    assert count() == 4 * D * D + 4 * D
    assert count(form="full") == A * 4 * D * D + A * 3 * D + D
    split, full = MultiHeadAttention(D, A), MultiHeadAttention(D, A, form="full")
    x = torch.randn(2, L, D)
    assert split._split(split.query(x)).shape == (2, A, L, D // A)
    assert full._split(full.query(x)).shape == (2, A, L, D)
    assert split(x).shape == full(x).shape == x.shape


def test_queries_and_keys_are_equally_wide_and_values_of_any_width():
    layer = MultiHeadAttention(D, A, query_dim=5, key_dim=5, value_dim=3, memory_dim=10)
    assert layer(torch.randn(2, L, D), torch.randn(2, S, 10)).shape == (2, L, D)
    with pytest.raises(ValueError, match=r"^query_dim must be key_dim \(6\): they are multiplied, got 5"):
        MultiHeadAttention(D, A, query_dim=5, key_dim=6)
    with pytest.raises(ValueError, match=r"^heads must divide dim \(24\), got 5"):
        MultiHeadAttention(D, 5)


def test_the_division_by_the_root_of_the_width_keeps_the_scores_at_one():
    torch.manual_seed(0)
    for width in (16, 256):
        q, k = torch.randn(2, 1, 200, width)
        assert (q @ k.transpose(-2, -1)).std().item() == pytest.approx(math.sqrt(width), rel=0.1)
    with_, without = (MultiHeadAttention(D, A, scale=scale) for scale in (True, False))
    without.load_state_dict(with_.state_dict())
    with torch.no_grad():
        without.query.weight /= math.sqrt(D / A)
        without.query.bias /= math.sqrt(D / A)
    x = torch.randn(2, L, D)
    torch.testing.assert_close(with_(x), without(x))
    torch.testing.assert_close(with_.weights(x), without.weights(x))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_of_torch(norm, activation):
    theirs = nn.TransformerEncoderLayer(
        D, A, 32, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    ours = TransformerBlock(D, A, 32, norm=norm, activation=activation)
    copy_attention(theirs.self_attn, ours.attention)
    pairs = {"linear1": ours.mlp[0], "linear2": ours.mlp[2], "norm1": ours.norm_attention, "norm2": ours.norm_mlp}
    for name, layer in pairs.items():
        layer.load_state_dict(getattr(theirs, name).state_dict())
    x = torch.randn(3, L, D)
    valid = torch.arange(L) < torch.tensor([[2], [L], [5]])
    expected = theirs.train()(x, src_key_padding_mask=~valid)
    torch.testing.assert_close(ours(x, valid_BL=valid)[valid], expected[valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_layer_of_torch(norm):
    theirs = nn.TransformerDecoderLayer(D, A, 32, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    ours = TransformerBlock(D, A, 32, norm=norm, cross=True)
    copy_attention(theirs.self_attn, ours.attention)
    copy_attention(theirs.multihead_attn, ours.cross)
    pairs = {
        "linear1": ours.mlp[0], "linear2": ours.mlp[2],
        "norm1": ours.norm_attention, "norm2": ours.norm_cross, "norm3": ours.norm_mlp,
    }  # fmt: skip
    for name, layer in pairs.items():
        layer.load_state_dict(getattr(theirs, name).state_dict())
    x, memory = torch.randn(3, L, D), torch.randn(3, S, D)
    valid = torch.arange(S) < torch.tensor([[2], [S], [5]])
    causal = torch.ones(L, L, dtype=torch.bool).triu(1)
    expected = theirs(x, memory, tgt_mask=causal, memory_key_padding_mask=~valid)
    found = ours(x, memory, causal=True, memory_valid_BS=valid)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_cache_gives_the_same():
    block = TransformerBlock(D, A, 32, cross=True).double()
    x, memory = torch.randn(2, L, D).double(), torch.randn(2, S, D).double()
    whole, cache = block(x, memory, causal=True), {}
    parts = [block(part, memory, causal=True, cache=cache, name="0") for part in x.split((3, 1, 2, 1), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-12, rtol=0)
    assert {name: tuple(value.shape) for name, value in cache.items()} == {
        "0.self.key": (2, A, L, D // A), "0.self.value": (2, A, L, D // A),
        "0.cross.key": (2, A, S, D // A), "0.cross.value": (2, A, S, D // A),
    }  # fmt: skip


def test_positions():
    expected = [0.841471, 0.540302, 0.099833, 0.995004, 0.01, 0.99995, 0.001, 1.0]
    assert sinusoidal(2, 8)[1].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(sinusoidal(2, 8, start=3), sinusoidal(5, 8)[3:])
    x = torch.zeros(2, 3, 7)
    assert Positions("sinusoidal", 5, 7)(x).shape == x.shape
    assert torch.equal(Positions("none", 5, 7)(x), x)
    learned = Positions("learned", 5, 7)
    assert torch.equal(learned(x, 2)[0], learned.weight[2:5])
    with pytest.raises(ValueError, match=r"^positions must be sinusoidal, learned or none, got 'sines'"):
        Positions("sines", 5, 7)
