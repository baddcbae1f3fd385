import torch

from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer


def test_a_model_has_the_parameters_that_its_size_declares():
    for name, size in SIZES.items():  # tests/launcher/test_list.py has their numbers
        with torch.device("meta"):
            model = Transformer(size)
        assert sum(p.numel() for p in model.parameters()) == size.parameters, name
