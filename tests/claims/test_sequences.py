"""The numbers behind the claims about sequences: Jacobians of the softmax, kept memory, changed neighbours, bits."""

import math

import pytest
import torch
import torch.nn.functional as F

from dlx.claims.attention import Attention, jacobian_norms
from dlx.claims.attention_cost import AttentionCost, Recurrence, SelfAttention, kept_bytes, written_out
from dlx.claims.context import Context
from dlx.claims.positions import Positions
from dlx.claims.subwords import Subwords
from dlx.config import compose


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_the_norm_of_the_softmax_jacobian_is_that_of_the_written_out_matrix(scale):
    scores_NS = scale * torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobians_NSS = torch.func.vmap(torch.func.jacrev(lambda s_S: s_S.softmax(-1)))(scores_NS)
    torch.testing.assert_close(jacobian_norms(scores_NS.softmax(-1)), jacobians_NSS.flatten(1).norm(dim=1))


def test_the_norm_holds_where_the_softmax_is_saturated():
    """Of two keys with a gap g: 2 p (1 - p), which is 2 e^-g for large g; 1 - p is 0 in float64."""
    scores_NS = torch.tensor([[0.0, -40.0], [-50.0, 0.0]], dtype=torch.float64)
    expected_N = torch.tensor([2 * math.exp(-40), 2 * math.exp(-50)], dtype=torch.float64)
    torch.testing.assert_close(jacobian_norms(scores_NS.softmax(-1)), expected_N, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_kept_by_the_division_alone(seed):
    claim = Attention(widths=(4, 64, 512), queries=300)
    base = compose(["experiment=attention", f"seed={seed}"])
    measured = claim.measure(base, {})
    assert claim.verdict(measured).held
    assert not claim.verdict({**measured, "not_divided": measured["divided"]}).held


def test_attention_written_out_reads_what_fused_attention_reads():
    torch.manual_seed(0)
    layer = SelfAttention(8, written_out).double()
    x_BLD = torch.randn(1, 5, 8, dtype=torch.float64)
    written = layer(x_BLD)
    layer.attend = F.scaled_dot_product_attention
    torch.testing.assert_close(layer(x_BLD), written)


def test_attention_written_out_keeps_a_square_and_the_others_do_not():
    """Second differences over equal steps of L: 0 of what is linear, 2 h² of the L² weights of 4 bytes."""

    def second_difference(layer):
        low, middle, high = (kept_bytes(layer, length, 8) for length in (32, 64, 96))
        return high - 2 * middle + low

    squares = second_difference(SelfAttention(8, written_out)) / (2 * 32**2 * 4)
    assert squares == int(squares) >= 1
    assert second_difference(SelfAttention(8, F.scaled_dot_product_attention)) == 0
    assert second_difference(Recurrence(8)) == 0


def test_the_number_of_threads_stays():
    threads = torch.get_num_threads()
    AttentionCost(lengths=(2, 3, 4), width=2, repeats=1).measure(compose(["experiment=attention_cost"]), {})
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution_reads_the_neighbours_under_its_kernel(kernel):
    claim = Context(reach=4, kernel=kernel, width=8, sequences=4)
    measured = claim.measure(compose(["experiment=context"]), {})
    assert claim.verdict(measured).held
    assert sum(change > 0 for change in measured["convolution"]["one"]) == kernel - 1
    assert measured["MLP"]["one"] == [0.0] * 8
    assert min(measured["attention"]["one"]) > 0.01


@pytest.mark.parametrize(("sines", "none", "held"), [(0.99, 0.01, True), (0.99, 0.5, False), (0.5, 0.01, False)])
def test_positions_are_needed_where_both_kinds_learn_and_none_does_not(sines, none, held):
    exact = {"sinusoidal": sines, "learned": 0.95, "none": none}
    measured = {kind: {"test_exact_match": [value], "test_accuracy": [value]} for kind, value in exact.items()}
    assert Positions().verdict(measured).held is held


@pytest.mark.parametrize(("bpe", "held"), [([2.0, 2.1], True), ([2.4, 2.5], False), ([2.7, 2.8], False)])
def test_subwords_are_compared_in_bits_a_byte(bpe, held):
    measured = {
        "characters": {"bits_per_byte": [2.5, 2.6], "bytes_per_token": 1.0},
        "bpe": {"bits_per_byte": bpe, "bytes_per_token": 2.6},
    }
    assert Subwords(kinds=("characters", "bpe"), seeds=2).verdict(measured).held is held


def test_subwords_train_on_the_same_text(dlx_call):
    pytest.importorskip("tokenizers")
    words = ("trainer.max_steps=2", "data.size=40000", "data.vocabulary=300", "data.length=32", "model.hidden=8")
    call = dlx_call("train", "experiment=subwords", "experiment.kinds=[characters,bpe]", *words)
    assert call.code == 0, call.err
    assert "with 1.00 bytes a token; bpe" in call.out


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Attention(widths=(4,)), "widths must be at least 2, rising and above 0"),
        (lambda: Attention(keys=1), "keys must be at least 2"),
        (lambda: AttentionCost(lengths=(4, 2, 8)), "lengths must be at least 3, rising and above 0"),
        (lambda: AttentionCost(repeats=0), "repeats must be at least 1"),
        (lambda: Context(kernel=4), "kernel must be odd, got 4"),
        (lambda: Context(kernel=9, reach=4), "reach must be at least 5"),
        (lambda: Positions(seeds=0), "seeds must be at least 1"),
        (lambda: Subwords(kinds=("bpe",)), "kinds must be at least two of bytes, characters, bpe"),
        (lambda: Subwords(kinds=("bpe", "words")), "kinds must be at least two of"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
