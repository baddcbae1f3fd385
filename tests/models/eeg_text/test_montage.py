from models.eeg_text.montage import INDICES, REGION_SIZES, SLOTS, UNASSIGNED


def test_ten_regions_have_their_channels_and_two_channels_are_unassigned():
    assert sorted(REGION_SIZES) == sorted([25, 15, 4, 9, 9, 11, 9, 4, 6, 11])
    taken = [slot for slots in INDICES.values() for slot in slots]
    assert len(SLOTS) == 105 and len(set(taken)) == len(taken) == 103
    assert {SLOTS[i] for i in range(105)} - {SLOTS[i] for i in taken} == set(UNASSIGNED)
    assert SLOTS[0] == "E2" and SLOTS[-1] == "Cz"
