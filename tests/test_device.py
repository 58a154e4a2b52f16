"""What computes on a GPU computes on any second device: a forgotten `.to(device)` fails here, on every machine.

Everything runs on the GPU where there is one, and on the stand-in device of `stand_in.py` elsewhere. This file needs
neither the command line nor a decoder: `python -m pytest --noconftest tests/test_device.py`.
"""
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import stand_in

from prism_nb.condensation import Condenser, condense, condense_with_history
from prism_nb.condensed import CondensedSet
from prism_nb.core.errors import PrismError
from prism_nb.core.registry import METHODS, OBJECTIVES, PARAMETERIZATIONS
from prism_nb.core.rng import fork_rng_at, seeded_generator
from prism_nb.data.clips import from_array, gpu_pixels
from prism_nb.evaluation import TrainConfig, evaluate
from prism_nb.methods import rate_distortion
from prism_nb.methods.coresets import extract_features
from prism_nb.networks import autocast_precision, build
from prism_nb.recipe import make_recipe
from prism_nb.study import runner
from prism_nb.study.estimate import DatasetStats, check_memory, peak_bytes
from prism_nb.study.precision import Workload, choose_precision
from prism_nb.study.profiles import get_config
from prism_nb.study.runs import Run

FRAMES, SIZE, CLASSES = 8, 48, 2
SMALL = dict(iterations=3, warmup=0., cooldown=0., batch_real=3, width=.125, lr=1., feature_epochs=1)
EVERY_FRAME = dict(epsilon=1.01)   # every interpolated frame qualifies
WANG = dict(static_lr=1., static_iterations=2, hallucinator_lr=1e-3)
# Of objectives that have some; trained on either device.
EXPERTS = dict(num_experts=2, expert_epochs=2, max_start_epoch=2, first_max_start_epoch=1, syn_steps=3)
TRAINING = TrainConfig(epochs=1, batch=2, width=.125)
DEVICE = "cuda" if torch.cuda.is_available() else stand_in.NAME
if DEVICE == stand_in.NAME:
    libraries = stand_in.register()


@pytest.fixture(params=[DEVICE])
def device(request, monkeypatch, tmp_path):
    """Compute on a second device, with a data folder of the test's own."""
    monkeypatch.setenv("PRISM_DATA", str(tmp_path))
    monkeypatch.setenv("PRISM_DEVICE", request.param)
    return torch.device(request.param, 0)


@pytest.fixture
def clips():
    """Eight videos of two clips each in two classes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (CLASSES*16, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    return from_array(pixels, [0]*8 + [1]*8, ["jump", "run"], num_clips=2)


def combinations():
    """List every method that condenses, and every objective with each parameterization whose parts are frames."""
    learning = [name for name in METHODS if METHODS[name].settings.get("iterations") != 0]
    own = {(name, METHODS[name].settings.get("objective", "dm")) for name in learning}
    by_part = {METHODS[name].settings["parameterization"]: name for name in learning}
    splittable = [name for part, name in by_part.items() if PARAMETERIZATIONS[part].splittable]
    return sorted(own | {*product(splittable, OBJECTIVES)})


def recipe_of(method, **settings):
    """Make a small recipe in which frames are inserted from the first iteration on."""
    return make_recipe(method, SMALL | EVERY_FRAME | WANG | EXPERTS | dict(vpc=2), **settings)


def on_cpu(call, monkeypatch, device):
    """Call on the CPU; then compute on the second device again."""
    monkeypatch.setenv("PRISM_DEVICE", "cpu")
    result = call()
    monkeypatch.setenv("PRISM_DEVICE", str(device))
    return result


def assert_same(found, expected, device):
    """Compare tensors; on a CPU the first layer has another backward pass, and a GPU rounds differently."""
    tolerance = 1e-5 if device.type == stand_in.NAME else 1e-3
    torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("method", "objective"), combinations())
def test_every_method_condenses_as_on_the_cpu(method, objective, device, clips, monkeypatch):
    recipe = recipe_of(method, objective=objective)
    here, history = condense_with_history(clips, recipe, 0)
    expected, expected_history = on_cpu(lambda: condense_with_history(clips, recipe, 0), monkeypatch, device)
    assert_same(history.class_losses, expected_history.class_losses, device)
    assert_same(here.videos(), expected.videos(), device)
    assert here.videos().device.type == "cpu"
    if recipe.parameterization == "key-frames":   # frames were inserted
        assert torch.equal(here.key_frames, expected.key_frames)
        assert here.key_frames.all()
        assert (here.inserted_at >= 0).any()


def test_tiles_of_mixed_resolution_are_those_of_the_cpu(device, clips, monkeypatch):
    def played():
        source = rate_distortion.CoarseVariants(clips.train, 4, 2)
        videos = source.videos([0, 1, 2, 3])
        keys = [rate_distortion.evenly_spaced_keys(n, FRAMES) for n in (2, 3)]
        stored = [rate_distortion.CoarseClip(video.cpu(), f, k) for video, f, k in zip(videos, (4, 1), keys)]
        tiles = rate_distortion.RDTiles([stored], 4)
        tiles.dense().square().sum().backward()
        packed = tiles.to_condensed(torch.tensor([0, 0]), ["jump"], None)
        return videos, tiles.dense().detach(), tiles.blocks.grad, packed.to(videos.device).videos()
    here, expected = played(), on_cpu(played, monkeypatch, device)
    assert {tensor.device.type for tensor in here} == {device.type}
    for one, other in zip(here, expected):
        assert_same(one, other, device)


@pytest.mark.parametrize("pick", ["all", "most-negative", "random"])
def test_every_pick_inserts_the_same_frames(pick, device, clips, monkeypatch):
    recipe = recipe_of("prism", pick=pick)
    here = condense(clips, recipe, 0)
    expected = on_cpu(lambda: condense(clips, recipe, 0), monkeypatch, device)
    assert torch.equal(here.key_frames, expected.key_frames)
    assert torch.equal(here.inserted_at, expected.inserted_at)


@pytest.mark.parametrize("init", ["noise", "random", "herding", "k-center"])
def test_every_initialization_starts_on_the_device(init, device, clips):
    condenser = Condenser(clips, recipe_of("dm", init=init), 0)
    assert condenser.parameters.frames.device.type == device.type
    condenser.step()


def test_features_are_those_of_the_cpu(device, clips, monkeypatch):
    with patch("torch.nn.functional.dropout", lambda x, *args: x):   # drawn on the device: other numbers on a GPU
        here = extract_features(clips, 0, TRAINING)
        expected = on_cpu(lambda: extract_features(clips, 0, TRAINING), monkeypatch, device)
    assert_same(here, expected, device)


@pytest.mark.parametrize("method", ["random", "dm", "prism", "wang"])
def test_a_set_is_evaluated_there(method, device, clips, monkeypatch):
    condensed = condense(clips, recipe_of(method), 0)
    for source in (condensed, condensed.to(device)):
        here = evaluate(source, clips, seed=1, config=TRAINING)
        with patch("prism_nb.evaluation.MAX_RESIDENT_BYTES", 0):
            assert evaluate(source, clips, seed=1, config=TRAINING) == here
    if device.type == stand_in.NAME:   # dropout draws on the device: other numbers on a GPU
        assert on_cpu(lambda: evaluate(condensed, clips, seed=1, config=TRAINING), monkeypatch, device) == here


def test_networks_are_trained_on_all_clips(device, clips):
    assert evaluate(clips.train, clips, seed=0, config=TRAINING).clips == len(clips.test)


@pytest.mark.parametrize("method", ["random", "prism", "wang"])
def test_a_set_is_moved_and_rendered(method, device, clips, tmp_path):
    condensed = condense(clips, recipe_of(method), 0)
    there = condensed.to(device)
    video, label = there[1]
    assert video.device.type == device.type
    assert_same(video, condensed[1][0], device)
    assert_same(there.videos([0, 2]), condensed.videos([0, 2]), device)
    assert label == condensed[1][1]
    there.save(tmp_path / "set.safetensors")
    assert_same(CondensedSet.load(tmp_path / "set.safetensors").videos(), condensed.videos(), device)
    assert there.storage() == condensed.storage()


@pytest.mark.parametrize("method", ["dm", "prism"])
def test_a_stopped_run_resumes(method, device, clips):
    recipe = recipe_of(method)
    expected = condense(clips, recipe, 0)
    stopped = Condenser(clips, recipe, 0)
    iterations = stopped.iterate(checkpoint_seconds=0.)
    for _ in range(2):
        next(iterations)
    iterations.close()   # writes a checkpoint after one iteration
    resumed = Condenser(clips, recipe, 0)
    resumed.resume()
    assert resumed.iteration == 1
    assert resumed.optimizer.state_dict()["state"][0]["momentum_buffer"].device.type == device.type
    for _ in resumed.iterate():
        pass
    assert_same(resumed.to_condensed().videos(), expected.videos(), device)


def test_pixels_stay_on_the_device_if_they_fit(device, clips):
    assert torch.equal(gpu_pixels(clips, device).cpu(), torch.from_numpy(clips.pixels))
    assert gpu_pixels(clips.train, device) is gpu_pixels(clips, device)   # shared by subsets
    assert gpu_pixels(replace(clips, resident={}, gpu_share=1e-12), device) is None
    here = clips.batch([0, 3], torch.tensor([True, False]), 1)
    there = replace(clips, resident={}, gpu_share=1e-12).batch([0, 3], torch.tensor([True, False]), 1)
    assert here.device.type == there.device.type == device.type
    assert torch.equal(here.cpu(), there.cpu())


def test_tf32_is_forbidden_for_what_is_synthetic(device):
    for library in (torch.backends.cudnn, torch.backends.cuda.matmul):
        before, library.allow_tf32 = library.allow_tf32, True
        try:
            with autocast_precision("float32"):
                assert not library.allow_tf32
            assert library.allow_tf32
        finally:
            library.allow_tf32 = before


def test_dropout_is_seeded(device):
    network = build("minic3d", CLASSES, FRAMES, SIZE, .125).to(device).train()
    x = torch.randn(2, FRAMES, 3, SIZE, SIZE, generator=seeded_generator("x")).to(device)
    def logits():
        with fork_rng_at("dropout"):
            return network(x)
    assert torch.equal(logits(), logits())


# The stand-in refuses what a GPU refuses

REFUSED = dict(
    sum=lambda x, cpu: x + cpu,
    product=lambda x, cpu: x[None] @ cpu[:, None],
    cat=lambda x, cpu: torch.cat([x, cpu]),
    where=lambda x, cpu: torch.where(cpu > 0, x, x),
    index=lambda x, cpu: cpu[x.long()],
    in_place=lambda x, cpu: cpu.add_(x),
    convolution=lambda x, cpu: torch.nn.functional.conv1d(x[None, None], cpu[None, None]),
    loss=lambda x, cpu: torch.nn.functional.cross_entropy(x[None], cpu[:1].long()),
    generator=lambda x, cpu: torch.randn(3, device=x.device, generator=torch.Generator()),
    permutation=lambda x, cpu: torch.randperm(3, device=x.device, generator=torch.Generator()),
    numpy=lambda x, cpu: x.numpy(),
    from_numpy=lambda x, cpu: np.add(x, cpu),
)
ACCEPTED = dict(
    number=lambda x, cpu: x*torch.tensor(2.),
    index=lambda x, cpu: x[cpu.long()],
    mask=lambda x, cpu: x[cpu > 0],
    copy=lambda x, cpu: x.copy_(cpu),
    back=lambda x, cpu: cpu + x.cpu(),
    assignment=lambda x, cpu: x.index_put_((cpu.long(),), x + 1),
)


def both(device):
    return torch.arange(3.).to(device), torch.arange(3.)


@pytest.mark.parametrize("name", REFUSED)
def test_a_mixture_of_devices_is_refused(name, device):
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[name](*both(device))


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_gpu_accepts_is_accepted(name, device):
    here = ACCEPTED[name](*both(device))
    there = ACCEPTED[name](torch.arange(3.), torch.arange(3.))
    assert torch.equal(here.cpu(), there)


def test_views_and_gradients_are_those_of_the_cpu(device):
    def compute(x):
        x = x.requires_grad_()
        y = x.clone()
        y[1:] *= 2
        y.view(3, 1).add_(1.)
        y.square().sum().backward()
        return y.detach(), x.grad
    for found, expected in zip(compute(torch.arange(3.).to(device)), compute(torch.arange(3.))):
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("module", ["condensation", "targets", "evaluation"])
def test_a_forgotten_device_fails(module, device, clips):
    def compute():
        condensed = condense(clips, recipe_of("dm"), 0)
        evaluate(condensed, clips, config=TRAINING)
    compute()
    forgotten = patch(f"prism_nb.{module}.get_device", lambda: torch.device("cpu"))
    with forgotten, pytest.raises(RuntimeError, match="same device|should be the same"):
        compute_again = replace(clips, content_hash="other", resident={})
        evaluate(condense(compute_again, recipe_of("dm"), 0), compute_again, config=TRAINING)


# A GPU that is too small

@pytest.fixture
def runs(device, clips, monkeypatch):
    """Two runs on the clips above."""
    config = replace(get_config("smoke", "motionshapes"), training=TRAINING)
    monkeypatch.setattr(Run, "clips", lambda self: clips)
    return [Run(config, method, recipe_of(method), 0) for method in ("prism", "random")]


def out_of_memory(*args):
    raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB.\nOf the allocated memory …")


def test_a_run_that_runs_out_of_memory_says_where_and_the_others_go_on(device, runs):
    first, second = runs
    with patch("prism_nb.condensation.video_gradient", out_of_memory):
        failed, done = runner.execute_safely(first), runner.execute_safely(second)
    assert failed["error"].startswith("condensing, iteration 0: the memory of ")
    assert "GB were allocated here" in failed["error"]
    assert failed["scores"] == []
    assert len(done["scores"]) == 1
    assert done["peak_gpu_mb"] is not None
    json.dumps(failed)
    assert runner.completed_record(first.record_path()) is None   # it is executed again
    assert runner.completed_record(second.record_path()) is not None
    with patch("prism_nb.evaluation.train_epoch", out_of_memory):
        failed = runner.execute_safely(first)
    assert failed["error"].startswith("evaluating minic3d, seed 0: the memory of ")
    assert len(runner.execute_safely(first)["scores"]) == 1


def test_a_gpu_that_is_too_small_is_an_error_before_anything_starts(device, runs):
    stats = DatasetStats(CLASSES, 8, 8, FRAMES, SIZE, pixels=10**6)
    needed = peak_bytes(runs[0], stats)
    free = patch("prism_nb.study.estimate.free_gpu_bytes", lambda device: needed - 1)
    with free, pytest.raises(PrismError, match=r"GB of memory are needed, but only .* GB are free on .*; vpc=1 needs"):
        check_memory(runs, stats, 1, "2 runs")


def test_auto_precision_is_measured_there(device, monkeypatch):
    choice = choose_precision(Workload("minic3d", FRAMES, SIZE, .125))
    assert choice.precision in choice.supported
    assert choice.error <= .01
    if device.type == stand_in.NAME:
        assert choice.supported == ["float32"]
