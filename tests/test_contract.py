"""Names and shapes that other code may rely on."""
import importlib
import inspect

import pytest

CONTRACT = {   # module → name → first parameters
    "interpolation": {"interpolate": ["frames", "is_key"]},
    "insertion": {"propose": ["gradients", "is_key", "epsilon", "reference", "pick", "metric", "generator"],
                  "Schedule": ["iterations", "warmup", "cooldown"]},
    "dm": {"distribution_matching": ["real_features", "synthetic_features"]},
    "networks": {"build": ["name", "classes", "frames", "size"]},
    "condensed": {"CondensedSet": ["frames"]},
    "condensation": {"condense": ["clips", "recipe", "seed"]},
    "evaluation": {"evaluate": ["condensed", "clips", "network", "seed"]},
    "methods.coresets": {"herding": ["features", "k"], "k_center": ["features", "k"]},
}


@pytest.mark.parametrize("module, name", [(module, name) for module, names in CONTRACT.items() for name in names])
def test_a_name_is_where_it_was_with_its_parameters(module, name):
    parameters = [*inspect.signature(getattr(importlib.import_module(f"prism_nb.{module}"), name)).parameters]
    expected = CONTRACT[module][name]
    assert parameters[:len(expected)] == expected


@pytest.mark.parametrize("name", ["load", "save", "videos", "key_frames", "storage"])
def test_a_condensed_set_has_its_methods(name):
    from prism_nb.condensed import CondensedSet
    assert hasattr(CondensedSet, name)
