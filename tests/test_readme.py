"""README and docs, held against the code: counts, commands with their options, and refusals word for word."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from dlx.cli import app
from dlx.config import compose
from dlx.config.groups import options

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
NUMBERS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
NUMBERS += [f"twenty-{number}" for number in NUMBERS[1:10]]
NUMBERS += ["thirty", *(f"thirty-{number}" for number in NUMBERS[1:10])]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """The `dlx ...` of blocks without a language, several in a line too, without what a column beside them says."""
    lines = [line.removeprefix("$ ") for block in BLOCK.findall(text) for line in block.splitlines()]
    parts = [part for line in lines if line.startswith("dlx ") for part in re.split(r" {3,}", line)]
    return [part for part in parts if part.startswith("dlx ")]


COMMANDS = {f"{page.name}: {line}": line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))}
FLAGS = {
    name: {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    for name, command in get_command(app).commands.items()
}
REFUSED = dict(re.findall(r"^\$ (dlx .*)\n((?:error: .*\n)+)", README, re.MULTILINE))
OF_OTHERS = {"--nproc-per-node", "--name", "--help", "--version", "--debug", "--install-completion"}  # and of dlx alone


@pytest.mark.parametrize("group", ["optimizer", "regularization", "dataset"])
def test_counts(group):
    plural = {"optimizer": "optimizers", "regularization": "regularizers", "dataset": "datasets"}[group]
    (count,) = re.findall(rf"\b([\w-]+)\s+{plural}\b", README.partition("## Two commands")[0].replace("\n", " "))
    own = {"image_folder", "masked_folder", "voc", "voc_segmentation", "coco", "yolo_folder"}  # "your own images
    own |= {"text_file", "labeled_text", "parallel_text", "two_folders", "captioned_folder"}  # and texts"
    assert NUMBERS.index(count) == len([name for name in options(group) if "/" not in name and name not in own])


def test_what_is_here_today_has_every_family_of_models():
    words = README.partition("Here today: ")[2].partition("\n\n")[0].lower()
    names = {"mlp": "multi-layer", "cnn": "convolutional", "nin": "network in network", "stump": "stumps"}
    names |= {"markov": "markov chains", "latent_autoregressive": "latent autoregressive", "bert_classifier": "bert"}
    names |= {"independent_pixels": "independent pixels", "markov_pixels": "markov pixels", "pixel_cnn": "pixelcnn"}
    names |= {"ar_pixels": "autoregressive pixels", "pixel_rnn": "pixelrnn", "faster_rcnn": "faster r-cnn"}
    names |= {"rcnn": "r-cnn", "fast_rcnn": "fast r-cnn", "dvae": "discrete vae", "dalle": "dall-e"}
    names |= {"puzzle_gan": "puzzle-gan", "progressive_gan": "progressive gan"}
    words = words.replace("\n", " ")
    made_of_others = {"ensemble"}  # by method=bagging
    missing = [name for name in options("model") if names.get(name, name) not in words and name not in made_of_others]
    assert missing == []


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_every_command_has_these_options_and_composes(line):
    _, name, *words = shlex.split(line.partition("#")[0])
    if name.startswith("--"):
        return
    used = {re.split("[= ]", word)[0] for word in words if re.match("--?[a-z]", word)}
    assert used <= FLAGS[name]
    if name in ("train", "show", "config") and not {"--conf-dir", "--from"} & used and line not in REFUSED:
        compose([word for word in words if re.fullmatch(r"[\w.@]+=\S+", word)])


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_option_that_a_page_names_is_there(page):
    (path,) = [path for path in PAGES if path.name == page]
    own = [line for line in path.read_text(encoding="utf-8").splitlines() if ".py" not in line and "pip" not in line]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(own)))
    assert named - OF_OTHERS <= set().union(*FLAGS.values())


def test_refusals_are_word_for_word(dlx_call):
    assert len(REFUSED) >= 2
    for line, expected in REFUSED.items():
        assert dlx_call(*shlex.split(line)[1:]).err == expected


def test_a_missing_extra_is_named_as_pyproject_names_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "conf").rglob("*.yaml"))]
    named = {extra for path in texts for extra in re.findall(r"dlx\[(\w+)\]", path.read_text(encoding="utf-8"))}
    assert named
    assert named <= set(extras)
