"""The abr family: auditory brainstem responses to waveform, wave V, hearing loss and threshold."""
