import pytest
import torch

from dlx.models.sequence.transformer import Transformer
from dlx.tasks.spec import Label, LabeledTokens, Tokens, Translations

SMALL = {"dim": 32, "depth": 2, "heads": 4, "dropout": 0.0}
MARKS = {"pad": 0, "begin": 1, "end": 2}


def pairs(source=11, target=11, length=10):
    tokens = {"length": length, **MARKS}
    return Translations(source=Tokens(vocabulary=source, **tokens), target=Tokens(vocabulary=target, **tokens))


def random_pairs(count=4, source=11, target=11, length=10):
    """Texts of different lengths between their marks."""

    def texts(vocabulary):
        rows = torch.randint(3, vocabulary, (count, length))
        rows[:, 0] = 1
        for row in range(count):
            end = 3 + row % (length - 3)
            rows[row, end], rows[row, end + 1 :] = 2, 0
        return rows

    return {"source": texts(source), "target": texts(target), "index": torch.arange(count)}


@pytest.mark.parametrize(
    ("size", "vocabulary", "count"),
    [("base", 37_000, 63_082_496), ("big", 37_000, 176_357_376 + 37_000 * 1024)],
)
def test_parameters(size, vocabulary, count):
    with torch.device("meta"):
        tied = Transformer(spec=pairs(vocabulary, vocabulary), size=size)
        output = Transformer(spec=pairs(vocabulary, vocabulary), size=size, tie="output")
        apart = Transformer(spec=pairs(vocabulary, 100), size=size, tie="none")
    dim = 512 if size == "base" else 1024
    assert sum(p.numel() for p in tied.parameters()) == count
    assert sum(p.numel() for p in output.parameters()) == count + vocabulary * dim
    assert sum(p.numel() for p in apart.parameters()) == count + 2 * 100 * dim
    if size == "base":
        assert count - vocabulary * dim == 44_138_496


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
def test_a_changed_token_changes_nothing_before_it(norm, positions):
    system = Transformer(spec=pairs(), norm=norm, positions=positions, **SMALL).eval()
    batch = random_pairs()
    with torch.no_grad():
        memory = system.encode(batch["source"])
        before = system.decode(batch["target"], memory)
        changed = batch["target"].clone()
        changed[:, 5] = (changed[:, 5] + 1) % 11
        after = system.decode(changed, memory)
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:], atol=1e-4)


def test_padding_changes_nothing():
    system = Transformer(spec=pairs(length=16), **SMALL).double().eval()
    batch = random_pairs(length=10)
    wide = {name: torch.nn.functional.pad(batch[name], (0, 6)) for name in ("source", "target")}
    with torch.no_grad():
        short, long = (system.output(part) for part in (batch, wide))
        torch.testing.assert_close(long[:, :9], short, atol=1e-12, rtol=0)
        alone = {name: batch[name][:1, :4] for name in ("source", "target")}
        torch.testing.assert_close(system.output(alone), short[:1, :3], atol=1e-12, rtol=0)
        losses = [system.target.loss(system.output(part), part).item() for part in (batch, wide)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_the_encoder_reads_a_set_but_for_positions():
    source, order = torch.randint(3, 11, (2, 8)), torch.randperm(8)
    for positions in ("none", "sinusoidal", "learned"):
        system = Transformer(spec=pairs(), positions=positions, **SMALL).double().eval()
        with torch.no_grad():
            moved, found = system.features(source[:, order]), system.features(source)[:, order]
        assert torch.allclose(moved, found, atol=1e-10) == (positions == "none")


def test_the_cache_gives_the_same():
    system = Transformer(spec=pairs(), **SMALL).double().eval()
    batch = random_pairs()
    with torch.no_grad():
        whole = system.decode(batch["target"], system.encode(batch["source"]))
        memory = system.encode(batch["source"])
        parts = [system.decode(part, memory, cached=True) for part in batch["target"].split((1, 1, 5, 3), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-12, rtol=0)


def test_greedy_search_writes_what_whole_decoding_does():
    system = Transformer(spec=pairs(), **SMALL).double().eval()
    source = random_pairs()["source"]
    made = system.generate(source)
    with torch.no_grad():
        logits = system.decode(made[:, :-1], system.encode(source))
    logits[..., [0, 1]] = -torch.inf
    text = made[:, 1:] != 0
    assert torch.equal(logits.argmax(-1)[text], made[:, 1:][text])
    assert system.generate(source, beam=3).shape[0] == 4


def test_attention_over_the_source():
    system = Transformer(spec=pairs(), **SMALL).eval()
    batch = random_pairs()
    with torch.no_grad():
        weights = system.attention(batch["target"], system.encode(batch["source"]))
    assert weights.shape == (4, 10, 10)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 10))
    assert not (weights * (batch["source"] == 0).unsqueeze(1)).any()


def test_its_encoder_classifies_texts():
    spec = LabeledTokens(tokens=Tokens(vocabulary=11, length=10, **MARKS), label=Label(classes=("a", "b", "c")))
    system = Transformer(spec=spec, **SMALL)
    batch = {"tokens": random_pairs()["source"], "label": torch.tensor([0, 1, 2, 0]), "index": torch.arange(4)}
    system.training_loss(batch, system.objectives()[0])[0].backward()
    assert [name for name, p in system.named_parameters() if p.grad is None] == []
    system.double().eval()
    with torch.no_grad():
        torch.testing.assert_close(system(batch["tokens"])[:1], system(batch["tokens"][:1, :4]), atol=1e-12, rtol=0)
    assert system.embed(batch).shape == (4, 32)


def test_smoothing_is_of_training_alone():
    system = Transformer(spec=pairs(), **SMALL)
    batch = random_pairs()
    plain = Transformer(spec=pairs(), label_smoothing=0.0, **SMALL)
    plain.load_state_dict(system.state_dict())
    (objective,) = system.objectives()
    losses = [model.training_loss(batch, objective)[0].item() for model in (system, plain)]
    assert losses[0] != losses[1]
    with torch.no_grad():
        metrics = [model.metrics(model.eval().evaluate(batch)) for model in (system, plain)]
    assert metrics[0] == metrics[1]
    assert metrics[0]["loss"] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "size must be mini, base or big, got 'huge'"),
        ({"heads": 5}, r"heads must divide dim \(128\), got 5"),
        ({"tie": "all"}, "tie must be output or none: the source has 11 tokens, the target 12"),
        ({"tie": "some"}, "tie must be all, output or none"),
        ({"positions": "sine"}, "positions must be sinusoidal, learned or none"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^({message})"):
        Transformer(spec=pairs(11, 12), **arguments)


@pytest.mark.slow
def test_strings_are_written_backwards(dlx_call):
    import json

    call = dlx_call("train", "model=transformer", "trainer.validate_every=5epochs", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out.splitlines()[-1])["metrics"]["test/exact_match"] >= 0.99
