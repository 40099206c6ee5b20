"""Loads trained systems from run folders, whole or as parts of other systems.

A model's argument `X_from` names runs; their best weights are where its systems `X` begin. `with_parts` writes the
`model:` blocks of those runs as `X` into the configuration, so that a trained system needs their folders no more.
`trainer.init_from` copies weights by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import Config, build, build_shared, instantiate
from dlx.config.build import find_class, narrowed
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.config.groups import nearest
from dlx.config.parts import Part, part_of
from dlx.config.signature import read
from dlx.config.yaml import FORMAT
from dlx.data.proposals import propose
from dlx.runs.checkpoint import assign, latest_checkpoint, load_weights
from dlx.runs.find import find_run
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import Image, Label, LabeledImages, Proposals, Reals, RegressionReals

if TYPE_CHECKING:
    from dlx.data.dataset import Dataset
    from dlx.tasks.spec import Entry, Spec
    from dlx.tasks.system import Batch, System


def newest_checkpoint(run: RunFolder) -> Path:
    """The newest complete checkpoint. Raises UserError if there is none."""
    folder, problems = latest_checkpoint(run.checkpoints)
    if folder is None:
        why = f"; {problems[0]}" if problems else ""
        more = f" (and {len(problems) - 1} older ones)" if len(problems) > 1 else ""
        raise UserError(f"{run.path}: no checkpoint that is whole{why}{more}")
    return folder


def without_weights(config: Config) -> Config:
    """The configuration without the source of the initial weights: a checkpoint holds the weights."""
    config = without_origins(config)
    if config["trainer"].get("init_from") is not None:
        config = replace(config, values={**config.values, "trainer": {**config["trainer"], "init_from": None}})
    if not isinstance(config["model"].get("weights"), str):
        return config
    return _with_model(config, {**config["model"], "weights": None})


def without_origins(config: Config) -> Config:
    """The configuration without the runs of its parts: `with_parts` copied their blocks."""
    if not (origins := _origins(config)):
        return config
    return _with_model(config, {name: value for name, value in config["model"].items() if name not in origins})


def _with_model(config: Config, model: dict[str, Any]) -> Config:
    return replace(config, values={**config.values, "model": model})


def _origins(config: Config) -> dict[str, Any]:
    """The model's arguments `X_from`: each names a run, or a list of runs."""
    return {name: value for name, value in config["model"].items() if name.endswith("_from") and value}


def with_parts(config: Config, spec: Spec) -> Config:
    """The configuration with the `model:` block of each run that the model's `X_from` names as its `X`, and those runs
    by their paths.

    Raises ConfigError for a run that is not there, or is not of the kind that the model takes, or reads what these data
    do not have, or have otherwise.
    """
    model, problems = dict(config["model"]), []
    signature = read(model["_target_"])
    for name, value in _origins(config).items():
        runs = []
        argument = name.removesuffix("_from")
        part = part_of(signature.params[argument]) if signature and argument in signature.params else None
        for run in value if isinstance(value, list) else [value]:
            try:
                folder = find_run(run, config["output_root"])
                frozen = folder.load_config(trust=config.trust)
                check_is_run(folder, frozen)
                _check_part(folder, frozen, part, spec)
            except UserError as error:
                problems.append(Problem(f"model.{name}", str(error)))
            else:
                runs.append((str(folder.path), without_weights(frozen)["model"]))
        paths, blocks = [path for path, _ in runs], [block for _, block in runs]
        if runs:
            is_list = isinstance(value, list)
            model[name] = paths if is_list else paths[0]
            model[argument] = blocks if is_list else blocks[0]
    if problems:
        raise ConfigError(problems)
    return _with_model(config, model)


def _check_part(folder: RunFolder, config: Config, part: Part | None, spec: Spec) -> None:
    """Raises UserError if a run's system cannot be this part on such data."""
    target = config["model"]["_target_"]
    signature = read(target)
    if part and signature and part.base not in signature.ancestors:
        kind, wanted = target.rpartition(".")[2], part.base.rpartition(".")[2]
        raise UserError(f"{folder.name}: {kind} is not a subclass of {wanted}")
    own = narrowed(load_spec(folder, trust=config.trust), target, "model")
    for name, entry in (own.inputs if part and part.trunk else _used(own, spec, target).entries).items():
        data = config.choices["dataset"]
        if name not in spec.entries:
            raise UserError(f"{folder.name}: was trained on other data ({data}), and reads {name}, which these lack")
        if spec.entries[name] != entry:
            raise UserError(f"{folder.name}: was trained on other data ({data}): {_difference(name, entry, spec)}")


def _used(own: Spec, spec: Spec, target: str) -> Spec:
    """What a part reads of such data, as its own run had it. That is less than it was trained on where the data fit
    only a base of its spec class: a model of texts and more, used on texts."""
    try:
        kind = type(narrowed(spec, target, "model"))
    except ConfigError:  # nothing fits: what they lack is named
        return own
    return own.narrow(kind) if isinstance(own, kind) else own


def _difference(name: str, entry: Entry, spec: Spec) -> str:
    """The first field that differs between two entries."""
    here = spec.entries[name]
    for key, value in vars(entry).items():
        if getattr(here, key, None) != value:
            texts = [text if len(text := str(v)) <= 40 else f"{text[:39]}…" for v in (value, getattr(here, key, None))]
            return f"{name}.{key} was {texts[0]} there and is {texts[1]} here"
    return f"{name} is of another kind"


def build_system(config: Config, spec: Spec) -> System:
    """Builds the model for a training. Parts from runs get those runs' best weights."""
    system: System = build(without_origins(config), "model", spec=spec)
    for part, weights in _parts_weights(config, system):
        assign(part, weights)
    return system


def build_meta(config: Config, spec: Spec) -> tuple[Config, System]:
    """The configuration with parts from runs filled in, and its system on the meta device, without memory. Raises
    UserError where the runs' weights do not fit."""
    config = with_parts(config, spec)
    with torch.device("meta"):
        system = build(without_origins(config), "model", spec=spec)
    for _ in _parts_weights(config, system):
        pass
    return config, system


def _parts_weights(config: Config, system: System) -> Iterator[tuple[System, dict[str, Tensor]]]:
    """The parts from runs, each with those of its run's best weights that it has. Raises UserError if it has others."""
    for name, value in _origins(config).items():
        argument = name.removesuffix("_from")
        parts = getattr(system, argument, None)
        if parts is None:
            raise UserError(f"model.{name}: {type(system).__name__} keeps no attribute {argument} to load")
        for part, run in [(parts, value)] if isinstance(value, str) else list(zip(parts, value, strict=True)):
            weights = load_weights(newest_checkpoint(RunFolder(run)) / "best.safetensors")
            own = part.state_dict()
            if missing := [key for key in own if key not in weights or weights[key].shape != own[key].shape]:
                raise UserError(f"model.{name}: {run}: its weights lack {', '.join(missing[:3])}")
            yield part, {key: weights[key] for key in own}


def load_into(system: System, source: str, root: str | None = None) -> str:
    """Copies weights by name into a system, from a file, a run (its best), or a part of a run's system (`RUN:part`).

    Returns a line that says what was loaded and what starts anew. Raises UserError where nothing fits.
    """
    weights = read_weights(source, root)
    own = system.state_dict()
    fitting = {name: t for name, t in weights.items() if name in own and own[name].shape == t.shape}
    if not fitting:
        known, theirs = next(iter(own), "nothing"), next(iter(weights), "nothing")
        raise UserError(f"trainer.init_from: {source}: no weight fits (such as {theirs} there, {known} here)")
    if not any(tensor.is_meta for tensor in own.values()):
        system.load_state_dict(fitting, strict=False)
    anew = [name for name, _ in system.named_parameters() if name not in fitting]
    unused = len(weights) - len(fitting)
    rest = f"; anew: {', '.join(anew[:5])}{f' and {len(anew) - 5} more' if len(anew) > 5 else ''}" if anew else ""
    return f"init_from       {len(fitting)} tensors of {source}{rest}" + (f"; {unused} unused" if unused else "")


def read_weights(source: str, root: str | None = None) -> dict[str, Tensor]:
    """The tensors of a source of `load_into`, by name. Raises UserError."""
    file = Path(source).expanduser()
    if file.is_file():
        try:
            if file.suffix == ".safetensors":
                return load_weights(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # each format has errors of its own
            raise UserError(f"trainer.init_from: {source}: cannot be read ({str(error).splitlines()[0]})") from None
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"trainer.init_from: {source}: no state dict, tensors by name")
        return state
    if file.suffix in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"trainer.init_from: {source}: there is no such file")
    run, _, part = source.partition(":")
    weights = load_weights(newest_checkpoint(find_run(run, root)) / "best.safetensors")
    if not part:
        return weights
    inner = {name.removeprefix(f"{part}."): t for name, t in weights.items() if name.startswith(f"{part}.")}
    if not inner:
        parts = sorted({name.split(".")[0] for name in weights})
        raise UserError(f"trainer.init_from: {run} has no part {part}{nearest(part, parts) or ';'} {', '.join(parts)}")
    return inner


def check_is_run(run: RunFolder, config: Config) -> None:
    """Raises UserError for a folder of many runs, also of an experiment that stopped before its plan was complete."""
    if run.is_plan or "experiment" in config.values:
        raise UserError(f"{run.path}: an experiment or sweep; name one of its runs (dlx runs --members lists them)")


def load_spec(run: RunFolder, *, trust: Sequence[str] = ()) -> Spec:
    """The spec of a run's data. A spec class of the user's own must be trusted, like every class that a file names."""
    return spec_from(run.spec, run.spec_texts(), trust=trust, file=str(run.path / "spec.json"))


def adopt(dataset: Dataset, run: RunFolder, config: Config) -> Spec:
    """Gives the dataset of a configuration what it takes over from a run, and returns the spec of that run's data.
    Raises UserError for a setting that must stay as it was."""
    spec = load_spec(run, trust=config.trust)
    before = run.load_config(trust=config.trust)["dataset"] if dataset.keeps else {}
    for key in dataset.keeps:
        if key in before and before[key] != config["dataset"].get(key):
            raise UserError(f"dataset.{key}: must stay {before[key]}: {run.name} was trained on such tokens")
    dataset.adopt(spec)
    return spec


def spec_from(content: Any, texts: Mapping[str, str], *, trust: Sequence[str] = (), file: str = "spec") -> Spec:
    """A spec from the output of `Spec.to_dict` and `Spec.files`. Raises UserError for anything else."""
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a spec that dlx wrote")
    try:
        if content.get("_target_") in _BEFORE_ENTRIES:
            return _before_entries(content)
        if content["format"] not in range(FORMAT + 1):
            raise UserError(f"{file}: written by a newer dlx")
        entries = {}
        for name, block in content["entries"].items():
            if not isinstance(block, dict):
                raise UserError(f"{file}: {name} is no entry")
            own = {key.partition(".")[2]: text for key, text in texts.items() if key.startswith(f"{name}.")}
            base, key = "dlx.tasks.spec.Entry", f"spec.{name}"
            entries[name] = instantiate({**block, **own}, base=base, trust=trust, key=key, file=file)
        target, base = content["_target_"], "dlx.tasks.spec.Spec"
        spec: Spec = find_class(target, base=base, trust=trust, key="spec", file=file)(**entries)
        return spec
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a spec that dlx wrote ({type(error).__name__}: {error})") from None


_BEFORE_ENTRIES = ("dlx.tasks.spec.ImageSpec", "dlx.tasks.spec.VectorSpec")


def _before_entries(content: dict[str, Any]) -> Spec:
    """The specs of runs from before there were entries."""
    if content["_target_"].endswith("ImageSpec"):
        keys = ("channels", "height", "width", "scale")
        image = Image(**{key: content[key] for key in keys}, mean=tuple(content["mean"]), std=tuple(content["std"]))
        return LabeledImages(image=image, label=Label(classes=tuple(content["classes"])))
    features = Reals(size=content["num_features"], names=tuple(content["names"]))
    return RegressionReals(features=features, target=Reals(size=content["num_outputs"]))


def load_system(run: RunFolder, config: Config | None = None, *, trust: Sequence[str] = ()) -> System:
    """A run's system with its best weights, on the CPU, in eval mode. Needs no dataset.

    config: the run's, where it is loaded already.
    """
    config = config or run.load_config(trust=trust)
    check_is_run(run, config)
    spec, weights = load_spec(run, trust=config.trust), newest_checkpoint(run) / "best.safetensors"
    try:
        system: System = build(without_weights(config), "model", spec=spec)
    except (RuntimeError, MemoryError, OverflowError) as error:  # sizes that no machine has
        raise UserError(f"{run.config_path}: the model cannot be built ({_one_line(error)})") from error
    try:
        assign(system, load_weights(weights))
    except RuntimeError as error:
        raise UserError(f"{weights}: does not fit the model of config.yaml ({_one_line(error)})") from error
    return system.eval()


def load_completion(config: Config, spec: Spec) -> Callable[[Batch], Batch]:
    """What adds to a batch of inputs that a person gave those that are made from them, as the run's data had them:
    proposals. Raises UserError where the configuration does not say how."""
    if not spec.of_kind(Proposals):
        return lambda batch: batch
    proposer, image = build_shared(config, "dataset").proposals, spec.entries["image"]
    if proposer is None or not isinstance(image, Image):
        raise UserError("dataset.proposals: the run's config.yaml names nothing that proposes regions of an image")
    return lambda batch: {**batch, "proposals": propose(proposer, batch, image)}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
