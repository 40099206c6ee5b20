"""Draws recorded and given back: a forward pass is then to the bit what it is alone."""

import pytest
import torch
import torch.nn.functional as F

from dlx.batched.random_replay import RecordRandom, ReplayRandom

P = torch.rand(40, 7)
Q = torch.randn(2, 3, 5, 4)
CALLS = {
    "dropout": lambda: F.dropout(P, 0.3),
    "dropout2d": lambda: F.dropout2d(Q, 0.3),
    "randn": lambda: torch.randn(3, 4),
    "randn_like": lambda: P + torch.randn_like(P),
    "rand_like": lambda: P + torch.rand_like(P),
    "randint_like": lambda: torch.randint_like(P, 9),
    "exponential_": lambda: torch.empty(40).exponential_(2.0),
    "normal_": lambda: torch.zeros(40).normal_(1, 2),
    "uniform_": lambda: torch.zeros(40).uniform_(-1, 1),
    "bernoulli": lambda: torch.bernoulli(P),
    "normal of tensors": lambda: torch.normal(P, P + 1),
    "normal of a mean": lambda: torch.normal(P, 2.0),
    "normal of a size": lambda: torch.normal(0.0, 1.0, (4, 5)),
    "multinomial": lambda: torch.multinomial(P, 1),
    "multinomial of several": lambda: torch.multinomial(P, 3),
    "gumbel_softmax": lambda: F.gumbel_softmax(P, tau=0.7),
    "hard gumbel_softmax": lambda: F.gumbel_softmax(P, hard=True),
    "attention": lambda: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.3),
    "causal attention": lambda: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.3, is_causal=True),
}


@pytest.mark.parametrize("name", CALLS)
def test_recorded_draws_give_what_torch_gives(name):
    call = CALLS[name]
    torch.manual_seed(1)
    alone = call()
    with RecordRandom() as recording:
        call()
    assert recording.found
    torch.manual_seed(1)
    drawn = [draw() for draw in recording.found]
    torch.manual_seed(2)
    with ReplayRandom(drawn):
        given = call()
    torch.testing.assert_close(given, alone, rtol=1e-6, atol=1e-6)
    torch.manual_seed(1)
    with ReplayRandom([draw() for draw in recording.found]):
        assert torch.equal(call(), given)


@pytest.mark.parametrize("name", ["bernoulli", "multinomial", "gumbel_softmax", "attention", "exponential_"])
def test_members_of_a_stack_get_their_own(name):
    """Inside vmap, where torch itself has no draws for each member."""
    calls = {
        "bernoulli": torch.bernoulli,
        "multinomial": lambda p: torch.multinomial(p, 1),
        "gumbel_softmax": F.gumbel_softmax,
        "attention": lambda p: F.scaled_dot_product_attention(p[None], p[None], p[None], dropout_p=0.3),
        "exponential_": lambda p: p + torch.empty_like(p).exponential_(),
    }
    call, stacked = calls[name], torch.rand(3, 40, 7)
    with RecordRandom() as recording:
        call(stacked[0])
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        members.append([draw() for draw in recording.found])
    drawn = [torch.stack(tensors) for tensors in zip(*members, strict=True)]

    def given(p, drawn):
        with ReplayRandom(drawn):
            return call(p)

    found = torch.func.vmap(given, randomness="error")(stacked, drawn)
    for seed in range(3):
        torch.manual_seed(seed)
        torch.testing.assert_close(found[seed], call(stacked[seed]), rtol=1e-5, atol=1e-6)
