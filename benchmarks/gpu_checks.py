"""What a GPU computes, compared with the CPU, with itself, and with itself after an interruption."""
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

import torch
from loops import random_clips
from torch.utils._python_dispatch import TorchDispatchMode

from prism_nb.condensation import Condenser, video_gradient
from prism_nb.core.errors import PrismError
from prism_nb.core.files import load_tensors
from prism_nb.core.process import EXIT_SIGTERM, environment, get_device
from prism_nb.core.registry import OBJECTIVES, PARAMETERIZATIONS
from prism_nb.core.rng import seeded_generator
from prism_nb.insertion import METRICS, PICKS, REFERENCES, propose
from prism_nb.interpolation import interpolate
from prism_nb.networks import autocast_precision, reset_parameters
from prism_nb.parameterization import evenly_spaced_keys
from prism_nb.recipe import make_recipe, recipe_from
from prism_nb.targets import sample_real_batch

HERE = Path(__file__).resolve().parent


@contextmanager
def fresh_data():
    """Let the package write to a data folder of its own, so that nothing is found in a cache."""
    with tempfile.TemporaryDirectory() as folder, environment(PRISM_DATA=folder):
        yield folder


# Agreement

TOLERANCES = {
    # Sums in another order differ by some 1e-16 of a term; the network has few layers.
    "float64": dict(target=1e-4, loss=1e-9, gradient=1e-9),
    # The same at 6e-8; a ReLU or a maximum that falls to the other side of a tie moves single values of a gradient.
    "float32": dict(target=1e-4, loss=1e-3, gradient=1e-3),
}   # the target of distribution matching is float32 in both: features are averaged in it


def relative_error(a, b):
    """Compute ‖a − b‖ / ‖b‖ on the CPU, in float64."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return ((a - b).norm() / b.norm()).item()


def combinations(scale):
    """List objectives with parameterizations that learn and have a condensed set: all pairs, or each of both once."""
    names = [name for name, part in PARAMETERIZATIONS.items() if not part.is_stage and part.learning_rates]
    if scale.all_pairs:
        return [*product(OBJECTIVES, names)]
    pairs = max(len(OBJECTIVES), len(names))
    return [*islice(zip(cycle(OBJECTIVES), cycle(names)), pairs)]


# Of objectives that have some.
EXPERTS = dict(num_experts=1, expert_epochs=1, max_start_epoch=1, first_max_start_epoch=1, syn_steps=3)


class Iteration:
    """The first iteration of a condensation in a precision, on the device that computes."""

    def __init__(self, clips, objective, parameterization, size, dtype):
        settings = dict(objective=objective, parameterization=parameterization, width=size.width,
                        batch_real=size.batch, vpc=2, iterations=1, static_iterations=0, **EXPERTS)
        self.condenser = Condenser(clips, recipe_from(settings), 0)
        reset_parameters(self.condenser.network.to(dtype), self.condenser.rng("network"))
        self.stored = [p for group in self.condenser.parameters.param_groups(1.0) for p in group["params"]]
        for name in self.condenser.parameters.STATE:
            tensor = getattr(self.condenser.parameters, name)
            tensor.data = tensor.data.to(dtype) if tensor.is_floating_point() else tensor.data
        self.dtype = dtype

    def targets(self):
        """Compute the target of every class: (classes,…); of trajectories, start and goal: (2,P)."""
        condenser, found = self.condenser, []
        if not condenser.targets.objective.real_passes:
            networks = condenser.targets.networks
            with environment(PRISM_DEVICE="cpu"):   # a GPU draws another dropout
                networks.draw(0)
            return torch.stack([networks.start, networks.goal]).to(self.dtype)
        for label in condenser.labels:
            address = condenser.clips.class_names[label]
            batch, generator = condenser.recipe.batch_real, condenser.rng("real batch", address)
            real = sample_real_batch(condenser.clips, label, batch, generator)
            found.append(condenser.targets.objective.target(condenser.network, real.to(self.dtype), label))
        return torch.stack(found)

    def loss_and_gradient(self, targets):
        """Compute the loss of every class, and the gradient of what is stored, for given targets."""
        condenser = self.condenser
        targets = targets.to(get_device())
        if not condenser.targets.objective.real_passes:
            condenser.targets.networks.start, condenser.targets.networks.goal = targets
        condenser.targets.get = lambda iteration, labels: targets[labels.start:labels.stop]
        videos = condenser.parameters.sample(condenser.rng("pairs"))
        losses, gradient = video_gradient(condenser, videos)
        videos.backward(gradient)
        return losses, torch.cat([parameter.grad.flatten() for parameter in self.stored])


def compute_iteration(device, arguments, targets=None):
    """Compute an iteration on a device: its targets, and with those or given ones losses and gradients."""
    with fresh_data(), environment(PRISM_DEVICE=device), autocast_precision("float32"):
        iteration = Iteration(*arguments)
        own = iteration.targets()
        return own, *iteration.loss_and_gradient(own if targets is None else targets)


def compare_iteration(clips, objective, parameterization, size, name):
    """Compare an iteration with the CPU; loss and gradient are computed from the CPU's targets."""
    arguments = clips, objective, parameterization, size, getattr(torch, name)
    expected = compute_iteration("cpu", arguments)
    found = compute_iteration(get_device().type, arguments, expected[0])
    errors = dict(zip(("target", "loss", "gradient"), map(relative_error, found, expected)))
    agrees = all(errors[what] <= bound for what, bound in TOLERANCES[name].items())
    return dict(objective=objective, parameterization=parameterization, dtype=name, **errors,
                **{f"{what}_tolerance": bound for what, bound in TOLERANCES[name].items()}, agrees=agrees)


def made_gradients():
    """Make gradients of 64 videos of 16 frames: noise, and noise that changes smoothly in time."""
    noise = torch.randn(64, 16, 3, 8, 8, generator=seeded_generator("gradients"))
    is_key = evenly_spaced_keys(4, 16).repeat(64, 1)
    return torch.cat([noise[:32], interpolate(noise[32:], is_key[32:]) + 0.1 * noise[:32]]), is_key


ORTHOGONAL = dict(cosine=0.0, l2=2**0.5)   # of two gradients, by metric: the bound that a candidate has to pass


def compare_insertions():
    """Compare the frames that are inserted with those of the CPU, for every rule, on fixed gradients."""
    gradients, is_key = made_gradients()
    device, rows = get_device(), []
    for reference, pick, metric in product(REFERENCES, PICKS, METRICS):
        rule = dict(reference=reference, pick=pick, metric=metric, epsilon=ORTHOGONAL[metric])
        expected = propose(gradients, is_key, generator=seeded_generator(0), **rule)
        found = propose(gradients.to(device), is_key.to(device), generator=seeded_generator(0), **rule)
        rows.append(dict(insertion=f"{reference}, {pick}, {metric}", dtype="float32", inserted=int(expected.sum()),
                         agrees=torch.equal(found.cpu(), expected)))
    return rows


# Determinism

def condense_made_up(clips, method, iterations, width):
    """Condense in a data folder of its own; return the state without times."""
    recipe = make_recipe(method, iterations=iterations, width=width, batch_real=16, lr=1.0)
    with fresh_data():
        condenser = Condenser(clips, recipe, 0)
        for _ in condenser.iterate():
            pass
        return comparable_state(condenser.state_dict())


def comparable_state(state):
    """A state without its times, on the CPU."""
    return {name: value.cpu() for name, value in state.items() if name != "seconds"}


def compare_states(a, b):
    """Compare two states: equal bits or not, and the largest difference of stored pixels."""
    equal = all(torch.equal(a[name], b[name]) for name in a)
    frames = "frames" if "frames" in a else "dynamic"
    return dict(bits_equal=equal, largest_difference=(a[frames] - b[frames]).abs().max().item())


INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}   # bytes → type


def hash_bits(tensor):
    """Hash the bits of a tensor where it is; sums of integers do not depend on their order."""
    values = tensor.detach().contiguous().flatten().view(INTEGERS[tensor.element_size()]).long()
    return int(values.sum()), int((values * torch.arange(1, len(values) + 1, device=values.device)).sum())


class OperationLog(TorchDispatchMode):
    """Log every operation, with a hash of what it wrote; memory that nothing has written to yet is left out."""

    def __init__(self):
        super().__init__()
        self.entries = []   # (operation, shape, hash)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "empty" not in func.__name__ and not is_view(func):
            results = result if isinstance(result, tuple | list) else [result]
            for tensor in results:
                if isinstance(tensor, torch.Tensor):
                    self.entries.append((str(func), tuple(tensor.shape), hash_bits(tensor)))
        return result


def is_view(func):
    """Tell whether an operation returns a view of its input, without writing to it."""
    aliases = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def first_difference(a, b):
    """Find the first operation whose output differs between two logs; None if there is none."""
    for i, (one, other) in enumerate(zip(a, b)):
        if one != other:
            same = one[:2] == other[:2]
            return dict(operation=one[0] if same else f"{one[0]} or {other[0]}", shape=list(one[1]), index=i)
    return None if len(a) == len(b) else dict(operation="one log is longer", index=min(len(a), len(b)))


def log_iteration(clips, method, width):
    """Log the operations of a first iteration and of its targets."""
    with fresh_data():
        condenser = Condenser(clips, make_recipe(method, iterations=100, warmup=0.0, width=width, batch_real=16), 0)
        with OperationLog() as log:
            condenser.step()
        return log.entries


ATTEMPTS = 5   # pairs of iterations that are logged until two differ


def find_culprit(clips, method, width):
    """Find the first operation that gives other bits when an iteration is repeated."""
    first = log_iteration(clips, method, width)
    for _ in range(ATTEMPTS):
        if difference := first_difference(first, log_iteration(clips, method, width)):
            return dict(difference, operations=len(first))
    return dict(operation=f"none in {ATTEMPTS} repetitions of one iteration", operations=len(first))


def check_determinism(size, method, iterations=20):
    """Condense twice with one seed; if the bits differ, find the operation to blame."""
    clips = random_clips(size.classes, 16, size.frames, size.pixels)
    started = time.perf_counter()
    run = partial(condense_made_up, clips, method, iterations, size.width)
    found = dict(iterations=iterations, **compare_states(run(), run()))
    found["seconds_per_iteration"] = (time.perf_counter() - started) / iterations / 2
    if not found["bits_equal"]:
        found["first_operation_that_differs"] = find_culprit(clips, method, size.width)
    return found


# Resume

class Child:
    """A process that condenses clips of noise by PRISM, and says each iteration before it is done."""

    def __init__(self, data, size, iterations, out):
        numbers = [size.frames, size.pixels, size.classes, size.width, iterations]
        command = [sys.executable, HERE / "condense_noise.py", *map(str, numbers), out]
        settings = {**os.environ, "PRISM_DATA": data, "PYTHONPATH": str(HERE.parent)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings)

    def wait_for(self, iteration):
        """Read until an iteration begins; return the first that was read."""
        first = None
        for line in self.process.stdout:
            first = int(line) if first is None else first
            if int(line) >= iteration:
                return first
        return first

    def finish(self, expected=0):
        """Wait until the process ends, and check how it did."""
        self.process.stdout.read()
        code = self.process.wait()
        if code != expected:
            raise PrismError(f"a process that condenses ended with code {code} instead of {expected}")


def check_resume(size, iterations):
    """Compare a condensation that SIGTERM stopped in the middle, and that was resumed, with an uninterrupted one."""
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = (Path(folder) / f"{name}.safetensors" for name in ("whole", "resumed"))
        Child(f"{folder}/whole", size, iterations, whole).finish()
        stopped = Child(f"{folder}/stopped", size, iterations, resumed)
        stopped.wait_for(iterations // 2)
        stopped.process.send_signal(signal.SIGTERM)
        stopped.finish(EXIT_SIGTERM)
        again = Child(f"{folder}/stopped", size, iterations, resumed)
        first = again.wait_for(0)
        again.finish()
        states = [comparable_state(load_tensors(path)[0]) for path in (whole, resumed)]
    return dict(iterations=iterations, resumed_at=first, **compare_states(*states))
