"""Auditory brainstem responses: waveform, wave V, kind of hearing loss and threshold, from one."""
