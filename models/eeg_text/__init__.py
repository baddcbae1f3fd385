"""The eeg_text family: EEG during reading in, the sentence that was read out."""
