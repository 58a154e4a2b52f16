"""An iteration, the embedding of real clips and an evaluation: those of the plain loop, and those of this package."""
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from reference import ReferenceCondenser, ReferenceEvaluator, build_features, embed
from timing import ROUNDS, interleave, precisions
from torch.utils.flop_counter import FlopCounterMode

from prism_nb.condensation import Condenser
from prism_nb.condensed import CondensedSet
from prism_nb.core.process import get_device
from prism_nb.core.rng import fork_rng_at, seeded_generator
from prism_nb.data.clips import from_array
from prism_nb.dm import clips_at_once
from prism_nb.evaluation import TrainConfig, evaluate, predict, shuffled_batches, train_epoch
from prism_nb.networks import MiniC3D, autocast_precision, build, reset_parameters
from prism_nb.recipe import make_recipe

BATCH = 64   # real clips per class


@dataclass(frozen=True)
class Size:
    """The size of an iteration."""

    frames: int
    pixels: int
    classes: int
    batch: int = BATCH   # real clips per class
    width: float = 1.0

    @property
    def name(self):
        """The name of its rows."""
        return f"{self.frames}x{self.pixels}"

    def with_classes(self, classes):
        """The same size with another number of classes."""
        return replace(self, classes=classes)


def random_clips(classes, clips, frames, size):
    """Make clips of noise, as many in training as in test: an iteration costs the same whatever they show."""
    shape = (2 * classes * clips, frames, size, size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded_generator("made up"))
    labels = np.repeat(np.arange(classes), 2 * clips).tolist()
    return from_array(pixels.numpy(), labels, [f"c{i:02d}" for i in range(classes)])


def make_condenser(clips, method, precision, vpc=1, width=1.0, batch=BATCH):
    """Make a condenser whose every iteration may insert frames."""
    settings = dict(iterations=10**6, warmup=0.0, lr=1e-3)
    recipe = make_recipe(method, vpc=vpc, batch_real=batch, width=width, precision=precision, **settings)
    return Condenser(clips, recipe, 0)


def run_iteration(condenser):
    """Do one iteration whose targets are computed instead of read from the cache."""
    targets = condenser.targets
    reset_parameters(condenser.network, condenser.rng("network"))
    computed = torch.stack([targets.compute(condenser.iteration, label) for label in condenser.labels])
    targets._block = condenser.iteration // targets.BLOCK, computed[None].expand(targets.BLOCK, *computed.shape)
    condenser.step()


def clip_flop(size):
    """Count the FLOP of a clip's forward pass through miniC3D; elementwise operations are not counted."""
    with torch.device("meta"):
        network = MiniC3D(2, size.frames, size.pixels, size.width)
        videos = torch.empty(1, size.frames, 3, size.pixels, size.pixels)
        with FlopCounterMode(display=False) as counter:
            network.embed(videos)
    return counter.get_total_flops()


def iteration_flop(size, vpc=1):
    """Count the FLOP of an iteration: real clips forward, videos forward and backward to their pixels."""
    return size.classes * (size.batch + 2 * vpc) * clip_flop(size)


def class_videos(clips):
    """Load the training clips of each class in float32, as the reference holds them."""
    train = clips.train
    return [train.videos(train.indices_of_class(label)) for label in range(len(clips.class_names))]


def make_reference(preloaded, method, size):
    """Make the reference of a method."""
    return ReferenceCondenser(preloaded, 1, method == "prism", size.batch, size.width, get_device())


def measure_iterations(results, size, rounds=ROUNDS):
    """Measure one iteration of DM and of PRISM, of the reference and of this package."""
    clips = random_clips(size.classes, size.batch, size.frames, size.pixels)
    preloaded = class_videos(clips)
    calls = {}
    for method in ("dm", "prism"):
        calls[method, "reference"] = make_reference(preloaded, method, size).step
        for dtype in precisions():
            condenser = make_condenser(clips, method, dtype, width=size.width, batch=size.batch)
            calls[method, dtype] = partial(run_iteration, condenser)
    times = interleave(calls, rounds, f"iterations {size.name}")
    for (method, what), taken in times.items():
        name = f"{method}-iteration-{size.name}"
        if what == "reference":
            results.add(f"{name}-reference", "float32", taken)
        else:
            results.add(name, what, taken, times[method, "reference"], iteration_flop(size))
    return clips


def measure_insertion(results, clips, size, rounds=ROUNDS):
    """Measure what PRISM adds: interpolation, its backward pass, and insertion, from two key frames per video."""
    condenser = make_condenser(clips, "prism", "float32", width=size.width, batch=size.batch)
    parameters = condenser.parameters
    start = {name: value.clone() for name, value in parameters.state_dict().items()}
    gradient = torch.randn(start["frames"].shape, device=get_device())
    def call():
        parameters.load_state_dict(start)
        parameters.sample(None).backward(gradient)
        for label in condenser.labels:
            rows = condenser.class_slice(label)
            parameters.insert_frames(rows, gradient[rows], seeded_generator(label))
        condenser.optimizer.zero_grad()
    times = interleave({"": call}, rounds)[""]
    results.add(f"interpolation-and-insertion-{size.name}", "float32", times)


def embed_in_precision(network, clips, precision, batch):
    """Embed the first `batch` clips, as many at a time as distribution matching does."""
    with autocast_precision(precision):
        for chunk in clips.batch(range(batch)).split(clips_at_once()):
            network.embed(chunk)


def measure_real_forward(results, size, rounds=ROUNDS):
    """Measure the forward pass of the real clips of a class, which is most of an iteration."""
    clips = random_clips(1, size.batch, size.frames, size.pixels).train
    features = build_features(size.width).to(get_device())
    stacked = make_reference([clips.videos()], "dm", size).sample_real(0)
    calls = {"reference": lambda: embed(features, stacked)}
    for dtype in precisions():
        network = build("minic3d", 2, size.frames, size.pixels, size.width).to(get_device()).requires_grad_(False)
        calls[dtype] = partial(embed_in_precision, network, clips, dtype, size.batch)
    with torch.no_grad():
        times = interleave(calls, rounds, "real forward")
    flop = size.batch * clip_flop(size)
    reference = times.pop("reference")
    results.add(f"real-forward-{size.name}-reference", "float32", reference, flop=flop)
    for dtype, taken in times.items():
        results.add(f"real-forward-{size.name}", dtype, taken, reference, flop)


# Evaluation

EPOCHS = 500   # of an evaluation, of which one is timed


def pack_dense(videos, labels, class_names):
    """Pack dense videos as a condensed set."""
    is_key = torch.ones(videos.shape[:2], dtype=torch.bool)
    return CondensedSet.from_frames(videos, is_key, labels, class_names)


def reference_evaluator(videos, labels, clips, width):
    """Make the reference for training on videos and testing on clips."""
    test_labels = torch.from_numpy(clips.test.labels)
    return ReferenceEvaluator(videos, labels, clips.test.videos(), test_labels, 256, width, get_device())


def evaluation_calls(videos, labels, clips, width):
    """List the calls that train for one epoch and that test: (who, what) → call."""
    reference = reference_evaluator(videos, labels, clips, width)
    calls = {("reference", "epoch"): reference.epoch, ("reference", "test"): reference.test}
    condensed = pack_dense(videos, labels, clips.class_names)
    _, frames, size, _, _ = clips.shape
    for dtype in precisions():
        model = build("minic3d", len(clips.class_names), frames, size, width).to(get_device())
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
        batches = shuffled_batches(condensed, 256)
        def epoch(model=model, optimizer=optimizer, batches=batches, dtype=dtype):
            train_epoch(model.train(), optimizer, batches(seeded_generator(0)), dtype)
        calls[dtype, "epoch"] = epoch
        calls[dtype, "test"] = partial(predict, model, clips.test, precision=dtype)
    return calls


def measure_evaluation(results, clips, vpc, width=1.0, rounds=ROUNDS, accuracies=None):
    """Measure an evaluation on real clips, of which one epoch and one test are timed; `accuracies`: of each row."""
    chosen = np.concatenate([clips.train.indices_of_class(c)[:vpc] for c in range(len(clips.class_names))])
    videos, labels = clips.train.videos(chosen), torch.from_numpy(clips.train.labels[chosen])
    times = interleave(evaluation_calls(videos, labels, clips, width), rounds, f"evaluation vpc {vpc}")
    def total(who):
        return [EPOCHS * epoch + test for epoch, test in zip(times[who, "epoch"], times[who, "test"])]
    def accuracy(who):
        return accuracies[who] if accuracies else {}
    results.add(f"evaluate-vpc{vpc}-reference", "float32", total("reference"), **accuracy("reference"))
    for dtype in precisions():
        results.add(f"evaluate-vpc{vpc}", dtype, total(dtype), total("reference"), **accuracy(dtype))


def reference_accuracy(videos, labels, clips, seed, epochs, width):
    """Train the reference's network on videos and test it; the learning rate falls half-way."""
    with fork_rng_at(seed):
        evaluator = reference_evaluator(videos, labels, clips, width)
        for epoch in range(epochs):
            for group in evaluator.optimizer.param_groups:
                group["lr"] = 0.01 if epoch < epochs // 2 else 0.001
            evaluator.epoch()
        return evaluator.test()


def accuracy_on_real_clips(clips, name, seed, epochs=100, width=0.25, vpc=1):
    """Train on some real clips per class, in the reference or in a precision, and test."""
    classes = range(len(clips.class_names))
    chosen = np.concatenate([np.roll(clips.train.indices_of_class(c), -seed * vpc)[:vpc] for c in classes])
    videos, labels = clips.train.videos(chosen), torch.from_numpy(clips.train.labels[chosen])
    if name == "reference":
        return reference_accuracy(videos, labels, clips, seed, epochs, width)
    config = TrainConfig(epochs, width=width, precision=name)
    return evaluate(pack_dense(videos, labels, clips.class_names), clips, seed=seed, config=config).top1
