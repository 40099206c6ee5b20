import json
import math
import shutil
import statistics

import pytest
import torch
import torch.nn.functional as F

from dlx.models.sequence.bert import BERT
from dlx.models.sequence.bert_classifier import BertClassifier
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import Label, LabeledTokens, SentencePairs, Streams, TokenLabels, Tokens
from dlx.tasks.tokenizer import Characters
from dlx.training.load import load_system

SMALL = {"dim": 32, "depth": 2, "heads": 4, "dropout": 0.0}
MARKS = {"pad": 0, "begin": 1, "end": 2, "mask": 3}


def pairs(vocabulary=20, length=12):
    return SentencePairs(
        tokens=Tokens(vocabulary=vocabulary, length=length, **MARKS),
        segment=TokenLabels(classes=("a", "b"), length=length),
        follows=Label(classes=("no", "yes")),
    )


def streams(vocabulary=16, length=12):
    return Streams(tokens=Tokens(vocabulary=vocabulary, length=length))


def random_batch(count=4, length=12):
    """[CLS] A [SEP] B [SEP] and padding."""
    tokens = torch.randint(4, 20, (count, length))
    tokens[:, 0], tokens[:, 5], tokens[:, 9], tokens[:, 10:] = 1, 2, 2, 0
    segment = (torch.arange(length) > 5).long().expand(count, -1).clone()
    return {"tokens": tokens, "segment": segment, "follows": torch.arange(count) % 2, "index": torch.arange(count)}


@pytest.mark.parametrize(
    ("size", "body", "whole"), [("base", 109_482_240, 110_106_428), ("large", 335_141_888, 336_226_108)]
)
def test_parameters(size, body, whole):
    with torch.device("meta"):
        system = BERT(spec=pairs(30_522, 512), size=size)
    heads = sum(p.numel() for p in system.pretraining())
    total = sum(p.numel() for p in system.parameters())
    assert (total - heads, total) == (body, whole)


def test_logits_of_the_transformers_library():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=12,
    )  # fmt: skip
    theirs = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + ("LayerNorm.weight" in name))
    renamed = (
        ("bert.embeddings.word_embeddings", "token_embedding"), ("bert.embeddings.position_embeddings", "positions"),
        ("bert.embeddings.token_type_embeddings", "segments"), ("bert.embeddings.LayerNorm", "norm"),
        ("bert.encoder.layer.", "blocks."), ("attention.self.", "attention."),
        ("attention.output.dense", "attention.project"), ("attention.output.LayerNorm", "norm_attention"),
        ("intermediate.dense", "mlp.0"), ("output.dense", "mlp.2"), ("output.LayerNorm", "norm_mlp"),
        ("bert.pooler.dense", "pooler.0"), ("cls.predictions.transform.dense", "transform.0"),
        ("cls.predictions.transform.LayerNorm", "transform.2"), ("cls.predictions.bias", "out_bias"),
        ("cls.seq_relationship", "follows"),
    )  # fmt: skip
    weights = {}
    for name, tensor in theirs.state_dict().items():
        if "decoder" in name or "position_ids" in name:
            continue  # the embedding and the bias again
        for old, new in renamed:
            name = name.replace(old, new)
        weights[name] = tensor
    system = BERT(spec=pairs(), **SMALL).eval()
    system.load_state_dict(weights)
    batch = random_batch()
    valid = batch["tokens"] != 0
    with torch.no_grad():
        expected = theirs(
            input_ids=batch["tokens"], token_type_ids=batch["segment"], attention_mask=valid.long()
        )  # fmt: skip
        x = system.encode(batch["tokens"], batch["segment"])
        torch.testing.assert_close(system.decode(x)[valid], expected.prediction_logits[valid], atol=1e-4, rtol=0)
        follows = system.follows(system.pooler(x[:, 0]))
    torch.testing.assert_close(follows, expected.seq_relationship_logits, atol=1e-4, rtol=0)
    assert expected.prediction_logits.std() > 0.5


@pytest.mark.parametrize("spec", [pairs(), streams()])
def test_corruption(spec):
    """15 % of the text are chosen: 80 % of them hidden, 10 % any token of the text, 10 % left as they are."""
    system = BERT(spec=spec, **SMALL)
    first = 4 if isinstance(spec, SentencePairs) else 0
    tokens = torch.randint(first, first + 16, (40_000, 12))
    if first:
        tokens[:, 0], tokens[:, 11] = 1, 0
    hidden, chosen = system.corrupt(tokens, torch.rand(*tokens.shape, 3))
    text = torch.ones_like(chosen) if not first else (tokens > 3)
    assert not (chosen & ~text).any()
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    assert (chosen.sum() / text.sum()).item() == pytest.approx(0.15, abs=0.002)
    was, now = tokens[chosen], hidden[chosen]
    assert (now == system.mask).float().mean().item() == pytest.approx(0.8, abs=0.005)
    other = now[(now != system.mask) & (now != was)]
    assert (len(other) / len(now)) == pytest.approx(0.1 * 15 / 16, abs=0.005)
    assert sorted(other.unique().tolist()) == list(range(first, first + 16))
    assert torch.bincount(other - first).float().std() < 0.1 * len(other) / 16


def test_no_metric_depends_on_the_batch():
    system = BERT(spec=pairs(), **SMALL).double().eval()
    batch = random_batch(6)

    def measured(*sizes):
        parts = [torch.arange(6)[start : start + size] for start, size in sizes]
        with torch.no_grad():
            found = [system.evaluate({name: value[part] for name, value in batch.items()}) for part in parts]
        return system.metrics({name: sum(part[name] for part in found) for name in found[0]})

    assert measured((0, 6)) == pytest.approx(measured((0, 1), (1, 5)), abs=1e-6)
    assert set(measured((0, 6))) == set(system.metric_names)


def test_it_reads_both_ways_and_no_padding():
    system = BERT(spec=pairs(), **SMALL).double().eval()
    tokens = random_batch()["tokens"]
    with torch.no_grad():
        before = system.encode(tokens)
        torch.testing.assert_close(system.encode(tokens[:, :10]), before[:, :10], atol=1e-12, rtol=0)
        changed = tokens.clone()
        changed[:, 8] = (changed[:, 8] - 3) % 16 + 4
        assert not torch.allclose(system.encode(changed)[:, 1], before[:, 1], atol=1e-5)


def test_marks_are_added_where_the_data_have_none():
    system = BERT(spec=streams(16), **SMALL)
    assert (system.vocabulary, system.mask, system.begin, system.spec.tokens.vocabulary) == (18, 16, 17, 17)
    tokens = torch.randint(16, (3, 12))
    x = system.encode(tokens)
    assert x.shape == (3, 13, 32)
    assert system.decode(x).shape == (3, 12, 18)
    batch = {"tokens": tokens, "index": torch.arange(3)}
    loss, _ = system.training_loss(batch, system.objectives()[0])
    loss.backward()
    assert [name for name, p in system.named_parameters() if p.grad is None] == ["pooler.0.weight", "pooler.0.bias"]
    assert not any(p.requires_grad for p in system.pooler.parameters())
    assert system.metric_names == ("loss", "mlm_loss", "mlm_accuracy")


def test_a_typed_text_is_filled_in():
    letters = Characters("abcdefgh")
    spec = Streams(tokens=Tokens(vocabulary=8, length=12, tokenizer=letters.to_json()))
    system = BERT(spec=spec, **SMALL).eval()
    tokens = system.spec.tokens.read("ab[MASK]d[MASK]")
    assert tokens.tolist() == [[0, 1, 8, 3, 8]]
    with torch.no_grad():
        predicted = system.predict({"tokens": tokens})
    (answer,) = system.answer({"tokens": tokens}, predicted)
    assert len(answer.json["masks"]) == 2
    assert len(answer.json["text"]) == 5
    assert answer.json["text"][0] + answer.json["text"][3] == "ad"
    assert next(iter(answer.json["masks"][0])) == answer.json["text"][2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "small"}, "size must be"),
        ({"share": 0.0}, r"share must be in \(0, 1\], got 0.0"),
        ({"heads": 5}, r"heads must divide dim \(128\), got 5"),
        ({"context": 3}, "context must be at least 13, got 3"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BERT(spec=streams(), **arguments)


LABELED = LabeledTokens(tokens=Tokens(vocabulary=20, length=12, **MARKS), label=Label(classes=("a", "b", "c")))


def test_the_classifier_trains_itself_in_two_stages():
    system = BertClassifier(spec=LABELED, pretrain=0.25)
    assert system.stage_starts(100) == [0, 25]
    batch = {**random_batch(), "label": torch.tensor([0, 1, 2, 0])}
    used: set = set()
    for stage, name in enumerate(("pretraining", "classifier")):
        (objective,) = system.objectives(stage)
        assert objective.name == name
        system.training_loss(batch, objective)[0].backward()
        assert all(p.grad is not None for p in objective.params)
        used |= set(objective.params)
        system.zero_grad()
    assert used == set(system.parameters())
    with torch.no_grad():
        found = system.metrics(system.eval().evaluate({**batch, "stage": torch.tensor(0)}))
    assert set(found) == set(system.metric_names)
    assert found["loss"] == pytest.approx(math.log(3), abs=0.3)
    with pytest.raises(ValueError, match=r"^pretrain must leave a step for each stage, got 0.25 of 1 steps"):
        system.stage_starts(1)


def test_the_classifier_takes_a_trained_bert():
    for bert in (BERT(spec=pairs(), **SMALL), BERT(spec=Streams(tokens=LABELED.tokens), **SMALL)):
        system = BertClassifier(spec=LABELED, bert=bert)
        assert system.stage_starts(10) == [0]
        (objective,) = system.objectives()
        batch = {**random_batch(), "label": torch.tensor([0, 1, 2, 0])}
        system.training_loss(batch, objective)[0].backward()
        assert all(p.grad is not None for p in objective.params)
        assert set(bert.pooler.parameters()) < set(objective.params)


def test_a_weight_counts_a_sample_so_many_times():
    system = BERT(spec=pairs(), **SMALL).double()
    batch = random_batch(6)

    def gradient(weights):
        torch.manual_seed(0)
        system.zero_grad()
        system.training_loss({**batch, "weight": torch.tensor(weights).double()}, system.objectives()[0])[0].backward()
        return torch.cat([p.grad.flatten() for p in system.parameters()])

    parts = [gradient([float(n == row) for n in range(6)]) for row in range(6)]
    torch.testing.assert_close(gradient([1.0] * 6), sum(parts), atol=1e-6, rtol=0)  # the loss is in float32
    torch.testing.assert_close(gradient([3.0, 0, 0, 0, 0, 1]), 3 * parts[0] + parts[5], atol=1e-6, rtol=0)
    assert parts[0].norm() > 0.01


QUICK = ("trainer.max_steps=2", "data.subset=64")
TINY = ("model.dim=16", "model.depth=1", "model.heads=2")


def test_a_bert_of_sentence_pairs_is_fine_tuned(dlx_call):
    """Its pooler goes on; what tells whether a sentence follows is left out, as these data have none."""
    words = ("model=bert", "data=sentence_pairs", "name=pairs", *TINY, *QUICK, "--json")
    run = json.loads(dlx_call("train", *words).out)["run"]
    lines = ("model=bert_classifier", "data=stdlib_modules", "model.bert_from=pairs", "optim.lr=1e-30")
    words = (*lines, *QUICK, "--json")
    call = dlx_call("train", *words)
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert 0 <= found["metrics"]["test/accuracy"] <= 1
    theirs = load_system(RunFolder(run)).state_dict()
    shutil.rmtree(run)
    system = load_system(RunFolder(found["run"]))
    assert system.bert.follows is None
    ours = system.bert.state_dict()
    assert sorted(set(theirs) - set(ours)) == ["follows.bias", "follows.weight"]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads(dlx_call("eval", found["run"], "--json").out)["metrics"] == pytest.approx(
        {name: value for name, value in found["metrics"].items() if name.startswith("test/")}, abs=1e-6
    )


def test_runs_that_cannot_be_its_bert_are_refused(dlx_call, here):
    for words in (
        ("model=bert", "data=sentence_pairs", "data.length=64", "name=short", *TINY),
        ("model=gpt", "data=sentence_pairs", "name=gpt", *TINY),
    ):
        assert dlx_call("train", *words, *QUICK).code == 0
    before = sorted(here.rglob("*"))
    for words, text in (
        (
            ("model=bert_classifier", "data=stdlib_modules", "model.bert_from=short"),
            "tokens.length was 64 there and is 128 here",
        ),
        (("model=bert_classifier", "model.bert_from=gpt"), "GPT is not a subclass of BERT"),
    ):
        call = dlx_call("train", *words)
        assert call.code == 2
        assert text in call.err
        assert len(call.err.splitlines()) <= 5
    assert sorted(here.rglob("*")) == before


@pytest.mark.slow
def test_a_hidden_letter_keeps_the_entropy_given_its_neighbours(learned):
    """Of a Markov source of order 1: H(x_t | x_t-1, x_t+1), with one hidden letter in a text."""
    from dlx.data.markov_source import MarkovSource

    source = MarkovSource(order=1, symbols=8, size=400_000, length=32, marks=True)
    system = BERT(spec=source.spec, dim=64, depth=2, heads=4, dropout=0.0)
    splits = source.splits()
    learned(system, splits["train"], 4000, 2e-3)
    test = splits["test"].take(torch.arange(min(1000, len(splits["test"]))))["tokens"].long()
    rows, place = torch.arange(len(test)), torch.randint(1, 31, (len(test),))
    hidden = test.clone()
    hidden[rows, place] = system.mask
    with torch.no_grad():
        logits = system.decode(system.encode(hidden))[rows, place]
    assert F.cross_entropy(logits, test[rows, place]).item() == pytest.approx(0.855, abs=0.06)


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="not reached: 0.158 fine-tuned, 0.211 from scratch (docs/findings.md)")
def test_what_was_pretrained_needs_fewer_labels(dlx_call):
    """100 lines of known modules: fine-tuned from hidden tokens of all lines, and from scratch; mean of three seeds."""

    def accuracy(*words):
        call = dlx_call("train", *words, "data=recipe/bert_classifier", "--json")
        assert call.code == 0, call.err
        return json.loads(call.out)["metrics"].get("test/accuracy")

    accuracy("model=bert", "name=texts", "trainer.max_steps=1500")
    few = ("model=bert_classifier", "data.subset=100", "data.batch_size=20", "trainer.max_steps=200")
    scratch, tuned = (
        statistics.mean(accuracy(*few, *words, f"seed={seed}") for seed in range(3))
        for words in (("model.pretrain=0",), ("model.bert_from=texts",))
    )
    print(f"fine-tuned {tuned:.4f}, from scratch {scratch:.4f}")  # noqa: T201
    assert tuned > scratch
