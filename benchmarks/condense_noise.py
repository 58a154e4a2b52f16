"""Condense clips of noise in a process that can be stopped: FRAMES PIXELS CLASSES WIDTH ITERATIONS FILE."""
import sys

import without_pyav  # noqa: F401  before prism_nb
from loops import random_clips

from prism_nb.condensation import Condenser
from prism_nb.core.files import save_tensors
from prism_nb.core.process import exit_on_sigterm
from prism_nb.recipe import make_recipe

*numbers, out = sys.argv[1:]
frames, pixels, classes, width, iterations = map(float, numbers)
exit_on_sigterm()
clips = random_clips(int(classes), 16, int(frames), int(pixels))
recipe = make_recipe("prism", iterations=int(iterations), width=width, batch_real=16, lr=1.0)
condenser = Condenser(clips, recipe, 0)
for iteration in condenser.iterate():
    print(iteration, flush=True)
save_tensors(out, condenser.state_dict())
