"""Where samples fill no global batch, the line to paste names one that fills and drops few."""

from launcher.config.batching import proposed_batch


def test_the_proposed_batch_is_the_largest_that_drops_few():
    for samples, most, world_size, size in (
        (577, 128, 1, 115),  # a prime: 1 would drop none
        (577, 128, 2, 114),
        (577, 64, 1, 64),
        (20, 8, 4, 4),
        (7, 16, 1, 7),
        (7, 16, 2, 6),
        (3, 16, 4, None),
        (0, 16, 1, None),
        (1009, 1008, 1, 1008),
    ):
        assert proposed_batch(samples, most, world_size) == size, (samples, most, world_size)
