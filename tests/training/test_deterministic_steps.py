"""No step calls an operator that raises with --deterministic on a GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engines.environment import RankInfo
from engines.world import ProcessWorld
from models.catalog import FAMILIES
from tests.models.tasks import batch_of
from tests.runs import families

RAISING = {
    # NLLLoss on images, unless its result has a number for each pixel
    "nll_loss2d_forward": lambda args: args["reduction"] != 0,
    **dict.fromkeys(
        (
            *("avg_pool3d_backward", "max_pool3d_with_indices_backward"),
            *("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
            *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
            *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
            *("max_unpool2d", "max_unpool3d"),
            *("upsample_linear1d_backward", "upsample_bilinear2d_backward"),
            *("upsample_bicubic2d_backward", "upsample_trilinear3d_backward"),
            *("reflection_pad1d_backward", "reflection_pad2d_backward"),
            *("reflection_pad3d_backward", "replication_pad1d_backward"),
            *("replication_pad2d_backward", "replication_pad3d_backward"),
            *("_ctc_loss_backward", "put", "put_", "histc", "kthvalue"),
            *("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
        ),
        lambda args: True,
    ),
    "_embedding_bag_dense_backward": lambda args: args["mode"] == 2,  # max
    "bincount": lambda args: args.get("weights") is not None,
    "median": lambda args: "dim" in args,
    "nanmedian": lambda args: "dim" in args,
    "cumsum": lambda args: (args.get("dtype") or args["self"].dtype).is_floating_point,
    "scatter_reduce": lambda args: args["reduce"] == "prod",
    "scatter_reduce_": lambda args: args["reduce"] == "prod",
}
"""When an operator raises on CUDA, by its arguments, in one of the versions since 2.6.

Source: the documentation of torch.use_deterministic_algorithms, operations that will throw.
"""


def raises(operator, args, kwargs):
    packet = operator.overloadpacket.__name__
    names = [argument.name for argument in operator._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return operator.namespace == "aten" and packet in RAISING and RAISING[packet](given)


class Raising(TorchDispatchMode):
    """Collects the operators that would raise."""

    def __init__(self):
        super().__init__()
        self.found, self.count = set(), 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        if raises(operator, args, kwargs or {}):
            self.found.add(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_a_step_nor_an_evaluation_on_a_cpu(tmp_path, family):
    world = ProcessWorld(RankInfo(), torch.device("cpu"), 60.0)
    prepared = families.prepared(world, family, "local", tmp_path)
    with prepared as (task, engine, module), Raising() as raising:
        families._train(world, task, engine, module, 1, 1)
        task.metric().update(module.eval(), batch_of(task, 2, "val"))
    assert raising.count > 100 and raising.found == set()
