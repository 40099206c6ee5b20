import json
from datetime import date, datetime

import pytest
import torch

from dlx.data.dates import FORMS, Dates, ordinal
from dlx.data.loader import make_loader
from dlx.data.splits import SplitSettings


def test_forms():
    day = date(2004, 3, 7)
    assert [form(day) for form in FORMS] == [
        "7 March 2004", "7 Mar 2004", "March 7, 2004", "Mar. 7 2004", "Sunday, 7 March 2004", "Sun Mar 7 2004",
        "the 7th of March, 2004", "March 7th, 2004", "07-MAR-2004", "7.3.2004", "07.03.2004", "2004/03/07",
    ]  # fmt: skip
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th",
    ]  # fmt: skip


def test_no_text_means_two_dates():
    meaning = {}
    for year in (1911, 2004):
        for month in range(1, 13):
            for day in range(1, 29):
                when = date(year, month, day)
                for form in FORMS:
                    assert meaning.setdefault(form(when), when) == when


def test_each_date_is_there_once_and_its_target_is_iso():
    pairs = Dates(samples=500).pairs()["train"]
    assert len({target for _, target in pairs}) == 500
    for source, target in pairs:
        assert source in {form(datetime.fromisoformat(target).date()) for form in FORMS}
    assert pairs == Dates(samples=500).pairs()["train"]
    assert pairs != Dates(samples=500, data_seed=1).pairs()["train"]


def test_sources_end_with_a_mark_and_targets_lie_between_two():
    dataset = Dates(samples=50)
    source = dataset.splits()["train"]
    batch = source.take(torch.arange(50))
    for row, (text, answer) in enumerate(dataset.given["train"]):
        ids, target = batch["source"][row].tolist(), batch["target"][row].tolist()
        assert ids[len(text)] == 2
        assert not any(ids[len(text) + 1 :])
        assert (target[0], target[-1]) == (1, 2)
        assert source.lengths["source"][row] == len(text) + 1
        assert dataset.spec.source.draw(batch["source"][row : row + 1]) == [text]
        assert dataset.spec.target.draw(batch["target"][row : row + 1]) == [answer]
        read = dataset.spec.source.read(text)
        assert read[0].tolist() == ids[: len(text) + 1]


def test_batches_are_cut_to_their_longest():
    dataset, settings = Dates(samples=400), SplitSettings(batch_size=16)
    train = settings.split(dataset)["train"]
    loader = make_loader(train, dataset.spec.entries, settings, device=torch.device("cpu"))
    widths = set()
    for batch in loader.epoch(0):
        assert (batch["source"] != 0).any(0).all()
        widths.add(batch["source"].shape[1])
    assert len(widths) > 3


def test_a_toy_is_trained_on_it(dlx_call, here, toys):
    words = ["model=toy_seq2seq", "data=dates", "data.samples=200", "trainer.max_steps=4", "--json"]
    call = dlx_call("train", *toys, *words)
    assert call.code == 0, call.err
    assert "test/loss" in json.loads(call.out.splitlines()[-1])["metrics"]


@pytest.mark.parametrize("samples", [9, 80_000])
def test_values_out_of_range_name_their_argument(samples):
    with pytest.raises(ValueError, match=r"^samples "):
        Dates(samples=samples)
