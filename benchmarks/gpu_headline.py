"""The headline on J-HMDB: one video per class by each method, in the three official splits."""
import time
from dataclasses import asdict, replace

import pandas as pd
import torch
from gpu_session import Skip

from prism_nb.condensation import Condenser
from prism_nb.core.rng import stable_hash
from prism_nb.evaluation import accuracy, predict, train
from prism_nb.study.profiles import get_config
from prism_nb.study.runs import make_runs

PROFILE_RATE = "the quick profile's, for J-HMDB"
METHODS = {   # name → method, settings, where its learning rate comes from
    "random": ("random", {}, ""),
    "dm": ("dm", {}, PROFILE_RATE),
    "prism": ("prism", {}, PROFILE_RATE),
    "prism-gradient-matching": ("prism", dict(objective="gradient-matching", lr=1.0), "a first guess, that of silent"),
}
PROBE = 20   # iterations, of whose second half the speed is taken


def headline_runs(session):
    """List (key, name, run): every method of split 1, then of the others."""
    scale = session.scale
    config = get_config("quick", "jhmdb")
    config = replace(config, training=replace(config.training, **scale.training), tuned={})
    made = {}
    for name, (method, settings, _) in METHODS.items():
        options = {} if method == "random" else dict(iterations=scale.iterations, **scale.recipe, **settings)
        made[name] = make_runs(config, [method], **options)
    order = [(name, run) for runs in zip(*made.values()) for name, run in zip(made, runs)]
    return [(row_key(session, config, name, run), name, run) for name, run in order]


def row_key(session, config, name, run):
    """Hash what decides a row; the precision counts as what was asked for, since `auto` is measured anew."""
    recipe = dict(asdict(run.recipe), precision=config.precision)
    device, data = session.device, session.clips.metadata["content_hash"]
    return stable_hash(name, recipe, asdict(config.training), run.seed, data, device["code"], device["name"],
                       torch.__version__)


def finished_rows(session, keys):
    """Read the rows of an earlier run that need not be computed again."""
    path = session.out / "headline.csv"
    if not path.exists():
        return []
    rows = pd.read_csv(path)
    return rows[rows.key.isin(keys)].to_dict("records")


def condense_within(session, condenser, iterations, reserve):
    """Condense; raise `Skip` as soon as the budget does not suffice, with seconds in reserve for evaluation."""
    marks = {}
    for iteration in condenser.iterate():
        marks[iteration] = time.perf_counter()
        if iteration == PROBE:
            per_iteration = (marks[PROBE] - marks[PROBE // 2]) / (PROBE - PROBE // 2)
            session.budget.need(per_iteration * (iterations - PROBE) + reserve)
        elif iteration % PROBE == 0:
            session.budget.need(reserve)
    return condenser


def evaluate_networks(condensed, clips, run):
    """Train the networks of a run on a condensed set; return their accuracies in per cent."""
    found = []
    for seed in run.eval_seeds():
        model, _ = train(condensed, run.network, seed, run.config.training)
        logits = predict(model, clips.test, precision=run.config.training.precision)
        found.append(accuracy(logits, torch.as_tensor(clips.test.labels)).top1)
    return found


def mean_loss(losses, part):
    """Average the losses of the first tenth of the iterations, or of the last; None if there is none."""
    tenth = max(1, len(losses) // 10)
    chosen = losses[:tenth] if part == "first" else losses[-tenth:]
    return sum(chosen) / len(chosen) if chosen else None


def compute_row(session, key, name, run, reserve):
    """Condense, evaluate, and return a row."""
    clips, started = session.clips.split(run.config.split_id(run.seed)), time.perf_counter()
    condenser = condense_within(session, Condenser(clips, run.recipe, run.seed), run.recipe.iterations, reserve)
    condensed, condensed_at = condenser.to_condensed(), time.perf_counter()
    session.budget.need(reserve)
    scores = evaluate_networks(condensed, clips, run)
    losses = condenser.losses
    return dict(
        key=key, split=run.config.split_id(run.seed), method=name, vpc=run.recipe.vpc,
        iterations=run.recipe.iterations, lr=run.recipe.lr if losses else None, lr_from=METHODS[name][2],
        precision=run.recipe.precision, training_precision=run.config.training.precision,
        epochs=run.config.training.epochs, **{f"top1_network{i}": top1 for i, top1 in enumerate(scores)},
        loss_first_tenth=mean_loss(losses, "first"), loss_last_tenth=mean_loss(losses, "last"),
        frames_per_video=condenser.parameters.frames_per_video(), seconds_condense=condensed_at - started,
        seconds_evaluate=time.perf_counter() - condensed_at, device=session.device["name"],
        torch=torch.__version__, code=session.device["code"])


def compute_headline(session):
    """Compute the rows that are missing, one after the other, until the budget ends."""
    if session.clips is None:
        raise Skip("no --clips FILE; write one with --prepare on a machine that has PyAV and J-HMDB")
    runs = headline_runs(session)
    rows = finished_rows(session, [key for key, _, _ in runs])
    done = {row["key"] for row in rows}
    for key, name, run in runs:
        what = f"{name}, split {run.config.split_id(run.seed)}"
        if key in done:
            session.say(f"{what} is there")
            continue
        reserve = 1.2 * max([row["seconds_evaluate"] for row in rows], default=session.scale.evaluation_seconds)
        row = session.attempt(what, reserve, lambda: compute_row(session, key, name, run, reserve))  # noqa: B023
        if row:
            rows.append(row)
            session.write_csv("headline", rows)
            session.say(f"{what}: {row['top1_network0']:.1f} %")

