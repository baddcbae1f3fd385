"""Sizes and settings of the family."""

from dataclasses import dataclass
from typing import Literal

from gearshift.models.common.config import FamilySection, Fold, SplitSeed, StagedModel


@dataclass(frozen=True)
class Size:
    width: int

    @property
    def parameters(self):
        return 5 * self.width + 3 * (self.width + 1)


SIZES = {"tiny": Size(8), "full": Size(64)}


class Model(StagedModel):
    family: str = "flowers"
    size: str = "full"


class Data(FamilySection):
    path: str = "flowers.csv"
    control: Literal["real", "noise"] = "real"
    split_seed: SplitSeed = None
    fold: Fold = None
