"""What is measured: text that was written freely, and EEG that was filled in."""
