"""Seq2seq: sizes of the papers, padding that changes nothing, decoding at once and by steps, what it learns."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from dlx.models.sequence.seq2seq import Encoder, Seq2Seq, last_cell, make_rnn
from dlx.tasks.spec import Label, LabeledTokens, Tokens, Translations

PAD, BEGIN, END, FIRST, LETTERS = 0, 1, 2, 3, 10
KINDS = {
    "none": {"attention": None},
    "none-lstm": {"attention": None, "cell": "lstm", "encoder": "reversed", "layers": 2},
    "bahdanau": {},
    "bahdanau-lstm": {"cell": "lstm", "layers": 2},
    "luong-general": {"attention": "luong"},
    "luong-dot": {"attention": "luong", "score": "dot", "encoder": "forward", "input_feeding": False},
    "luong-concat": {"attention": "luong", "score": "concat", "encoder": "reversed", "cell": "lstm"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def spec_of(length=12):
    source = Tokens(vocabulary=FIRST + LETTERS, length=length, pad=PAD)
    target = Tokens(vocabulary=FIRST + LETTERS, length=length + 2, pad=PAD, begin=BEGIN, end=END)
    return Translations(source=source, target=target)


def backwards(count, low=8, high=12, seed=0):
    """Texts of low to high letters, and the same backwards."""
    rng = torch.Generator().manual_seed(seed)
    length_B = torch.randint(low, high + 1, (count,), generator=rng)
    source_BS = torch.randint(FIRST, FIRST + LETTERS, (count, high), generator=rng)
    source_BS[torch.arange(high) >= length_B.unsqueeze(1)] = PAD
    target_BL = torch.full((count, high + 2), PAD)
    target_BL[:, 0] = BEGIN
    for n, size in enumerate(length_B.tolist()):
        target_BL[n, 1 : size + 1] = source_BS[n, :size].flip(0)
        target_BL[n, size + 1] = END
    return {"source": source_BS, "target": target_BL, "index": torch.arange(count)}


def build(kind, **more):
    return Seq2Seq(spec=spec_of(), **{"embed_dim": 8, "hidden": 12, **KINDS[kind], **more})


def loss_of(system, batch):
    (objective,) = system.objectives()
    return system.training_loss(batch, objective)[0]


def test_sutskevers_network_has_384_million_parameters():
    """Counted from section 3.4 of the paper, which says 384M, 64M of them recurrent."""
    source, target = (Tokens(vocabulary=size, length=50, pad=PAD, begin=BEGIN, end=END) for size in (160_000, 80_000))
    with torch.device("meta"):
        system = Seq2Seq(
            spec=Translations(source=source, target=target), cell="lstm", encoder="reversed", embed_dim=1000,
            hidden=1000, layers=4, attention=None, init="sutskever",
        )  # fmt: skip
    counted = {name: p.numel() for name, p in system.named_parameters() if p.requires_grad}
    assert sum(counted.values()) == 384_112_000
    recurrent = sum(size for name, size in counted.items() if name.startswith(("encoder", "decoder")))
    assert recurrent == 64_032_000  # 64M weights, and a bias for each gate


def test_bahdanaus_network_runs_on_the_meta_device_with_his_sizes():
    tokens = Tokens(vocabulary=30_000, length=50, pad=PAD, begin=BEGIN, end=END)
    with torch.device("meta"):
        system = Seq2Seq(spec=Translations(source=tokens, target=tokens), embed_dim=620, hidden=1000, init="bahdanau")
        batch = system.spec.example(2, "meta")
        assert loss_of(system, batch).shape == ()
    sizes = {name: tuple(p.shape) for name, p in system.named_parameters()}
    assert sizes["align.key.weight"] == (1000, 2000)  # U_a reads both directions
    assert sizes["decoder.weight_ih_l0"] == (3000, 620 + 2000)
    assert sizes["out.weight"] == (30_000, 500)  # after maxout


@pytest.mark.parametrize("direction", ["forward", "reversed", "bidirectional"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_encoder_equals_torchs_on_packed_texts(cell, direction):
    batch, lengths = torch.randn(4, 7, 5), torch.tensor([7, 3, 1, 5])
    own = Encoder(cell, direction, 5, 6, 2, 0.0)
    both = direction == "bidirectional"
    kind = nn.GRU if cell == "gru" else nn.LSTM
    theirs = kind(5, 6, 2, batch_first=True, bidirectional=both)
    weights = {
        name.replace("_l0", f"_l{n}") + ("_reverse" if way else ""): parameter
        for n, layer in enumerate(own.layers)
        for way, rnn in enumerate(layer)
        for name, parameter in rnn.named_parameters()
    }
    theirs.load_state_dict(weights)
    read = batch
    if direction == "reversed":
        read = torch.stack([torch.cat([x[:n].flip(0), x[n:]]) for x, n in zip(batch, lengths.tolist(), strict=True)])
    packed, last = theirs(pack_padded_sequence(read, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    states, found = own(batch, lengths)
    for n, size in enumerate(lengths.tolist()):
        whole = expected[n, :size].flip(0) if direction == "reversed" else expected[n, :size]
        assert_close(states[n, :size], whole)
    hidden, cells = (last, None) if cell == "gru" else last
    for n, (h, c) in enumerate(found):
        assert_close(h, torch.cat([*hidden[n * (1 + both) : (n + 1) * (1 + both)]], -1))
        if c is not None:
            assert_close(c, cells[n])
        else:
            assert cell == "gru" or both


def test_the_cell_after_the_last_token_has_torchs_gradient():
    x, lengths = torch.randn(3, 6, 4), torch.tensor([6, 2, 4])
    rnn = make_rnn("lstm", 4, 5)
    last_cell(rnn, x, rnn(x)[0], lengths).square().sum().backward()
    own = [p.grad.clone() for p in rnn.parameters() if p.requires_grad]
    rnn.zero_grad()
    _, (_, cell) = rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    cell.square().sum().backward()
    assert_close(own, [p.grad for p in rnn.parameters() if p.requires_grad])


@every_kind
def test_padding_changes_nothing(kind):
    system, batch = build(kind).eval(), backwards(6)
    with torch.no_grad():
        logits = system.decode(batch["target"], system.encode(batch["source"]))
        weights = system.attention(batch["target"], system.encode(batch["source"]))
        for n, row in enumerate(batch["source"]):
            size = int((row != PAD).sum())
            memory = system.encode(row[None, :size])
            assert_close(system.decode(batch["target"][n : n + 1], memory)[0], logits[n], atol=1e-6, rtol=0)
            if weights is not None:
                assert not weights[n, :, size:].any()
        wider = torch.nn.functional.pad(batch["source"], (0, 5), value=PAD)
        assert_close(system.decode(batch["target"], system.encode(wider)), logits, atol=1e-6, rtol=0)


@every_kind
def test_a_step_at_a_time_gives_the_same_logits(kind):
    system, batch = build(kind).eval(), backwards(5)
    with torch.no_grad():
        logits = system.decode(batch["target"], system.encode(batch["source"]))
        memory = system.encode(batch["source"])
        steps = [system.decode(part, memory, cached=True) for part in batch["target"].split(3, 1)]
    assert_close(torch.cat(steps, 1), logits, atol=1e-6, rtol=0)


@every_kind
def test_a_token_changes_nothing_before_it(kind):
    system, batch = build(kind).eval(), backwards(3)
    changed = batch["target"].clone()
    changed[:, 5] = END
    with torch.no_grad():
        memory = system.encode(batch["source"])
        one, other = (system.decode(target, memory) for target in (batch["target"], changed))
    assert torch.equal(one[:, :5], other[:, :5])
    assert not torch.equal(one[:, 5], other[:, 5])


@every_kind
def test_without_teacher_forcing_it_reads_what_it_wrote(kind):
    system, batch = build(kind, teacher_forcing=0.0), backwards(3)
    logits = system.output(batch)
    own = torch.cat([batch["target"][:, :1], logits.argmax(-1)[:, :-1]], 1)
    system.eval()
    assert_close(system.decode(own, system.encode(batch["source"])), logits, atol=1e-6, rtol=0)
    forced = system.output(batch)
    assert_close(system.decode(batch["target"][:, :-1], system.encode(batch["source"])), forced)
    always = build(kind, teacher_forcing=1.0 - 1e-9)
    always.load_state_dict(system.state_dict())
    assert_close(always.output(batch), forced, atol=1e-6, rtol=0)


@every_kind
def test_attention_is_a_mean_over_the_source(kind):
    system, batch = build(kind), backwards(4)
    weights = system.attention(batch["target"], system.encode(batch["source"]))
    if KINDS[kind].get("attention", "bahdanau") is None:
        assert weights is None
    else:
        assert weights.shape == (4, 14, 12)
        assert_close(weights.sum(-1), torch.ones(4, 14))


@every_kind
def test_every_weight_gets_a_gradient_and_the_loss_begins_at_that_of_a_guess(kind):
    system, batch = build(kind), backwards(16)
    loss = loss_of(system, batch)
    assert abs(loss.item() - math.log(FIRST + LETTERS)) < 0.3
    loss.backward()
    trained = {name: p.grad for name, p in system.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not gradient.any()] == []


@pytest.mark.parametrize("init", [None, "sutskever", "bahdanau"])
def test_initial_weights(init):
    system = build("bahdanau", init=init, hidden=64)
    weight = system.decoder.weight_hh_l0
    if init == "sutskever":
        assert max(p.abs().max() for p in system.parameters()) <= 0.08
    if init == "bahdanau":
        for gate in weight.chunk(3):
            assert_close(gate @ gate.T, torch.eye(64), atol=1e-5, rtol=0)
        assert not system.align.v.any()
        assert system.align.key.weight.std().item() == pytest.approx(0.001, rel=0.1)
        assert system.read.weight.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("kind", ["none-lstm", "bahdanau", "luong-general"])
def test_beams_of_a_batch_are_those_of_each_text(kind):
    system, batch = build(kind).eval(), backwards(3)
    together = system.generate(batch["source"], beam=3)
    for n in range(3):
        alone = system.generate(batch["source"][n : n + 1], beam=3)
        assert system.target.equal(alone, together[n : n + 1]).item()


@pytest.mark.parametrize("encoder", ["forward", "reversed", "bidirectional"])
def test_it_classifies_texts_by_what_it_read_last(encoder):
    tokens = Tokens(vocabulary=FIRST + LETTERS, length=12, pad=PAD)
    system = Seq2Seq(
        spec=LabeledTokens(tokens=tokens, label=Label(classes=("a", "b", "c"))), encoder=encoder, embed_dim=8, hidden=12
    )
    source = backwards(6)["source"]
    logits = system.eval()(source)
    assert logits.shape == (6, 3)
    assert_close(system(torch.nn.functional.pad(source, (0, 4))), logits, atol=1e-6, rtol=0)
    assert system.embed({"tokens": source}).shape == (6, system.encoder.features)
    assert "write.weight" not in system.state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "rnn"}, "cell must be gru or lstm, got 'rnn'"),
        ({"encoder": "backward"}, "encoder must be forward, reversed or bidirectional"),
        ({"attention": "additive"}, "attention must be bahdanau or luong, got 'additive'"),
        ({"attention": "luong", "score": "cosine"}, "score must be dot, general or concat"),
        ({"attention": "luong", "score": "dot"}, "score dot needs states of one width, got 128 .* 256 of the encoder"),
        ({"teacher_forcing": 1.5}, r"teacher_forcing must be in \[0, 1\], got 1.5"),
        ({"hidden": 1}, "hidden must be at least 2, got 1"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"init": "xavier"}, "init must be sutskever or bahdanau, got 'xavier'"),
        ({"beam": 0}, "beam must be at least 1, got 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=f"^{message}"):
        Seq2Seq(spec=spec_of(), **arguments)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong-general", "luong-dot"])
def test_one_batch_is_learned_by_heart(kind):
    system, batch = build(kind, hidden=48, embed_dim=24), backwards(8, 3, 5)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-2)
    for _ in range(300):
        loss = loss_of(system, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert loss < 0.02
    assert system.target.equal(system.eval().generate(batch["source"]), batch["target"]).all()


def learned(seed, steps=750, **arguments):
    torch.manual_seed(seed)
    system = Seq2Seq(spec=spec_of(), **arguments)
    optimizer = torch.optim.Adam(system.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(steps):
        loss = loss_of(system, backwards(64, seed=seed * steps + step))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return system.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_writes_8_to_12_letters_backwards(seed):
    """At 750 steps, with attention; the map runs from the source's end to its beginning."""
    system, test = learned(seed), backwards(500, seed=10**6)
    exact = system.target.equal(system.generate(test["source"]), test["target"]).float().mean().item()
    print(f"exact match {exact:.4f}")  # noqa: T201
    assert exact > 0.99
    weights = system.attention(test["target"][:, :-1], system.encode(test["source"]))
    length_B = (test["source"] != PAD).sum(1)
    hits = total = 0
    for row, size in zip(weights, length_B.tolist(), strict=True):
        hits += (row[:size].argmax(-1) == torch.arange(size - 1, -1, -1)).sum().item()
        total += size
    assert hits / total > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_dates_become_iso(seed, dlx_call):
    """What `dlx train model=seq2seq` does by itself."""
    call = dlx_call("train", "model=seq2seq", f"seed={seed}", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/exact_match"] >= 0.98
