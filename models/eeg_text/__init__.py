"""The eeg_text family: sentences from EEG recorded during reading."""
