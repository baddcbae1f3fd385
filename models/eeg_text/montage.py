"""The montage: 105 channels, the ten regions of the head, and other channel names."""

from __future__ import annotations

REGIONS: dict[str, str] = {
    "frontal": "E3 E4 E5 E6 E11 E12 E13 E18 E19 E20 E23 E24 E27 E28 E29 E34 E35 E110 E111 E112 "
    "E116 E117 E118 E123 E124",
    "central": "E7 E30 E31 E36 E37 E42 E55 E79 E80 E87 E93 E104 E105 E106 Cz",
    "vertex": "E53 E54 E61 E86",
    "left_temporal": "E39 E40 E41 E44 E45 E46 E47 E50 E51",
    "right_temporal": "E97 E98 E101 E102 E103 E108 E109 E114 E115",
    "parietal": "E52 E60 E62 E66 E67 E72 E77 E78 E84 E85 E92",
    "occipital": "E65 E69 E70 E71 E74 E75 E76 E82 E83",
    "left_posterior": "E57 E58 E59 E64",
    "right_posterior": "E89 E90 E91 E95 E96 E100",
    "prefrontal": "E2 E9 E10 E15 E16 E22 E26 E33 E38 E121 E122",
}
"""Electrodes of the 128-channel HydroCel net, by region.

The numbers of channels per region are those of Liu et al., EEG2TEXT, 2024. The channels were
assigned by position on the head: the least sum of squared angles to the region centers.
"""

UNASSIGNED = ("E43", "E120")
"""The two of the 105 channels without a region: the farthest from all centers."""


def _number(name: str) -> int:
    if name == "Cz":
        return 129
    return int(name[1:])


SLOTS: tuple[str, ...] = tuple(
    sorted([*" ".join(REGIONS.values()).split(), *UNASSIGNED], key=_number)
)
"""The channels in the order of ZuCo's files: by electrode number, Cz last."""

INDICES: dict[str, tuple[int, ...]] = {
    region: tuple(SLOTS.index(name) for name in names.split()) for region, names in REGIONS.items()
}
"""The indices of the channels of each region among the 105."""

_TEN_TEN = """
Fp1=E22 Fpz=E15 Fp2=E9 AF7=E26 AF3=E23 AFz=E16 AF4=E3 AF8=E2 F7=E33 F5=E27 F3=E24 F1=E19 Fz=E11
F2=E4 F4=E124 F6=E123 F8=E122 FT7=E38 FC5=E34 FC3=E28 FC1=E13 FCz=E6 FC2=E112 FC4=E117 FC6=E116
FT8=E121 T7=E39 C5=E40 C3=E36 C1=E30 Cz=Cz C2=E105 C4=E104 C6=E109 T8=E115 TP7=E45 CP5=E46
CP3=E42 CP1=E54 CPz=E55 CP2=E79 CP4=E93 CP6=E102 TP8=E108 P7=E58 P5=E51 P3=E60 P1=E61 Pz=E62
P2=E78 P4=E85 P6=E97 P8=E96 PO7=E65 PO3=E66 POz=E72 PO4=E84 PO8=E90 O1=E70 Oz=E75 O2=E83
"""
"""Names of the 10-10 system and the nearest electrode, at most 20 degrees away."""

_OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}

NAMES: dict[str, str] = {
    pair.split("=")[0].upper(): pair.split("=")[1] for pair in _TEN_TEN.split()
}
NAMES |= {old: NAMES[new] for old, new in _OLD_NAMES.items()}
NAMES |= {slot.upper(): slot for slot in SLOTS} | {"E129": "Cz", "VREF": "Cz"}
"""Electrodes by channel name, in capitals."""
