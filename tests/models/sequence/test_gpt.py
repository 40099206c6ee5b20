import math

import pytest
import torch
from safetensors.torch import save_file

from dlx.config.errors import UserError
from dlx.models.sequence.gpt import GPT, SIZES
from dlx.tasks.spec import (
    Image,
    Label,
    LabeledImages,
    LabeledTokens,
    Reals,
    RealSequence,
    RegressionSequences,
    Series,
    Streams,
    TaggedTokens,
    TokenLabels,
    Tokens,
)  # fmt: skip

SMALL = {"dim": 32, "depth": 2, "heads": 4, "dropout": 0.0}


def streams(vocabulary=11, length=12, **marks):
    return Streams(tokens=Tokens(vocabulary=vocabulary, length=length, **marks))


@pytest.mark.parametrize(
    ("size", "vocabulary", "context", "count"),
    [
        ("gpt1", 40_478, 512, 116_534_784),
        ("gpt2", 50_257, 1024, 124_439_808),
        ("gpt2_medium", 50_257, 1024, 354_823_168),
        ("gpt2_large", 50_257, 1024, 774_030_080),
        ("gpt2_xl", 50_257, 1024, 1_557_611_200),
        ("gpt3_small", 50_257, 2048, 125_226_240),
        ("gpt3_medium", 50_257, 2048, 355_871_744),
        ("gpt3_large", 50_257, 2048, 760_300_032),
        ("gpt3_xl", 50_257, 2048, 1_315_723_264),
        ("gpt3_2_7b", 50_257, 2048, 2_651_553_280),
        ("gpt3_6_7b", 50_257, 2048, 6_658_404_352),
        ("gpt3_13b", 50_257, 2048, 12_853_386_240),
        ("gpt3", 50_257, 2048, 174_604_259_328),
    ],
)
def test_parameters(size, vocabulary, context, count):
    with torch.device("meta"):
        system = GPT(spec=streams(vocabulary, context), size=size)
    dim, depth, _ = SIZES[size]
    final = 0 if size == "gpt1" else 2 * dim
    formula = (vocabulary + context) * dim + depth * (12 * dim**2 + 13 * dim) + final
    assert sum(p.numel() for p in system.parameters()) == formula
    assert formula == count


def test_the_loss_before_training_is_that_of_a_guess():
    system = GPT(spec=streams(65, 32))
    batch = {"tokens": torch.randint(65, (16, 32)), "index": torch.arange(16)}
    loss, _ = system.training_loss(batch, system.objectives()[0])
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.parametrize("size", ["mini", "gpt1"])
def test_a_changed_token_changes_nothing_before_it(size):
    system = GPT(spec=streams(), size=size, **SMALL).eval()
    x = torch.randint(11, (2, 12))
    with torch.no_grad():
        before = system(x)
        for place in (0, 5, 11):
            changed = x.clone()
            changed[:, place] = (changed[:, place] + 1) % 11
            after = system(changed)
            assert torch.equal(after[:, :place], before[:, :place])
            assert not torch.allclose(after[:, place:], before[:, place:], atol=1e-4)


@pytest.mark.parametrize("spec", ["streams", "labeled"])
def test_padding_changes_nothing(spec):
    tokens = Tokens(vocabulary=11, length=12, pad=0)
    label = Label(classes=("a", "b", "c"))
    system = GPT(
        spec=Streams(tokens=tokens) if spec == "streams" else LabeledTokens(tokens=tokens, label=label), **SMALL
    ).double().eval()  # fmt: skip
    text = torch.randint(1, 11, (2, 7))
    padded = torch.nn.functional.pad(text, (0, 5))
    with torch.no_grad():
        short, long = system(text), system(padded)
    torch.testing.assert_close(long[:, :7] if spec == "streams" else long, short, atol=1e-12, rtol=0)


SPECS = {
    "labeled": (LabeledTokens(tokens=Tokens(vocabulary=11, length=6), label=Label(classes=("a", "b"))), (4, 2)),
    "tagged": (
        TaggedTokens(tokens=Tokens(vocabulary=11, length=6), labels=TokenLabels(classes=("a", "b"), length=6)),
        (4, 6, 2),
    ),
    "series": (Series(series=RealSequence(length=6, size=3)), (4, 6, 3)),
    "regression": (RegressionSequences(sequence=RealSequence(length=6, size=3), target=Reals(size=2)), (4, 2)),
    "images": (
        LabeledImages(
            image=Image(channels=3, height=6, width=5, mean=(0.5,) * 3, std=(0.5,) * 3), label=Label(classes=("a", "b"))
        ),
        (4, 2),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_each_kind_of_sequence(name):
    spec, shape = SPECS[name]
    system = GPT(spec=spec, **SMALL)
    batch = spec.example(4)
    assert system.output(batch).shape == shape
    system.training_loss(batch, system.objectives()[0])[0].backward()
    assert [name for name, p in system.named_parameters() if p.grad is None] == []


def test_the_cache_gives_the_same_tokens():
    system = GPT(spec=streams(length=12), **SMALL).double().eval()
    prompt = torch.randint(11, (3, 4))
    with torch.no_grad():
        for temperature in (0.0, 1.0):
            made = []
            for use_cache in (True, False):
                torch.manual_seed(3)
                *_, last = system.sample(3, prompt=prompt, length=30, temperature=temperature, use_cache=use_cache)
                made.append(last["tokens"])
            assert torch.equal(*made)
            assert made[0].shape == (3, 34)
        cache: dict = {}
        x = torch.randint(11, (2, 12))
        parts = [system.features(part, cache) for part in x.split((5, 1, 6), 1)]
        torch.testing.assert_close(torch.cat(parts, 1), system.features(x), atol=1e-12, rtol=0)
        with pytest.raises(UserError, match="13 steps are more than the model's 12 places"):
            system.features(x[:, :1], cache)


def test_attention_is_backwards():
    system = GPT(spec=streams(), **SMALL).eval()
    for weights in system.attention(torch.randint(11, (2, 12))):
        assert weights.shape == (2, 4, 12, 12)
        assert not weights.triu(1).any()
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 12))


@pytest.fixture
def hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=12, n_embd=32, n_layer=2, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + ("ln_" in name and "weight" in name))
    return theirs


def save(theirs, path):
    save_file({name: tensor.clone() for name, tensor in theirs.state_dict().items() if name != "lm_head.weight"}, path)
    return str(path)


def test_logits_of_gpt2(hugging_face, tmp_path):
    system = GPT(spec=streams(), weights=save(hugging_face, tmp_path / "gpt2.safetensors"), **SMALL).eval()
    x = torch.randint(11, (3, 12))
    with torch.no_grad():
        expected = hugging_face(x).logits
        assert expected.std() > 0.5
        torch.testing.assert_close(system(x), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 3}, "weights must be GPT-2's of 3 blocks, but .* has no blocks.2"),
        ({"depth": 1}, "weights must be GPT-2's of 1 blocks, but .* also has blocks.1"),
        ({"dim": 16}, r"weights must fit the model, but in .* is \["),
        ({"weights": "none.safetensors"}, "weights must be a local .safetensors or .pth file"),
    ],
)
def test_weights_that_do_not_fit(arguments, message, hugging_face, tmp_path):
    path = save(hugging_face, tmp_path / "gpt2.safetensors")
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match=f"^{message}"):
            GPT(spec=streams(), **{**SMALL, "weights": path, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "gpt4"}, "size must be one of mini, .*, got 'gpt4'"),
        ({"heads": 5}, r"heads must divide dim \(128\), got 5"),
        ({"context": 5}, "context must be at least 12, got 5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"norm": "mid"}, "norm must be pre or post, got 'mid'"),
        ({"loss": "mse"}, "loss must be cross_entropy for tokens, got 'mse'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        GPT(spec=streams(), **arguments)


def test_a_text_is_learned_by_heart():
    system = GPT(spec=streams(11, 33), dim=32, depth=2, heads=4, dropout=0.0)
    batch = {"tokens": torch.randint(11, (4, 33)), "index": torch.arange(4)}
    optimizer = torch.optim.AdamW(system.parameters(), lr=5e-3)
    for _ in range(150):
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.slow
def test_the_entropy_of_a_markov_source_is_reached(learned):
    from dlx.data.markov_source import MarkovSource

    source = MarkovSource(order=2, symbols=8, size=400_000, length=64)  # less is learned by heart
    system = GPT(spec=source.spec, dim=64, depth=2, heads=4, dropout=0.0)
    splits = source.splits()
    learned(system, splits["train"], 2000, 3e-3)
    test = splits["test"].take(torch.arange(min(400, len(splits["test"]))))["tokens"].long()
    with torch.no_grad():
        logits = system(test)[:, 1:-1]  # the first letter has but one before it
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), test[:, 2:].flatten()).item()
    assert found == pytest.approx(source.entropy, abs=0.03)
