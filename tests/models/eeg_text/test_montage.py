from models.eeg_text.montage import INDICES, REGION_SIZES, SLOTS, UNASSIGNED


def test_ten_regions_have_their_channels_and_two_channels_are_unassigned():
    assert sorted(REGION_SIZES) == sorted([25, 15, 4, 9, 9, 11, 9, 4, 6, 11])
    taken = [slot for slots in INDICES.values() for slot in slots]
    assert len(SLOTS) == 105 and len(set(taken)) == len(taken) == 103
    assert {SLOTS[i] for i in range(105)} - {SLOTS[i] for i in taken} == set(UNASSIGNED)
    assert SLOTS[0] == "E2" and SLOTS[-1] == "Cz"


def test_electrodes_are_near_their_ten_ten_positions():
    import mne
    import numpy as np

    def directions(montage):
        labels = mne.channels.make_standard_montage(montage).get_positions()["ch_pos"]
        points = np.array(list(labels.values()))
        sphere = np.c_[2 * points, np.ones(len(points))]
        middle = np.linalg.lstsq(sphere, (points**2).sum(1), rcond=None)[0][:3]
        return {name.upper(): (p - middle) / np.linalg.norm(p - middle) for name, p in labels.items()}

    theirs, ours = directions("standard_1020"), directions("GSN-HydroCel-129")
    from models.eeg_text.montage import _TEN_TEN

    for pair in _TEN_TEN.split():
        name, slot = pair.upper().split("=")
        assert np.degrees(np.arccos(theirs[name] @ ours[slot])) < 21, pair
