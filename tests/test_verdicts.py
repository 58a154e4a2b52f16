"""Verdicts on simulated tables whose true differences are known: how often they are wrong, and what they find."""
import math

import numpy as np
import pytest

from prism_nb.study.power import detectable_difference, seeds_needed
from prism_nb.study.verdicts import (
    CANNOT_TELL,
    MARGIN,
    NO_DIFFERENCE,
    OPPOSITE,
    SAME,
    Claim,
    assess_claims,
    find_verdicts,
)

SET_SD, NETWORK_SD, SEED_SD = 3., 4., 5.


def table(means, seeds, networks, generator):
    """Rows with known means: seeds and initialisations are common to all rows, sets and their networks are not."""
    shape = len(means), seeds, networks
    common = generator.normal(0, SEED_SD, (seeds, 1)) + generator.normal(0, 2, (seeds, networks))
    noise = generator.normal(0, SET_SD, (len(means), seeds, 1)) + generator.normal(0, NETWORK_SD, shape)
    top1 = np.asarray(means)[:, None, None] + common + noise

    def record(seed, values): return {"method": "dm", "seed": seed, "scores": [{"top1": float(v)} for v in values]}
    return {i: [record(seed, values) for seed, values in enumerate(of_row)] for i, of_row in enumerate(top1)}


def against_first(rows): return [Claim.above(f"{row} above 0", row, 0) for row in range(1, len(rows))]


def is_wrong(found, effect):
    """A verdict of no difference where there is one of at least the margin, or of a direction that is not there."""
    return {SAME: effect <= 0, OPPOSITE: effect >= 0, NO_DIFFERENCE: abs(effect) >= MARGIN, CANNOT_TELL: False}[found]


def verdicts(effects, seeds, networks, trials):
    """The verdicts on the differences of rows to the first, for each of many tables."""
    generator = np.random.default_rng([seeds, networks, trials])
    for _ in range(trials):
        rows = table([30., *(30. + effect for effect in effects)], seeds, networks, generator)
        yield [verdict.found for verdict in find_verdicts(against_first(rows), rows)]


def share_wrong(effects, seeds, networks, trials):
    """The share of tables with at least one wrong verdict."""
    return np.mean([any(map(is_wrong, found, effects)) for found in verdicts(effects, seeds, networks, trials)])


def most(share, trials):
    """The largest share to expect of `trials` with a probability of `share`: three standard errors above it."""
    return share + 3*math.sqrt(share*(1 - share)/trials)


def paired_sd(networks): return math.sqrt(2*(SET_SD**2 + NETWORK_SD**2/networks))


EFFECTS = {"none": [0.]*5, "at the margin": [MARGIN]*5, "both": [0., 0., 0., MARGIN, -MARGIN],
           "one is large": [0., 0., 0., 0., 20.], "all are large": [20., -20., 20., 20.]}


@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("seeds", [3, 200])   # with 200, differences below two points can be shown to be none
def test_at_most_one_table_in_twenty_has_a_wrong_verdict(effects, seeds):
    trials = 60
    assert share_wrong(effects, seeds, 1, trials) <= most(.05, trials)


def test_so_it_is_with_the_mixed_model():
    trials = 20
    assert share_wrong(EFFECTS["none"], 6, 2, trials) <= most(.05, trials)


def share_found(effect, seeds, networks, trials):
    """The share of tables in which a difference to the first row is found; the other rows have none."""
    effects = [effect, 0., 0., 0.]
    return np.mean([found[0] == SAME for found in verdicts(effects, seeds, networks, trials)])


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    trials, seeds = 150, 6
    effect = detectable_difference(paired_sd(1), seeds, rows=5, claims=4)
    assert abs(share_found(effect, seeds, 1, trials) - .8) <= 3*math.sqrt(.16/trials)
    assert share_found(effect/2, seeds, 1, trials) < .5


def test_what_a_table_says_it_could_find_is_what_the_true_scatter_allows():
    rows = table([30.]*5, 40, 4, np.random.default_rng(5))
    claim = assess_claims(against_first(rows), rows)[0]
    true = detectable_difference(paired_sd(4), 40, rows=5, claims=4)
    assert claim["could_find"] == pytest.approx(true, rel=.15)
    assert claim["found"] in (CANNOT_TELL, NO_DIFFERENCE)


def test_as_many_seeds_as_a_table_asks_for_find_two_points():
    seeds = seeds_needed(MARGIN, paired_sd(1), rows=5, claims=4)
    trials = 30
    assert share_found(MARGIN, seeds, 1, trials) >= .8 - 3*math.sqrt(.16/trials)


@pytest.mark.slow
@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("seeds, networks", [(3, 2), (10, 4)])
def test_many_tables_with_the_mixed_model(effects, seeds, networks):
    trials = 100
    assert share_wrong(effects, seeds, networks, trials) <= most(.05, trials)


@pytest.mark.slow
@pytest.mark.parametrize("seeds, networks", [(3, 2), (10, 4)])
def test_many_tables_find_what_was_stated(seeds, networks):
    trials = 100
    effect = detectable_difference(paired_sd(networks), seeds, rows=5, claims=4)
    allowed = .03 + 3*math.sqrt(.16/trials)   # where a component is near zero, the mixed model overstates the scatter
    assert abs(share_found(effect, seeds, networks, trials) - .8) <= allowed
